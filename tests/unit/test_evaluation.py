"""How configurations are made, kept apart from a person's own service, asked, and shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from headwater.errors import PermanentError, QueryError, RetryableError, SettingsError
from headwater.evaluation import indexing
from headwater.evaluation.configuration import Configuration, configurations
from headwater.evaluation.datasets import QuestionSet
from headwater.evaluation.indexing import Built, private_settings
from headwater.evaluation.measures import Interval, Span
from headwater.evaluation.plot import check_plot
from headwater.evaluation.question import Question
from headwater.evaluation.report import labels, print_results, shown_number
from headwater.evaluation.runs import ModelFacts, Result, ask
from headwater.index import Mode
from headwater.query import Hit
from headwater.settings import Settings

# -- configurations -------------------------------------------------------------------------------------------


def test_every_combination_is_made_and_modes_share_an_index() -> None:
    options = {"model": ["m", "n"], "chunk_tokens": [100, 200], "truncate_dim": (), "precision": ["fp32"]}
    made = configurations(options, ["dense", "sparse"])
    assert len(made) == 8
    assert len({each.same_index() for each in made}) == 4
    assert len({each.same_vectors() for each in made}) == 2
    assert [each.same_index() for each in made[0::2]] == [each.same_index() for each in made[1::2]]
    assert made[0].to_dict() == {
        "model": "m", "truncate_dim": None, "precision": "fp32", "chunk_tokens": 100, "mode": "dense",
        "fusion": "dbsf", "rank_constant": 60, "dense_weight": 1.0, "sparse_weight": 1.0,
        "heading_context": False, "quantization": "none",
    }  # fmt: skip


def test_ways_to_search_share_an_index_and_its_vectors() -> None:
    made = configurations({"fusion": ["rrf"], "rank_constant": [2, 60], "dense_weight": [1.0, 3.0]}, ["hybrid"])
    assert len(made) == 4
    assert {each.same_index() for each in made} == {()} == {each.same_vectors() for each in made}
    assert made[1].of_search() == {"fusion": "rrf", "rank_constant": 2, "dense_weight": 3.0}
    assert made[1].settings().dense_weight == 3.0


def test_without_options_there_is_one_configuration_the_one_in_force() -> None:
    assert configurations({}, ["hybrid"]) == (Configuration((), "hybrid"),)


def test_what_is_given_twice_counts_once() -> None:
    assert len(configurations({"model": ["m", "m"]}, ["dense", "dense"])) == 1


@pytest.mark.parametrize(
    ("options", "mode", "sentence"),
    [
        ({}, "fast", "the mode is 'fast': give one of hybrid, dense, sparse"),
        ({"precision": ["int3"]}, "dense", "HEADWATER_PRECISION"),
        ({"chunk_tokens": [1]}, "dense", "HEADWATER_CHUNK_TOKENS"),
        ({"port": [80]}, "dense", "port cannot be compared: model, truncate_dim, precision, "),
    ],
)
def test_a_value_that_is_not_allowed_is_told_before_anything_runs(
    options: dict[str, list[object]], mode: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        configurations(options, [mode])
    assert sentence in str(caught.value)


def test_the_path_of_a_model_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    made = configurations({"model": ["mine", "all-MiniLM-L6-v2"]}, ["dense"])
    assert [each.settings().model for each in made] == [str(tmp_path.resolve() / "mine"), "all-MiniLM-L6-v2"]


# -- apart from a person's own service ------------------------------------------------------------------------


def test_an_evaluation_touches_no_server_port_or_state_of_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a person's environment with a service of their own
    for name, value in {
        "QDRANT_URL": "http://qdrant:6333", "QDRANT_API_KEY": "k", "CELERY_BROKER_URL": "redis://r",
        "HEADWATER_STATE_DIR": str(tmp_path / "mine"), "HEADWATER_PORT": "8000", "HEADWATER_INCLUDE": "*.md",
        "HEADWATER_DOCUMENT_PROMPT": "passage: ", "HEADWATER_FOLDER": str(tmp_path / "other"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    # When the settings of an evaluation are made and handed over
    settings = private_settings(Configuration((("precision", "fp32"),)), tmp_path, ours=True)
    settings = settings.model_copy(update={"state_dir": tmp_path / "scratch"})
    environment = indexing._environment(settings, tmp_path)
    # Then nothing of the service is among them, and what vectors depend on is
    assert not {"QDRANT_URL", "QDRANT_API_KEY", "CELERY_BROKER_URL"} & set(environment)
    assert environment["HEADWATER_STATE_DIR"] == str(tmp_path / "scratch")
    assert environment["HEADWATER_FOLDER"] == str(tmp_path.resolve())
    assert (environment["HEADWATER_PORT"], environment["HEADWATER_HEARTBEAT_S"]) == ("0", "0.0")
    assert environment["HEADWATER_DOCUMENT_PROMPT"] == "passage: "
    assert environment["HEADWATER_PRECISION"] == "fp32"
    assert environment["XDG_STATE_HOME"].startswith(str(tmp_path))
    # And the child reads the same settings from it as we hold
    for name in ("QDRANT_URL", "QDRANT_API_KEY", "CELERY_BROKER_URL"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_globs_apply_to_a_persons_own_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_INCLUDE", "*.md")
    assert private_settings(Configuration(), tmp_path, ours=True).include == ()
    assert private_settings(Configuration(), tmp_path, ours=False).include == ("*.md",)


def test_every_setting_gives_an_index_of_its_own(tmp_path: Path) -> None:
    keys = {
        indexing._key(private_settings(Configuration(values), tmp_path, ours=True))
        for values in ((), (("chunk_tokens", 99),), (("precision", "fp32"),), (("model", "m"),))
    }
    assert len(keys) == 4
    assert indexing._key(private_settings(Configuration(), tmp_path, ours=True)) in keys


@pytest.mark.parametrize(
    ("status", "kind", "output", "sentence"),
    [
        (78, PermanentError, "noise\nheadwater: the model is odd\n", "the model is odd"),
        (75, RetryableError, "headwater: the disk is busy\n\n", "the disk is busy"),
        (-9, PermanentError, "", "'headwater up' ended with status -9"),
    ],
)
def test_what_stops_the_command_is_told_in_its_own_words(
    status: int, kind: type[Exception], output: str, sentence: str
) -> None:
    error = indexing._failure(status, output)
    assert isinstance(error, kind)
    assert str(error) == f"indexing for the evaluation failed: {sentence}"


def test_an_index_that_was_there_shows_what_it_took_when_it_was_made(tmp_path: Path) -> None:
    note = tmp_path / "built.json"
    made = indexing._remembered(built(seconds=20.0, texts=100), note)
    assert (made.texts_per_s, made.reused) == (5.0, False)
    again = indexing._remembered(built(seconds=2.0, texts=0), note)
    assert (again.texts_per_s, again.seconds, again.reused) == (5.0, 20.0, True)
    assert indexing._remembered(built(seconds=2.0, texts=0), tmp_path / "none.json").texts_per_s is None


def built(seconds: float = 2.0, texts: int = 10, refused: int = 0) -> Built:
    documents = {"indexed": 5, "partial": 0, "refused": refused, "failed": 0, "waiting": 0}
    return Built(Settings.load(), seconds, texts, 12, documents, 3_500_000)


# -- asking ---------------------------------------------------------------------------------------------------


class Silent:
    """Shows nothing; counts the steps."""

    def __init__(self) -> None:
        self.done = 0

    def stage(self, name: str, total: int | None = None) -> None: ...

    def update(self, done: int, total: int) -> None:
        self.done = done

    def note(self, text: str) -> None: ...


class Shelf:
    """Finds the same chunks for any question, but refuses a long one."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        self.limits: list[int] = []

    def search(self, text: str, limit: int, mode: Mode) -> list[Hit]:
        if len(text) > 20:
            raise QueryError("the text has too many tokens")
        self.limits.append(limit)
        return list(self._hits[:limit])


def hit(path: str, start: int, line: int | None = 1) -> Hit:
    return Hit(1.0, "text", path, start, start + 4, line, line, None, (), 1, 0, None, "text", "2026-01-01T00:00:00Z")


def test_documents_rank_by_their_best_chunk_and_spans_are_the_first_chunks() -> None:
    shelf = Shelf([hit("b", 0), hit("a", 0), hit("b", 8), *(hit(f"x{n}", n) for n in range(200))])
    questions = (Question("1", "q", {"a": 1}), Question("2", "q", {"a": 1}, own="b"))
    stage = Silent()
    plain, own = ask(shelf, QuestionSet("s", "documents", questions), "dense", stage)
    assert plain.ranking[:3] == ("b", "a", "x0")
    assert len(plain.ranking) == 100
    assert plain.spans[:3] == (Span("b", 0, 4), Span("a", 0, 4), Span("b", 8, 12))
    assert len(plain.spans) == 10
    assert plain.latency_ms is not None
    assert own.ranking[:2] == ("a", "x0")
    assert stage.done == 2


def test_a_set_of_spans_is_asked_plain_searches_only() -> None:
    shelf = Shelf([hit("a", 0)])
    question = Question("1", "q", {"a": 1}, (Span("a", 0, 2),))
    ask(shelf, QuestionSet("s", "spans", (question,)), "dense", Silent())
    assert shelf.limits == [10, 10]  # the first warms up
    ask(shelf, QuestionSet("s", "questions", (question,)), "dense", Silent())
    assert shelf.limits[2:] == [10, 10, 1000]


def test_a_question_that_is_too_long_is_told_apart_and_the_others_are_asked() -> None:
    questions = (Question("1", "q" * 30, {"a": 1}), Question("2", "q", {"a": 1}))
    long, short = ask(Shelf([hit("a", 0)]), QuestionSet("s", "documents", questions), "dense", Silent())
    assert (long.refused, long.ranking, long.latency_ms) == (True, (), None)
    assert (short.refused, short.ranking) == (False, ("a",))


def test_lines_of_a_format_without_lines_cannot_be_judged() -> None:
    question = Question("1", "q", {"a": 1}, (Span("a", 0, 2),))
    with pytest.raises(QueryError, match="a has no lines in the index, so the question 'q' cannot name any"):
        ask(Shelf([hit("a", 0, line=None)]), QuestionSet("s", "questions", (question,)), "dense", Silent())


# -- showing --------------------------------------------------------------------------------------------------

FIGURES: dict[str, Interval | float] = {"ndcg@10": Interval(0.7, 0.6, 0.8), "recall@10": Interval(0.9, 0.8, 1.0)}


def result(
    mode: Mode = "dense",
    values: tuple[tuple[str, object], ...] = (),
    name: str = "mini@abc",
    measures: dict[str, Interval | float] = FIGURES,
    index: Built | None = None,
    **more: int,
) -> Result:
    return Result(
        "tiny", "documents", 5, Configuration(values, mode), ModelFacts(name, 22_713_216, 384, 254), measures, 5.0,
        index or built(), 1.25, 2.5, **more,
    )  # fmt: skip


def shown(results: Sequence[Result]) -> str:
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as captured:
        print_results(results, console)
    return captured.get()


def test_the_table_has_a_row_per_configuration_and_the_interval_of_the_main_measure() -> None:
    text = shown([result("dense"), result("sparse")])
    assert "tiny: 5 questions" in text
    assert "0.700 (0.600-0.800)" in text and "0.900 (" not in text
    row = next(line for line in text.splitlines() if "mini sparse" in line)
    for figure in ("0.900", "1.2", "2.5", "5.0", "22.7 M", "384", "254", "3.5"):
        assert figure in row
    assert "answer in top" not in text  # there is no such judgement


def test_what_is_not_as_it_should_be_is_said_below_the_table() -> None:
    text = shown([result(index=built(refused=2), refused=1)])
    assert "mini dense: 1 questions are longer than the model reads, and count as not answered" in text
    assert "mini dense: not all documents are in the index (2 refused)" in text


def test_a_label_names_what_differs_and_the_mode() -> None:
    small, large = (result(values=(("model", "m"), ("chunk_tokens", tokens))) for tokens in (100, 200))
    assert labels([small, large]) == ["mini chunk_tokens=100 dense", "mini chunk_tokens=200 dense"]


def test_models_of_one_name_are_told_apart_by_their_paths() -> None:
    one, other = (result(values=(("model", path),), name="model@x") for path in ("/a/model", "/b/model"))
    assert labels([one, other]) == ["/a/model dense", "/b/model dense"]


def test_numbers_are_shown_short() -> None:
    assert [shown_number(number) for number in (12, 1200, 22_713_216, 1_500_000_000)] == [
        "12", "1.2 k", "22.7 M", "1.5 G",
    ]  # fmt: skip


def test_the_json_form_has_mean_and_interval() -> None:
    found = result().to_dict()
    assert found["measures"]["ndcg@10"] == {"mean": 0.7, "low": 0.6, "high": 0.8}
    assert found["configuration"]["mode"] == "dense"
    assert found["index"]["index_bytes"] == 3_500_000


def test_a_plot_that_cannot_be_made_is_told_first(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingsError, match=r"name a file that ends in \.svg, not 'a\.png'"):
        check_plot(tmp_path / "a.png")
    with pytest.raises(SettingsError, match="there is no directory"):
        check_plot(tmp_path / "none" / "a.svg")


def test_without_matplotlib_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"pip install 'headwater\[plot\]'"):
        check_plot(tmp_path / "a.svg")


def test_the_plot_shows_each_configuration(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from headwater.evaluation.plot import draw

    file = tmp_path / "a.svg"
    draw([result("dense"), result("sparse")], file)
    text = file.read_text()
    assert "<svg" in text
    assert all(words in text for words in ("mini dense", "mini sparse", "nDCG@10", "texts embedded per second"))
