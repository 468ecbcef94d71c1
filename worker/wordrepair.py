"""A Word document rewritten so that kreuzberg reads all its characters. Pure: no I/O.

kreuzberg 4.10 leaves out of Word documents what is written as a reference ("AT&amp;T" becomes "ATT"), tabs and
hyphens, and shows moved text at its old place, too. Pictures and embedded files are left out, for others read them.
"""

from __future__ import annotations

import io
import re
import zipfile

from worker.package import MAX_PACKAGE_BYTES, Package, TooLarge

__all__ = ["repaired", "restored"]

#: What may not stand in XML as it is, and the noncharacters that stand for it on the way through the library.
_STAND_INS = {"&": "\ufdd0", "<": "\ufdd1", "\t": "\ufdd2"}
_NAMED = {b"amp": "&", b"lt": "<", b"gt": ">", b"quot": '"', b"apos": "'"}
#: What XML allows beyond white space.
_CHARACTERS = ((0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x10FFFF))
_WORDS = re.compile(rb">[^<>&]*&[^<]*")
_REFERENCE = re.compile(rb"&(amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
#: A tab of the text; one with attributes is a tab stop.
_TAB = re.compile(rb"<w:(?:tab|ptab [^<>]*)/>")
_TAB_AS_TEXT = b"<w:t>%s</w:t>" % _STAND_INS["\t"].encode()
_MOVED = re.compile(rb"<w:moveFrom [^<>]*(?<!/)>")
_MOVED_END = b"</w:moveFrom>"
_TEXT_PART = re.compile(r"word/[^/]+\.xml")
_HEAVY_PART = re.compile(r"word/(?:media|embeddings|fonts|activex)/")


def repaired(package: Package) -> bytes:
    """The same document for the library. Raises `Broken` when a part of it cannot be read."""
    written = io.BytesIO()
    left = MAX_PACKAGE_BYTES
    with zipfile.ZipFile(written, "w") as archive:
        for name in package.names():
            heavy = _HEAVY_PART.match(name) or name.startswith("docprops/thumbnail")
            part = b"" if heavy else package.read(name, left + 1)
            left -= len(part)
            if left < 0:
                raise TooLarge("too large")
            archive.writestr(package.full(name), _repaired_part(part) if _TEXT_PART.fullmatch(name) else part)
    return written.getvalue()


def restored(text: str) -> str:
    """The text of the library with the characters that others stood for."""
    for character, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, character)
    return text


def _repaired_part(part: bytes) -> bytes:
    if part.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16: rare, and read with its gaps
        return part
    part = _without_moved(_WORDS.sub(lambda words: _REFERENCE.sub(_character, words[0]), part))
    part = _TAB.sub(_TAB_AS_TEXT, part)
    return part.replace(b"<w:noBreakHyphen/>", b"<w:t>-</w:t>").replace(b"<w:cr/>", b"<w:br/>")


def _character(reference: re.Match[bytes]) -> bytes:
    code = reference[1]
    if code in _NAMED:
        character = _NAMED[code]
    else:
        number = int(code[2:], 16) if code[1:2] == b"x" else int(code[1:])
        allowed = number in (9, 10, 13) or any(first <= number <= last for first, last in _CHARACTERS)
        character = chr(number) if allowed else ""
    return _STAND_INS.get(character, character).encode()


def _without_moved(part: bytes) -> bytes:
    kept, at = [], 0
    while start := _MOVED.search(part, at):
        end = part.find(_MOVED_END, start.end())
        if end < 0:
            break
        kept.append(part[at : start.start()])
        at = end + len(_MOVED_END)
    return b"".join(kept) + part[at:]
