"""What an Office document says about itself: core, application and custom properties. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from worker.extracted import flat
from worker.package import MAX_LIST_BYTES, Broken, Item, Package, items

__all__ = ["described", "properties"]

#: Elements of the core and application properties, and our names for them.
_FIELDS = {
    "title": "title",
    "creator": "author",
    "created": "created",
    "modified": "modified",
    "subject": "subject",
    "keywords": "keywords",
    "description": "description",
    "category": "category",
    "language": "language",
    "Company": "company",
    "Manager": "manager",
    "Pages": "pages",
    "Slides": "pages",
}
#: Those that a person would search for.
_SEARCHED = ("subject", "keywords", "description", "category")
_TYPES = frozenset(("core-properties", "extended-properties", "custom-properties"))
#: Custom properties that are taken, and characters of one value.
MAX_CUSTOM = 200
MAX_VALUE_CHARS = 4000
#: Custom properties that programs write for themselves.
_MACHINE_NAME = re.compile(
    r"_|MSIP_|ContentTypeId|KSO|Generator|ICV$|AppVersion|DocSecurity|LinksUpToDate|ShareDoc", re.I
)
_MACHINE_VALUE = re.compile(r"true|false|[\W\d_]*|0x[0-9a-f]+|\{?[0-9a-f-]{32,38}\}?|\d{4}-\d\d-\d\dT[\d:.]+Z", re.I)


def properties(package: Package) -> tuple[dict[str, object], dict[str, str]]:
    """Named as in all formats, and the custom ones by their own names."""
    named: dict[str, object] = {}
    custom: dict[str, str] = {}
    for part in _parts(package):
        try:
            listed = items(package.read(part, MAX_LIST_BYTES))
        except Broken:
            continue  # properties are no text: a document without them is whole
        for item in listed[: MAX_CUSTOM + len(_FIELDS)]:
            key, value = _property(item)
            if item.name == "property":
                custom.setdefault(key, value)
            elif key in _FIELDS and value:
                named.setdefault(_FIELDS[key], int(value) if _FIELDS[key] == "pages" and _is_count(value) else value)
    return flat(named), {key: value for key, value in custom.items() if value and not _MACHINE_NAME.match(key)}


def _parts(package: Package) -> Iterator[str]:
    found = [relation.target for relation in package.relations() if relation.type in _TYPES]
    usual = [name for name in package.names() if re.fullmatch(r"docprops/(?:core|app|custom)\.xml", name)]
    return iter(dict.fromkeys([*found, *usual]))


def _property(item: Item) -> tuple[str, str]:
    value = " ".join(" ".join(words for _, words in item.words).replace("_x000d_", " ").split())[:MAX_VALUE_CHARS]
    return item.attributes.get("name") or item.name, value


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 9


def described(named: Mapping[str, object], custom: Mapping[str, str]) -> list[str]:
    """Lines about the properties that a person would search for."""
    lines = [f"{key.capitalize()}: {named[key]}" for key in _SEARCHED if key in named]
    return lines + [f"{key}: {value}" for key, value in custom.items() if not _MACHINE_VALUE.fullmatch(value)]
