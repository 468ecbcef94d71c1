"""Questions through the command line: to a running service, to nobody's, and those that cannot be answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater

FILES = {
    "guide/herons.md": "---\nauthor: Alice\n---\n# Herons\n\nHerons wait in shallow water for fish.\n",
    "guide/owls.md": "# Owls\n\nOwls hunt mice at night, and see well in the dark.\n",
    "notes/stars.txt": "A red giant burns helium in its core.\n",
    "notes/copy.txt": "A red giant burns helium in its core.\n",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    directory = tmp_path_factory.mktemp("questions")
    made = Headwater(directory / "folder", directory / "state")
    for name, text in FILES.items():
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text(text)
    made.up()
    yield made
    made.kill()


def asked(run: Headwater, *arguments: str) -> Any:
    return json.loads(run.run(*arguments, "--folder", str(run.folder), "--json").stdout)


def test_filters_groups_and_pages_through_the_service(service: Headwater) -> None:
    hits = asked(service, "search", "birds", "--where", "ext:md -meta.author:Alice")
    assert {hit["path"] for hit in hits} == {"guide/owls.md"}
    assert hits[0]["stale"] is False
    assert hits[0]["language"] == "en"
    whole = asked(service, "search", "what burns helium", "--by-document", "--mode", "dense")
    assert {hit["path"] for hit in whole[:2]} == {"notes/stars.txt", "notes/copy.txt"}
    assert (
        asked(service, "search", "what burns helium", "--by-document", "--mode", "dense", "--offset", "2") == whole[2:]
    )


def test_a_saved_file_is_read_by_the_search_that_waits_for_it(service: Headwater) -> None:
    (service.folder / "new.md").write_text("Ferries cross the strait.\n")
    [hit] = asked(service, "search", "ferries", "--limit", "1", "--wait-for", "new.md", "--timeout", "60")
    assert hit["path"] == "new.md"
    (service.folder / "new.md").unlink()
    hits = asked(service, "search", "ferries", "--wait-for", "new.md", "--timeout", "60")
    assert "new.md" not in {hit["path"] for hit in hits}


def test_what_looks_like_the_name_of_a_sign_or_a_style_is_shown_as_it_is_written(service: Headwater) -> None:
    # Given words and a name that rich would show as pictures and styles
    text, name = "urn:schemas:office:heart: and [bold]nine[/bold] zebras", "an :office: [red].md"
    (service.folder / name).write_text(text + "\n")
    # When a person searches them
    shown = service.run("search", "zebras", "--limit", "1", "--wait-for", name, "--folder", str(service.folder)).stdout
    (service.folder / name).unlink()
    # Then they are there letter by letter
    assert text in shown and name in shown


def test_what_is_alike_is_found(service: Headwater) -> None:
    assert asked(service, "similar", "notes/stars.txt", "--limit", "1")[0]["path"] == "notes/copy.txt"
    assert asked(service, "similar", "--text", "night birds", "--limit", "1")[0]["path"] == "guide/owls.md"
    [pair] = asked(service, "duplicates", "--threshold", "0.99")
    assert (pair["a"], pair["b"], pair["shared"]) == ("notes/copy.txt", "notes/stars.txt", 1.0)
    assert asked(service, "similarity", "a cat", "a kitten")["similarity"] > 0.5


def test_a_context_cites_what_stands_in_the_files(service: Headwater) -> None:
    found = asked(service, "context", "what waits for fish", "--max-tokens", "60")
    assert 0 < found["tokens"] <= 60
    for passage in found["passages"]:
        citation = passage["citation"]
        text = (service.folder / citation["path"]).read_text()
        assert text[citation["start"] : citation["end"]] == passage["text"]
        assert citation["verified"] is True
    assert found["passages"][0]["citation"]["path"] == "guide/herons.md"


def test_without_a_language_model_ask_shows_the_passages_and_says_how_to_name_one(service: Headwater) -> None:
    done = service.run("ask", "what waits for fish", "--folder", str(service.folder))
    assert "Herons wait in shallow water for fish." in done.stdout
    assert "HEADWATER_LLM_URL" in done.stderr


MISTAKES = {
    "unknown field": (["search", "x", "--where", "colour:red"], "there is no filter 'colour'"),
    "bad glob": (["search", "x", "--path", "!"], "the path glob '!' is not valid"),
    "limit 0": (["search", "x", "--limit", "0"], "the limit is 0"),
    "limit 10 million": (["search", "x", "--limit", "10000000"], "the limit is 10000000"),
    "offset": (["search", "x", "--offset", "-1"], "the offset is -1"),
    "empty query": (["search", " "], "is empty"),
    "long query": (["search", "x " * 60_000], "characters, more than 20000"),
    "no document": (["similar", "nowhere.md"], "no document 'nowhere.md' is in the index"),
    "neither": (["similar"], "either a path or a text"),
    "threshold": (["duplicates", "--threshold", "2"], "the threshold is 2.0"),
    "no tokens": (["context", "x", "--max-tokens", "0"], "max_tokens is 0"),
    "many tokens": (["context", "x", "--max-tokens", "10000000"], "max_tokens is 10000000"),
    "no ranker": (["search", "x", "--rerank"], "set HEADWATER_RERANKER"),
    "short wait": (["search", "x", "--wait-for", "never.pdf.md", "--timeout", "0"], None),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_question_that_makes_no_sense_is_one_sentence(service: Headwater, case: str) -> None:
    arguments, sentence = MISTAKES[case]
    done = service.run(*arguments, "--folder", str(service.folder), check=False)
    if sentence is None:  # a path that neither folder nor index has is as it is
        assert done.returncode == 0
        return
    assert done.returncode == 64
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_with_no_service_the_index_itself_is_asked_and_another_model_is_one_sentence(
    service: Headwater, tmp_path: Path
) -> None:
    # Given the state of a service that has ended
    service.stop()
    try:
        hits = asked(service, "search", "night birds", "--where", "path:guide/")
        assert hits[0]["path"] == "guide/owls.md"
        context = asked(service, "context", "night birds", "--max-tokens", "50")
        assert context["passages"][0]["citation"]["verified"] is True
        # Then a model of another dimension is refused with what the index was made with
        other = make_other_model(tmp_path)
        service.environment["HEADWATER_MODEL"] = str(other)
        done = service.run("search", "x", "--folder", str(service.folder), check=False)
        assert done.returncode == 78
        assert "was made with the model" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    finally:
        service.environment.pop("HEADWATER_MODEL", None)
        shutil.rmtree(tmp_path, ignore_errors=True)


def make_other_model(directory: Path) -> Path:
    from tiny_model import make_tiny_model

    return make_tiny_model(directory)
