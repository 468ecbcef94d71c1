"""The language of a document."""

from __future__ import annotations

import pytest

from worker.language import Language

LANGUAGE = Language()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The index follows the folder, and nothing in it is left over."),
        ("de", "Der Index folgt dem Ordner, und nichts darin bleibt übrig."),
        ("fr", "L'index suit le dossier, et rien n'y reste en trop."),
        ("es", "El índice sigue a la carpeta y no queda nada de más."),
        ("ru", "Индекс следует за папкой, и ничего лишнего не остаётся."),
        ("zh", "索引跟随文件夹并且没有任何多余的内容"),
    ],
)
def test_a_text_tells_its_language(code: str, text: str) -> None:
    assert LANGUAGE.of("text", [text], {}) == code


@pytest.mark.parametrize("text", ["", "   ", "12 34 56", "---"])
def test_a_text_without_words_has_none(text: str) -> None:
    assert LANGUAGE.of("text", [text], {}) is None


@pytest.mark.parametrize("kind", ["code", "csv", "json"])
def test_code_and_data_have_none(kind: str) -> None:
    assert LANGUAGE.of(kind, ["The index follows the folder, and nothing in it is left over."], {}) is None


@pytest.mark.parametrize("declared", ["de", "DE", "de-AT", "de_DE"])
def test_what_a_document_says_of_itself_goes_before_a_guess(declared: str) -> None:
    assert LANGUAGE.of("markdown", ["The index follows the folder."], {"lang": declared}) == "de"


@pytest.mark.parametrize("declared", ["english-like", "x", 5, ["de", "en"]])
def test_a_declaration_that_is_none_is_no_language(declared: object) -> None:
    text = "The index follows the folder, and nothing in it is left over."
    assert LANGUAGE.of("markdown", [text], {"lang": declared}) == "en"


def test_only_the_beginning_is_looked_at() -> None:
    english = ["The index follows the folder, and nothing in it is left over. " * 10]
    assert LANGUAGE.of("text", [*english, "Der Ordner und sein Index. " * 100], {}) == "en"


def test_a_setting_names_the_language_of_all_documents() -> None:
    assert Language("fi").of("text", ["The index follows the folder."], {"lang": "de"}) == "fi"
