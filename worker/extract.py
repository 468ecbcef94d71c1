"""Bytes of one document to text: the only place that knows file formats.

Text, markup and code keep their own characters, so that line numbers mean lines of the file. HTML becomes
Markdown here; binary documents go through kreuzberg, imported only when one arrives, its cache, OCR and
downloads off. The same bytes and name always give the same result. The input is hostile: run it where a crash
costs nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

from worker.decode import Undecodable, decode
from worker.filetype import Format, Refused, of_text, sniff

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult, PageConfig

__all__ = ["Extracted", "Refused", "extract"]

#: Front matter beyond this many characters is taken for body: nobody writes so much by hand.
MAX_FRONT_MATTER_CHARS = 64 * 1024
#: Lines searched for a first heading.
TITLE_LINES = 400
MAX_TITLE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one document says. All offsets count characters of `text`."""

    kind: str
    text: str
    #: Where the body starts: after the front matter of Markdown, else 0.
    body_start: int = 0
    #: From the document itself, never from its file name.
    title: str | None = None
    #: JSON-able scalars and lists of scalars.
    metadata: Mapping[str, object] = field(default_factory=dict)
    #: pages[i] is where page (slide, sheet) i + 1 starts; empty when the kind has none.
    pages: tuple[int, ...] = ()
    #: True when `text` is the file's own characters.
    own_lines: bool = True
    #: Why the text is only a part of the document, None when it is whole.
    partial: str | None = None


def extract(data: bytes, name: str, *, max_chars: int = 20_000_000) -> Extracted:
    """Read one whole document. `name` is its file name or path and only breaks ties between text formats.

    Text beyond `max_chars` characters is cut and `partial` says so. Raises `Refused` for reasons that lie in
    the document; MemoryError, and OSError when the PDF engine cannot be set up, for reasons that may pass.
    """
    if not data or data.isspace():
        raise Refused("empty", "an empty file")
    found = sniff(data, name)
    read = _document(data, found) if found else _decoded(data, name)
    if not read.text.strip():
        raise _without_text(read.kind)
    return _cut(read, max_chars)


def _without_text(kind: str) -> Refused:
    if kind == "pdf":
        return Refused("no text layer", "a PDF without a text layer, perhaps a scan")
    return Refused("empty", "no text in the document")


def _cut(read: Extracted, max_chars: int) -> Extracted:
    if len(read.text) <= max_chars:
        return read
    reason = f"only the first {max_chars} characters are indexed"
    pages = tuple(start for start in read.pages if start < max_chars)
    body_start = min(read.body_start, max_chars)
    return replace(read, text=read.text[:max_chars], pages=pages, body_start=body_start, partial=reason)


# Text formats ---------------------------------------------------------------------------------------------


def _decoded(data: bytes, name: str) -> Extracted:
    try:
        decoded = decode(data)
    except Undecodable as error:
        raise Refused("binary", str(error)) from error
    if not decoded.text.strip():
        raise Refused("empty", "an empty file")
    read = _from_text(decoded.text, of_text(decoded.text, name))
    if decoded.encoding != "utf-8":
        read = replace(read, metadata={**read.metadata, "encoding": decoded.encoding})
    if decoded.replaced:
        read = replace(read, partial=f"{decoded.replaced} damaged character{'s'[: decoded.replaced > 1]}")
    return read


def _from_text(text: str, found: Format) -> Extracted:
    if found.kind == "html":
        return _html(text)
    if found.mime:
        return _document(text.encode("utf-8", "replace"), found)
    if found.kind == "markdown":
        return _markdown(text)
    title = _rst_title(text) if found.kind == "rst" else None
    return Extracted(found.kind, text, title=title)


def _markdown(text: str) -> Extracted:
    metadata, body_start = _front_matter(text)
    own = metadata.get("title")
    title = own if isinstance(own, str) and own.strip() else _markdown_title(text[body_start:])
    return Extracted("markdown", text, body_start, _one_line(title), metadata)


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
    return _flat(loaded) if isinstance(loaded, dict) else None


def _flat(fields: Mapping[Any, object]) -> dict[str, object]:
    kept = ((str(key), _plain(value)) for key, value in fields.items())
    return {key: value for key, value in kept if value is not None and value != [] and value != ""}


def _plain(value: object) -> object:
    """A JSON-able scalar or list of scalars; None for anything deeper."""
    if isinstance(value, list | tuple):
        scalars = (_plain(item) for item in value if not isinstance(item, list | tuple))
        return [item for item in scalars if item is not None]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else None
    return value if isinstance(value, str) else None


_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")


def _markdown_title(body: str) -> str | None:
    """The words of the first heading, `# so` or underlined, outside code fences."""
    previous, fence = "", ""
    for line in body[:MAX_FRONT_MATTER_CHARS].splitlines()[:TITLE_LINES]:
        mark = _FENCE.match(line)
        if mark and (not fence or fence == mark[1]):
            fence = "" if fence else mark[1]
        elif not fence:
            heading = _HEADING.match(line)
            if heading and heading[1]:
                return _words(heading[1])
            if re.match(r" {0,3}\w", previous) and _UNDERLINE.match(line):
                return _words(previous)
        previous = line
    return None


def _words(heading: str) -> str:
    """A heading without link targets and anchors."""
    heading = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading)
    return re.sub(r"\s*\{[#.][^{}]*\}\s*$", "", heading)


def _rst_title(text: str) -> str | None:
    """The first line that is underlined as long as itself with one punctuation mark."""
    for title, rule in pairwise(text[:MAX_FRONT_MATTER_CHARS].splitlines()[:TITLE_LINES]):
        ruled = re.fullmatch(r"([!-/:-@\[-`{-~])\1*", rule.rstrip())
        named = title.strip() and not title.startswith("..") and re.search(r"\w", title)
        if ruled and named and len(rule.rstrip()) >= len(title.strip()):
            return _one_line(title)
    return None


def _one_line(title: str | None) -> str | None:
    """White space collapsed and the length bounded; None when nothing is left."""
    line = " ".join((title or "").split())[:MAX_TITLE_CHARS]
    return line or None


# HTML -----------------------------------------------------------------------------------------------------

#: Elements whose content is not for readers.
_UNREAD = ("script", "style", "template")
_META = re.compile(r"<meta\b([^<>]{0,4000})>", re.I)
_ATTRIBUTE = re.compile(r"([\w:-]{1,40})\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_META_FIELDS = {"author": "author", "description": "description", "keywords": "keywords", "date": "created"}
#: A tag, its attributes with ">" allowed in quotes. Possessive, so that broken markup costs linear time.
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:=\s*+(?:\"[^\"<]{0,4000}+\"|'[^'<]{0,4000}+')|[^<>])*+)>")
#: Elements that begin and end a paragraph; what is neither here nor handled by name is part of a line.
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body button caption center dd details dialog dir div dl dt "
        "fieldset figcaption figure footer form frame h1 h2 h3 h4 h5 h6 header hr html iframe legend li main "
        "menu nav ol option p pre section select summary table tbody td textarea tfoot th thead title tr ul",
    )
)
#: A table whose cells are longer than this many characters is a page layout, not a table.
MAX_CELL_CHARS = 300


def _html(text: str) -> Extracted:
    """A page as Markdown. Own code, since the library silently drops what is nested deeper than 64 elements
    and does not end a paragraph where the next one starts: a page without </p> would lose its end.
    """
    readable = _without_unread(text)
    head, body = _split_head(readable)
    page = _Page()
    page.read(body)
    content = page.text()
    title = _html_title(head) or _html_title(body) or _one_line(_markdown_title(content))
    return Extracted("html", content, title=title, metadata=_html_metadata(head), own_lines=False)


class _Page:
    """The readable words of a page, block by block, in one pass over its tags."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._mark = ""  # what the next block begins with: a heading mark, a bullet
        self._lists = 0
        self._code = False
        #: For each open table the cells of its open row, each a list of blocks.
        self._tables: list[list[list[str]]] = []

    def read(self, body: str) -> None:
        body = re.sub(r"<[!?][^<>]*>", "", body)
        at = 0
        for tag in _TAG.finditer(body):
            self._words(body[at : tag.start()])
            self._tag(tag[2].lower(), bool(tag[1]), tag[3])
            at = tag.end()
        self._words(body[at:])
        while self._tables:
            self._tag("table", True, "")
        self._end_block()

    def text(self) -> str:
        """The blocks with a blank line between, rows and list items without."""
        parts: list[str] = []
        for block, following in pairwise([*self._blocks, ""]):
            close = any(block.lstrip().startswith(m) and following.lstrip().startswith(m) for m in ("- ", "| "))
            parts += [block, "\n" if close else "\n\n"]
        return "".join(parts).rstrip() + "\n" if parts else ""

    def _words(self, source: str) -> None:
        words = html.unescape(source).replace("\x00", "")
        self._line.append(words if self._code else re.sub(r"\s+", " ", words))

    def _tag(self, name: str, closing: bool, attributes: str) -> None:
        if name == "br":
            self._line.append("\n")
        elif name == "img":
            self._line.append(f" {html.unescape(_attributes(attributes).get('alt', ''))} ")
        elif self._code and name in _BLOCKS and name != "pre":
            self._line.append("\n" if closing else "")  # listings often wrap each line in an element
        elif name in _BLOCKS:
            self._end_block()
            self._structure(name, closing)

    def _structure(self, name: str, closing: bool) -> None:
        if name in ("ul", "ol"):
            self._lists = max(0, self._lists + (-1 if closing else 1))
        elif name in ("table", "tr", "td", "th"):
            self._table(name, closing)
        elif name == "pre":
            self._code = not closing
        elif name == "li" and not closing:
            self._mark = "  " * min(self._lists - 1, 8) + "- "
        elif re.fullmatch("h[1-6]", name):
            self._mark = "" if closing else "#" * int(name[1]) + " "

    def _end_block(self) -> None:
        text = "".join(self._line)
        self._line.clear()
        if not text.strip():
            return
        if self._code:
            text = "```\n" + text.strip("\n") + "\n```"
        elif self._mark:
            text, self._mark = self._mark + " ".join(text.split()), ""
        else:
            text = "\n".join(" ".join(line.split()) for line in text.strip().split("\n"))
        self._target().append(text)

    def _target(self) -> list[str]:
        """Where a finished block belongs: the innermost open cell, else the page."""
        return next((row[-1] for row in reversed(self._tables) if row), self._blocks)

    def _table(self, name: str, closing: bool) -> None:
        if name == "table" and not closing:
            self._tables.append([])
        elif not self._tables:
            return
        elif name in ("tr", "table"):
            self._end_row()
            if name == "table":
                self._tables.pop()
        elif not closing:
            self._tables[-1].append([])

    def _end_row(self) -> None:
        """A row of short cells becomes a line of a table, any other the blocks of its cells one by one."""
        row, self._tables[-1] = self._tables[-1], []
        blocks = [block for cell in row for block in cell]
        short = all(len(b) <= MAX_CELL_CHARS and "```" not in b and b[0] not in "#|" for b in blocks)
        if len(row) > 1 and len(blocks) > 0 and short and all(len(cell) <= 2 for cell in row):
            cells = (" ".join(" ".join(cell).split()) for cell in row)
            blocks = [f"| {' | '.join(cells)} |"]
        self._target().extend(blocks)


def _attributes(source: str) -> dict[str, str]:
    return {m[1].lower(): m[2] or m[3] or m[4] or "" for m in _ATTRIBUTE.finditer(source)}


def _without_unread(text: str) -> str:
    """Markup without comments, scripts and styles, and so without the tags inside them."""
    text = _drop(text, re.compile("<!--"), re.compile("-->"))
    for name in _UNREAD:
        text = _drop(text, re.compile(rf"<{name}\b[^<>]*>", re.I), re.compile(rf"</{name}\s*>", re.I))
    return text


def _drop(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Cut every span between the two patterns; an unclosed one reaches to the end, as in browsers."""
    kept, at = [], 0
    while start := opening.search(text, at):
        kept.append(text[at : start.start()])
        end = closing.search(text, start.end())
        at = end.end() if end else len(text)
    return "".join(kept) + text[at:]


def _split_head(text: str) -> tuple[str, str]:
    """The head, whose words are not part of the page, and the rest."""
    ending = re.compile(r"</head\s*>|(?=<body\b)", re.I).search(text)
    return (text[: ending.start()], text[ending.end() :]) if ending else ("", text)


def _html_title(head: str) -> str | None:
    opening = re.compile(r"<title\b[^<>]*>", re.I).search(head)
    if not opening:
        return None
    content = re.split(r"</title|<", head[opening.end() : opening.end() + 4000], maxsplit=1, flags=re.I)[0]
    return _one_line(html.unescape(content))


def _html_metadata(head: str) -> dict[str, object]:
    """Author, description, keywords and date of the page, where it names them."""
    found: dict[str, object] = {}
    for match in _META.finditer(head):
        attributes = _attributes(match[1])
        key = _META_FIELDS.get(attributes.get("name", "").lower())
        value = _one_line(html.unescape(attributes.get("content", "")))
        if key and value:
            found.setdefault(key, value)
    return found


# Documents through the library ----------------------------------------------------------------------------

#: Stands alone in a paragraph at the start of each page; control pictures occur in no running text.
_PAGE_MARK = "\n\n\u2402{page_num}\u2403\n\n"
_PAGE_MARK_FOUND = re.compile("\\s*\u2402(\\d+)\u2403\\s*")


def _document(data: bytes, found: Format) -> Extracted:
    result = _kreuzberg(data, found)
    if found.kind == "pdf":
        text, pages = _joined([_lines(str(page["content"])) for page in result.pages or []])
        text, pages = (text, pages) if text.strip() else (_lines(result.content), ())
    else:
        text, pages = _marked_pages(_lines(result.content))
    if found.output == "markdown":
        text, pages = _tidied(text, pages)
    fields: Mapping[str, Any] = result.metadata
    headed = found.output == "markdown" and found.kind not in ("xlsx", "xls", "ods")  # "Sheet1" is no title
    title = _document_title(fields, text if headed else "")
    pages = pages or _sheets(text, fields.get("sheet_names"))
    return Extracted(found.kind, text, 0, title, _document_metadata(fields), pages, False, _warnings(result))


def _kreuzberg(data: bytes, found: Format) -> ExtractionResult:
    import kreuzberg

    try:
        return kreuzberg.extract_bytes_sync(data, found.mime, _config(found))
    except MemoryError:
        raise
    except (kreuzberg.MissingDependencyError, kreuzberg.ValidationError) as error:
        raise Refused("unsupported", "no reader for this format is installed") from error
    except Exception as error:
        if "pdfium initialization failed" in str(error).lower():  # it unpacks itself into the temporary folder
            raise OSError(f"the PDF engine cannot start: {error}") from error
        raise _refusal(str(error), found.kind) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic in Rust is not an Exception
            raise
        raise Refused("damaged", f"a damaged {found.kind} document") from error


def _config(found: Format) -> ExtractionConfig:
    """No cache, OCR, downloads or guessing; one thread, so that no output can depend on timing."""
    import kreuzberg

    # Not in the type stub of 4.10. Without it pictures attached to a mail go to Tesseract, `ocr` or not.
    unlisted: dict[str, Any] = {"disable_ocr": True}
    return kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format=found.output,
        pages=_page_config(found.kind),
        postprocessor=kreuzberg.PostProcessorConfig(enabled=False),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        tree_sitter=kreuzberg.TreeSitterConfig(enabled=False),
        **unlisted,
    )


def _page_config(kind: str) -> PageConfig:
    """Pages of a PDF come as a list; slides as marks in the text, for their list and offsets are wrong."""
    from kreuzberg import PageConfig

    return PageConfig(
        extract_pages=kind in ("pdf", "pptx"), insert_page_markers=kind == "pptx", marker_format=_PAGE_MARK
    )


def _refusal(message: str, kind: str) -> Refused:
    low = message.lower()
    if "password" in low or "encrypt" in low:
        return Refused("encrypted", "protected by a password")
    if "security limit" in low and "invalid" not in low:  # broken ZIP entries are reported as a limit, too
        return Refused("too large", f"a {kind} document beyond the limits of its reader")
    return Refused("damaged", f"a damaged {kind} document")


#: PDF writes a word division as one of these at the end of the line.
_DIVISION = re.compile("[\u0002\ufffe\uffff](?:\r?\n)?")


def _lines(text: str) -> str:
    """Line ends as \\n, divided words joined, no NUL."""
    return _DIVISION.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def _joined(parts: list[str]) -> tuple[str, tuple[int, ...]]:
    """Pages as one text with a blank line between, and where each starts."""
    starts, at = [], 0
    stripped = [part.strip("\n \t") for part in parts]
    for part in stripped:
        starts.append(at)
        at += len(part) + 2
    text = "\n\n".join(stripped)
    return text, tuple(min(start, len(text)) for start in starts)


def _marked_pages(text: str) -> tuple[str, tuple[int, ...]]:
    """Cut at the page marks, taking only those that count 1, 2, 3 ...: a document may contain such a mark."""
    cuts: list[tuple[int, int]] = []
    for match in _PAGE_MARK_FOUND.finditer(text):
        if int(match[1][:9]) == len(cuts) + 1:
            cuts.append(match.span())
    if not cuts:
        return text, ()
    borders = [start for start, _ in cuts[1:]] + [len(text)]
    parts = [text[end:border] for (_, end), border in zip(cuts, borders, strict=True)]
    parts[0] = text[: cuts[0][0]] + parts[0]
    return _joined(parts)


def _tidied(text: str, pages: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Tidy page by page, so that the page starts stay right."""
    if not pages:
        return "\n".join(_tidy(text)), ()
    borders = [*pages[1:], len(text)]
    return _joined(["\n".join(_tidy(text[a:b])) for a, b in zip(pages, borders, strict=True)])


_IMAGE = re.compile(r"\\?!\[([^\[\]]{0,2000})\]\([^()\s]{0,2000}\)")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()<>!#+.~$&^\"'=:-])")


def _tidy(text: str) -> Iterator[str]:
    """Markdown without escapes and picture paths, outside code blocks."""
    code = False
    for line in text.split("\n"):
        code ^= line.lstrip().startswith("```")
        yield line if code else _tidy_line(line)


def _tidy_line(line: str) -> str:
    line = _IMAGE.sub(r"\1", line)
    keep = 2 if re.match(r"\\[#+>=-]", line) else 0  # at the start, it keeps a paragraph from being a heading
    return line[:keep] + _ESCAPE.sub(r"\1", line[keep:])


def _sheets(text: str, names: object) -> tuple[int, ...]:
    """Where the heading of each sheet stands; () unless all are found in order."""
    starts, at = [], 0
    for name in names if isinstance(names, list) else []:
        heading = re.compile(rf"^## {re.escape(str(name))}[ \t]*$", re.M).search(text, at)
        if heading is None:
            return ()
        starts.append(heading.start())
        at = heading.end()
    return tuple(starts)


_FILE_NAME = re.compile(
    r"microsoft (?:word|powerpoint|excel) - .*|.*\.(?:docx?|pptx?|xlsx?|pdf|indd|tex|dvi|qxd|rtf)", re.I
)
_DOCUMENT_FIELDS = {
    "authors": "author",
    "created_at": "created",
    "modified_at": "modified",
    "subject": "subject",
    "keywords": "keywords",
    "language": "language",
    "from_email": "from",
    "to_emails": "to",
    "cc_emails": "cc",
    "attachments": "attachments",
}


def _document_title(fields: Mapping[str, Any], markdown: str) -> str | None:
    """The title property unless it is a file name, the subject of a mail, or the first heading."""
    mail = fields.get("format_type") == "email"
    own = _one_line(str(fields.get("subject" if mail else "title") or ""))
    if own and not _FILE_NAME.fullmatch(own):
        return own
    return _one_line(_markdown_title(markdown))


def _document_metadata(fields: Mapping[str, Any]) -> dict[str, object]:
    named = {ours: fields.get(theirs) for theirs, ours in _DOCUMENT_FIELDS.items()}
    if fields.get("format_type") == "email":
        named["date"] = named.pop("created")
    authors = named["author"]
    named["author"] = ", ".join(str(a) for a in authors) if isinstance(authors, list) else authors
    return _flat(named)


def _warnings(result: ExtractionResult) -> str | None:
    """Parts that the reader could not read. Pictures do not count: nobody asked for them."""
    messages = [str(warning.message).lower() for warning in result.processing_warnings]
    failed = [message for message in messages if "ocr" not in message and "image" not in message]
    return f"{len(failed)} part{'s'[: len(failed) > 1]} could not be read" if failed else None
