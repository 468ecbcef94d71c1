"""Office documents behind a password: the newer ones are encrypted here, as Office does it."""

from __future__ import annotations

import io
import zipfile

import pytest

from worker.extract import extract
from worker.extracted import Refused

WORDS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(text: str) -> bytes:
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>'
    )
    body = f'<w:document xmlns:w="{WORDS}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document.xml", body)
        archive.writestr("word/filler.txt", bytes(5000))  # what is smaller the library encrypts wrongly
    return out.getvalue()


def locked(data: bytes, password: str) -> bytes:
    import msoffcrypto

    out = io.BytesIO()
    msoffcrypto.OfficeFile(io.BytesIO(data)).encrypt(password, out)
    return out.getvalue()


def test_a_document_is_opened_by_a_password_that_is_given() -> None:
    found = extract(locked(docx("Herons"), "marsh"), "a.docx", passwords=("wrong", "marsh"))
    assert (found.kind, found.text.strip(), found.metadata["protected"]) == ("docx", "Herons", True)


@pytest.mark.parametrize("passwords", [(), ("wrong",)])
def test_without_its_password_a_document_is_refused(passwords: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="protected by a password") as refused:
        extract(locked(docx("Herons"), "marsh"), "a.docx", passwords=passwords)
    assert refused.value.code == "encrypted"


@pytest.mark.parametrize("password", ["VelvetSweatshop", "/01Hannes Ruescher/01"])
def test_what_is_only_protected_from_changes_is_read(password: str) -> None:
    assert extract(locked(docx("Herons"), password), "a.docx").text.strip() == "Herons"


def test_a_key_that_would_take_hours_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.protected._MOST_TURNS", 99_999)
    with pytest.raises(Refused) as refused:
        extract(locked(docx("Herons"), "marsh"), "a.docx", passwords=("marsh",))
    assert refused.value.code == "encrypted"


def test_damage_is_no_crash() -> None:
    whole = locked(docx("Herons"), "marsh")
    for at in range(600, len(whole), 2503):
        broken = whole[:at] + bytes(40) + whole[at + 40 :]
        try:
            extract(broken, "a.docx", passwords=("marsh",))
        except Refused as refused:
            assert refused.reason
