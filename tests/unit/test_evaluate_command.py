"""The command ``headwater evaluate`` from its arguments to its output, with a stand-in for the service that indexes,
the model and the index: what it starts, shows, keeps and refuses."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from headwater import cli
from headwater.errors import HeadwaterError, PermanentError, QueryError, SettingsError
from headwater.evaluation import indexing, runs
from headwater.query import Hit
from headwater.settings import Settings

#: like "headwater up --once" and "headwater status", without a model: each document is one chunk, counted once
STAND_IN = """
    import json, os, pathlib, sys
    verb, arguments = sys.argv[1], sys.argv[2:]
    state = pathlib.Path(arguments[arguments.index("--state-dir") + 1])
    ledger = state / "ledger.sqlite3"
    known = json.loads(ledger.read_text()) if ledger.exists() else []
    if verb == "status":
        print(json.dumps({"embedded_texts_total": len(known), "chunks": len(known),
                          "documents": {"indexed": len(known), "refused": 0}}))
        sys.exit()
    if os.environ.get("FAIL"):
        print("noise", file=sys.stderr)
        print("headwater: " + os.environ["FAIL"], file=sys.stderr)
        sys.exit(78)
    folder = pathlib.Path(arguments[0])
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    print("a library says hello")
    print(json.dumps({"event": "degraded", "reason": "it is slow"}))
    print(json.dumps({"event": "progress", "done": len(files), "total": len(files), "chunks": len(files)}))
    (state / "index").mkdir(parents=True, exist_ok=True)
    (state / "index" / "segment").write_bytes(b"x" * 10_000)
    ledger.write_text(json.dumps(files))
"""


class WordModel:
    """A text's vector counts its letters."""

    name, parameters, dimension, window = "letters@1", 26, 26, 100

    def encode(self, texts: list[str], kind: str) -> NDArray[np.float32]:
        rows = np.array([[1 + text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class WordIndex:
    """Ranks the documents of the settings' folder by the words that they share with the question."""

    def __init__(self, folder: Path) -> None:
        self._texts = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}

    @classmethod
    def open(cls, settings: Settings) -> WordIndex:
        return cls(settings.required_folder())

    def search(self, text: str, limit: int, mode: str) -> list[Hit]:
        words = set(text.lower().split())
        found = sorted(self._texts, key=lambda path: -len(words & set(self._texts[path].lower().split())))
        return [
            Hit(1.0, self._texts[path], path, 0, len(self._texts[path]), 1, 1, None, (), 1, 0, None, "text", "")
            for path in found[:limit]
        ]

    def __enter__(self) -> WordIndex:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setattr(indexing, "_COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(runs, "Index", WordIndex)
    monkeypatch.setattr(runs, "load_embedder", lambda settings: WordModel())


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    (root / "qrels").mkdir(parents=True)
    words = ("whale ocean", "bread oven", "lava ash")
    (root / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d/{n}", "text": text}) + "\n" for n, text in enumerate(words))
    )
    (root / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": text.split()[1]}) + "\n" for n, text in enumerate(words))
    )
    (root / "qrels" / "test.tsv").write_text("".join(f"q{n}\td/{n}\t1\n" for n in range(3)))
    return root


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def rows(*arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json"))["results"]
    return found


def test_each_combination_is_measured_and_modes_share_an_index(beir: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    found = rows(
        beir, "--mode", "dense", "--mode", "sparse", "--chunk-tokens", 100, "--chunk-tokens", 200, "--work", work
    )
    got = [(row["configuration"]["chunk_tokens"], row["configuration"]["mode"]) for row in found]
    assert got == [(100, "dense"), (100, "sparse"), (200, "dense"), (200, "sparse")]
    assert len(list(work.glob("index-*"))) == 2
    for row in found:
        assert row["measures"]["ndcg@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
        assert row["model"] == {"name": "letters@1", "parameters": 26, "dimension": 26, "window": 100}
        assert (row["index"]["texts_embedded"], row["index"]["chunks"], row["asked"]) == (3, 3, 3)
        assert row["index"]["index_bytes"] >= 10_000
        assert [question["id"] for question in row["questions"]] == ["q0", "q1", "q2"]


def test_a_work_directory_keeps_the_index_and_what_it_took(beir: Path, tmp_path: Path) -> None:
    first, again = (rows(beir, "--work", tmp_path / "work")[0] for _ in range(2))
    assert (first["index"]["index_reused"], again["index"]["index_reused"]) == (False, True)
    assert first["texts_per_s"] == again["texts_per_s"] > 0


def test_without_a_work_directory_nothing_is_left(beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert rows(beir, "--queries", 2)[0]["asked"] == 2
    assert list(scratch.iterdir()) == []


def test_questions_and_pairs_are_measured_in_one_go(tmp_path: Path) -> None:
    # Given questions about a folder, and pairs
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.md").write_text("the whale\nswims\n")
    (notes / "b.md").write_text("the oven\n")
    (tmp_path / "asked.tsv").write_text("whale swims\ta.md#L2\noven\tb.md\n")
    (tmp_path / "pairs.tsv").write_text("5\taaa\taaa\n3\taaa\taab\n0\taaa\tzzz\n")
    # When they are measured in two modes
    modes = ("--mode", "dense", "--mode", "sparse")
    found = rows(tmp_path / "asked.tsv", tmp_path / "pairs.tsv", "--folder", notes, *modes)
    # Then the questions have two rows and the pairs, which no mode changes, one
    assert [row["kind"] for row in found] == ["questions", "questions", "pairs"]
    assert found[0]["measures"]["answer@1"]["mean"] == found[0]["measures"]["mrr@10"]["mean"] == 1.0
    assert found[2]["measures"] == {"spearman": {"mean": pytest.approx(100)}}


def test_people_see_a_table_for_each_set_and_equal_names_are_told_apart(beir: Path) -> None:
    shown = run(beir, beir)
    assert "tiny: 3 questions" in shown and "tiny (2): 3 questions" in shown
    assert "letters hybrid" in shown


def test_quality_against_speed_is_drawn(beir: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(beir, "--plot", tmp_path / "plot.svg")
    assert "letters hybrid" in (tmp_path / "plot.svg").read_text()


def test_what_stops_the_indexing_is_told_in_its_words(beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "the file system is read-only: name another")
    with pytest.raises(PermanentError, match="failed: the file system is read-only: name another"):
        run(beir)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["nowhere.tsv"], QueryError, "there is no data set nowhere.tsv"),
        (["asked.tsv"], QueryError, "name it with --folder"),
        (["asked.tsv", "--folder", "none"], QueryError, "the folder none of --folder does not exist"),
        (["asked.tsv", "--folder", "tiny"], QueryError, "asked.tsv line 1: there is no file 'none.md' in tiny"),
        (["tiny", "--mode", "fast"], SettingsError, "the mode is 'fast'"),
        (["tiny", "--precision", "int3"], SettingsError, "HEADWATER_PRECISION"),
        (["tiny", "--queries", "0"], SettingsError, "--queries is 0"),
        (["tiny", "--work", "asked.tsv"], SettingsError, "the directory asked.tsv of --work cannot be made"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(
    beir: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kind: type[HeadwaterError], sentence: str
) -> None:
    (beir.parent / "asked.tsv").write_text("where?\tnone.md\n")
    monkeypatch.chdir(beir.parent)
    with pytest.raises(kind) as caught:
        run(*arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
