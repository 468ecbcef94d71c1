"""The tags and the text of XML and SGML in order, well-formed or not. Pure: no I/O.

Own code, since expat stops at the first error, and documents that people keep have undeclared entities and prefixes,
several documents in one file, an end that is missing. Nothing external is ever loaded, and entities that the document
declares are not expanded within each other.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.entities import html5

__all__ = ["Tag", "attributes", "tokens"]

#: More declared entities than any document needs, and longer than an abbreviation.
MAX_ENTITIES, MAX_ENTITY_CHARS = 2000, 1000

#: A tag, its attributes with ">" allowed in quotes. Possessive, so that broken markup costs linear time.
_TAG = re.compile(r"<(/?)([^\W\d][\w.:-]*+)((?:=\s*+(?:\"[^\"<]*+\"|'[^'<]*+')|[^<>])*+)>")
_ATTRIBUTE = re.compile(r"([\w.:-]+)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')")
_REFERENCE = re.compile(r"&(#[0-9]{1,9}|#[xX][0-9a-fA-F]{1,8}|[^\W\d][\w.-]{0,40});")
_ENTITY = re.compile(r"<!ENTITY\s+([\w.-]{1,40})\s+(?:\"([^\"<&%]*+)\"|'([^'<&%]*+)')")
#: Spans that are no element, and how each ends.
_SPANS = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"))

#: ISO 8879 names of Greek letters, in the order of the alphabet; HTML has others.
_GREEK_NAMES = (
    "agr bgr ggr dgr egr zgr eegr thgr igr kgr lgr mgr ngr xgr ogr pgr rgr sfgr sgr tgr ugr phgr khgr psgr ohgr"
)
_GREEK = {name: chr(0x3B1 + at) for at, name in enumerate(_GREEK_NAMES.split())}
_GREEK |= {name.capitalize(): letter.upper() for name, letter in _GREEK.items() if name != "sfgr"}


@dataclass(frozen=True, slots=True)
class Tag:
    """A start-tag, an end-tag, or both at once. `name` is in lower case and without its prefix."""

    name: str
    #: `name` as it is written
    label: str
    closing: bool
    empty: bool
    #: what stands between the name and the end, see `attributes`
    source: str


def attributes(tag: Tag) -> dict[str, str]:
    """Values by their names in lower case, without prefixes except `xml`'s."""
    found = ((m[1].lower(), m[2] if m[2] is not None else m[3]) for m in _ATTRIBUTE.finditer(tag.source))
    return {
        name if name.startswith(("xml:", "xmlns")) else name.rpartition(":")[2]: _resolved(value, {})
        for name, value in found
    }


def tokens(text: str) -> Iterator[Tag | str]:
    """Tags, and the characters between them with references resolved. What is no markup after all is text."""
    entities: dict[str, str] = {}
    absent: set[str] = set()  # ends that do not come any more: searched for once, not for each beginning
    at = start = 0
    while (start := text.find("<", start)) >= 0:
        end, said = _span(text, start, absent, entities)
        tag = None if end else _TAG.match(text, start)
        if not end and not tag:
            start += 1
            continue
        if start > at:
            yield _resolved(text[at:start], entities)
        if tag:
            yield _tag(tag)
            end = tag.end()
        elif said:
            yield said
        at = start = end
    if at < len(text):
        yield _resolved(text[at:], entities)


def _tag(found: re.Match[str]) -> Tag:
    source = found[3]
    empty = source.endswith("/") and not found[1]
    label = found[2].rpartition(":")[2]
    return Tag(label.lower(), label, bool(found[1]), empty, source)


def _span(text: str, start: int, absent: set[str], entities: dict[str, str]) -> tuple[int, str]:
    """Where a comment, instruction, declaration or CDATA section that begins here ends, and its characters; (0, "")."""
    for opening, closing in _SPANS:
        if text.startswith(opening, start):
            end = -1 if closing in absent else text.find(closing, start + len(opening))
            if end < 0:
                absent.add(closing)
                return 0, ""
            return end + len(closing), text[start + 9 : end] if closing == "]]>" else ""
    if text.startswith("<!", start):
        return _declaration(text, start, absent, entities), ""
    return 0, ""


def _declaration(text: str, start: int, absent: set[str], entities: dict[str, str]) -> int:
    """The end of a document type with its entities, or of a stray declaration; 0 where it has none."""
    end = -1 if ">" in absent else text.find(">", start)
    if end < 0:
        absent.add(">")
        return 0
    subset = text.find("[", start, end)
    if subset < 0 or text[start + 2 : start + 9].lower() != "doctype":
        return end + 1
    close = re.compile(r"\]\s*>").search(text, subset) if "]" not in absent else None
    if close is None:
        absent.add("]")
        return end + 1
    for entity in _ENTITY.finditer(text, subset, close.start()):
        if len(entities) < MAX_ENTITIES:
            entities.setdefault(entity[1], (entity[2] or entity[3] or "")[:MAX_ENTITY_CHARS])
    return close.end()


def _resolved(text: str, entities: dict[str, str]) -> str:
    return _REFERENCE.sub(lambda m: _character(m[1], m[0], entities), text) if "&" in text else text


def _character(name: str, reference: str, entities: dict[str, str]) -> str:
    if name.startswith("#"):
        return html.unescape(reference)
    if name in entities:
        return entities[name]
    return html5.get(name + ";") or _GREEK.get(name) or reference
