"""Rich Text Format (1.9.1) as plain text, in one pass over its control words. Pure: no I/O.

Own code, since kreuzberg 4.10 knows neither the character sets of fonts nor those of two bytes, and leaves out comments
and text boxes, but not what was deleted.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from worker.extracted import Extracted, Input, Member, flat, one_line
from worker.ole1 import unpacked

__all__ = ["CHARSETS", "read_rtf"]

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\(.)|([{}])|([^\\{}\r\n\t\0]+)|\t|\0|[\r\n]+|\\", re.S
)
#: Code pages by the character set of a font.
CHARSETS = {
    0: 1252, 2: 1252, 77: 10000, 128: 932, 129: 949, 130: 1361, 134: 936, 136: 950, 161: 1253, 162: 1254, 163: 1258,
    177: 1255, 178: 1256, 186: 1257, 204: 1251, 222: 874, 238: 1250, 254: 437, 255: 850,
}  # fmt: skip
_CODECS = {10000: "mac_roman", 10007: "mac_cyrillic", 10029: "mac_latin2", 1361: "johab", 65001: "utf-8", 708: "cp720"}
_SYMBOLS = {
    "emdash": "\u2014", "endash": "\u2013", "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c",
    "rdblquote": "\u201d", "bullet": "\u2022", "tab": "\t", "line": "\n", "lbr": "\n", "emspace": " ", "enspace": " ",
    "qmspace": " ", "nestcell": "\t",
}  # fmt: skip
_ENDS = frozenset(("par", "sect", "page", "column", "nestrow"))
_FURNITURE = frozenset(f"{what}{which}" for what in ("header", "footer") for which in ("", "l", "r", "f"))
#: Destinations whose text is the document's, apart from the paragraph around it.
_APART = frozenset((*_FURNITURE, "footnote", "annotation", "shptxt", "dptxbxtext"))
#: Destinations whose text is a value.
_VALUES = frozenset(
    (
        "title", "subject", "author", "keywords", "doccomm", "category", "company", "manager", "propname", "staticval",
        "fldinst", "atnauthor", "atnid", "objdata", "objclass", "sn", "sv", "listtext", "pntext",
    )
)  # fmt: skip
#: Destinations that hold others, and no text of their own.
_HOLDERS = frozenset(("info", "userprops", "shpinst", "do", "creatim", "revtim"))
_SKIPPED = frozenset(
    (
        "fonttbl", "colortbl", "stylesheet", "pict", "nonshppict", "shppict", "themedata", "listtable", "shprslt", "xe",
        "bkmkstart", "bkmkend", "tc", "rxe", "revtbl", "filetbl", "upr", "ftnsep", "ftnsepc", "ftncn", "aftnsep",
        "aftnsepc", "aftncn", "operator", "hlinkbase", "printim", "buptim", "comment", "version", "edmins", "nofpages",
        "nofwords", "nofchars", "objname", "oldcprops", "oldpprops", "oldtprops", "oldsprops",
    )
)  # fmt: skip
#: Groups within skipped ones that are read: Unicode for what is not, properties of a picture.
_READ = ("ud", "picprop")
#: These stand for no character, so that they end what a reader without Unicode would see.
_NEVER_SPARE = frozenset((*_ENDS, "u", "cell", "row", "pard", "plain", "f"))
#: Groups within each other beyond this are no document's.
_MAX_GROUPS = 10_000
_FIELDS = {"author": "author", "subject": "subject", "keywords": "keywords", "doccomm": "description"}
_SHAPE_WORDS = ("wzDescription", "gtextUNICODE")
_LINK = re.compile(r'\s*HYPERLINK\s+"?((?:https?|ftp|mailto|file):[^"\s]{1,2000})', re.I)


def read_rtf(found: Input) -> Extracted:
    walk = _Walk()
    walk.read(found.data)
    blocks = walk.blocks()
    named = {key.title(): walk.fields[key] for key in ("subject", "description", "keywords") if key in walk.fields}
    properties = [f"{key}: {value}" for key, value in (named | walk.own).items()]
    text = "\n\n".join([*blocks, *dict.fromkeys(walk.furniture), *(["\n".join(properties)] if properties else [])])
    fields = {key: value for key, value in walk.fields.items() if key in (*_FIELDS.values(), "created", "modified")}
    partial = None if walk.whole else "the document ends before its end"
    title = one_line(walk.fields.get("title"))
    return Extracted("rtf", text, 0, title, flat(fields), (), False, partial, _members(walk.objects))


def _members(objects: list[tuple[str, str]]) -> Iterator[Member]:
    for at, (class_name, digits) in enumerate(objects, 1):
        data = bytes.fromhex(digits[: len(digits) // 2 * 2])
        name, content = unpacked(data)
        yield Member(name or f"{class_name or 'object'} {at}", lambda limit, content=content: content[:limit])  # type: ignore[misc]


@dataclass(slots=True)
class _State:
    """What a group inherits from the one around it, and what ends with it."""

    font: int | None = None
    #: how many characters stand for a Unicode character, for readers that know none
    spare: int = 1
    skipped: bool = False
    #: hidden, or deleted as a tracked change
    unseen: bool = False
    in_table: bool = False
    destination: str = ""


@dataclass(slots=True)
class _Flow:
    """What is collected: the body, a note, a value."""

    name: str
    depth: int
    blocks: list[str] = field(default_factory=list)
    line: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    cell: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)


class _Walk:
    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.own: dict[str, str] = {}
        self.furniture: list[str] = []
        #: class and hexadecimal digits of each embedded object
        self.objects: list[tuple[str, str]] = []
        self.whole = True
        self._state = _State()
        self._states: list[_State] = []
        self._flows = [_Flow("", 0)]
        self._fonts: dict[int, str] = {}
        self._font = 0  # the open row of the font table
        self._default_font: int | None = None
        self._codec = "cp1252"
        self._bytes = bytearray()  # characters not yet decoded
        self._bytes_codec = "cp1252"
        self._to_skip = 0
        self._star = False
        self._values: dict[str, str] = {}
        self._date: dict[str, int] = {}

    def read(self, data: bytes) -> None:
        at, size = 0, len(data)
        while at < size and (token := _TOKEN.match(data, at)):
            at = token.end()
            word, number, digits, symbol, brace, plain = token.groups()
            if word:
                if word == b"bin" and number and number.isdigit():
                    at += int(number)
                self._word(word.decode("ascii"), int(number) if number else None)
            elif digits:
                self._hex(int(digits, 16))
            elif brace:
                self._group(brace == b"{")
                if not 0 < len(self._states) <= _MAX_GROUPS:
                    break  # what follows the document is none of it
            elif plain:
                self._plain(plain)
            elif symbol:
                self._symbol(symbol)
            elif token[0] == b"\t":
                self._add("\t")
        self.whole = len(self._states) < 2

    def blocks(self) -> list[str]:
        self._state = _State()
        while len(self._flows) > 1:
            self._leave()
        self._end_line()
        self._end_rows(self._flows[0])
        return self._flows[0].blocks

    # Characters

    def _plain(self, plain: bytes) -> None:
        skip = min(self._to_skip, len(plain))
        self._to_skip -= skip
        if len(plain) > skip:
            self._raw(plain[skip:])

    def _hex(self, value: int) -> None:
        if self._to_skip:
            self._to_skip -= 1
        else:
            self._raw(bytes([value]))

    def _raw(self, data: bytes) -> None:
        if self._state.skipped or self._state.unseen:
            return
        codec = self._fonts.get(self._state.font or 0, self._codec) if self._state.font is not None else self._codec
        if codec != self._bytes_codec:
            self._decode()
            self._bytes_codec = codec
        self._bytes += data

    def _decode(self) -> None:
        if self._bytes:
            self._flows[-1].line.append(self._bytes.decode(self._bytes_codec, "replace"))
            self._bytes.clear()

    def _add(self, text: str) -> None:
        if not self._state.skipped and not self._state.unseen:
            self._decode()
            self._flows[-1].line.append(text)

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._star = True
        elif symbol in b"\r\n":
            self._end_line()
        elif symbol in b"\\{}":
            self._plain(symbol)
        elif symbol in b"~_":
            self._add(" " if symbol == b"~" else "-")

    # Groups and destinations

    def _group(self, opening: bool) -> None:
        self._to_skip = 0
        self._star = False
        if opening:
            self._states.append(self._state)
            self._state = replace(self._state, destination="")
            return
        if self._state.destination in ("creatim", "revtim"):
            self._dated()
        if self._states:
            self._state = self._states.pop()
        while len(self._flows) > 1 and self._flows[-1].depth > len(self._states):
            self._leave()

    def _word(self, word: str, number: int | None) -> None:
        if self._to_skip and word not in _NEVER_SPARE:
            self._to_skip -= 1
            return
        self._to_skip = 0
        star, self._star = self._star, False
        if word in _READ:
            self._state.skipped = False
        elif word in _SKIPPED:
            self._state.skipped = True
            self._state.destination = word
        elif word in _APART or word in _VALUES:
            self._enter(word)
        elif word in _HOLDERS:
            self._state.destination = word
        elif star:
            self._state.skipped = True
        elif self._state.skipped:
            self._font_table(word, number)
        else:
            self._act(word, number)

    def _enter(self, name: str) -> None:
        if not self._state.skipped and len(self._flows) < 100:
            self._decode()
            self._flows.append(_Flow(name, len(self._states)))
            self._state.in_table = False

    def _leave(self) -> None:
        """Put what was collected where it belongs."""
        self._end_line()
        left = self._flows.pop()
        self._end_rows(left)
        name, blocks, flow = left.name, left.blocks, self._flows[-1]
        value = " ".join(" ".join(blocks).split())
        if name in _FURNITURE:
            self.furniture += blocks
        elif name in ("listtext", "pntext"):
            flow.line.append(f"{value} " if re.search(r"\w", value) else "- ")
        elif name == "annotation":
            author = self._values.pop("atnauthor", "") or self._values.pop("atnid", "")
            flow.late += [f"Comment{' by ' * bool(author)}{author}: {value}"] if value else []
        elif name == "fldinst":
            flow.targets += [link[1] for link in [_LINK.match(value)] if link]
        elif name == "objdata":
            self.objects.append((self._values.pop("objclass", ""), re.sub("[^0-9a-fA-F]", "", value)))
        elif name in _VALUES:
            self._value(name, value)
        else:
            flow.late += blocks

    def _value(self, name: str, value: str) -> None:
        self._values[name] = value
        if name == "sv" and self._values.get("sn") in _SHAPE_WORDS:
            self._flows[-1].late += [value] if value else []
        elif name == "staticval" and value and self._values.get("propname"):
            self.own[self._values["propname"]] = value
        elif name in ("title", *_FIELDS) and value:
            self.fields[_FIELDS.get(name, name)] = value
        elif name in ("category", "company", "manager") and value:
            self.own[name.title()] = value

    def _dated(self) -> None:
        date, self._date = self._date, {}
        key = "created" if self._state.destination == "creatim" else "modified"
        if {"yr", "mo", "dy"} <= date.keys() and 0 < date["mo"] < 13 and 0 < date["dy"] < 32 and 0 < date["yr"] < 9999:
            time = f"T{date.get('hr', 0) % 24:02}:{date.get('min', 0) % 60:02}:00"
            self.fields[key] = f"{date['yr']:04}-{date['mo']:02}-{date['dy']:02}{time}"

    # Control words

    def _font_table(self, word: str, number: int | None) -> None:
        if word == "f" and number is not None:
            self._font = number
        elif word == "fcharset" and number in CHARSETS:
            self._fonts[self._font] = _codec(CHARSETS[number])
        elif word == "cpg" and number:
            self._fonts[self._font] = _codec(number)

    def _act(self, word: str, number: int | None) -> None:
        state = self._state
        if word == "u" and number is not None:
            self._add(chr(number & 0xFFFF))
            self._to_skip = state.spare
        elif word in _SYMBOLS:
            self._add(_SYMBOLS[word])
        elif word in _ENDS:
            self._end_line()
        elif word in ("cell", "row"):
            self._table(word)
        elif word == "uc" and number is not None:
            state.spare = min(max(number, 0), 100)
        elif word == "f" and number is not None:
            state.font = number
        elif word == "plain":
            state.font, state.unseen = self._default_font, False
        elif word in ("v", "deleted"):
            state.unseen = number != 0
        elif word in ("pard", "intbl"):
            state.in_table = word == "intbl"
        elif word in ("yr", "mo", "dy", "hr", "min") and number is not None:
            self._date[word] = number
        else:
            self._code_page(word, number)

    def _code_page(self, word: str, number: int | None) -> None:
        if word in ("mac", "pc", "pca"):
            self._codec = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}[word]
        elif word == "ansicpg" and number:
            self._codec = _codec(number)
        elif word == "deff" and number is not None:
            self._default_font = self._state.font = number

    # Lines and rows

    def _end_line(self) -> None:
        if self._state.skipped:
            return
        self._decode()
        flow = self._flows[-1]
        text = "".join(flow.line)
        if re.search("[\ud800-\udfff]", text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        targets = [target for target in dict.fromkeys(flow.targets) if target not in text]
        text = " ".join([re.sub("[\0\ufeff]", "", text).strip(), *(f"<{target}>" for target in targets)]).strip()
        added = [text] * bool(text) + flow.late
        if self._state.in_table:
            flow.cell += added
        else:
            if added:
                self._end_rows(flow)
            flow.blocks += added
        flow.line.clear()
        flow.targets.clear()
        flow.late.clear()

    def _table(self, word: str) -> None:
        """Cells with a tab between, each row a line."""
        flow = self._flows[-1]
        self._state.in_table = True
        self._end_line()
        if word == "cell" or flow.cell:
            flow.cells.append(" ".join(" ".join(flow.cell).split()))
            flow.cell.clear()
        if word == "row":
            flow.rows += ["\t".join(flow.cells)] if any(flow.cells) else []
            flow.cells.clear()

    def _end_rows(self, flow: _Flow) -> None:
        if any(flow.cells):
            flow.rows.append("\t".join(flow.cells))
        flow.blocks += [*(["\n".join(flow.rows)] if flow.rows else []), *flow.cell]
        flow.rows.clear()
        flow.cells.clear()
        flow.cell.clear()


def _codec(number: int) -> str:
    try:
        return codecs.lookup(_CODECS.get(number, f"cp{number}")).name
    except LookupError:
        return "cp1252"
