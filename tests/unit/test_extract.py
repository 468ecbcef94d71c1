"""Documents to text, on documents made here; the real ones are in the integration tests."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.extract import Extracted, Refused, extract


def refusal(data: bytes, name: str = "a.txt") -> str:
    with pytest.raises(Refused) as caught:
        extract(data, name)
    assert caught.value.reason[0] == caught.value.reason[0].lower() or caught.value.reason.startswith(("a PDF", "OLE"))
    return caught.value.code


def page(markup: str) -> Extracted:
    return extract(markup.encode(), "page.html")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"), ("a", "text"), ("A.MD", "markdown"), ("a.rst", "rst"), ("a.py", "code"),
        ("a.yaml", "code"), ("dir.md/Makefile", "code"), ("CMakeLists.txt", "code"), ("a.json", "json"),
        ("a.tsv", "csv"), ("a.xml", "xml"), ("a.html", "html"), ("wrong.docx", "text"), ("wrong.pdf", "text"),
        ("a.unknown", "text"),
    ],
)  # fmt: skip
def test_the_name_decides_between_kinds_of_text(name: str, kind: str) -> None:
    assert extract(b"some words\n", name).kind == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html><html><body>x</body></html>", "html"),
        (b"<!-- a comment -->\n<html><p>x", "html"),
        (b"<?xml version='1.0'?><a>x</a>", "xml"),
        (b"#!/bin/sh\necho x\n", "code"),
        (b"From: a@b.c\nTo: d@e.f\nSubject: Hello\nDate: Fri, 4 May 2001 14:05:44 -0400\n\nbody\n", "eml"),
        (b"{\\rtf1\\ansi Hello}", "rtf"),
    ],
)
@pytest.mark.parametrize("name", ["noextension", "false.txt"])
def test_content_decides_before_the_name(data: bytes, kind: str, name: str) -> None:
    assert extract(data, name).kind == kind


@pytest.mark.parametrize(
    "text",
    ["ID3 tags are small", "GIF89a is old", "BM", "see %PDF-1.4 there", "Note: x\nTodo: y\nSubject: z\n"],
)
def test_text_that_only_mentions_a_signature_stays_text(text: str) -> None:
    assert extract(text.encode(), "notes.txt").text == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Co", "Cn", "Cs"]), min_size=1, max_size=80))
def test_text_is_the_files_own_characters(text: str) -> None:
    data = f"word {text}\r\nnext\n"
    if "\ufffd" in text or "\ufeff" in text:
        return
    found = extract(data.encode(), "a.txt")
    assert (found.text, found.own_lines, found.body_start, found.pages) == (data, True, 0, ())


@pytest.mark.parametrize("data", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\xff\xfe \x00", "\u3000\n".encode()])
def test_a_file_without_characters_is_empty(data: bytes) -> None:
    assert refusal(data) == "empty"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0", "unsupported"),
        (b"Rar!\x1a\x07\x01\0", "unsupported"),
        (b"\x7fELF\x02\x01\x01\0", "binary"),
        (b"\0\x01\x02\x03" * 9, "binary"),
        (b"PK\x03\x04 and then nothing", "damaged"),
        (b"%PDF-1.4 and then nothing", "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><text>x</text></svg>", "unsupported"),
    ],
)
def test_what_is_no_document_is_refused_with_its_reason(data: bytes, code: str) -> None:
    assert refusal(data, "file") == code


def test_an_encrypted_office_file_is_refused_as_such() -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le")
    assert refusal(data, "a.docx") == "encrypted"


def test_front_matter_gives_title_fields_and_the_start_of_the_body() -> None:
    head = "---\ntitle: The Title\ntags: [a, b]\ndate: 2024-01-02\ndeep: {x: 1}\nbad: .nan\n---\n"
    found = extract((head + "# Heading\n\nText\n").encode(), "a.md")
    assert found.text[found.body_start :] == "# Heading\n\nText\n"
    assert found.title == "The Title"
    assert found.metadata == {"title": "The Title", "tags": ["a", "b"], "date": "2024-01-02"}
    json.dumps(dict(found.metadata), allow_nan=False)


def test_toml_front_matter_is_read_too() -> None:
    found = extract(b'+++\r\ntitle = "T"\r\nweight = 3\r\n+++\r\nbody\r\n', "a.md")
    assert (found.title, found.metadata["weight"], found.text[found.body_start :]) == ("T", 3, "body\r\n")


@pytest.mark.parametrize(
    "head",
    ["---\ntitle: [a\n---\n", "---\nwords\n---\n", "---\nno end\n", "---\na: " + "[" * 3000 + "\n---\n"],
)
def test_what_is_no_front_matter_belongs_to_the_body(head: str) -> None:
    found = extract((head + "rest").encode(), "a.md")
    assert (found.body_start, found.metadata) == (0, {})


def test_merge_keys_in_front_matter_are_not_expanded() -> None:
    bomb = "".join(f"k{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
    assert extract(f"---\nk0: &a0 {{x: 1}}\n{bomb}---\nbody".encode(), "a.md").metadata == {}


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("# One #\n", "One"),
        ("Under\n=====\n", "Under"),
        ("```\n# code\n```\n## [Two](http://x) {#id}\n", "Two"),
        ("- item\n---\ntext\n", None),
        ("no heading\n", None),
    ],
)
def test_the_first_heading_of_markdown_is_its_title(body: str, title: str | None) -> None:
    assert extract(body.encode(), "name.md").title == title


def test_the_first_section_of_restructuredtext_is_its_title() -> None:
    assert extract(b".. comment\n\n=====\nTitle\n=====\n\nText\n", "a.rst").title == "Title"


def test_html_gives_its_words_and_neither_scripts_nor_styles() -> None:
    found = page(
        "<html><head><title>A &amp; B</title><meta name=author content='Ann'>"
        "<style>p{}</style></head><body>"
        "<script>var evil = '</p>';</script><h1>Head</h1><p>one <b>bo</b>ld<br>two <a href='/x'>link</a></p>"
        "<ul><li>first<li>second</ul><table><tr><th>k<th>v<tr><td>a<td>b</table><pre>x = 1\n  y</pre>"
        "<img alt='a picture' src='data:xyz'><!-- hidden --></body></html>"
    )
    assert found.text == (
        "# Head\n\none bold\ntwo link\n\n- first\n- second\n\n| k | v |\n| a | b |\n\n"
        "```\nx = 1\n  y\n```\n\na picture\n"
    )
    assert (found.title, found.metadata, found.own_lines) == ("A & B", {"author": "Ann"}, False)


@pytest.mark.parametrize("opening", ["<p>", "<div>", "<li>", "<font>", "<table><tr><td>", "<dd>"])
def test_html_loses_nothing_however_deep_it_nests(opening: str) -> None:
    found = page("".join(f"{opening} word{i} " for i in range(2000)))
    assert found.text.split()[-1].endswith("word1999")
    assert sum(f"word{i}" in found.text for i in range(2000)) == 2000


@given(st.text("<>/!-abp \"'=&;tdr\n", max_size=200))
def test_any_markup_is_read_or_refused(markup: str) -> None:
    try:
        found = extract(f"<p>{markup}".encode(), "a.html")
    except Refused as refused:
        assert refused.code == "empty"
    else:
        assert "<p>" not in found.text or "<p" in markup


def test_text_beyond_the_limit_is_cut_and_says_so() -> None:
    found = extract(b"abcdefghij", "a.txt", max_chars=4)
    assert (found.text, found.partial) == ("abcd", "only the first 4 characters are indexed")


def test_refusals_survive_pickling() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(Refused("empty", "an empty file")))
    assert (again.code, again.reason) == ("empty", "an empty file")


def test_plain_text_needs_no_heavy_library() -> None:
    code = (
        "import sys; from worker.extract import extract\n"
        "extract(b'# T\\n', 'a.md'); extract(b'<p>x', 'a.html')\n"
        "assert not {'kreuzberg', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@given(st.binary(max_size=300), st.sampled_from(["a", "a.md", "a.html", "a.eml", "a.json", "a.rst", "a.py"]))
def test_any_bytes_give_the_same_document_twice_or_are_refused(data: bytes, name: str) -> None:
    try:
        found = extract(data, name)
    except Refused:
        return
    assert found == extract(data, name)
    json.dumps(dict(found.metadata), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "text", "kind", "title"),
    [
        ("a.org", "#+TITLE: My notes\n* One\n", "org", "My notes"),
        ("a.adoc", "= My book\n\ntext\n", "asciidoc", "My book"),
        ("a.wiki", "text\n== One ==\n", "mediawiki", "One"),
        ("a", "% x\n\\documentclass{article}\n\\title{A \\emph{fine} title}\n", "latex", "A fine title"),
        ("a.texi", "\\input texinfo\n@settitle Manual\n", "texinfo", "Manual"),
        ("ls.1", '.\\" licence\n.TH LS "1" "May"\n.SH NAME\nls\n', "man", "LS(1)"),
        ("log.1", "Oct 1 started\n", "text", None),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "subtitles", None),
        ("a", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "subtitles", None),
    ],
)
def test_kinds_with_lines_of_their_own_keep_them_and_have_titles(
    name: str, text: str, kind: str, title: str | None
) -> None:
    found = extract(text.encode(), name)
    assert (found.kind, found.title, found.text, found.own_lines) == (kind, title, text, True)


PAGES = [
    ('<iframe srcdoc="<p>in &amp;amp; side</p>"></iframe>out', "in & side\n\nout\n"),
    ("<!-->a<!--->b<!-- no --!>c", "abc\n"),
    ("<p><![CDATA[kept]]></p>", "kept\n"),
    ("<input type=text value='Name'><input type=hidden value=no><img title=Chart>", "Name Chart\n"),
    ("<select><option>One<option label=Two></select>", "One\n\nTwo\n"),
    ("caf&eacute &copy 2001", "café © 2001\n"),
]


@pytest.mark.parametrize(("markup", "text"), PAGES)
def test_a_page_says_what_a_browser_shows(markup: str, text: str) -> None:
    assert extract(f"<body>{markup}</body>".encode(), "a.html").text == text


def test_a_page_names_its_author_dates_and_language() -> None:
    head = (
        '<html lang="de-AT"><head><meta property="article:published_time" content="2020-01-02">'
        '<meta name="DC.creator" content="A. B."><meta property="og:description" content="About"></head><body>x</body>'
    )
    found = extract(head.encode(), "a.html").metadata
    assert found == {"created": "2020-01-02", "author": "A. B.", "description": "About", "language": "de-AT"}
