"""PDF: the text of its pages from kreuzberg, whose engine is pdfium; what else it holds from pypdf (see pdfparts)."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from worker.extracted import Extracted, Input, Refused, flat, one_line
from worker.ocr import read_pages
from worker.office import clean_lines, document_metadata, document_title, joined, kreuzberg_result, unread_parts
from worker.pdfparts import Page, Parts, look_inside, page_text

__all__ = ["read_pdf"]

#: Bytes of content streams that are read again in Python, which takes about a second a megabyte.
_MOST_READ_AGAIN_BYTES = 8 << 20
_MOST_PAGE_BYTES = 1 << 20
#: What stands before the head of a file, a mail header or a piece of a web page, is not part of it.
_MOST_JUNK_BYTES = 2048


def read_pdf(found: Input) -> Extracted:
    found = replace(found, data=found.data[max(found.data.find(b"%PDF-", 0, _MOST_JUNK_BYTES), 0) :])
    parts = look_inside(found.data, found.passwords)
    result = _result(found, parts)
    texts = [clean_lines(str(page["content"])) for page in result.pages or []]
    pages = _pages(parts, len(texts))
    if parts:
        _read_again(texts, pages)
    missing = [n for n, page in enumerate(pages) if page.drawn and not texts[n].strip()]
    read = _recognise(found, texts, pages, missing) if found.ocr and missing else 0
    text, starts = _whole(texts, pages, parts)
    metadata = _metadata(result.metadata, parts)
    title = document_title({"title": metadata.pop("title", None)}, "")
    metadata["pages"] = len(texts)
    if read:
        metadata["ocr"] = True
    partial = _missing(len(missing), read, len(texts)) if text.strip() else None
    members = parts.members() if parts else ()
    return Extracted("pdf", text, 0, title, flat(metadata), starts, False, partial or _unread(result), members)


def _pages(parts: Parts | None, number: int) -> list[Page]:
    """As pypdf counts them if both readers count as many; else all notes go to the last."""
    if parts and len(parts.pages) == number:
        return parts.pages
    pages = [Page(drawn=True) for _ in range(number)]
    if parts and pages:
        pages[-1].notes = [note for page in parts.pages for note in page.notes]
    return pages


def _missing(missing: int, read: int, pages: int) -> str | None:
    if read >= missing:
        return None
    if read:
        return f"{read} of {missing} pages without a text layer w{'as' if read == 1 else 'ere'} read by OCR"
    return f"{missing} of {pages} pages ha{'s' if missing == 1 else 've'} no text layer"


def _recognise(found: Input, texts: list[str], pages: list[Page], missing: list[int]) -> int:
    """Put in the words that OCR finds on these pages; on how many it looked for some."""
    read = 0
    for number, words in read_pages(found, [(n, *_size(pages[n])) for n in missing]):
        texts[number] = words
        read += 1
    return read


def _size(page: Page) -> tuple[float, float]:
    return page.box[2] - page.box[0], page.box[3] - page.box[1]


def _unread(result: Any) -> str | None:
    """Without files within, which kreuzberg tries to read: they are documents of their own."""
    own = [w for w in result.processing_warnings if "embedded" not in str(w.message).lower()]
    return unread_parts(own)


# -- the text of the pages ----------------------------------------------------------------------------------------


def _result(found: Input, parts: Parts | None) -> Any:
    from kreuzberg import PdfConfig

    options = {"pdf_options": PdfConfig(passwords=list(dict.fromkeys(("", *found.passwords))))}
    upright = _upright(found.data, parts) if parts else None
    if upright is not None:
        with suppress(Refused):  # what is added may not fit to a damaged file, which may be readable as it came
            return kreuzberg_result(replace(found, data=upright), **options)
    return kreuzberg_result(found, **options)


#: What kreuzberg 4.10 reads of a catalog: files within, which are documents of their own, and bookmarks, of which
#: a ring makes it run out of stack.
_UNREAD = ("/Outlines", "/Names", "/AF")


def _upright(data: bytes, parts: Parts) -> bytes | None:
    """The file with every page beginning at 0, 0 and not turned, and with nothing but pages; None if it is so.

    kreuzberg 4.10 takes the text within width and height of the page from 0, 0 on, so it loses what is beyond where
    a page is cropped or turned. The change is added at the end, as an editor does.
    """
    changed = [page for page in parts.pages if page.number and _askew(page)]
    if not changed and not parts.odd_date and not any(key in parts.root for key in _UNREAD):
        return None
    try:
        return data + _update(data, parts, changed)
    except Exception:  # a damaged file makes pypdf raise anything; without the change it is read as it is
        return None


def _askew(page: Page) -> bool:
    return abs(page.box[0]) > 0.5 or abs(page.box[1]) > 0.5 or page.rotate % 360 != 0


def _update(data: bytes, parts: Parts, changed: list[Page]) -> bytes:
    """An incremental update (ISO 32000-1, 7.5.6) with another catalog and other pages."""
    from pypdf.generic import DictionaryObject, NameObject, NumberObject

    trailer = parts.reader.trailer
    root = trailer.raw_get("/Root")
    objects = [(root.idnum, root.generation, _kept(parts.root, "/Type", "/Pages", "/Version"))]
    objects += [(*page.number, _straight(page)) for page in changed if page.number]
    if info := getattr(trailer.raw_get("/Info"), "idnum", None) if "/Info" in trailer else None:
        objects.append((info, 0, DictionaryObject()))  # kreuzberg 4.10 panics at an odd date
    out, table = io.BytesIO(b"\n"), [b"xref\n"]
    out.seek(1)
    for number, generation, value in objects:
        table.append(b"%d 1\n%010d %05d n \n" % (number, len(data) + out.tell(), generation))
        out.write(b"%d %d obj\n" % (number, generation))
        value.write_to_stream(out)
        out.write(b"\nendobj\n")
    start = len(data) + out.tell()
    ending = _kept(trailer, "/Root", "/Size", "/Encrypt", "/ID", "/Info")
    ending[NameObject("/Prev")] = NumberObject(re.findall(rb"startxref\s+(\d{1,12})", data[-4096:])[-1])
    out.write(b"".join(table) + b"trailer\n")
    DictionaryObject(ending).write_to_stream(out)
    out.write(b"\nstartxref\n%d\n%%%%EOF\n" % start)
    return out.getvalue()


def _straight(page: Page) -> Any:
    """A page that shows what it showed; what was cropped at the left and below it may come in."""
    from pypdf.generic import ArrayObject, FloatObject, NameObject, NumberObject

    box = ArrayObject([FloatObject(0), FloatObject(0), *(FloatObject(max(edge, 1)) for edge in page.box[2:])])
    straight = _kept(page.source, "/Type", "/Parent", "/Resources", "/Contents")
    straight.update({NameObject("/MediaBox"): box, NameObject("/CropBox"): box, NameObject("/Rotate"): NumberObject(0)})
    return straight


def _kept(source: Any, *keys: str) -> Any:
    from pypdf.generic import DictionaryObject, NameObject

    return DictionaryObject({NameObject(key): source.raw_get(key) for key in keys if key in source})


def _read_again(texts: list[str], pages: list[Page]) -> None:
    """Pages on which kreuzberg found nothing: it gives up a page for one broken character, or one left of 0, 0."""
    left = _MOST_READ_AGAIN_BYTES
    for number, (text, page) in enumerate(zip(texts, pages, strict=True)):
        if text.strip() and min(page.box[:2]) > -0.5:
            continue
        again, cost = page_text(page, min(left, _MOST_PAGE_BYTES))
        left -= cost
        if sum(map(str.isalnum, again)) > sum(map(str.isalnum, text)):
            texts[number] = clean_lines(again)


# -- the whole ----------------------------------------------------------------------------------------------------


def _whole(texts: list[str], pages: list[Page], parts: Parts | None) -> tuple[str, tuple[int, ...]]:
    """Each page with its notes and filled fields below it; at the end what belongs to no page."""
    below = [
        "\n\n".join(filter(None, (text.strip("\n \t"), *page.notes))) for text, page in zip(texts, pages, strict=True)
    ]
    text, starts = joined(below)
    if parts and (text.strip() or parts.form):  # bookmarks alone do not make a scan a text
        text = "\n\n".join(filter(None, (text, *_unsaid([*parts.bookmarks, *parts.form], text))))
    return text, starts


def _unsaid(lines: list[str], text: str) -> list[str]:
    """Lines of which the text does not have the words already, each once."""
    said = _bare(text)
    return ["\n".join(dict.fromkeys(line for line in lines if _bare(line) not in said))]


def _bare(text: str) -> str:
    return "".join(text.casefold().split())


def _metadata(fields: Any, parts: Parts | None) -> dict[str, Any]:
    """What the document says of itself, dates with their time zone, which kreuzberg does not know."""
    theirs = {"title": one_line(str(fields.get("title") or "")), **document_metadata(fields)}
    found = {**theirs, **(parts.properties if parts else {})}
    keywords = found.get("keywords")
    if isinstance(keywords, str):
        found["keywords"] = [word.strip() for word in re.split(r"[,;]", keywords) if word.strip()]
    return found
