"""LangChain: ``index()`` with SQLRecordManager and cleanup="full", and CacheBackedEmbeddings.

"full" is the mode that its documentation gives for a whole folder: the only one that removes deleted files. The cache
of embeddings is its documented way not to embed the same text twice. It has no watch mode.
"""

from __future__ import annotations

from pathlib import Path

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.indexes import SQLRecordManager
from langchain_classic.storage import LocalFileStore
from langchain_community.document_loaders import DirectoryLoader, TextLoader
from langchain_core.indexing import index
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_qdrant import QdrantVectorStore
from langchain_text_splitters import Language, RecursiveCharacterTextSplitter
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from bench.peers.protocol import CHUNK_CHARACTERS, HITS, main, model_path

_COLLECTION = "documents"


class LangChain:
    """All state below one directory: records, cached vectors, and the vector store."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._client = QdrantClient(path=str(state / "qdrant"))
        if not self._client.collection_exists(_COLLECTION):
            self._client.create_collection(_COLLECTION, VectorParams(size=384, distance=Distance.COSINE))
        embeddings = CacheBackedEmbeddings.from_bytes_store(
            HuggingFaceEmbeddings(model_name=model_path(), model_kwargs={"device": "cpu"}),
            LocalFileStore(state / "vectors"),
            namespace="all-MiniLM-L6-v2",
            key_encoder="sha256",
        )
        self._store = QdrantVectorStore(self._client, _COLLECTION, embedding=embeddings)
        self._records = SQLRecordManager("qdrant/documents", db_url=f"sqlite:///{state / 'records.sqlite'}")
        self._records.create_schema()
        self._splitter = RecursiveCharacterTextSplitter.from_language(
            Language.MARKDOWN, chunk_size=CHUNK_CHARACTERS, chunk_overlap=0
        )

    def sync(self) -> None:
        loader = DirectoryLoader(
            str(self._folder), glob="**/*.md", loader_cls=TextLoader, loader_kwargs={"encoding": "utf-8"}
        )
        chunks = self._splitter.split_documents(loader.load())
        index(chunks, self._records, self._store, cleanup="full", source_id_key="source")

    def search(self, text: str) -> list[str]:
        return [document.page_content for document in self._store.similarity_search(text, k=HITS)]

    def chunks(self) -> list[tuple[str, str]]:
        points, _ = self._client.scroll(_COLLECTION, limit=1_000_000)
        payloads = [dict(point.payload or {}) for point in points]
        return [
            (str(Path(payload["metadata"]["source"]).relative_to(self._folder)), payload["page_content"])
            for payload in payloads
        ]

    def close(self) -> None:
        self._client.close()


if __name__ == "__main__":
    main(LangChain)
