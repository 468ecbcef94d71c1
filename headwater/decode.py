"""Bytes of a text file to characters, without guessing more than the bytes support.

Order of trust: byte order mark, UTF-32/16 without a mark, ISO-2022 escapes, strict UTF-8, the charset that
the file declares, UTF-8 with a few broken bytes, detection. A wrong guess fills the index with words nobody
types, so an implausible result is refused rather than kept.
"""

# ruff: noqa: RUF001 - letters that look like others are what this module is about

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Decoded", "Undecodable", "decode"]

#: Bytes looked at for a declared charset; the HTML standard looks at 1,024, real pages need a little more.
DECLARATION_BYTES = 4096
#: Bytes of non-ASCII lines handed to the detector. More does not change its answer, only its run time.
SAMPLE_BYTES = 64 * 1024
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

#: Encodings the detector may answer. Each one left out (EBCDIC, DOS Baltic, Celtic ...) is a source of wrong
#: answers on short texts and hardly ever of right ones.
_CANDIDATES = [
    "big5", "cp949", "cp932", "euc_jp", "gb2312", "gb18030", "johab",
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "iso8859_2", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8",
    "koi8_r", "koi8_u", "cp866", "cp855", "mac_cyrillic", "mac_greek", "cp874",
]  # fmt: skip

#: Encodings of Latin scripts, likeliest first: the order breaks ties.
_LATIN = (
    "cp1252", "cp1250", "iso8859_2", "cp1254", "iso8859_15", "cp1257", "iso8859_16", "mac_roman", "cp850",
)  # fmt: skip
#: The non-ASCII letters of one language each. A whole text fits one of them only in its right encoding.
_ALPHABETS = tuple(
    frozenset(letters)
    for letters in (
        "àâæçéèêëîïôœùûüÿ",  # French
        "äöüß",  # German
        "áéíñóúüçàèòïªº",  # Spanish, Catalan
        "áàâãçéêíóôõúüªº",  # Portuguese
        "àèéìíîòóùú",  # Italian
        "åäöæøéüô",  # Swedish, Danish, Norwegian, Finnish
        "áðéíóúýþæö",  # Icelandic
        "áäčďéěíĺľňóôŕřšťúůýž",  # Czech, Slovak
        "ąćęłńóśźż",  # Polish
        "áéíóöőúüű",  # Hungarian
        "ăâîşţșț",  # Romanian
        "čćđšž",  # Croatian, Slovene
        "çğıöşüâîûi",  # Turkish (its dotted capital I lowers to a plain i)
        "ąčęėįšųūž",  # Lithuanian
        "āčēģīķļņšūž",  # Latvian
        "äõöüšž",  # Estonian
    )
)
_LATIN_PUNCTUATION = frozenset("\xa0«»‹›“”„‘’‚–—…•·°§©®™€£¿¡¨´²³½¼×±µ")

#: C0 and C1 controls without those that text files use, private use, non-characters and U+FFFD.
_SUSPECT = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ufdd0-\ufdef\ufffd-\uffff]")
_ISO_2022 = re.compile(rb"\x1b(?:\$[@AB]|\$\([CDO-Q]|\$\)[CAG]|\([BIJ])")
#: what GNU Info puts around pictures and indexes, and nobody sees
_INFO_MARKS = re.compile(rb"\x00\x08(?=[\[\]])")
_KANA = re.compile("[\u3041-\u30ff]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_LATIN_WORD = re.compile(rb"(?<=[a-z])[\x80-\xff]{1,2}(?=[A-Za-z])|[\x80-\xff]{1,2}(?=[a-z]{2})", re.I)


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
    return None


def _utf8(data: bytes) -> Decoded | None:
    return _strict(data, "utf_8", refuse=True)


def _declared(data: bytes) -> Decoded | None:
    head = data[:DECLARATION_BYTES]
    for pattern in _DECLARATIONS:
        match = pattern.search(head)
        encoding = _codec(match[1].decode("ascii")) if match else None
        found = _strict(data, encoding) if encoding else None
        if found is not None:
            return found
    return None


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
    sample = _sample(data)
    guess = _guess(sample)
    latin = not guess or guess in _LATIN or _latin_words(sample)
    order = [*(_latin_ranking(sample) if latin else []), *_japanese(sample), guess]
    for encoding in filter(None, order):
        for name in dict.fromkeys((_SUPERSETS.get(encoding, encoding), encoding)):
            found = _strict(data, name)
            if found is not None:
                return found
    return None


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


def _japanese(sample: bytes) -> list[str]:
    """The Japanese encoding in which many characters are kana: the detector takes short ones for Korean."""
    for encoding in ("euc_jp", "cp932"):
        text = sample.decode(encoding, "replace")
        kana, wide = len(_KANA.findall(text)), len(_NON_ASCII.findall(text))
        if kana * 5 >= wide and text.count("\ufffd") * 50 <= wide:
            return [encoding]
    return []


def _guess(sample: bytes) -> str:
    """charset-normalizer's best answer among the plausible ones, "" when it has none."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_CANDIDATES, preemptive_behaviour=False).best()
    return best.encoding if best else ""


def _latin_words(sample: bytes) -> bool:
    """Whether high bytes sit singly among ASCII letters, as accents do; Cyrillic words are runs of them."""
    high = sum(len(run) for run in _HIGH.findall(sample))
    return 2 * sum(len(run) for run in _LATIN_WORD.findall(sample)) >= high


def _latin_ranking(sample: bytes) -> list[str]:
    """Latin encodings that make the sample read like one language, best first."""
    scored = [(_latin_fit(sample, encoding), encoding) for encoding in _LATIN]
    ranked = sorted((s for s in scored if s[0] >= 0.8), key=lambda s: -s[0])  # stable: ties keep their order
    return [encoding for _, encoding in ranked]


def _latin_fit(sample: bytes, encoding: str) -> float:
    """Share (0 to 1) of the non-ASCII characters that one language and its punctuation explain at best."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    letters, marks, total = _non_ascii(text)
    if not total:
        return 0.0
    best = max(sum(n for c, n in letters.items() if c in alphabet) for alphabet in _ALPHABETS)
    return (best + marks) / total


def _non_ascii(text: str) -> tuple[dict[str, int], int, int]:
    """Counts of the non-ASCII letters, how many fitting punctuation marks, and how many characters in all."""
    letters: dict[str, int] = {}
    marks = total = 0
    for match in _NON_ASCII.finditer(text):
        total += 1
        char, at = match[0], match.start()
        if char.isalpha():
            low = char.lower()[0]
            letters[low] = letters.get(low, 0) + 1
        elif char in _LATIN_PUNCTUATION:
            inside = text[max(at - 1, 0) : at].isalpha() and text[at + 1 : at + 2].isalpha()
            marks += char == "’" or not inside  # a quote or dash inside a word is a letter decoded wrongly
    return letters, marks, total


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
