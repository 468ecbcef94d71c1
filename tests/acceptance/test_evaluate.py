"""headwater evaluate: figures of a small set through the real command, and one sentence for each mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater, pids_with

DOCUMENTS = {
    "animals/whale": ("Whales", "The blue whale is the largest animal that has ever lived in the ocean."),
    "bread": ("Bread", "Knead flour, water, salt and yeast; let the dough rise, then bake the loaf in a hot oven."),
    "volcano": ("Volcanoes", "Molten rock rises through the crust and erupts from the crater as lava and ash."),
    "chess": ("Chess", "A game for two players who move a king, a queen, rooks, bishops, knights and pawns."),
    "bicycle": ("Bicycles", "Pedals turn a chain, which drives the back wheel; brakes on the rims slow it down."),
}
QUERIES = {
    "q1": ("Which is the biggest creature of the sea?", "animals/whale"),
    "q2": ("How do I make a loaf at home?", "bread"),
    "q3": ("What comes out of a mountain that spits fire?", "volcano"),
    "q4": ("What is the board game with kings and pawns?", "chess"),
    "q5": ("How does a two-wheeled vehicle move forward?", "bicycle"),
}


@pytest.fixture
def headwater(headwater: Headwater) -> Headwater:
    """With the default model."""
    headwater.environment.clear()
    return headwater


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()]
    (root / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in corpus))
    queries = [{"_id": name, "text": text} for name, (text, _) in QUERIES.items()]
    (root / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    judged = "".join(f"{name}\t{document}\t1\n" for name, (_, document) in QUERIES.items())
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return root


@pytest.fixture
def notes(headwater: Headwater) -> Path:
    """A person's own folder, with lines."""
    for name, (title, text) in DOCUMENTS.items():
        file = headwater.folder / f"{name}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {title}\n\n{text}\n")
    return headwater.folder


def evaluate(run: Headwater, *arguments: object) -> list[dict[str, Any]]:
    done = run.run("evaluate", *map(str, arguments), "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return found


def test_a_set_in_beirs_layout_is_measured_in_every_mode(headwater: Headwater, beir: Path, tmp_path: Path) -> None:
    # Given a person with a service of their own, and a directory that keeps indexes
    work = tmp_path / "work"
    # When three modes are measured
    found = evaluate(headwater, beir, "--mode", "dense", "--mode", "sparse", "--mode", "hybrid", "--work", work)
    # Then each has its row, from one index
    assert [row["configuration"]["mode"] for row in found] == ["dense", "sparse", "hybrid"]
    assert len(list(work.glob("index-*"))) == 1
    dense = found[0]
    assert (dense["dataset"], dense["kind"], dense["asked"], dense["refused"]) == ("tiny", "documents", 5, 0)
    assert dense["measures"]["ndcg@10"]["mean"] > 0.9
    assert dense["measures"]["recall@10"]["mean"] == dense["measures"]["recall@100"]["mean"] == 1.0
    for row in found:
        for measure in row["measures"].values():
            assert 0 <= measure["low"] <= measure["mean"] <= measure["high"] <= 1
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["index"]["documents"] == {"indexed": 5, "partial": 0, "refused": 0, "failed": 0, "waiting": 0}
        assert (row["index"]["texts_embedded"], row["index"]["chunks"]) == (5, 5)
        assert row["texts_per_s"] > 0 and row["index"]["index_bytes"] > 0
        assert (row["model"]["dimension"], row["model"]["window"]) == (384, 254)
        assert 22_000_000 < row["model"]["parameters"] < 23_000_000
    # And the person's own state is as it was, and no process is left
    assert not headwater.state.exists()
    assert pids_with(str(work)) == {}
    # When a person measures it again, then nothing is embedded, and a table has the figures
    shown = headwater.run("evaluate", str(beir), "--mode", "dense", "--work", str(work)).stdout
    assert "tiny: 5 questions" in shown
    assert all(title in shown for title in ("nDCG@10", "Recall@10", "MRR@10", "p50 ms", "texts/s", "index MB"))
    assert f"{dense['measures']['ndcg@10']['mean']:.3f}" in shown
    assert f"{dense['texts_per_s']:.1f}" in shown  # of the run that embedded


def test_questions_about_a_folder_and_scored_pairs_are_measured(
    headwater: Headwater, notes: Path, tmp_path: Path
) -> None:
    # Given a person's questions, some with lines, and pairs whose order is plain
    asked = tmp_path / "asked.tsv"
    asked.write_text(
        "# what I ask most\n\n"
        + "".join(f"{text}\t{name}.md#L3\n" for text, name in list(QUERIES.values())[:3])
        + f"{QUERIES['q4'][0]}\tchess.md\n"
    )
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(
        "5\tA cat sleeps.\tA cat is sleeping.\n3\tA cat sleeps.\tA kitten naps on a bed.\n"
        "0\tA cat sleeps.\tInterest rates were raised on Monday.\n"
    )
    before = sorted(path.name for path in notes.rglob("*"))
    # When both are measured
    questions, scored = evaluate(headwater, asked, pairs, "--folder", notes, "--mode", "dense")
    # Then documents and lines are found, and the pairs are in order
    assert (questions["kind"], questions["asked"]) == ("questions", 4)
    assert questions["measures"]["mrr@10"]["mean"] > 0.9
    assert questions["measures"]["answer@5"]["mean"] == 1.0
    assert questions["measures"]["span_recall@5"]["mean"] > 0.9
    assert (scored["kind"], scored["asked"], scored["index"]) == ("pairs", 3, None)
    assert scored["measures"] == {"spearman": {"mean": pytest.approx(100)}}
    # And the folder is as it was
    assert sorted(path.name for path in notes.rglob("*")) == before


def corrupt(file: str, text: str | None) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / file).unlink() if text is None else (root / file).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (corrupt("queries.jsonl", None), "queries.jsonl cannot be read (No such file or directory)"),
        (corrupt("queries.jsonl", '{"_id": "q1", "text": "a"}\n{"_id"\n'), "queries.jsonl line 2: it is not JSON"),
        (corrupt("qrels/test.tsv", "q1\tnone\t1\n"), "test.tsv line 1: there is no document 'none' in corpus.jsonl"),
        (corrupt("qrels/test.tsv", "q1\tbread\t0\n"), "test.tsv judges no document relevant: give grades above 0"),
        (corrupt("corpus.jsonl", None), "is no data set: it needs corpus.jsonl, queries.jsonl and qrels/test.tsv"),
    ],
    ids=["missing file", "broken JSON", "unknown document", "no judged query", "no data set"],
)
def test_a_mistake_in_a_set_is_one_sentence(
    headwater: Headwater, beir: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(beir)
    assert sentence in refused(headwater, beir)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.tsv"], "there is no data set nowhere.tsv: give a directory or a file that exists"),
        (["asked.tsv"], "asked.tsv holds questions about the files of a folder: name it with --folder"),
        (["asked.tsv", "--folder", "folder"], "asked.tsv line 1: there is no file 'none.md' in folder: give its path"),
        (["asked.tsv", "--folder", "none"], "the folder none of --folder does not exist"),
        (["tiny", "--mode", "fast"], "the mode is 'fast': give one of hybrid, dense, sparse"),
        (["tiny", "--precision", "int3"], "HEADWATER_PRECISION"),
        (["tiny", "--chunk-tokens", "1"], "HEADWATER_CHUNK_TOKENS"),
        (["tiny", "--queries", "0"], "--queries is 0: give a whole number from 1 on"),
        (["tiny", "--work", "asked.tsv"], "the directory asked.tsv of --work cannot be made (File exists)"),
        (["tiny", "--model", "no-such-model-anywhere"], "the model 'no-such-model-anywhere' cannot be loaded"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(
    headwater: Headwater, beir: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    (beir.parent / "asked.tsv").write_text("where?\tnone.md\n")
    monkeypatch.chdir(beir.parent)
    assert sentence in refused(headwater, *arguments)


def refused(run: Headwater, *arguments: object) -> str:
    """What the command says: one line, with an exit status that is not 0."""
    run.environment["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "1")
    done = run.run("evaluate", *map(str, arguments), check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("headwater: ")
    return done.stderr
