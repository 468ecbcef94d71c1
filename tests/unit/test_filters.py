"""The text syntax of filters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import QueryError
from headwater.filters import from_text
from headwater.index import Condition

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Known:
    """Stands for an index with a few values."""

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        return {
            "path": ["a.md", "guide/b.md", "guide/c.txt"],
            "directories": ["guide", "more", "more/guide", "myguide"],
            "headings": ["Install", "Installing more", "Use"],
            "title": ["The Book"],
            "fields": ["author=Alice", "author=Bob", "tags=x"],
        }.get(field, [])


def read(text: str) -> list[Condition]:
    return from_text(text, Known(), now=NOW)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        ("  ", []),
        ("ext:md", [Condition("extension", any_of=("md",))]),
        ("ext:.MD,rst", [Condition("extension", any_of=("md", "rst"))]),
        ("-lang:de", [Condition("language", any_of=("de",), negate=True)]),
        ("kind:pdf page:3", [Condition("kind", any_of=("pdf",)), Condition("page", any_of=(3,))]),
        ("page:3,5", [Condition("page", any_of=(3, 5))]),
        ("page:3..7", [Condition("page", gte=3, lte=7)]),
        ("page:..7", [Condition("page", lte=7)]),
        ("page:>=3", [Condition("page", gte=3)]),
        ("-page:<3", [Condition("page", lt=3, negate=True)]),
        ("path:guide/", [Condition("directories", any_of=("guide", "more/guide"))]),
        ("path:/guide/", [Condition("directories", any_of=("guide",))]),
        ("-path:guide/**", [Condition("directories", any_of=("guide",), negate=True)]),
        ("path:guide/*", [Condition("path", any_of=("guide/b.md", "guide/c.txt"))]),
        ("path:*.md,*.txt", [Condition("path", any_of=("a.md", "guide/b.md", "guide/c.txt"))]),
        ("-path:none*", [Condition("path", any_of=(), negate=True)]),
        ("dir:guide", [Condition("directories", any_of=("guide",))]),
        ('title:"The Book"', [Condition("title", any_of=("The Book",))]),
        ('title:"a, b",c', [Condition("title", any_of=("a, b", "c"))]),
        ("heading:install*", [Condition("headings", any_of=("Install", "Installing more"))]),
        ("meta.author:Alice", [Condition("fields", any_of=("author=Alice",))]),
        ("meta.Author:*", [Condition("fields", any_of=("author=Alice", "author=Bob"))]),
        ("after:2026-01-31", [Condition("modified_at", gte="2026-01-31T00:00:00.000000Z")]),
        ("before:2026-01-31T12:00:00+01:00", [Condition("modified_at", lt="2026-01-31T11:00:00.000000Z")]),
        ("after:2d", [Condition("modified_at", gte="2026-02-27T12:00:00.000000Z")]),
        (
            "modified:2026-01-01..2026-02-01",
            [Condition("modified_at", gte="2026-01-01T00:00:00.000000Z", lte="2026-02-01T00:00:00.000000Z")],
        ),
    ],
)
def test_a_text_says_conditions(text: str, conditions: list[Condition]) -> None:
    assert read(text) == conditions


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour:red", "colour"), ("md", "'md'"), ("ext:", "ext"), ('title:"open', "title"),
        ("page:three", "page:three"),
        ("page:..", "FROM..TO"), ("after:soon", "after:soon"), ("after:2026-13-01", "after:2026-13-01"),
        ("after:2026-01-01,2026-02-01", "2 times"), ("path:!", "glob"), ("ext:md AND lang:de", "'AND'"), (":x", "':x'"),
        ("meta.:x", "meta"), ("page:1.5", "whole number"), ("ext:md,", None), ("before:999999w", "before:999999w"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text: str, named: str | None) -> None:
    if named is None:
        assert read(text)
        return
    with pytest.raises(QueryError) as caught:
        read(text)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        found: Any = read(text)
    except QueryError:
        return
    assert all(isinstance(condition, Condition) for condition in found)
