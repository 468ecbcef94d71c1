"""Headwater as a retriever of LlamaIndex.

from headwater.integrations.llamaindex import HeadwaterRetriever

retriever = HeadwaterRetriever(folder="~/notes", limit=5, where="ext:md")
nodes = retriever.retrieve("how do I rotate the keys")
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headwater.filters import FilterValue
from headwater.hit import Hit
from headwater.index import Mode
from headwater.integrations.passages import metadata, opened, passage_id
from headwater.query import Index
from headwater.question import check_limit

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
except ImportError as error:
    raise ImportError(
        f"the retriever for LlamaIndex needs llama-index-core ({error}): pip install 'headwater[llamaindex]'"
    ) from error

__all__ = ["HeadwaterRetriever"]

#: what a language model is told of a passage; the rest of the metadata is for programs
_TOLD = frozenset({"path", "page", "headings", "title"})


class HeadwaterRetriever(BaseRetriever):
    """Retrieves chunks from the live index of a folder, best first.

    A node's text is the chunk's text, its id the path and the chunk's number, its source the path, its offsets are
    characters of the document's text, and its metadata the fields of a ``headwater.Hit`` that tell where it stands and
    how fresh it is. Errors are Headwater's own: QueryError for a question that cannot be asked, and those of
    ``Index.open`` when this is made.
    """

    def __init__(
        self,
        index: Index | None = None,
        *,
        folder: str | Path | None = None,
        state_dir: str | Path | None = None,
        limit: int = 10,
        mode: Mode = "hybrid",
        where: str | None = None,
        filters: Mapping[str, FilterValue] | None = None,
        score_threshold: float | None = None,
        group_by: Literal["document"] | None = None,
        diversity: float | None = None,
        rerank: bool | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        """``index``: one that is open; without one, that of ``folder`` or ``state_dir`` is opened, until ``close``.
        The other parameters are those of ``Index.search``."""
        check_limit(limit)
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._asked: dict[str, Any] = {
            "limit": limit,
            "mode": mode,
            "where": where,
            "filters": filters,
            "score_threshold": score_threshold,
            "group_by": group_by,
            "diversity": diversity,
            "rerank": rerank,
        }
        self._is_own = index is None
        self._index = opened(folder, state_dir) if index is None else index

    def close(self) -> None:
        """Close the index if it was opened here."""
        if self._is_own:
            self._index.close()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in self._index.search(query_bundle.query_str, **self._asked)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # not by AsyncIndex: a retriever may be asked from several event loops, one after the other
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> NodeWithScore:
    fields = metadata(hit)
    not_told = [name for name, value in fields.items() if name not in _TOLD or value is None]
    node = TextNode(
        id_=passage_id(hit),
        text=hit.text,
        metadata=fields,
        excluded_llm_metadata_keys=not_told,
        excluded_embed_metadata_keys=not_told,
        start_char_idx=hit.start,
        end_char_idx=hit.end,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.path)},
    )
    return NodeWithScore(node=node, score=hit.score)
