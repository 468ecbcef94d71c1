"""Headwater as a retriever of LangChain.

from headwater.integrations.langchain import HeadwaterRetriever

retriever = HeadwaterRetriever(folder="~/notes", limit=5, where="ext:md")
documents = retriever.invoke("how do I rotate the keys")
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, model_validator

from headwater.filters import FilterValue
from headwater.hit import Hit
from headwater.index import Mode
from headwater.integrations.passages import metadata, opened, passage_id
from headwater.query import Index

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise ImportError(
        f"the retriever for LangChain needs langchain-core ({error}): pip install 'headwater[langchain]'"
    ) from error

__all__ = ["HeadwaterRetriever"]

_ASKED = ("limit", "mode", "where", "filters", "score_threshold", "group_by", "diversity", "rerank")


class HeadwaterRetriever(BaseRetriever):
    """Retrieves chunks from the live index of a folder, best first.

    A document's ``page_content`` is the chunk's text, its ``id`` the path and the chunk's number, its metadata the
    fields of a ``headwater.Hit`` that tell where it stands and how fresh it is. Errors are Headwater's own: QueryError
    for a question that cannot be asked, and those of ``Index.open`` when this is made.
    """

    # a field that does not exist would be ignored silently otherwise
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    #: an index that is open; without one, that of ``folder`` or ``state_dir`` is opened, until ``close``
    index: Index | None = None
    folder: Path | None = None
    state_dir: Path | None = None
    #: most documents, 1 to 1000; ``k`` is taken for it, too
    limit: int = Field(default=10, ge=1, le=1000, validation_alias=AliasChoices("limit", "k"))
    #: these as for ``Index.search``
    mode: Mode = "hybrid"
    where: str | None = None
    filters: Mapping[str, FilterValue] | None = None
    score_threshold: float | None = None
    group_by: Literal["document"] | None = None
    diversity: float | None = None
    rerank: bool | None = None

    _is_own: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _open(self) -> Self:
        if self.index is None:
            self.index = opened(self.folder, self.state_dir)
            self._is_own = True
        return self

    def close(self) -> None:
        """Close the index if it was opened here."""
        if self._is_own and self.index is not None:
            self.index.close()

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self._found(query)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        # not by AsyncIndex: a retriever may be asked from several event loops, one after the other
        return await asyncio.to_thread(self._found, query)

    def _found(self, query: str) -> list[Document]:
        assert self.index is not None
        asked: dict[str, Any] = {name: getattr(self, name) for name in _ASKED}
        return [_document(hit) for hit in self.index.search(query, **asked)]


def _document(hit: Hit) -> Document:
    return Document(id=passage_id(hit), page_content=hit.text, metadata=metadata(hit))
