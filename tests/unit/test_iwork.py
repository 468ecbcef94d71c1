"""Pages, Numbers and Keynote of 2009 and before."""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extract import read as read_any
from worker.extracted import Extracted, Input, Refused
from worker.iwork import read_iwork

NAMES = " ".join(
    f'xmlns:{prefix}="http://developer.apple.com/namespaces/{name}"'
    for prefix, name in {"sfa": "sfa", "sf": "sf", "sl": "sl", "ls": "ls", "key": "keynote2"}.items()
)


def packed(root: str, inner: str, part: str = "index.xml") -> bytes:
    xml = f'<?xml version="1.0"?><{root} {NAMES}>{inner}</{root}>'.encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(part, gzip.compress(xml) if part.endswith(".gz") else xml)
    return file.getvalue()


def read(root: str, inner: str, part: str = "index.xml", name: str = "file") -> Extracted:
    return extract(packed(root, inner, part), name)


def storage(*paragraphs: str) -> str:
    lines = "".join(f"<sf:p>{line}</sf:p>" for line in paragraphs)
    return f"<sf:text-storage><sf:text-body>{lines}</sf:text-body></sf:text-storage>"


def test_pages_has_its_pages_notes_headers_and_properties() -> None:
    found = read(
        "sl:document",
        '<sf:metadata><sf:authors><sf:string sfa:string="Eve"/></sf:authors>'
        '<sf:keywords><sf:string sfa:string="k1"/></sf:keywords></sf:metadata>'
        f"<sl:stylesheet>{storage('style')}</sl:stylesheet><sf:headers><sf:header>{storage('Top')}</sf:header></sf:headers>"
        f"<sf:text-storage><sf:footnotes>{storage('<sf:footnote-mark sf:mark=' + chr(34) + '1' + chr(34) + '/> Note')}"
        '</sf:footnotes><sf:text-body><sf:page-start sf:page-index="0"/>'
        '<sf:p>One<sf:footnote sf:autonumber="1"/> two <sf:page-start sf:page-index="1"/>three</sf:p></sf:text-body>'
        "</sf:text-storage>",
    )
    assert (
        found.text
        == "One[1] two three\n\n[1] Note\n\n## Headers and footers\n\nTop\n\n## Properties\n\n- Keywords: k1\n"
    )
    assert (found.kind, found.metadata) == ("pages", {"author": "Eve", "keywords": "k1"})
    assert [found.text[start:][:3] for start in found.pages] == ["One", "thr"]


def test_what_is_anchored_in_a_paragraph_follows_it() -> None:
    found = read(
        "sl:document",
        f'<sf:text-storage><sf:attachments><sf:attachment sfa:ID="a">{storage("Box")}</sf:attachment></sf:attachments>'
        '<sf:text-body><sf:p>First<sf:attachment-ref sfa:IDREF="a"/></sf:p><sf:p>Last</sf:p></sf:text-body>'
        "</sf:text-storage>",
    )
    assert found.text == "First\n\nBox\n\nLast\n"


def test_numbers_has_sheets_with_tables_cell_by_cell() -> None:
    cells = (
        '<sf:t sf:ct="0"><sf:ct sfa:s="Name"/></sf:t><sf:t><sf:ct sfa:s="Sum"/></sf:t>'
        '<sf:d sf:ct="255" sf:cell-date="86400"/><sf:f><sf:r><sf:rn sf:v="-872.39999999999998"/></sf:r></sf:f>'
        '<sf:pm sf:ct="255"><sf:menu-choices><sf:t sfa:ID="c1"><sf:ct sfa:s="No"/></sf:t>'
        '<sf:t sfa:ID="c2"><sf:ct sfa:s="Yes"/></sf:t></sf:menu-choices><sf:proxied-cell-ref sfa:IDREF="c2"/></sf:pm>'
        f"<sf:t><sf:so>{storage('rich', 'text')}</sf:so></sf:t>"
    )
    grid = f"<sf:grid><sf:datasource>{cells}</sf:datasource></sf:grid>"
    table = f'<sf:tabular-model sf:name="Costs">{grid}</sf:tabular-model>'
    sheets = "".join(f'<ls:workspace ls:workspace-name="{name}">{table}</ls:workspace>' for name in ("A", "B"))
    found = read("ls:document", sheets)
    assert found.kind == "numbers"
    assert found.text.startswith(
        "## A\n\n### Costs\n\n| Name | Sum |\n| --- | --- |\n| 2001-01-02 | -872.4 |\n| Yes | rich text |\n\n## B"
    )
    assert [found.text[start:][:4] for start in found.pages] == ["## A", "## B"]


def test_keynote_has_slides_with_titles_and_notes_and_no_prompts() -> None:
    def placeholder(name: str, words: str) -> str:
        return f"<key:{name}-placeholder><key:text>{storage(words)}</key:text></key:{name}-placeholder>"

    found = read(
        "key:presentation",
        f"<key:master-slide>{placeholder('title', 'Type here')}{storage('Ltd.')}</key:master-slide>"
        f"<key:slide>{placeholder('title', 'One')}{placeholder('body', 'Words')}"
        f"<key:bullets>{storage('Words')}</key:bullets>"
        f"<key:notes>{storage('Say it')}</key:notes></key:slide><key:slide>{placeholder('title', 'Two')}</key:slide>",
        "index.apxl.gz",
    )
    assert (found.kind, found.title) == ("keynote", "One")
    assert found.text == "## One\n\nWords\n\nNotes:\n\nSay it\n\n## Two\n\n## Headers and footers\n\nLtd.\n"
    assert [found.text[start:][:6] for start in found.pages] == ["## One", "## Two"]


def test_another_archive_with_such_a_part_is_no_document_of_apple() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.xml", "<site/>")
    assert read_any(file.getvalue(), "site.zip").kind == "zip"


def test_a_part_that_no_method_opens_is_protected() -> None:
    data = bytearray(packed("sl:document", storage("Secret")))
    at = data.index(b"PK\x01\x02")
    data[8:10] = data[at + 10 : at + 12] = b"\x63\x00"
    with pytest.raises(Refused) as refused:
        extract(bytes(data), "secret.pages")
    assert refused.value.code == "encrypted"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(packed("sl:document", storage(*(f"line {n}" for n in range(50)))))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        read_iwork(Input(bytes(whole), "x.pages", "pages"))
