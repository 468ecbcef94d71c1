"""A corpus of JSON lines as a folder of files, for the service to follow; a file's path tells its document's id."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from headwater.errors import DiskFull, QueryError
from headwater.evaluation.records import Record, read_records

__all__ = ["CorpusDocument", "id_of", "path_of", "read_corpus", "write_corpus"]

#: plain text: nothing in it is markup
_SUFFIX = ".txt"
#: before each part of a path, so that no id looks like a hidden file, a key or an editor's copy, which are not indexed
_MARK = "="
#: bytes of one part of a path; a file system takes 255 (NAME_MAX, limits.h)
_PART_BYTES = 200


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """One line of ``corpus.jsonl``."""

    id: str
    title: str
    text: str

    @property
    def content(self) -> str:
        """What is indexed: the title, a blank line, the text; both exactly as they are."""
        return f"{self.title}\n\n{self.text}" if self.title else self.text


def path_of(document: str) -> str:
    """The path of a document's file in the folder: its id percent-encoded (RFC 3986), in parts if it is long."""
    # a dot or a tilde could make a part look like "a.tmp" or "a~", which are not indexed either
    encoded = quote(document, safe="").replace(".", "%2E").replace("~", "%7E")
    parts = [encoded[first : first + _PART_BYTES] for first in range(0, max(len(encoded), 1), _PART_BYTES)]
    return "/".join(_MARK + part for part in parts) + _SUFFIX


def id_of(path: str) -> str:
    """The id of the document at a path that ``path_of`` gave."""
    return unquote("".join(part.removeprefix(_MARK) for part in path.removesuffix(_SUFFIX).split("/")))


def read_corpus(file: Path) -> Iterator[CorpusDocument]:
    """Every document of ``corpus.jsonl``. Raises QueryError for a line that is wrong, or an id that comes twice."""
    seen: set[str] = set()
    for record in read_records(file):
        document = _document(record)
        if document.id in seen:
            raise record.wrong(f"the id {document.id!r} comes a second time: give each document its own")
        seen.add(document.id)
        yield document


def _document(record: Record) -> CorpusDocument:
    return CorpusDocument(record.text("_id"), record.text("title", default=""), record.text("text"))


def write_corpus(file: Path, below: Path) -> Path:
    """The folder with one file per document, in the directory ``below``; one that is already there is taken.

    It is whole or not there: it is written beside its place and renamed. Raises QueryError or DiskFull.
    """
    folder = below / f"{file.parent.name}-{_digest(file)}"
    if folder.is_dir():
        return folder
    below.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".corpus-", dir=below))
    try:
        for document in read_corpus(file):
            _write(made / path_of(document.id), document.content)
        os.replace(made, folder)
    except OSError as error:
        raise DiskFull(f"the documents of {file} cannot be written to {below}: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def _digest(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise QueryError(f"{file} cannot be read ({error.strerror}): give a file that can") from None
