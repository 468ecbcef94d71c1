"""XML as people read it."""

# ruff: noqa: RUF001 - letters that look like others are what references name

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Refused


def read(markup: str, name: str = "a.xml") -> Extracted:
    return extract(markup.encode(), name)


JATS = """<!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "http://example.invalid/jats.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta><title-group>
<article-title>Of <italic>Mice</italic></article-title></title-group></article-meta></front>
<body><sec><title>Methods</title><p>We asked <xref rid="x">them</xref>.<fn><p>Twice.</p></fn> Once.</p>
<sec><title>Sample</title><list><list-item><p>First</p></list-item><list-item><p>Second</p></list-item></list>
<table-wrap><caption><title>Counts</title></caption><table><tr><th>Kind</th><th>Number</th></tr>
<tr><td>grey</td><td>3</td></tr></table></table-wrap></sec></sec></body></article>"""


def test_an_article_has_headings_by_the_depth_of_its_sections_lists_and_tables() -> None:
    found = read(JATS)
    assert found.title == "Of Mice"
    assert found.text.split("\n\n") == [
        "# Of Mice",
        "## Methods",
        "We asked them. Twice. Once.",
        "### Sample",
        "- First\n- Second",
        "Counts",
        "| Kind | Number |\n| grey | 3 |\n",
    ]
    assert not found.own_lines


def test_a_feed_is_read_with_the_html_inside_it() -> None:
    feed = """<rss version="2.0"><channel><title>News</title><item><title>One &amp;amp; two</title>
    <description>&lt;p&gt;First&lt;/p&gt;&lt;p&gt;Second&lt;/p&gt;</description></item>
    <item><title>Three</title><description><![CDATA[<b>bold</b> &eacute;]]></description></item></channel></rss>"""
    text = read(feed, "feed").text
    assert text == "# News\n\n## One & two\n\nFirst\n\nSecond\n\n## Three\n\nbold é\n"


def test_a_book_in_fictionbook_has_its_title_and_no_pictures() -> None:
    book = """<FictionBook><description><title-info><author><first-name>A</first-name><last-name>B</last-name></author>
    <book-title>War</book-title></title-info></description><body><section><title><p>One</p><p>Two</p></title>
    <p>Text.</p></section></body><binary id="x">AAAA</binary></FictionBook>"""
    found = read(book, "a.fb2")
    assert found.title == "War"
    assert found.metadata["author"] == "A B"
    assert "## One Two\n\nText." in found.text
    assert "AAAA" not in found.text


def test_a_spreadsheet_of_office_2003_has_sheets_as_pages_and_gaps_in_its_rows() -> None:
    book = """<Workbook xmlns:ss="s"><Styles><Style>No</Style></Styles>
    <Worksheet ss:Name="First"><Table><Row><Cell><Data>a</Data></Cell><Cell ss:Index="3"><Data>c</Data></Cell></Row>
    </Table></Worksheet><Worksheet ss:Name="Second"><Table><Row><Cell><Data>x</Data></Cell></Row></Table>
    <WorksheetOptions><PageSetup><Header x:Data="&amp;CTop"/></PageSetup><Selected/></WorksheetOptions></Worksheet>
    </Workbook>"""
    found = read(book)
    assert found.text == "## First\n\n| a |  | c |\n\n## Second\n\nx\n\nTop\n"
    assert [found.text[start : start + 4] for start in found.pages] == ["## F", "## S"]
    assert found.title is None


def test_a_text_of_office_2003_has_the_text_of_its_runs_alone() -> None:
    document = """<w:wordDocument xmlns:w="w"><o:DocumentProperties><o:Author>Me</o:Author><o:Pages>3</o:Pages>
    <o:Keywords>red</o:Keywords></o:DocumentProperties><w:styles><w:t>no</w:t></w:styles><w:body>
    <w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>He</w:t></w:r>
    <w:r><w:t>ad</w:t></w:r></w:p>
    <w:p><w:r><w:instrText>PAGE</w:instrText><w:t>Body</w:t></w:r></w:p></w:body></w:wordDocument>"""
    found = read(document)
    assert found.text == "# Head\n\nBody\n\nkeywords: red\n"
    assert found.metadata == {"author": "Me", "keywords": "red"}


def test_a_filing_names_its_facts() -> None:
    text = read("<xbrl><context><id>c</id></context><a:NetIncome>12</a:NetIncome></xbrl>").text
    assert text == "Net Income: 12\n"


def test_an_unknown_document_is_known_by_text_between_its_elements() -> None:
    assert (
        read("<doc><say>One <k>two</k> three.</say><say>Four <k>five</k>.</say></doc>").text
        == "One two three.\n\nFour five.\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        "<project><name>x</name><version>1</version></project>",
        "<beans><bean id='a' class='b.c.D'><property name='x' value='y'/></bean></beans>",
        "<rows><row><id>1</id><name>foo</name></row></rows>",
        "<?xml version='1.0'?>\n<a b='c'/>\n",
        "<broken><a>text</broken>",
    ],
)
def test_data_keeps_its_own_characters(data: str) -> None:
    found = read(data)
    assert (found.kind, found.text, found.own_lines) == ("xml", data, True)


def test_entities_are_characters_where_anybody_names_them() -> None:
    text = read(
        '<!DOCTYPE patdoc [<!ENTITY own "mine"><!ENTITY file SYSTEM "/etc/passwd">]><PATDOC><PARA>'
        "&own; &alpha;&agr;&ldquo; &#228;&#xe4; &file; &unknown; &amp;lt; a&b</PARA></PATDOC>"
    ).text
    assert text == "mine αα“ ää &file; &unknown; &lt; a&b\n"


def test_what_is_not_well_formed_is_read_to_its_end() -> None:
    text = read(
        "<rss><channel><title>A < B</title></wrong><item><x:title>C</channel></rss><rss><title>D</rss> <!-- E"
    ).text
    for words in ("A < B", "C", "D", "E"):
        assert words in text


def test_elements_may_lie_in_each_other_without_end() -> None:
    deep = "<sec>" * 30_000 + "<title>deep</title>"
    assert read("<rss>" + deep).text == "# deep\n"


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<![CDATA[", "<!DOCTYPE a [", "<a b='", '<a b="', "<a =", "</a", "&", "]]>"]
)
def test_broken_markup_takes_linear_time(piece: str) -> None:
    assert read("<rss><title>x</title>" + piece * 100_000).text


@given(
    st.lists(
        st.sampled_from([*JATS.split("\n"), "<row>", "<td>", "</table>", "<w:p>", "<ul>", "&x;", "]]>"]), max_size=12
    )
)
def test_any_pieces_of_a_document_end_in_text_or_a_refusal(pieces: list[str]) -> None:
    try:
        found = read("<article>" + "".join(pieces))
    except Refused:
        return
    assert all(0 <= start <= len(found.text) for start in found.pages)
