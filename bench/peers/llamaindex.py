"""LlamaIndex: IngestionPipeline with a docstore (UPSERTS_AND_DELETE), its cache and its embeddings' cache persisted.

The way of its guide "Ingestion Pipeline + Document Management": the reader's default for Markdown (a document per
section), path as id, a vector store attached. The cache of embeddings is a field of its embedding classes that the
guide does not use; with it an edit need not embed a whole file. It has no watch mode.
"""

from __future__ import annotations

import json
from pathlib import Path

from llama_index.core import SimpleDirectoryReader
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from bench.peers.protocol import HITS, main, model_path

_COLLECTION = "documents"
_CHUNK_TOKENS = 200


class LlamaIndex:
    """All state below one directory: the pipeline's, the vectors of texts, and the vector store."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder, self._kept, self._vectors = folder, state / "pipeline", state / "vectors.json"
        known = SimpleKVStore.from_persist_path(str(self._vectors)) if self._vectors.exists() else SimpleKVStore()
        self._known = known
        self._embedding = HuggingFaceEmbedding(model_path(), device="cpu")
        self._embedding.embeddings_cache = known
        self._client = QdrantClient(path=str(state / "qdrant"))
        self._store = QdrantVectorStore(_COLLECTION, client=self._client)

    def sync(self) -> None:
        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(chunk_size=_CHUNK_TOKENS, chunk_overlap=0), self._embedding],
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            vector_store=self._store,
        )
        if self._kept.exists():
            pipeline.load(str(self._kept))
        reader = SimpleDirectoryReader(
            str(self._folder), filename_as_id=True, recursive=True, required_exts=[".md"], exclude_hidden=False
        )
        pipeline.run(documents=reader.load_data())
        pipeline.persist(str(self._kept))
        self._known.persist(str(self._vectors))

    def search(self, text: str) -> list[str]:
        vector = self._embedding.get_query_embedding(text)
        found = self._store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=HITS))
        return [node.get_content() for node in found.nodes or []]

    def chunks(self) -> list[tuple[str, str]]:
        points, _ = self._client.scroll(_COLLECTION, limit=1_000_000)
        payloads = [dict(point.payload or {}) for point in points]
        return [
            (str(Path(payload["file_path"]).relative_to(self._folder)), json.loads(payload["_node_content"])["text"])
            for payload in payloads
        ]

    def close(self) -> None:
        self._client.close()


if __name__ == "__main__":
    main(LlamaIndex)
