"""Office formats and notebooks through kreuzberg, imported only when one arrives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from worker.extracted import Extracted, Input, Refused, flat, markdown_title, one_line
from worker.writing import unread

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult, PageConfig

__all__ = [
    "clean_lines",
    "document_metadata",
    "document_title",
    "engine_is_broken",
    "joined",
    "kreuzberg_result",
    "read_document",
    "unread_parts",
]

#: Stands alone in a paragraph at the start of each page; control pictures occur in no running text.
_PAGE_MARK = "\n\n\u2402{page_num}\u2403\n\n"
_PAGE_MARK_FOUND = re.compile("\\s*\u2402(\\d+)\u2403\\s*")


def read_document(found: Input) -> Extracted:
    result = kreuzberg_result(found)
    text, pages = _tidied(*_marked_pages(clean_lines(result.content)))
    fields: Mapping[str, Any] = result.metadata
    headed = found.kind not in ("xlsx", "xls")  # "Sheet1" is no title
    title = document_title(fields, text if headed else "")
    pages = pages or _sheets(text, fields.get("sheet_names"))
    return Extracted(
        found.kind, text, 0, title, document_metadata(fields), pages, False, unread_parts(result.processing_warnings)
    )


def kreuzberg_result(found: Input, **options: Any) -> ExtractionResult:
    """What kreuzberg reads with our configuration and these options. Raises `Refused`."""
    import kreuzberg

    try:
        return kreuzberg.extract_bytes_sync(found.data, found.mime, _config(found.kind, options))
    except MemoryError:
        raise
    except (kreuzberg.MissingDependencyError, kreuzberg.ValidationError) as error:
        raise Refused("unsupported", "no reader for this format is installed") from error
    except Exception as error:
        message = str(error).lower()
        if "panicked" in message:
            _engine.broken = True
        if "lock poisoned" in message:
            raise OSError("the PDF engine has broken at an earlier document") from error
        if "pdfium initialization failed" in message:  # it unpacks itself into the temporary folder
            raise OSError(f"the PDF engine cannot start: {error}") from error
        raise _refusal(str(error), found.kind) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic in Rust is not an Exception
            raise
        _engine.broken = True
        raise Refused("damaged", f"a damaged {found.kind} document") from error


class _Engine:
    """A panic in Rust leaves a lock behind that makes kreuzberg 4.10 fail at every later PDF in this process."""

    broken = False


_engine = _Engine()


def engine_is_broken() -> bool:
    """Whether this process had better not be asked for another document."""
    return _engine.broken


def _config(kind: str, options: dict[str, Any]) -> ExtractionConfig:
    """By itself no cache, OCR, downloads or guessing; one thread, so that no output can depend on timing."""
    import kreuzberg

    common: dict[str, Any] = {
        "use_cache": False,
        "enable_quality_processing": False,
        # Markdown from a PDF guesses headings from font sizes and moves paragraphs about.
        "output_format": "plain" if kind == "pdf" else "markdown",
        "pages": _page_config(kind),
        "postprocessor": kreuzberg.PostProcessorConfig(enabled=False),
        "concurrency": kreuzberg.ConcurrencyConfig(max_threads=1),
        "tree_sitter": kreuzberg.TreeSitterConfig(enabled=False),
        # Not in the type stub of 4.10. Without it pictures in documents go to Tesseract, `ocr` or not.
        "disable_ocr": True,
    }
    return kreuzberg.ExtractionConfig(**common | options)


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


def clean_lines(text: str) -> str:
    """Line ends as \\n, divided words joined, no NUL."""
    return _DIVISION.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def joined(parts: list[str]) -> tuple[str, tuple[int, ...]]:
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
    return joined(parts)


def _tidied(text: str, pages: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Tidy page by page, so that the page starts stay right."""
    if not pages:
        return "\n".join(_tidy(text)), ()
    borders = [*pages[1:], len(text)]
    return joined(["\n".join(_tidy(text[a:b])) for a, b in zip(pages, borders, strict=True)])


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
}


def document_title(fields: Mapping[str, Any], markdown: str) -> str | None:
    """The title property unless it is a file name, or the first heading."""
    own = one_line(str(fields.get("title") or ""))
    if own and not _FILE_NAME.fullmatch(own):
        return own
    return one_line(markdown_title(markdown))


def document_metadata(fields: Mapping[str, Any]) -> dict[str, object]:
    named = {ours: fields.get(theirs) for theirs, ours in _DOCUMENT_FIELDS.items()}
    authors = named["author"]
    named["author"] = ", ".join(str(a) for a in authors) if isinstance(authors, list) else authors
    return flat(named)


def unread_parts(warnings: Iterable[Any]) -> str | None:
    """Parts that the reader could not read. Pictures do not count: nobody asked for them. Nor do embedded files: they
    are members, read elsewhere."""
    own = (warning for warning in warnings if not warning.source.endswith("_embedded_objects"))
    messages = [str(warning.message).lower() for warning in own]
    failed = [message for message in messages if "ocr" not in message and "image" not in message]
    return unread(len(failed))
