"""An OLE2 container of a program that is not known here: what its properties say, and the files within it. Of Publisher
the text, too."""

from __future__ import annotations

import re
from dataclasses import replace

from worker.extracted import Extracted, Input, Refused, one_line
from worker.legacy import below
from worker.olestreams import Streams, embedded_documents, embedded_files, members, property_sets
from worker.package import Broken
from worker.properties import described
from worker.writing import escaped

__all__ = ["read_container"]

_PUBLISHER = "Quill/QuillSub/CONTENTS"
#: where the list of its parts begins, how many bytes each takes, and how many there can be
_LIST, _ENTRY, _MOST_ENTRIES = 0x20, 24, 200
_PARAGRAPH_END = re.compile("[\r\n\x0b\x0c\x07]+")
_MARKS = re.compile("[\x00-\x08\x0e-\x1f]")


def read_container(found: Input) -> Extracted:
    try:
        streams = Streams(found.data)
        text = _publication(streams.read(_PUBLISHER))
    except Broken:
        raise Refused("damaged", "a damaged OLE container") from None
    named, custom = property_sets(streams)
    files = embedded_files(streams)
    within = [*members(files), *embedded_documents(streams)]
    title = one_line(str(named.get("title") or ""))
    about = described(named, custom)
    if not text and not about and not title and not within:
        raise Refused("unsupported", "this OLE container is not read")
    read = Extracted(found.kind, "", title=title, metadata={**custom, **named}, own_lines=False, members=within)
    if text:
        return replace(read, text=below(text, {}, files, about))
    start = f"# {title}" if title else ""
    reason = "of this format only the properties and the files within are read"
    return replace(read, text=below(start, {}, files, about), partial=reason)


def _publication(data: bytes) -> str:
    """The text of Publisher's "Quill": parts by a list, of which those that are text are UTF-16."""
    texts = []
    for at in range(_LIST, min(_LIST + _ENTRY * _MOST_ENTRIES, len(data) - _ENTRY), _ENTRY):
        if data[at : at + 2] != b"\x18\x00":
            break
        if data[at + 12 : at + 16] == b"TEXT":
            start = int.from_bytes(data[at + 16 : at + 20], "little")
            size = int.from_bytes(data[at + 20 : at + 24], "little")
            texts.append(data[start : start + size].decode("utf-16-le", "replace"))
    lines = (" ".join(_MARKS.sub("", line).split()) for text in texts for line in _PARAGRAPH_END.split(text))
    return "\n\n".join(escaped(line) for line in lines if line)
