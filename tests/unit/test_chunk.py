"""Chunks that fit the model, lose nothing, and keep their borders under edits."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.document import text_hash
from headwater.index import Chunk
from worker.chunk import chunk
from worker.tokens import ModelTokenizer

KINDS = ["text", "markdown", "rst", "code", "csv", "html"]
PIECES = st.sampled_from(
    [
        "a", "word ", "Some longer words of prose. ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\t", " ", "# Title\n",
        "## Sub\n", "Title\n=====\n", "Sub\n---\n", "```\n", "~~~~\n", "- item\n", "1. item\n", "x" * 90, "q" * 130,
        "\u4f60\u597d\u4e16\u754c", "\u3002", "\u00e9\u0301", "\ufdfa", "\U0001f600", "\u200b", "\x85", "\u2028",
        "...!?", "{}[]();", "\x0c", "\ufeff",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=20), max_size=60).map("".join)


def body(text: str) -> str:
    return "".join(text.split())


def assert_sound(text: str, chunks: Sequence[Chunk], tokenizer: ModelTokenizer, max_tokens: int) -> None:
    """What holds of the chunks of any text."""
    assert [c.number for c in chunks] == list(range(len(chunks)))
    assert all(c.text == text[c.start : c.end] and c.text.strip() for c in chunks)
    assert all(c.text_hash == text_hash(c.text) for c in chunks)
    assert all(a.end <= b.start for a, b in itertools.pairwise(chunks))
    assert "".join(body(c.text) for c in chunks) == body(text)
    counts = tokenizer.counts([c.text for c in chunks])
    assert max(counts, default=0) <= max_tokens


def make_markdown(sections: int, paragraphs: int, seed: int = 1) -> str:
    """A long text under headings, the same for the same seed."""
    chance = random.Random(seed)
    words = [f"{a}{b}" for a in ("ri", "wa", "sto", "fel", "mun") for b in ("ver", "ter", "ne", "d", "der", "low")]
    parts = []
    for section in range(sections):
        parts.append(f"## Section {section}")
        for _ in range(paragraphs):
            sentences = [
                " ".join(chance.choices(words, k=chance.randint(4, 14))).capitalize() + "."
                for _ in range(chance.randint(1, 6))
            ]
            parts.append(" ".join(sentences))
    return "\n\n".join(parts) + "\n"


# -- any text --------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(TEXTS, st.sampled_from(KINDS), st.sampled_from([16, 24, 64, 200]))
def test_any_text_is_cut_without_loss_into_chunks_that_fit(
    tokenizer: ModelTokenizer, text: str, kind: str, max_tokens: int
) -> None:
    assert_sound(text, chunk(text, kind, tokenizer, max_tokens), tokenizer, max_tokens)


@given(TEXTS, st.sampled_from(KINDS))
def test_the_same_text_is_cut_the_same_way(tokenizer: ModelTokenizer, text: str, kind: str) -> None:
    assert chunk(text, kind, tokenizer, 32) == chunk(text, kind, tokenizer, 32)


@given(TEXTS, st.sampled_from(KINDS))
def test_lines_count_from_one_by_any_line_end(tokenizer: ModelTokenizer, text: str, kind: str) -> None:
    for found in chunk(text, kind, tokenizer, 16):
        assert found.start_line == 1 + len(re.findall(r"\r\n|\r|\n", text[: found.start]))
        assert found.end_line == 1 + len(re.findall(r"\r\n|\r|\n", text[: found.end]))


@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(KINDS))
@example(["x" * 90, "\x0cy"], "text")  # one unknown word to BERT, which drops the form feed; many tokens once cut
def test_no_chunk_crosses_a_page_and_each_knows_its_page(
    tokenizer: ModelTokenizer, page_texts: list[str], kind: str
) -> None:
    text = "".join(page_texts)
    pages = list(itertools.accumulate((len(page) for page in page_texts[:-1]), initial=0))
    chunks = chunk(text, kind, tokenizer, 32, pages=pages)
    assert_sound(text, chunks, tokenizer, 32)
    for found in chunks:
        assert found.page is not None
        assert pages[found.page - 1] <= found.start
        assert found.page == len(pages) or found.end <= pages[found.page]


@given(TEXTS, TEXTS, st.sampled_from(KINDS))
def test_what_stands_before_the_body_is_left_out_and_places_count_from_the_start_of_the_file(
    tokenizer: ModelTokenizer, head: str, rest: str, kind: str
) -> None:
    text, begin = head + "\n" + rest, len(head) + 1
    chunks = chunk(text, kind, tokenizer, 32, body_start=begin)
    assert all(found.start >= begin and found.text == text[found.start : found.end] for found in chunks)
    assert "".join(body(found.text) for found in chunks) == body(rest)


# -- texts without borders -------------------------------------------------------------------------------------


def letters(number: int, seed: int = 7) -> str:
    return "".join(random.Random(seed).choices("qzxvkjwbcdfgh", k=number))


@pytest.mark.parametrize("kind", ["text", "code"])
@pytest.mark.parametrize(
    "alphabet",
    [
        "abcdefghij",
        "{}[]();:,.!?<>=+-*/&%$#@",
        "\u4f60\u597d\u4e16\u754c\u6c34\u706b",
        "a\u4f60.\u00e9{\u3002;q",
        "\U0001f600\U0001f680",
    ],
)
def test_a_huge_line_without_spaces_is_cut_to_fit(tokenizer: ModelTokenizer, alphabet: str, kind: str) -> None:
    text = "".join(random.Random(3).choices(alphabet, k=200_000))
    assert_sound(text, chunk(text, kind, tokenizer, 200), tokenizer, 200)


@pytest.mark.parametrize("max_tokens", [16, 60, 200, 254])
@pytest.mark.parametrize("tail", [1, 60, 95, 99, 101])
def test_the_rest_of_a_cut_giant_word_fits_by_its_own_count(
    tokenizer: ModelTokenizer, max_tokens: int, tail: int
) -> None:
    # Given a word that the tokenizer takes for one unknown token, but whose last piece it will read letter by letter
    giant = letters(max_tokens * 12 + tail)
    for word, number in itertools.product((" a", " of", " the", " in"), (0, max_tokens // 2, max_tokens * 2 // 3)):
        text = giant + word * number
        assert_sound(text, chunk(text, "text", tokenizer, max_tokens), tokenizer, max_tokens)


def test_a_giant_word_across_a_page_border_fits_by_its_own_count(tokenizer: ModelTokenizer) -> None:
    text = letters(180)
    chunks = chunk(text, "pdf", tokenizer, 32, pages=[0, 90])
    assert {found.page for found in chunks} == {1, 2}
    assert_sound(text, chunks, tokenizer, 32)


def test_words_of_many_hundred_letters_between_ordinary_ones_fit(tokenizer: ModelTokenizer) -> None:
    text = " ".join(letters(100 + 37 * n, seed=n) + " and some words" for n in range(60))
    for max_tokens in (16, 64, 200):
        assert_sound(text, chunk(text, "text", tokenizer, max_tokens), tokenizer, max_tokens)


class ManyTokensPerCharacter:
    """A tokenizer that reads bytes: a character is several tokens that begin at the same place."""

    def starts(self, text: str) -> Sequence[int]:
        return [at for at, character in enumerate(text) for _ in character.encode()]

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        return [len(text.encode()) for text in texts]


def test_a_tokenizer_of_bytes_never_makes_chunks_that_are_too_long() -> None:
    text = "\U0001f600\u4f60a" * 500
    chunks = chunk(text, "text", ManyTokensPerCharacter(), 16)
    assert max(len(found.text.encode()) for found in chunks) <= 16
    assert "".join(found.text for found in chunks) == text


def test_a_text_of_blank_space_has_no_chunks(tokenizer: ModelTokenizer) -> None:
    assert chunk("", "markdown", tokenizer, 32) == []
    assert chunk(" \n\t\r\n \u3000\n", "text", tokenizer, 32) == []


# -- structure -------------------------------------------------------------------------------------------------


def test_a_short_document_is_one_chunk_in_its_own_words(tokenizer: ModelTokenizer) -> None:
    text = "One paragraph.\n\nAnother one.\n"
    (only,) = chunk(text, "text", tokenizer, 200)
    assert only.text == "One paragraph.\n\nAnother one."
    assert (only.start, only.end, only.start_line, only.end_line, only.page) == (0, 28, 1, 3, None)


def test_sections_share_no_chunk_and_carry_their_headings(tokenizer: ModelTokenizer) -> None:
    text = "# Guide\n\nHello.\n\n## Setup\n\nInstall it.\n\n## Use\n\nRun it.\n\n# End\n\nBye.\n"
    found = [(c.headings, c.text.split("\n")[-1]) for c in chunk(text, "markdown", tokenizer, 200)]
    assert found == [
        (("Guide",), "Hello."),
        (("Guide", "Setup"), "Install it."),
        (("Guide", "Use"), "Run it."),
        (("End",), "Bye."),
    ]


def test_a_fenced_block_is_no_section_of_its_own(tokenizer: ModelTokenizer) -> None:
    text = "# A\n\nBefore.\n\n```sh\n# no heading\n\nls\n```\n\nAfter.\n"
    (only,) = chunk(text, "markdown", tokenizer, 200)
    assert only.headings == ("A",)


def test_chunks_of_extracted_text_have_no_lines(tokenizer: ModelTokenizer) -> None:
    (only,) = chunk("A page of a PDF.", "pdf", tokenizer, 200, own_lines=False, pages=[0])
    assert (only.start_line, only.end_line, only.page) == (None, None, 1)


def test_a_long_paragraph_is_cut_between_sentences(tokenizer: ModelTokenizer) -> None:
    text = " ".join(f"This is sentence number {n} of a rather long paragraph." for n in range(60))
    chunks = chunk(text, "text", tokenizer, 64)
    assert len(chunks) > 5
    assert all(found.text.startswith("This is") and found.text.endswith("paragraph.") for found in chunks)


def test_records_are_cut_between_lines(tokenizer: ModelTokenizer) -> None:
    text = "".join(f"{n},first value,second value. third,{n * n}\n" for n in range(200))
    chunks = chunk(text, "csv", tokenizer, 64)
    assert all(re.fullmatch(r"(\d+,first value,second value\. third,\d+\n?)+", found.text) for found in chunks)


def test_a_paragraph_that_fits_is_whole_and_short_ones_are_joined_up_to_a_part_of_the_limit(
    tokenizer: ModelTokenizer,
) -> None:
    # Given long paragraphs between short ones
    short = [f"One short paragraph of number {n}." for n in range(20)]
    whole = [" ".join(f"word{n}" for _ in range(50)) + "." for n in range(3)]
    text = "\n\n".join([*short[:10], whole[0], whole[1], *short[10:], whole[2]])
    # When they are cut
    found = chunk(text, "markdown", tokenizer, 200)
    counts = tokenizer.counts([piece.text for piece in found])
    # Then each long one is a chunk, and of the short ones many make one
    assert {piece.text for piece in found} > set(whole)
    together = [count for piece, count in zip(found, counts, strict=True) if piece.text not in whole]
    assert all(count <= 70 for count in together)
    assert 2 <= len(together) <= 10


def test_a_heading_stays_with_a_long_paragraph_below_it(tokenizer: ModelTokenizer) -> None:
    long = " ".join("word" for _ in range(150)) + "."
    text = f"# Title\n\n{long}\n\nThe code for it:\n\n{long}\n"
    found = [piece.text for piece in chunk(text, "markdown", tokenizer, 200)]
    assert found == [f"# Title\n\n{long}", f"The code for it:\n\n{long}"]


def test_a_heading_stays_with_a_paragraph_that_just_does_not_fit_below_it(tokenizer: ModelTokenizer) -> None:
    # Given a paragraph that fits alone but not below its heading, and a block of code likewise
    sentence = " ".join("word" for _ in range(27)) + ". "
    paragraph = (sentence * 7).strip()
    code = "```\n" + "word. " * 97 + "\n```"
    found = [
        c.text
        for c in chunk(f"# A title of some words\n\n{paragraph}\n\n## B b b b b\n\n{code}", "markdown", tokenizer, 200)
    ]
    # Then the paragraph is cut into two parts of about the same size, and the code is not
    assert len(found) == 4
    assert found[0].startswith("# A title of some words\n\nword") and found[1].endswith("word.")
    first, second, _, _ = tokenizer.counts(found)
    assert abs(first - second) <= 40
    assert found[2:] == ["## B b b b b", code]


# -- edits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paragraphs", [4, 60])
@pytest.mark.parametrize("inserted", ["A few new words.", "A new sentence follows another one here. " * 12])
def test_a_paragraph_put_into_the_middle_changes_only_few_chunks(
    tokenizer: ModelTokenizer, paragraphs: int, inserted: str
) -> None:
    # Given a long text, and the same with a paragraph more in its middle
    before = make_markdown(sections=240 // paragraphs, paragraphs=paragraphs)
    parts = before.split("\n\n")
    middle = len(parts) // 2 + 1
    after = "\n\n".join([*parts[:middle], inserted.strip(), *parts[middle:]])
    # When both are cut
    old = {found.text for found in chunk(before, "markdown", tokenizer, 200)}
    new = [found.text for found in chunk(after, "markdown", tokenizer, 200)]
    # Then nearly all texts of the new version are known
    fresh = [text for text in new if text not in old]
    assert len(old) > 50
    assert 1 <= len(fresh) <= max(4, len(new) * 0.08)


def test_many_small_edits_leave_most_chunks_as_they_are(tokenizer: ModelTokenizer) -> None:
    text = make_markdown(sections=30, paragraphs=8)
    old = {found.text for found in chunk(text, "markdown", tokenizer, 200)}
    shares = []
    for seed in range(10):
        at = random.Random(seed).randrange(len(text))
        edited = text[:at] + "x" + text[at:]
        new = [found.text for found in chunk(edited, "markdown", tokenizer, 200)]
        shares.append(sum(one not in old for one in new) / len(new))
    assert sum(shares) / len(shares) < 0.06


def test_a_section_that_moves_keeps_its_chunks(tokenizer: ModelTokenizer) -> None:
    text = make_markdown(sections=10, paragraphs=6)
    sections = re.split(r"(?=^## )", text.rstrip() + "\n\n", flags=re.MULTILINE)[1:]
    turned = "".join(reversed(sections))
    cut, cut_turned = (sorted(c.text for c in chunk(t, "markdown", tokenizer, 200)) for t in (text, turned))
    assert cut == cut_turned


# -- headings that the model reads -----------------------------------------------------------------------------


def test_a_chunk_carries_the_headings_above_it_that_it_does_not_show(tokenizer: ModelTokenizer) -> None:
    text = "# Guide\n\n## Keys\n\n" + "Rotate them often, and keep the old ones. " * 9 + "\n"
    chunks = chunk(text, "markdown", tokenizer, 60, heading_context=True)
    assert len(chunks) > 1
    last = chunks[-1]
    assert last.context == "Guide > Keys"
    assert last.text_hash == text_hash(last.text, last.context) != text_hash(last.text)
    first = next(c for c in chunks if c.text.startswith("## Keys"))
    assert first.context == "Guide"


def test_a_heading_whose_letters_stand_in_the_text_is_put_above_it_all_the_same(tokenizer: ModelTokenizer) -> None:
    text = "# Go\n\n## C\n\n" + "Certain things go on, and some cannot. " * 12 + "\n"
    assert chunk(text, "markdown", tokenizer, 60, heading_context=True)[-1].context == "Go > C"


def test_headings_that_are_too_long_leave_the_outer_ones_out(tokenizer: ModelTokenizer) -> None:
    text = f"# {'A very long title indeed ' * 20}\n\n## Keys\n\n" + "Rotate them often. " * 30 + "\n"
    contexts = {c.context for c in chunk(text, "markdown", tokenizer, 60, heading_context=True)}
    assert "Keys" in contexts and not any("very long" in context for context in contexts)


@given(TEXTS, st.sampled_from(KINDS), st.integers(16, 60))
def test_text_and_headings_together_fit_the_model(
    tokenizer: ModelTokenizer, text: str, kind: str, max_tokens: int
) -> None:
    chunks = chunk(text, kind, tokenizer, max_tokens, heading_context=True)
    assert all(c.text_hash == text_hash(c.text, c.context) for c in chunks)
    assert "".join(body(c.text) for c in chunks) == body(text)
    assert max(tokenizer.counts([c.embedded for c in chunks]), default=0) <= max_tokens
