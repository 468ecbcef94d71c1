"""Mail: which words of it are read, what is attached, and what becomes of heads and parts that are wrong."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import read
from worker.extracted import Extracted, Refused
from worker.members import Reading, read_deep


def mail(text: str = "", **heads: str) -> EmailMessage:
    made = EmailMessage()
    for name, value in {"From": "Ada <ada@example.org>", "To": "bob@example.org", "Subject": "Herons", **heads}.items():
        made[name] = value
    if text:
        made.set_content(text)
    return made


def read_mail(made: EmailMessage | bytes, name: str = "a.eml") -> Extracted:
    return read(made if isinstance(made, bytes) else made.as_bytes(), name)


def found_in(data: bytes, name: str = "a.eml") -> dict[str | None, str]:
    return {piece.name: piece.read.text for piece in read_deep(data, name, Reading())}


def test_heads_stand_above_the_text_and_are_fields() -> None:
    found = read_mail(mail("Some words.", Cc="C <c@x.org>, d@x.org", Date="Mon, 27 Sep 2010 14:29:16 +0100"))
    assert found.text.splitlines()[:5] == [
        "Subject: Herons", "From: Ada <ada@example.org>", "To: bob@example.org", "Cc: C <c@x.org>, d@x.org",
        "Date: Mon, 27 Sep 2010 14:29:16 +0100",
    ]  # fmt: skip
    assert found.text.endswith("\n\nSome words.\n") and found.title == "Herons"
    fields = {"from": "Ada <ada@example.org>", "to": ["bob@example.org"], "cc": ["C <c@x.org>", "d@x.org"]}
    assert {name: found.metadata[name] for name in fields} == fields
    assert found.metadata["date"] == "2010-09-27T14:29:16+01:00"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"=?utf-8?b?UmVpaGVyIMO8YmVy?= =?iso-8859-1?q?_dem_See=F6?=", "Reiher über dem Seeö"),
        ("Reiher über dem See".encode(), "Reiher über dem See"),
        (b"=?utf-8?b?!!!?= plain", "plain"),
        (b"=?no-such-charset?q?herons?=", "herons"),
    ],
)
def test_a_subject_in_any_encoding_is_shown_in_characters(raw: bytes, shown: str) -> None:
    found = read_mail(b"From: a@x.org\nTo: b@x.org\nSubject: " + raw + b"\n\nWords.\n")
    assert found.title == shown


def test_of_alternatives_each_line_is_read_once() -> None:
    made = mail("Herons wait for fish.\nThey are *grey*.")
    made.add_alternative("<p>Herons wait for fish.</p><p>They are <b>grey</b>.</p><p>Only here.</p>", subtype="html")
    text = read_mail(made).text
    assert [text.count(words) for words in ("Herons wait", "grey", "Only here")] == [1, 1, 1]


def test_a_page_alone_is_read_as_one() -> None:
    made = mail()
    made.set_content("<h1>Herons</h1><p>wait &amp; see</p><script>no()</script>", subtype="html")
    assert read_mail(made).text.endswith("# Herons\n\nwait & see\n")


def test_attachments_are_documents_of_their_own() -> None:
    made = mail("See below.")
    made.add_attachment("One.", filename="über.txt")
    made.add_attachment(b"\x89PNG\r\n\x1a\n\0", maintype="image", subtype="png", filename="logo.png")
    inner = mail("Deep words.", Subject="Inner")
    made.add_attachment(inner)
    found = found_in(made.as_bytes())
    assert set(found) == {None, "über.txt", "message-3.eml"}
    assert found["über.txt"].strip() == "One." and "Deep words." in found["message-3.eml"]
    assert read_mail(made).metadata["attachments"] == ["über.txt", "logo.png"]


@pytest.mark.parametrize("label", ["us-ascii", "utf-8", "no-such-charset", "iso-2022-jp"])
def test_a_charset_that_is_wrong_does_not_spoil_the_words(label: str) -> None:
    body = "Graureiher über Flüssen, völlig ruhig. Möwen fürchten sie häufig.".encode("cp1252")
    head = f"From: a@x.org\nSubject: s\nContent-Type: text/plain; charset={label}\nContent-Transfer-Encoding: 8bit\n\n"
    assert "Graureiher über Flüssen" in read_mail(head.encode() + body).text


def test_flowed_lines_are_joined_within_quotes_of_one_depth() -> None:
    head = b"From: a@x.org\nSubject: s\nContent-Type: text/plain; format=flowed\n\n"
    found = read_mail(head + b"Herons wait \nfor fish.\n> They said \n> so.\n>> Who? \n> Me.\n-- \nAda\n")
    assert found.text.endswith("Herons wait for fish.\n> They said so.\n>> Who? \n> Me.\n-- \nAda\n")


def test_a_mailbox_is_its_mails() -> None:
    box = b"".join(
        b"From ada@x.org Mon Sep 27 14:29:16 2010\n" + mail(words).as_bytes() + b"\n\n"
        for words in ("First words.", "Second words.\n\n>From here on.")
    )
    found = found_in(box, "box")
    assert list(found) == ["1.eml", "2.eml"]
    assert "First words." in found["1.eml"] and "\nFrom here on." in found["2.eml"]


@pytest.mark.parametrize("before", [b"", b"\n\n", b"\xef\xbb\xbf", b"\r\n"])
def test_a_mail_is_known_without_its_ending_whatever_stands_before_it(before: bytes) -> None:
    assert read_mail(before + mail("Words.").as_bytes(), "no-ending").kind == "eml"


def test_a_mail_of_apple_has_its_length_before_it_and_more_behind() -> None:
    data = mail("Words.").as_bytes()
    found = read_mail(f"{len(data)}\n".encode() + data + b"<?xml version='1.0'?><plist/>", "1.emlx")
    assert found.kind == "eml" and "plist" not in found.text


def test_a_text_that_begins_with_words_and_a_colon_is_no_mail() -> None:
    assert read_mail(b"Note: this\nSubject: that\nTo: whom it may concern\n\nWords.", "a.txt").kind == "text"


def test_a_mail_of_which_only_the_heads_can_be_read_says_so() -> None:
    heads = b"From: a@x.org\nTo: b@x.org\nSubject: Secret\nContent-Type: multipart/encrypted; boundary=x\n\n"
    parts = b"--x\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n\n--x\n\n-----BEGIN PGP MESSAGE-----\n--x--\n"
    assert read_mail(heads + parts).partial == "only its heads, for its content is encrypted"


WHOLE = mail("Herons wait.")
WHOLE.add_alternative("<p>Herons wait.</p>", subtype="html")
WHOLE.add_attachment("One.", filename="a.txt")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_ends_in_a_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(WHOLE.as_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found_in(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    except Refused as refused:
        assert refused.code and refused.reason
