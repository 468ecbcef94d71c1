"""The rich body of an Outlook item: compressed RTF (MS-OXRTFCP) and the HTML or text wrapped in it (MS-OXRTFEX)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from headwater.decode import Undecodable
from worker.alternatives import merged
from worker.extracted import Refused
from worker.labelled import labelled
from worker.rtf import CHARSETS
from worker.webpage import read_page

__all__ = ["body_of", "codepage_label", "decompressed", "unwrapped"]


def body_of(plain: str, page: str, rtf: bytes) -> tuple[str, bool]:
    """The body of an item of its up to three forms, and whether one could not be read."""
    wrapped = unwrapped(rtf) if rtf and not page else None
    page = wrapped[1] if wrapped and wrapped[0] == "html" else page
    rich = read_page(page).text if page else ""
    if rich or plain.strip():
        return merged(plain, rich), False
    if wrapped or not rtf:
        return wrapped[1] if wrapped else "", False
    from worker.extract import extract  # which finds the readers that ask for this

    try:
        return extract(rtf, "body.rtf").text, False
    except Refused as error:
        return "", error.code != "empty"


_PRESET = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans "
    rb"SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_WINDOW = 4096
#: A body unpacks to so many bytes at most.
MAX_RTF_BYTES = 32 * 1024 * 1024


def decompressed(data: bytes) -> bytes:
    """The RTF of a stream; what is broken ends it."""
    if data[8:12] == b"MELA":
        return data[16:]
    if data[8:12] != b"LZFu":
        return b""
    at, out = 16, bytearray(_PRESET)
    while at + 1 < len(data):
        control, at = data[at], at + 1
        for bit in range(8):
            if not control >> bit & 1:
                out += data[at : at + 1]
                at += 1
                continue
            reference, at = int.from_bytes(data[at : at + 2], "big"), at + 2
            back = (len(out) - (reference >> 4)) % _WINDOW
            if back == 0 or back > len(out) or at > len(data) or len(out) > MAX_RTF_BYTES:
                return bytes(out[len(_PRESET) :])
            length = (reference & 15) + 2
            piece = out[-back:][:length]
            out += (piece * (length // len(piece) + 1))[:length]  # what is copied may reach into itself
    return bytes(out[len(_PRESET) :])


_CODE_PAGES = {
    65001: "utf-8", 20866: "koi8-r", 21866: "koi8-u", 936: "gb18030", 54936: "gb18030", 51932: "euc_jp",
    51949: "euc_kr", 50220: "iso2022_jp", 50221: "iso2022_jp", 50222: "iso2022_jp", 20127: "", 1200: "utf-16-le",
    10000: "mac_roman", 52936: "hz",
}  # fmt: skip


def codepage_label(number: int) -> str:
    """The name of a charset for the number of a Windows code page."""
    if 28591 <= number <= 28606:
        return f"iso-8859-{number - 28590}"
    return _CODE_PAGES.get(number, f"cp{number}" if number else "")


_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,9})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.S
)
_CHARACTERS = {
    "par": "\n", "line": "\n", "tab": "\t", "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c",
    "rdblquote": "\u201d", "bullet": "\u2022", "endash": "\u2013", "emdash": "\u2014",
}  # fmt: skip
_UNREAD = frozenset(("fonttbl", "colortbl", "stylesheet", "info", "pntext", "pict", "generator", "listtable"))


@dataclass(frozen=True, slots=True)
class _State:
    """What holds until the group ends."""

    unread: bool = False
    #: Between \\htmlrtf and \\htmlrtf0: for readers of RTF only.
    rtf_only: bool = False
    font: int = -1
    #: Characters to skip behind a \\u.
    skip: int = 1


def unwrapped(rtf: bytes) -> tuple[str, str] | None:
    """("html" or "text", its characters) of an RTF that wraps one; None for an RTF in its own right."""
    head = rtf[:4096]
    wraps = "html" if rb"\fromhtml" in head else "text" if rb"\fromtext" in head else ""
    return (wraps, _Unwrapping().read(rtf)) if wraps else None


class _Unwrapping:
    def __init__(self) -> None:
        self._out: list[str] = []
        self._bytes = bytearray()
        self._codepage = 1252
        self._fonts: dict[int, int] = {}
        self._table_font = -1  # the font that the font table is just telling of
        self._state = _State()
        self._groups: list[_State] = []
        self._starred = False
        self._to_skip = 0

    def read(self, rtf: bytes) -> str:
        for token in _TOKEN.finditer(rtf):
            word, number, byte, symbol, brace, words = token.groups()
            if brace:
                self._brace(brace)
            elif word:
                self._word(word.decode("ascii"), number)
            elif byte:
                self._write(bytes([int(byte, 16)]))
            elif symbol == b"*":
                self._starred = True
            elif symbol:
                self._write({b"~": b"\xa0", b"_": b"-", b"-": b""}.get(symbol, symbol))
            elif words:
                self._write(words)
        self._flush()
        return "".join(self._out)

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._to_skip, self._starred = 0, False
        if brace == b"{":
            self._groups.append(self._state)
        elif self._groups:
            self._state = self._groups.pop()

    def _word(self, word: str, number: bytes | None) -> None:
        value = int(number) if number else 1
        starred, self._starred = self._starred, False
        if word == "htmlrtf":
            self._flush()
            self._state = replace(self._state, rtf_only=value != 0)
        elif word in _UNREAD or (starred and word != "htmltag"):
            self._state = replace(self._state, unread=True)
        elif word == "f":
            self._table_font = value if number else 0
            if self._table_font != self._state.font:
                self._flush()
                self._state = replace(self._state, font=self._table_font)
        elif word == "fcharset" and len(self._fonts) < 10_000:
            self._fonts[self._table_font] = CHARSETS.get(value if number else 0, 0)
        elif word == "ansicpg":
            self._codepage = value
        elif word == "uc":
            self._state = replace(self._state, skip=min(max(value, 0), 16))
        elif word == "u":
            self._unicode(value)
        elif word in _CHARACTERS:
            self._put(_CHARACTERS[word])

    def _unicode(self, value: int) -> None:
        self._put(chr(value % 0x10000) if value < 0x10000 else "\ufffd")
        self._to_skip = self._state.skip

    def _put(self, text: str) -> None:
        self._flush()
        if not self._state.unread and not self._state.rtf_only:
            self._out.append(text)

    def _write(self, data: bytes) -> None:
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        if not self._state.unread and not self._state.rtf_only:
            self._bytes += data[skipped:]

    def _flush(self) -> None:
        if not self._bytes:
            return
        data = bytes(self._bytes)
        self._bytes.clear()
        if data.isascii():
            self._out.append(data.decode("ascii"))
            return
        label = codepage_label(self._fonts.get(self._state.font) or self._codepage)
        try:
            self._out.append(data.decode(label or "cp1252"))
        except (UnicodeDecodeError, LookupError):
            self._out.append(_guess(data, label))


def _guess(data: bytes, label: str) -> str:
    try:
        return labelled(data, label)
    except Undecodable:
        return data.decode("cp1252", "replace")
