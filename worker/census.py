"""The worker's side of a census: how many points carry each seq, in pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headwater.messages import Census

__all__ = ["census_pages"]

#: seqs in one event
_PAGE = 2000


def census_pages(census: str, index_id: str, counts: Mapping[int, int]) -> Iterator[Census]:
    """The events that carry a census; one empty page for an empty index."""
    pairs = sorted(counts.items())
    pages = max(1, -(-len(pairs) // _PAGE))
    for page in range(pages):
        yield Census(census, index_id, page, pages, tuple(pairs[page * _PAGE : (page + 1) * _PAGE]))
