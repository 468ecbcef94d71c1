"""Lexical terms by language."""

from __future__ import annotations

import pytest

from headwater.lexical import LANGUAGES, Bm25Encoder

BM25 = Bm25Encoder()


def shared(document: str, query: str, language: str | None, languages: tuple[str, ...] = ()) -> int:
    terms = BM25.document(document, language)
    return len(set(terms.indices) & set(BM25.query(query, languages).indices))


@pytest.mark.parametrize(
    ("language", "document", "query"),
    [
        ("en", "the runners were running", "run"),
        ("de", "in den alten Häusern", "Haus"),
        ("fr", "les chevaux mangeaient", "mangeait"),
        ("ru", "новых домов", "новый"),
    ],
)
def test_a_word_is_found_in_another_form_of_its_language(language: str, document: str, query: str) -> None:
    assert shared(document, query, language, (language,)) == 1


def test_a_question_finds_documents_of_every_language_that_the_index_holds() -> None:
    # Given a question whose word stems differently in English and in German
    document = "Wanderungen"
    assert shared(document, "Wanderung", "de") == 0
    # Then it finds the document once the index is known to hold German
    assert shared(document, "Wanderung", "de", ("de", "en")) == 1


def test_stop_words_of_the_document_are_no_terms() -> None:
    assert len(BM25.document("the and of", "en").indices) == 0
    assert len(BM25.document("der und die", "de").indices) == 0
    assert len(BM25.document("der und die", "en").indices) == 3


@pytest.mark.parametrize("language", [None, "xx", "zh", "ja", "", *LANGUAGES])
def test_any_language_gives_terms_that_its_own_words_find(language: str | None) -> None:
    assert shared("Qdrant 42", "qdrant 42", language, (language or "en",)) == 2


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("中文分词测试很难", "分词"),
        ("これは検索エンジンです", "検索"),
        ("การค้นหาข้อความ", "ค้นหา"),
        ("서울특별시청", "특별시"),
    ],
)
def test_scripts_without_blanks_are_found_by_a_part_of_a_sentence(document: str, query: str) -> None:
    assert shared(document, query, None) >= 1
    assert shared(document, "日本", None) == 0


def test_one_character_alone_is_a_term() -> None:
    assert len(BM25.query("水").indices) == 1
