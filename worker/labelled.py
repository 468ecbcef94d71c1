"""Characters of bytes that come with the name of their charset, which mails and web servers often get wrong."""

from __future__ import annotations

import codecs
import re

from headwater.decode import Undecodable, decode

__all__ = ["characters", "labelled"]

#: What a label means in practice: the superset that mail programs use in its place.
_SUPERSETS = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "cp950",
}
#: Codecs that read plain ASCII as something else; only a label can ask for them.
_SEVEN_BIT = ("utf-7", "hz")
#: Labels of Latin scripts, where accents stand singly: long runs of high bytes show another script.
_LATIN = ("cp1252", "cp1254", "iso8859-15", "iso8859-2", "cp1250", "mac-roman")
_RUN = re.compile(rb"[\x80-\xff]{3,}")
_HIGH = re.compile(rb"[\x80-\xff]+")
#: One broken character in so many is the most that a labelled text may have.
_MIN_TEXT_PER_BROKEN = 20


def labelled(data: bytes, label: str) -> str:
    """UTF-8 where it fits, else what the label says, else what the bytes look like. Raises `Undecodable`."""
    codec = _codec(label)
    if codec.startswith(("utf-16", "utf-32")) and b"\x00" in data:
        return data.decode(codec, "replace").removeprefix("\ufeff")
    is_sure = codec in _SEVEN_BIT or codec.startswith("iso2022")
    if not codec or b"\x00" in data or (not is_sure and _is_utf8(data)) or (codec in _LATIN and _is_other_script(data)):
        return _guessed(data, codec)
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return _guessed(data, codec)


def characters(data: bytes, label: str, otherwise: str = "utf-8") -> str:
    """`labelled`, and where that fails what can be read by the codec `otherwise`."""
    try:
        return labelled(data, label)
    except Undecodable:
        return data.decode(otherwise, "replace")


def _codec(label: str) -> str:
    """The codec of a label; "" when it tells nothing about bytes beyond ASCII."""
    try:
        info = codecs.lookup(label.strip().strip("'\"")[:40])
    except (LookupError, ValueError):
        return ""
    if not info._is_text_encoding or info.name in ("ascii", "utf-8", "idna", "punycode", "undefined"):
        return ""
    return "" if "escape" in info.name else _SUPERSETS.get(info.name, info.name)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_other_script(data: bytes) -> bool:
    runs = sum(len(run) for run in _RUN.findall(data))
    return runs > 8 and runs * 2 > sum(len(run) for run in _HIGH.findall(data))


def _guessed(data: bytes, codec: str) -> str:
    try:
        return decode(data).text
    except Undecodable:
        if b"\x00" in data[:-1]:
            raise
        text = data.rstrip(b"\x00").decode(codec or "utf-8", "replace")
        if text.count("\ufffd") * _MIN_TEXT_PER_BROKEN > len(text):
            raise
        return text
