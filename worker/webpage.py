"""A web page as Markdown, in one pass over its tags. Pure: no I/O.

Own code, since kreuzberg 4.10 silently drops what is nested deeper than some 64 elements and does not end a paragraph
where the next one starts.
"""

from __future__ import annotations

import html
import re

from worker.extracted import Extracted, markdown_title, one_line
from worker.page import Page

__all__ = ["read_markup", "read_page"]

#: Elements whose content is not for readers; the last holds the hidden facts of inline XBRL.
_UNREAD = ("script", "style", "template", "ix:header")
#: Attributes that carry words for readers, the first that an element has.
_TOLD = {
    "img": ("alt", "title"),
    "area": ("alt", "title"),
    "input": ("value", "placeholder", "alt"),
    "textarea": ("placeholder",),
    "option": ("label",),
    "optgroup": ("label",),
    "track": ("label",),
    "iframe": ("title",),
    "frame": ("title",),
}
#: Their values are no words: passwords, colours, what scripts keep.
_UNSEEN_INPUTS = ("hidden", "password", "checkbox", "radio", "color", "range", "file")
_META = re.compile(r"<meta\b([^<>]{0,4000})>", re.I)
_ATTRIBUTE = re.compile(r"([\w:.-]{1,40})\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
#: Names of fields in the head, in lower case; the first that a page has wins.
_META_FIELDS = {
    name: field
    for field, names in {
        "author": "author dc.creator dcterms.creator article:author citation_author",
        "description": "description dc.description dcterms.description og:description twitter:description",
        "keywords": "keywords dc.subject dcterms.subject news_keywords",
        "created": "date dc.date dcterms.created dc.date.created article:published_time citation_publication_date",
        "modified": "last-modified dcterms.modified article:modified_time og:updated_time",
        "subject": "subject",
        "language": "dc.language dcterms.language content-language",
    }.items()
    for name in names.split()
}
_LANGUAGE = re.compile(r"<html\b[^<>]{0,2000}?\s(?:xml:)?lang\s*=\s*[\"']?([\w-]{2,20})", re.I)
#: A page within the page, whose markup is the value of an attribute.
_SRCDOC = re.compile(r"(<iframe\b[^<>]{0,2000}?)\bsrcdoc\s*=\s*(?:\"([^\"]*+)\"|'([^']*+)')", re.I)
#: So deep may such pages lie in each other.
MAX_SRCDOC_DEPTH = 3
_COMMENT, _COMMENT_END = re.compile("<!--(?:-?>)?"), re.compile("--!?>")
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
_DECLARATION = re.compile("<[!?][^<>]*>")
#: A tag, its attributes with ">" allowed in quotes. Possessive, so that broken markup costs linear time.
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:=\s*+(?:\"[^\"<]{0,4000}+\"|'[^'<]{0,4000}+')|[^<>])*+)>")


def read_page(text: str) -> Extracted:
    """A page as Markdown. Own code, since the library silently drops what is nested deeper than 64 elements
    and does not end a paragraph where the next one starts: a page without </p> would lose its end.
    """
    readable = _without_unread(_with_srcdoc(text))
    head, body = _split_head(readable)
    page = Page()
    read_markup(page, body)
    page.close()
    content = page.text()
    title = _html_title(head) or _html_title(body) or one_line(markdown_title(content))
    return Extracted("html", content, title=title, metadata=_html_metadata(head), own_lines=False)


def read_markup(page: Page, markup: str) -> None:
    """Write the readable words of a piece of HTML to `page`."""
    body = _DECLARATION.sub("", _CDATA.sub("", markup))
    at = 0
    for tag in _TAG.finditer(body):
        page.words(html.unescape(body[at : tag.start()]))
        _tag(page, tag[2].lower(), bool(tag[1]), tag[3])
        at = tag.end()
    page.words(html.unescape(body[at:]))


def _tag(page: Page, name: str, closing: bool, source: str) -> None:
    page.tag(name, closing)
    told = () if closing else _TOLD.get(name, ())
    found = _attributes(source) if told else {}
    if name == "input" and found.get("type", "").lower() in _UNSEEN_INPUTS:
        return
    words = next((found[attribute] for attribute in told if found.get(attribute, "").strip()), "")
    if words:
        page.words(f" {html.unescape(words)} ")


def _attributes(source: str) -> dict[str, str]:
    return {m[1].lower(): m[2] or m[3] or m[4] or "" for m in _ATTRIBUTE.finditer(source)}


def _with_srcdoc(text: str) -> str:
    """Markup with the pages that attributes hold put in front of their elements."""
    for _ in range(MAX_SRCDOC_DEPTH):
        inner = _SRCDOC.sub(lambda m: f"<div>{html.unescape(m[2] or m[3] or '')}</div>{m[1]}", text)
        if inner == text:
            break
        text = inner
    return text


def _without_unread(text: str) -> str:
    """Markup without comments, scripts and styles, and so without the tags inside them."""
    text = _drop(text, _COMMENT, _COMMENT_END)
    for name in _UNREAD:
        text = _drop(text, re.compile(rf"<{name}\b[^<>]*>", re.I), re.compile(rf"</{name}\s*>", re.I))
    return text


def _drop(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Cut every span between the two patterns; an unclosed one reaches to the end, as in browsers."""
    kept, at = [], 0
    while start := opening.search(text, at):
        kept.append(text[at : start.start()])
        if start[0] in ("<!-->", "<!--->"):  # a whole comment, by the HTML standard
            at = start.end()
            continue
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
    return one_line(html.unescape(content))


def _html_metadata(head: str) -> dict[str, object]:
    """Author, description, keywords, dates and language of the page, where it names them."""
    found: dict[str, object] = {}
    for match in _META.finditer(head):
        attributes = _attributes(match[1])
        key = next((attributes[a] for a in ("name", "property", "itemprop", "http-equiv") if a in attributes), "")
        field = _META_FIELDS.get(key.lower())
        value = one_line(html.unescape(attributes.get("content", "")))
        if field and value:
            found.setdefault(field, value)
    language = _LANGUAGE.search(head)
    if language:
        found.setdefault("language", language[1])
    return found
