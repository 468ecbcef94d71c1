"""Bytes of one document to text: the only place that knows file formats.

Text, markup and code keep their own characters, so that line numbers mean lines of the file. HTML becomes
Markdown here; binary documents go through kreuzberg, imported only when one arrives, its cache, OCR and
downloads off. The same bytes and name always give the same result. The input is hostile: run it where a crash
costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

from headwater.decode import Undecodable, decode
from worker.extracted import Extracted, Input, Reader, Refused, flat, markdown_title, nothing, one_line
from worker.filetype import ARCHIVES, Format, of_text, sniff
from worker.headings import LINE_HEADINGS, line_title
from worker.libraries import library_of
from worker.outline import plain_title
from worker.plugins import for_media_type, for_name
from worker.webpage import read_page

__all__ = ["Extracted", "Refused", "extract", "read", "without_text"]

#: Front matter beyond this many characters is taken for body: nobody writes so much by hand.
MAX_FRONT_MATTER_CHARS = 64 * 1024
#: lines searched for a title in reStructuredText
_TITLE_LINES = 400


def extract(
    data: bytes, name: str, *, max_chars: int = 20_000_000, passwords: Sequence[str] = (), ocr: str = ""
) -> Extracted:
    """`read`, for a document that must have a text of its own: raises `Refused` if it has none."""
    found = read(data, name, max_chars=max_chars, passwords=passwords, ocr=ocr)
    if not found.text.strip():
        raise without_text(found.kind)
    return found


def read(
    data: bytes,
    name: str,
    *,
    max_chars: int = 20_000_000,
    passwords: Sequence[str] = (),
    ocr: str = "",
    on_part: Callable[[], None] = nothing,
) -> Extracted:
    """Read one whole document, but not yet the files within it, which its `members` are; an archive has no text beside
    them. `name` is its file name or path and only breaks ties between text formats.

    `ocr` are the languages of words in pictures, as "eng+deu", and `on_part` is called before each part of long work.
    Text beyond `max_chars` characters is cut and `partial` says so. Raises `Refused` for reasons that lie in
    the document; MemoryError, and OSError when the PDF engine cannot be set up, for reasons that may pass.
    """
    if not data or data.isspace():
        raise Refused("empty", "an empty file")
    means = Input(b"", name, "", "", passwords, ocr, on_part)
    return _cut(_read_any(data, means), max_chars)


def _read_any(data: bytes, means: Input) -> Extracted:
    try:
        found = sniff(data, means.name)
    except Refused as refused:
        if refused.code != "unsupported" or (read := _by_plugin(data, means)) is None:
            raise
        return read
    if found is not None:
        return _read(data, found, means)
    return _by_plugin(data, means) or _decoded(data, means)


def _read(data: bytes, found: Format, means: Input) -> Extracted:
    document = replace(means, data=data, kind=found.kind, mime=found.mime)
    if (plugin := for_media_type(found.mime)) is not None:
        return replace(plugin(document), library=f"a plug-in for {found.mime}")
    module, _, function = found.reader.partition(":")
    reader: Reader = getattr(import_module(module), function)
    read = reader(document)
    return replace(read, library=library_of(read.kind))


def _by_plugin(data: bytes, means: Input) -> Extracted | None:
    """By what somebody else's package reads of it, which knows it by its name alone."""
    if (plugin := for_name(means.name)) is None:
        return None
    mime, reader = plugin
    return replace(reader(replace(means, data=data, mime=mime)), library=f"a plug-in for {mime}")


def without_text(kind: str) -> Refused:
    """Why a document of this kind in which no text was found is not for the index."""
    if kind == "pdf":
        return Refused("no text layer", "a PDF without a text layer, perhaps a scan")
    return Refused("empty", "an archive without files" if kind in ARCHIVES else "no text in the document")


def _cut(read: Extracted, max_chars: int) -> Extracted:
    if len(read.text) <= max_chars:
        return read
    reason = f"only the first {max_chars} characters are indexed"
    pages = tuple(start for start in read.pages if start < max_chars)
    body_start = min(read.body_start, max_chars)
    return replace(read, text=read.text[:max_chars], pages=pages, body_start=body_start, partial=reason)


# Text formats ---------------------------------------------------------------------------------------------


def _decoded(data: bytes, means: Input) -> Extracted:
    try:
        decoded = decode(data)
    except Undecodable as error:
        raise Refused("binary", str(error)) from error
    if not decoded.text.strip():
        raise Refused("empty", "an empty file")
    read = _from_text(decoded.text, of_text(decoded.text, means.name), means)
    read = replace(read, library=read.library or library_of(read.kind))
    if decoded.encoding != "utf-8":
        read = replace(read, metadata={**read.metadata, "encoding": decoded.encoding})
    if decoded.replaced:
        read = replace(read, partial=f"{decoded.replaced} damaged character{'s'[: decoded.replaced > 1]}")
    return read


def _from_text(text: str, found: Format, means: Input) -> Extracted:
    if found.kind == "html":
        return read_page(text)
    if found.reader:
        return _read(text.encode("utf-8", "replace"), found, means)
    if found.kind == "markdown":
        return _markdown(text)
    if found.kind == "text":
        return Extracted("text", text, title=one_line(plain_title(text)))
    if found.kind in LINE_HEADINGS:
        return Extracted(found.kind, text, title=one_line(line_title(text, found.kind)))
    return Extracted(found.kind, text, title=_rst_title(text) if found.kind == "rst" else None)


def _markdown(text: str) -> Extracted:
    metadata, body_start = _front_matter(text)
    own = metadata.get("title")
    title = own if isinstance(own, str) and own.strip() else markdown_title(text[body_start:])
    return Extracted("markdown", text, body_start, one_line(title), metadata)


_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\r?\n")


def _front_matter(text: str) -> tuple[dict[str, object], int]:
    """The fields before the body and where the body starts; ({}, 0) without well-formed front matter."""
    opening = _FRONT_MATTER.match(text)
    if not opening:
        return {}, 0
    fence = opening[1]
    closing = re.compile(rf"^{re.escape(fence)}[ \t]*(?:\r?\n|\Z)", re.M).search(
        text, opening.end(), opening.end() + MAX_FRONT_MATTER_CHARS
    )
    if not closing:
        return {}, 0
    fields = _fields(text[opening.end() : closing.start()], fence)
    return ({}, 0) if fields is None else (fields, closing.end())


def _fields(source: str, fence: str) -> dict[str, object] | None:
    """Top-level scalars and lists of scalars, None when the block is not a mapping at all."""
    import tomllib

    import yaml

    if "<<" in source:  # merge keys multiply: a few lines of them fill the memory
        return {}
    try:
        toml = fence == "+++"
        loaded: Any = tomllib.loads(source.replace("\r\n", "\n")) if toml else yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, OverflowError):
        return None
    if loaded is None:
        return {}
    return flat(loaded) if isinstance(loaded, dict) else None


def _rst_title(text: str) -> str | None:
    """The first line that is underlined as long as itself with one punctuation mark."""
    for title, rule in pairwise(text[:MAX_FRONT_MATTER_CHARS].splitlines()[:_TITLE_LINES]):
        ruled = re.fullmatch(r"([!-/:-@\[-`{-~])\1*", rule.rstrip())
        named = title.strip() and not title.startswith("..") and re.search(r"\w", title)
        if ruled and named and len(rule.rstrip()) >= len(title.strip()):
            return one_line(title)
    return None
