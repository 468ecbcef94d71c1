"""The headings and paragraphs that a writer made."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outline import blocks, plain_title

KINDS = ["text", "markdown", "rst", "code", "html", "org", "asciidoc", "mediawiki", "latex", "texinfo", "man", "xmldoc"]
LINES = st.sampled_from(
    [
        "", " ", "# A", "## B ##", "#", "#no", "Title", "=====", "-----", "--", "```", "```py", "~~~", "~~~~", "text",
        "- item", "    # code", "****", "\t", "###### deep", "####### not", "\x0b", "\u2028",
        "* A", "** TODO B :tag:", "= A", "== B ==", "\\section{A {b}}", "\\chapter{", "@chapter A", 
        ".SH \"A\"", ".Ss b", "....",
    ]
)  # fmt: skip
TEXTS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=25).map(
    lambda lines: "".join(line + end for line, end in lines)
)


def found(text: str, kind: str = "markdown") -> list[tuple[str, tuple[str, ...]]]:
    """Each block's text with its heading path."""
    return [(text[block.start : block.end].strip(), block.headings) for block in blocks(text, kind)]


def headings(text: str, kind: str = "markdown") -> list[tuple[str, ...]]:
    return [path for path, _ in itertools.groupby(block.headings for block in blocks(text, kind))]


@given(TEXTS | st.text(max_size=60), st.sampled_from(KINDS))
def test_blocks_come_in_order_and_leave_out_nothing_but_blank_space(text: str, kind: str) -> None:
    spans = [(block.start, block.end) for block in blocks(text, kind)]
    assert all(start < end for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert "".join(kept.split()) == "".join(text.split())


@given(TEXTS, st.sampled_from(KINDS))
def test_section_numbers_rise_and_one_section_has_one_heading_path(text: str, kind: str) -> None:
    sections = [block.section for block in blocks(text, kind)]
    assert sections == sorted(sections)
    paths = {block.section: block.headings for block in blocks(text, kind)}
    assert all(paths[block.section] == block.headings for block in blocks(text, kind))


@given(TEXTS, st.sampled_from(KINDS))
def test_line_ends_make_no_difference_to_the_structure(text: str, kind: str) -> None:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert [block.headings for block in blocks(plain.replace("\n", "\r\n"), kind)] == [
        block.headings for block in blocks(plain, kind)
    ]


def test_paragraphs_end_at_blank_lines() -> None:
    text = "one\nstill one\n\ntwo\n \t\n\n\nthree"
    assert found(text, "text") == [("one\nstill one", ()), ("two", ()), ("three", ())]


def test_number_signs_make_headings_of_six_levels() -> None:
    text = "# A\na\n## B ##\nb\n#### D\nd\n## E\n####### seven\n#none\n\\# x\n    # code\n# \n"
    assert headings(text) == [("A",), ("A", "B"), ("A", "B", "D"), ("A", "E"), ()]
    assert ("b", ("A", "B")) in found(text)


def test_underlined_headings_need_a_blank_line_before_them() -> None:
    text = "First\n=====\n\na\n\nSecond\n------\n\nb\n\nnot a\nheading\n---\nc\n"
    assert headings(text) == [("First",), ("First", "Second")]


def test_a_rule_after_a_blank_line_is_no_heading() -> None:
    assert headings("# A\n\ntext\n\n---\n\nmore\n") == [("A",)]


def test_levels_of_restructured_text_go_by_the_order_of_their_adornments() -> None:
    text = "====\nBook\n====\n\nChapter\n=======\n\nc\n\nSection\n-------\n\ns\n\nNext\n====\n\nn\n"
    assert headings(text, "rst") == [("Book",), ("Book", "Chapter"), ("Book", "Chapter", "Section"), ("Book", "Next")]


@pytest.mark.parametrize("text", ["a\n\n----\n\nb\n", "====  ====\na     b\n====  ====\n1     2\n====  ====\n"])
def test_transitions_and_tables_of_restructured_text_are_no_headings(text: str) -> None:
    assert headings(text, "rst") == [()]


def test_two_sections_of_one_name_are_two_sections() -> None:
    sections = {block.section for block in blocks("# A\n\none\n\n# A\n\ntwo\n", "markdown")}
    assert len(sections) == 2


@pytest.mark.parametrize("fence", ["```", "~~~", "````", "   ```"])
def test_nothing_inside_a_fence_is_a_heading_or_a_border(fence: str) -> None:
    text = f"# A\n\n{fence}sh\n# comment\n\nls\n\n## more\n{fence}\n\nafter\n"
    assert headings(text) == [("A",)]
    assert [block for block, _ in found(text)][-1] == "after"
    assert len(found(text)) == 3


def test_a_shorter_fence_or_one_of_another_sign_closes_nothing() -> None:
    text = "````\n```\n# no\n~~~~\n\n# no\n````\n\n# yes\n"
    assert headings(text) == [(), ("yes",)]


def test_a_fence_with_words_behind_it_closes_nothing() -> None:
    # CommonMark 4.5: only blank space may follow a closing fence
    text = "```\n```python\n# no\n```\n\n# yes\n"
    assert headings(text) == [(), ("yes",)]


def test_a_fence_that_is_never_closed_hides_no_headings_behind_it() -> None:
    assert headings("# A\n\n```\ncode\n\n# B\n\nb\n") == [("A",), ("B",)]


def test_many_fences_that_are_never_closed_take_no_quadratic_time() -> None:
    lines = ["`" * (3 + n % 2) + "x" for n in range(20_000)]
    assert len(blocks("\n\n".join(lines), "markdown")) > 0


@pytest.mark.parametrize("kind", ["code", "csv"])
def test_plain_kinds_have_no_headings(kind: str) -> None:
    assert headings("# A\n\nB\n=\n\n```\n\nc\n", kind) == [()]


def test_the_body_may_begin_later() -> None:
    text = "---\ntitle: x\n---\n# A\n\nb\n"
    first = blocks(text, "markdown", body_start=text.index("# A"))[0]
    assert text[first.start : first.end].strip() == "# A"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A title .\n\nThe body.", "A title ."),
        ("\n  A title\r\n \r\nThe body.", "A title"),
        ("A first line\nof a paragraph.\n\nAnother.", None),
        ("Alone", None),
        ("Alone\n\n \n", None),
        ("----\n\nThe body.", None),
        ("x" * 201 + "\n\nThe body.", None),
        ("", None),
    ],
)
def test_a_first_line_of_plain_text_that_stands_alone_is_its_title(text: str, title: str | None) -> None:
    assert plain_title(text) == title
    assert [block.headings for block in blocks(text, "text")] == [(title,) * (title is not None)] * len(
        found(text, "text")
    )


def test_only_the_first_line_of_plain_text_is_a_title() -> None:
    assert headings("One\n\nTwo\n\nThree words.", "text") == [("One",)]


@pytest.mark.parametrize(
    ("kind", "text", "paths"),
    [
        ("org", "* TODO [#A] One :x:y:\na\n** Two\nb\n*bold* c\n", [("One",), ("One", "Two")]),
        ("asciidoc", "= Doc\n\n== One\n\n----\n== no\n----\n\nx\n", [("Doc",), ("Doc", "One")]),
        ("mediawiki", "Intro\n== One ==\na\n=== Two ===\nb = c\n", [(), ("One",), ("One", "Two")]),
        ("latex", "\\section*{One \\emph{x}}\na\n\\subsection[s]{Two}\nb\n", [("One x",), ("One x", "Two")]),
        ("texinfo", "@chapter One\na\n@section @code{Two}\nb\n", [("One",), ("One", "Two")]),
        ("man", '.SH "SEE ALSO"\na\n.SS \\fBTwo\\fR\nb\n', [("SEE ALSO",), ("SEE ALSO", "Two")]),
    ],
)  # fmt: skip
def test_kinds_with_headings_of_one_line_have_levels(kind: str, text: str, paths: list[tuple[str, ...]]) -> None:
    assert headings(text, kind) == paths
