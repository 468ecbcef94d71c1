"""Bytes of a text file to characters, without guessing more than the bytes support.

Order of trust: byte order mark, UTF-32/16 without a mark, ISO-2022 and HZ escapes, strict UTF-8, the charset
that the file declares, UTF-8 with a few broken bytes, detection. A wrong guess fills the index with words nobody
types, so an implausible result is refused rather than kept.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from headwater import ideographs, letters

__all__ = ["Decoded", "Undecodable", "decode"]

#: Bytes looked at for a declared charset; the HTML standard looks at 1,024, real pages need a little more.
DECLARATION_BYTES = 4096
#: Bytes of non-ASCII lines handed to the detector. More does not change its answer, only its run time.
SAMPLE_BYTES = 16 * 1024
#: A text reads well enough when the logarithm of its chance is so much per character beyond ASCII (of one byte, of
#: several), and better than any other when it leads by so much in all.
MIN_FIT, MIN_WIDE_FIT, MIN_LEAD = -5.5, -8.0, 1.0
#: A declaration is not believed when, over so many characters, another encoding reads better by so much for each.
MIN_CONTRADICTION, CONTRADICTION = 20, 1.5
#: One suspicious character in so many is the most that real text shows.
MIN_TEXT_PER_SUSPECT = 200

_BOMS = (  # UTF-32 first: its little-endian mark begins with the UTF-16 one
    (codecs.BOM_UTF32_LE, "utf_32_le"),
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)

#: What a label means in practice: the superset that browsers use in its place.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "shift_jis_2004": "cp932",
    "euc_jis_2004": "euc_jp",
    "euc_kr": "cp949",
    "big5": "cp950",
}
#: Text codecs of Python that no document is written in, and that turn plain ASCII into something else.
_NEVER = {"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "unicode_escape", "undefined"}

_DECLARATIONS = (
    re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.I),
    re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I),
    re.compile(rb"@charset\s+[\"']([\w.:-]{1,40})", re.I),
    re.compile(rb"coding[:=][ \t]*([\w.-]{1,40})"),
)

#: Encodings of several bytes.
_WIDE_CODECS = {"gb18030": -1.0, "big5": -1.0, "cp949": -1.0, "euc_jp": -1.0, "cp932": -1.0, "johab": -4.0}
#: Encodings of one byte, and what the rarer ones have to make up for: logarithms of how much rarer they are.
_NARROW_CODECS = {
    "cp1252": 0, "cp1250": -1.5, "cp1251": -1, "cp1253": -1, "cp1254": -1.5, "cp1255": -1, "cp1256": -1, "cp1257": -1.5,
    "cp874": -1, "iso8859_2": -2, "iso8859_5": -2.5, "iso8859_6": -2, "iso8859_7": -2, "iso8859_8": -3,
    "iso8859_15": -2, "iso8859_16": -4, "koi8_r": -1.5, "koi8_u": -2, "cp866": -2.5, "cp855": -4, "kz1048": -4,
    "mac_cyrillic": -4, "mac_greek": -7, "mac_roman": -2.5, "mac_latin2": -5, "mac_iceland": -5,
    "cp437": -3.5, "cp850": -3, "cp852": -4, "cp857": -4, "cp775": -5, "cp860": -5, "cp861": -5, "cp862": -4,
    "cp865": -4.5, "iso8859_3": -5, "iso8859_4": -4, "cp737": -4, "cp869": -6,
}  # fmt: skip

#: C0 and C1 controls without those that text files use, private use, non-characters and U+FFFD.
_SUSPECT = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ufdd0-\ufdef\ufffd-\uffff]")
_ISO_2022 = re.compile(rb"\x1b(?:\$[@AB]|\$\([CDO-Q]|\$\)[CAG]|\([BIJ])")
#: what GNU Info puts around pictures and indexes, and nobody sees
_INFO_MARKS = re.compile(rb"\x00\x08(?=[\[\]])")
#: Chinese in seven bits, RFC 1843.
_HZ = re.compile(rb"~\{(?:[!-w][!-~]){2,}~\}")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class Decoded:
    """`text` without its byte order mark, the name of the codec, and what was lost on the way."""

    text: str
    encoding: str
    #: Invalid byte sequences shown as U+FFFD; only UTF-8 that is almost whole has any.
    replaced: int = 0


class Undecodable(ValueError):
    """The bytes are no text, or none whose encoding can be told."""


def decode(data: bytes) -> Decoded:
    """Turn a whole text file into characters; line ends stay as they are.

    Raises `Undecodable` for binary data and for text whose encoding stays unclear.
    """
    if _INFO_MARKS.search(data):
        data = _INFO_MARKS.sub(b"", data)
    for attempt in (_marked, _wide, _escaped, _utf8, _declared, _nearly_utf8, _detected):
        found = attempt(data)
        if found is not None:
            return found
    raise Undecodable("the text encoding is not recognised")


def _marked(data: bytes) -> Decoded | None:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], encoding) or _damaged_unicode(data[len(mark) :], encoding)
    return None


def _wide(data: bytes) -> Decoded | None:
    """UTF-32 and UTF-16 without a mark; any other data with NUL bytes is binary."""
    if 0 not in data:
        return None
    for encoding in _wide_candidates(data):
        found = _strict(data, encoding)
        if found is not None and "\x00" not in found.text and _assigned(found.text[:4096]):
            return found
    raise Undecodable("binary data")


def _wide_candidates(data: bytes) -> Iterable[str]:
    """Codecs whose pattern of zero bytes the data has: top bytes of code units are mostly zero."""
    head = data[: 1 << 16]
    zeros = [head[i::4].count(0) for i in range(4)]
    total = sum(zeros)
    quarter = len(head) // 4
    if len(data) % 4 == 0 and quarter:
        if zeros[3] == quarter and zeros[0] < quarter // 2:
            yield "utf_32_le"
        if zeros[0] == quarter and zeros[3] < quarter // 2:
            yield "utf_32_be"
    if len(data) % 2 == 0:
        if zeros[1] + zeros[3] >= 0.95 * total:
            yield "utf_16_le"
        if zeros[0] + zeros[2] >= 0.95 * total:
            yield "utf_16_be"


def _assigned(text: str) -> bool:
    """Whether nearly all characters exist; bytes at random give mostly code points that nobody has used."""
    missing = sum(unicodedata.category(char) == "Cn" for char in text)
    return missing * 20 <= len(text)


def _escaped(data: bytes) -> Decoded | None:
    """ISO-2022: seven-bit text that would pass for ASCII with odd escapes."""
    if data.isascii() and _ISO_2022.search(data[: 1 << 20]):
        for encoding in ("iso2022_kr", "iso2022_jp_ext", "iso2022_jp_2"):
            found = _strict(data, encoding)
            if found is not None and "\x1b" not in found.text and not found.text.isascii():
                return found
    if data.isascii() and _HZ.search(data[: 1 << 20]):
        found = _strict(data, "hz")
        if found is not None and ideographs.fit(found.text, "gb18030") >= MIN_WIDE_FIT * len(
            _NON_ASCII.findall(found.text)
        ):
            return found
    return None


def _utf8(data: bytes) -> Decoded | None:
    return _strict(data, "utf_8", refuse=True)


def _declared(data: bytes) -> Decoded | None:
    head = data[:DECLARATION_BYTES]
    for pattern in _DECLARATIONS:
        match = pattern.search(head)
        encoding = _codec(match[1].decode("ascii")) if match else None
        found = _strict(data, encoding) if encoding else None
        if found is not None and encoding and not _contradicted(data, encoding):
            return found
    return None


def _contradicted(data: bytes, encoding: str) -> bool:
    """Whether the declared encoding, in which any bytes are text, reads far worse than another."""
    encoding = encoding.replace("-", "_")
    if encoding not in _NARROW_CODECS:
        return False
    sample = _sample(data)
    text = sample.decode(encoding, "replace")
    high = len(_NON_ASCII.findall(text))
    best = max((score for score, _, _ in _readings(sample)), default=float("-inf"))
    return high >= MIN_CONTRADICTION and best - letters.fit(text) > high * CONTRADICTION


def _codec(label: str) -> str | None:
    """The codec for a declared label, None when there is none that a document may use."""
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    if name in _NEVER or name.startswith(("utf-16", "utf-32")):  # the label was readable as ASCII
        return None
    return _SUPERSETS.get(name, name)


def _nearly_utf8(data: bytes) -> Decoded | None:
    """UTF-8 with a few broken bytes, as cut or pasted files have; never a legacy encoding in disguise."""
    text = data.decode("utf-8", "replace")
    replaced = text.count("\ufffd")
    whole = sum(1 for _ in re.finditer("[^\x00-\x7f\ufffd]", text))
    cut_short = replaced == 1 and whole > 1 and text.endswith("\ufffd")
    if (replaced * 20 <= whole or cut_short) and not _suspicious(text.replace("\ufffd", "")):
        return Decoded(text, "utf-8", replaced)
    return None


def _damaged_unicode(data: bytes, encoding: str) -> Decoded:
    """A mark is a promise: keep what can be read when little is broken, else refuse."""
    text = data.decode(encoding, "replace")
    replaced = text.count("\ufffd")
    if replaced * 100 > len(text) + 100 or _suspicious(text.replace("\ufffd", "")):
        raise Undecodable("binary data")
    return Decoded(text, codecs.lookup(encoding).name, replaced)


def _detected(data: bytes) -> Decoded | None:
    for encoding in _likeliest(_sample(data)):
        for name in dict.fromkeys((_SUPERSETS.get(encoding, encoding), encoding)):
            found = _strict(data, name)
            if found is not None:
                return found
    return None


def _likeliest(sample: bytes) -> list[str]:
    """Encodings that give the text that reads best, likeliest first; none where others read nearly as well."""
    ranked = sorted(_readings(sample), key=lambda reading: -reading[0])
    if not ranked:
        return []
    score, encoding, best = ranked[0]
    high = sum(char > "\x7f" for char in best)
    rival = next((other for other, _, text in ranked if text != best), float("-inf"))
    if score < (MIN_FIT if encoding in _NARROW_CODECS else MIN_WIDE_FIT) * high or score - rival < MIN_LEAD:
        return []
    return [encoding for _, encoding, text in ranked if text == best]


def _readings(sample: bytes) -> Iterable[tuple[float, str, str]]:
    """(how well it reads, encoding, text) for each encoding that the sample can be in."""
    for encoding, prior in _WIDE_CODECS.items():
        text = sample.decode(encoding, "replace")
        if text.count("\ufffd") * 50 <= len(text):
            yield ideographs.fit(text, encoding) + prior, encoding, text
    for encoding, prior in _NARROW_CODECS.items():
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        yield letters.fit(text) + prior, encoding, text


def _sample(data: bytes) -> bytes:
    """The lines that hold the evidence, long ones from shortly before their first high byte.

    No multi-byte encoding in use has a newline as its second byte, so no character is cut at the front.
    """
    lines, size = [], 0
    for line in io.BytesIO(data):
        high = _HIGH.search(line)
        if high:
            lines.append(_whole_characters(line[max(0, high.start() - 80) :]))
            size += len(lines[-1])
        if size > SAMPLE_BYTES:
            break
    return b"".join(lines)


def _whole_characters(line: bytes) -> bytes:
    """A long line cut behind a byte that is no part of a multi-byte character, where it has one."""
    if len(line) <= SAMPLE_BYTES:
        return line
    piece = line[:SAMPLE_BYTES]
    return piece[: max(piece.rfind(mark) for mark in (b" ", b",", b'"', b"<", b".")) + 1] or piece


def _strict(data: bytes, encoding: str, *, refuse: bool = False) -> Decoded | None:
    """Decode without an error and without suspicious characters, else None (or `Undecodable`)."""
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError):
        return None
    if not _suspicious(text):
        return Decoded(text.removeprefix("\ufeff"), codecs.lookup(encoding).name)
    if refuse:
        raise Undecodable("binary data")
    return None


def _suspicious(text: str) -> bool:
    """Too many control, private use or replacement characters for something that a person wrote."""
    suspects = sum(1 for _ in _SUSPECT.finditer(text))
    return suspects * MIN_TEXT_PER_SUSPECT > len(text)
