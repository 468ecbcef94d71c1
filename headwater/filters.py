"""Filters of a search: Python values, and a small text syntax, as conditions on indexed payload fields.

    ext:md,rst  -lang:de  path:guide/**  title:"Getting started"  heading:Install*  page:3..7  after:2026-01-01
    before:30d  kind:markdown  author:alice*  created:2019..2021  pages:>100  from:*@example.org  meta.status:draft

Terms are separated by blanks and all hold; ``-`` before one turns it round; values separated by commas are
alternatives; quotes keep blanks and commas; ``*`` and ``?`` stand for any characters (a path is a glob in gitignore
syntax). ``meta.NAME`` is a field of the document's front matter or properties; author, from, to, cc, subject and
keywords need no ``meta.``. Times are RFC 3339 dates or times (UTC if they do not
say), or ages such as ``12h``, ``30d`` and ``2w``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any, Protocol

from pathspec import GitIgnoreSpec

from headwater.document import in_utc
from headwater.errors import QueryError
from headwater.index import INDEXED_FIELDS, Condition

__all__ = ["FilterValue", "Values", "from_mapping", "from_text", "glob_condition"]

FilterValue = str | int | Sequence[str] | Sequence[int] | Mapping[str, float | str]

#: names of the text syntax, with the payload field of each
_NAMES = {
    "path": "path", "ext": "extension", "extension": "extension", "dir": "directories", "directories": "directories",
    "lang": "language", "language": "language", "kind": "kind", "title": "title", "heading": "headings",
    "headings": "headings", "page": "page", "chunk": "chunk", "modified": "modified_at",
    "modified_at": "modified_at", "after": "modified_at", "before": "modified_at", "seq": "seq",
    "created": "created", "pages": "pages", "document_id": "document_id", "text_hash": "text_hash",
    "content_hash": "content_hash",
}  # fmt: skip
_META = "meta."
#: fields of documents that are asked for so often that they need no "meta."
_FIELD_NAMES = frozenset(("author", "from", "to", "cc", "subject", "keywords"))
_BOUNDS = ("gte", "gt", "lte", "lt")
_TERM = re.compile(r"""\s*(?P<minus>-?)(?P<name>[A-Za-z_]+(?:\.[^\s:="]+)?):(?P<value>(?:"[^"]*"|[^\s"])*)(?=\s|$)""")
_VALUE = re.compile(r"""(?:"[^"]*"|[^,"])+""")
#: a glob for all that is below a directory
_DIRECTORY = re.compile(r"(?P<anchor>/?)(?P<name>[^*?\[\]!#\\/][^*?\[\]!\\]*?)/(?P<below>\*\*)?")
_AGE = re.compile(r"(\d{1,6})([hdw])")
_AGE_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_COMPARISON = re.compile(r"(>=|<=|>|<)(.+)")
_COMPARISONS = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}


class Values(Protocol):
    """What knows the values of a field: ``VectorIndex``."""

    def values(self, field: str, *, exact: bool = True) -> list[str]: ...


def glob_condition(index: Values, glob: str, *, negate: bool = False) -> Condition:
    """The documents whose path matches a glob in gitignore syntax, as a condition on an indexed field.
    Raises QueryError if the glob is not valid."""
    if directory := _DIRECTORY.fullmatch(glob.strip()):
        return Condition("directories", any_of=_directories(index, directory), negate=negate)
    spec = _spec(glob)
    return Condition(
        "path", any_of=tuple(path for path in index.values("path") if spec.match_file(path)), negate=negate
    )


def _spec(globs: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines([glob.strip() for glob in globs.splitlines()])
    except (ValueError, re.error) as error:
        raise QueryError(f"the path glob {globs!r} is not valid ({error})") from None


def _directories(index: Values, glob: re.Match[str]) -> tuple[str, ...]:
    """A directory by its place, or wherever one of this name is: the many paths below need not be named one by one."""
    name = glob["name"]
    if glob["anchor"] or "/" in name or glob["below"]:
        return (name,)
    return tuple(found for found in index.values("directories") if found == name or found.endswith(f"/{name}"))


# -- Python values ------------------------------------------------------------------------------------------


def from_mapping(filters: Mapping[str, FilterValue]) -> list[Condition]:
    """A field with its value, a list of alternatives, or bounds such as ``{"gte": "2026-01-01T00:00:00Z"}``. Fields are
    those of the payload, and ``meta.NAME``. Raises QueryError."""
    return [_condition(name, value) for name, value in filters.items()]


def _condition(name: str, value: FilterValue) -> Condition:
    if isinstance(name, str) and (name.startswith(_META) or name in _FIELD_NAMES):
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        if not values or not all(isinstance(one, str | int) for one in values):
            raise QueryError(f"the filter {name!r} has the value {value!r}: give texts or whole numbers")
        return Condition("fields", any_of=tuple(_field(name, one) for one in values))
    if name not in INDEXED_FIELDS:
        raise QueryError(f"there is no filter {name!r}: filters are {', '.join(sorted(INDEXED_FIELDS))}, meta.NAME")
    if isinstance(value, Mapping):
        return _bounded(name, value)
    alternatives: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    plain = all(isinstance(one, str | int) and not isinstance(one, bool) for one in alternatives)
    if not plain or len({type(one) for one in alternatives}) > 1:
        raise QueryError(f"the filter {name!r} has the value {value!r}: give texts, whole numbers, or bounds")
    if INDEXED_FIELDS[name] == "datetime":
        raise QueryError(f"the filter {name!r} has the value {value!r}: give bounds, as in {{'gte': '2026-01-01'}}")
    return Condition(name, any_of=alternatives)


def _bounded(name: str, value: Mapping[str, float | str]) -> Condition:
    if not value or set(value) - set(_BOUNDS):
        raise QueryError(f"the filter {name!r} has the bounds {list(value)}: give some of {', '.join(_BOUNDS)}")
    if not all(_is_bound(name, bound) for bound in value.values()):
        wanted = "RFC 3339 times" if INDEXED_FIELDS[name] == "datetime" else "numbers"
        raise QueryError(f"the filter {name!r} has the bounds {dict(value)!r}: give {wanted}")
    bounds: dict[str, Any] = dict(value)
    if INDEXED_FIELDS[name] == "datetime":
        bounds = {bound: in_utc(datetime.fromisoformat(text)) for bound, text in bounds.items()}
    return Condition(name, **bounds)


def _is_bound(name: str, value: object) -> bool:
    """A number, or for times a text that the engine will read as one."""
    if INDEXED_FIELDS[name] != "datetime":
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    try:
        return isinstance(value, str) and isinstance(datetime.fromisoformat(value), datetime)
    except ValueError:
        return False


def _field(name: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{name.removeprefix(_META).lower()}={text}"


# -- text ---------------------------------------------------------------------------------------------------


def from_text(text: str, index: Values, *, now: datetime) -> list[Condition]:
    """The conditions that the text says; none for an empty one. ``index`` tells which values a pattern stands for.
    Raises QueryError with the part that cannot be read."""
    return [condition for term in _terms(text) for condition in _read(term, index, now)]


def _terms(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if term is None:
            part = text[at:].split()[0]
            raise QueryError(f"the filter {part!r} cannot be read: write field:value, as in ext:md or after:2026-01-01")
        yield term
        at = term.end()


def _read(term: re.Match[str], index: Values, now: datetime) -> Iterator[Condition]:
    name, negate = term["name"], bool(term["minus"])
    values = [_unquoted(found[0]) for found in _VALUE.finditer(term["value"])]
    if not values or not all(values):
        raise QueryError(f"the filter {term[0].strip()!r} has no value: write {name}:VALUE")
    if name.startswith(_META) or name in _FIELD_NAMES:
        yield from _matching("fields", [_field(name, value) for value in values], index, negate)
        return
    field = _NAMES.get(name)
    if field is None:
        shown = {"path", "kind", "title", "page", "created", "pages", *_FIELD_NAMES}
        known = ", ".join(sorted(set(_NAMES) - set(_NAMES.values()) | shown))
        raise QueryError(f"there is no filter {name!r}: filters are {known}, meta.NAME")
    if field == "path":
        yield from _paths(values, index, negate)
    elif INDEXED_FIELDS[field] == "keyword":
        lowered = [value.lower().lstrip(".") for value in values] if field in ("extension", "language") else values
        yield from _matching(field, lowered, index, negate)
    else:
        if len(values) > 1 and INDEXED_FIELDS[field] == "datetime":
            raise QueryError(f"the filter {term[0].strip()!r} has {len(values)} times: give one, or from..to")
        yield from _compared(name, field, values, now, negate)


def _paths(globs: list[str], index: Values, negate: bool) -> Iterator[Condition]:
    if len(globs) == 1 or negate:  # none of them: each is one more condition
        yield from (glob_condition(index, glob, negate=negate) for glob in globs)
        return
    spec = _spec("\n".join(globs))
    yield Condition("path", any_of=tuple(path for path in index.values("path") if spec.match_file(path)))


def _matching(field: str, values: list[str], index: Values, negate: bool) -> Iterator[Condition]:
    found: dict[str, None] = {}
    for value in values:
        if "*" in value or "?" in value:
            folded = value.casefold()
            found |= dict.fromkeys(one for one in index.values(field) if fnmatchcase(one.casefold(), folded))
        else:
            found[value] = None
    yield Condition(field, any_of=tuple(found), negate=negate)


def _compared(name: str, field: str, values: list[str], now: datetime, negate: bool) -> Iterator[Condition]:
    """Numbers and times: one value or more, ``from..to``, or a comparison."""
    is_time = INDEXED_FIELDS[field] == "datetime"

    def read(text: str) -> int | str:
        return _moment(name, text, now) if is_time else _number(name, text)

    first = values[0]
    bounds: dict[str, Any] = {}
    if name in ("after", "before"):
        bounds["gte" if name == "after" else "lt"] = read(first)
    elif len(values) == 1 and (comparison := _COMPARISON.fullmatch(first)):
        bounds[_COMPARISONS[comparison[1]]] = read(comparison[2])
    elif len(values) == 1 and ".." in first:
        bounds = {bound: read(text) for bound, text in zip(("gte", "lte"), first.split("..", 1), strict=True) if text}
        if not bounds:
            raise QueryError(f"the filter {name}:{first} has no bound: write {name}:FROM..TO")
    elif is_time:
        bounds = {"gte": read(first), "lte": read(first)}
    else:
        bounds["any_of"] = tuple(read(value) for value in values)
    yield Condition(field, **bounds, negate=negate)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise QueryError(f"the filter {name}:{text} needs a whole number") from None


def _moment(name: str, text: str, now: datetime) -> str:
    try:
        if age := _AGE.fullmatch(text):
            return in_utc(now - timedelta(**{_AGE_UNITS[age[2]]: int(age[1])}))
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise QueryError(
            f"the filter {name}:{text} needs a time: write 2026-01-31, 2026-01-31T12:00:00Z or 30d"
        ) from None


def _unquoted(text: str) -> str:
    return text.replace('"', "")
