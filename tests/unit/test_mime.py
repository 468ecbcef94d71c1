"""Mail parts by their bytes: charsets, boundaries, what stands above a head, saved pages, and hostile ones."""

from __future__ import annotations

import random
from contextlib import suppress
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import Extracted, Refused, extract
from worker.extract import read as read_any

HEAD = b"From: Ann <a@example.org>\nTo: b@example.org\nSubject: Hello\nDate: Fri, 4 May 2001 14:05:44 -0400\n"


def members(read: Extracted) -> dict[str, bytes]:
    return {member.name: member.read(1 << 20) for member in read.members}


def message(plain: str = "The body", rich: str = "") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ann <a@example.org>", "b@example.org", "Grüße"
    mail.set_content(plain)
    if rich:
        mail.add_alternative(rich, subtype="html")
    return mail


def test_encoded_words_may_cut_a_character_in_two() -> None:
    head = HEAD.replace(b"Hello", b"=?utf-8?Q?Gr=C3?=\n =?utf-8?Q?=BC=C3=9Fe?=")
    assert extract(head + b"\nx\n", "a.eml").title == "Grüße"


def test_names_with_commas_stay_whole() -> None:
    head = HEAD.replace(
        b"b@example.org", b'"Doe, John" <j@d.org>, =?utf-8?Q?M=C3=BCller=2C_X?= <m@x.org>, c@d.org (Eve)'
    )
    wanted = ["Doe, John <j@d.org>", "Müller, X <m@x.org>", "Eve <c@d.org>"]
    assert extract(head + b"\nx\n", "a.eml").metadata["to"] == wanted


@pytest.mark.parametrize(
    ("label", "body", "wanted"),
    [
        ("iso-8859-1", "voilà „so“".encode("cp1252"), "voilà „so“"),
        ("us-ascii", "Grüße".encode(), "Grüße"),
        ("no-such-charset", "Grüße aus Köln, schöne Tage und viele Grüße".encode("cp1252"), "Grüße aus Köln"),
        ("iso-2022-jp", "こんにちは".encode("iso2022_jp"), "こんにちは"),
        ("utf-7", "héllo".encode("utf-7"), "héllo"),
        ("koi8-r", "Привет".encode("koi8_r"), "Привет"),
        ("gb2312", "镕基".encode("gb18030"), "镕基"),
    ],
)
def test_a_label_is_believed_where_the_bytes_allow_it(label: str, body: bytes, wanted: str) -> None:
    head = HEAD + f"Content-Type: text/plain; charset={label}\n\n".encode()
    assert wanted in extract(head + body, "a.eml").text


def test_plain_text_comes_before_its_html_twin() -> None:
    read = extract(message("Same words here", "<p>Same <b>words</b> here</p>").as_bytes(), "a.eml")
    assert read.text.count("words") == 1


def test_a_stub_of_plain_text_gives_way_to_html() -> None:
    read = extract(message("Use another program", "<p>All the words that matter are here</p>").as_bytes(), "a.eml")
    assert "All the words that matter" in read.text


def test_lines_that_only_html_has_are_kept() -> None:
    read = extract(
        message("One two three\nfour five", "<p>One two three</p><p>four five</p><p>six</p>").as_bytes(), "a"
    )
    assert read.text.endswith("four five\n\nsix\n")


def test_attachments_and_mails_within_are_members() -> None:
    mail = message()
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Übersicht.pdf")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png")
    mail.add_attachment(message("Within"))
    read = extract(mail.as_bytes(), "a.eml")
    found = members(read)
    assert found["Übersicht.pdf"] == b"%PDF"
    assert found["part-2.png"] == b"\x89PNG"
    assert b"Within" in found["message-3.eml"]
    assert read.metadata["attachments"] == ["Übersicht.pdf"]
    assert "Attachments: Übersicht.pdf" in read.text


def test_an_attached_name_cannot_point_elsewhere() -> None:
    mail = message()
    mail.add_attachment(b"x", maintype="application", subtype="pdf", filename="../../etc/a.pdf")
    assert list(members(extract(mail.as_bytes(), "a.eml"))) == ["a.pdf"]


def test_uuencoded_files_leave_the_text() -> None:
    read = extract(HEAD + b"\nsee\nbegin 644 cat.txt\n#0V%T\n`\nend\nbye\n", "a.eml")
    assert members(read) == {"cat.txt": b"Cat"}
    assert "0V%T" not in read.text and read.text.endswith("bye\n")


def test_a_multipart_without_its_boundary_is_read_as_text() -> None:
    assert extract(HEAD + b"Content-Type: multipart/mixed; boundary=b\n\nStill here\n", "a").text.endswith(
        "Still here\n"
    )


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n\r\n", b"From a@b.org Fri May  4 14:05:44 2001\n", b"137\n"])
def test_a_mail_is_known_by_its_head_whatever_stands_above(before: bytes) -> None:
    read = extract(before + HEAD + b"\nThe body\n", "no-extension")
    assert (read.kind, read.title) == ("eml", "Hello")


def test_a_mailbox_gives_its_mails_as_members() -> None:
    line = b"From a@b.org Fri May  4 14:05:44 2001\n"
    read = read_any(line + HEAD + b"\n>From here\n\n" + line + HEAD.replace(b"Hello", b"Bye") + b"\nx\n", "inbox")
    assert (read.kind, read.text) == ("mbox", "")
    found = members(read)
    assert list(found) == ["1.eml", "2.eml"]
    assert found["1.eml"].endswith(b"\n\nFrom here\n\n")


def test_apple_mail_ends_before_its_property_list() -> None:
    mail = HEAD + b"\nThe body\n"
    assert extract(b"%d\n" % len(mail) + mail + b"<?xml?><plist/>", "1.emlx").text.endswith("The body\n")


def test_a_saved_page_is_its_words_without_looks() -> None:
    page = (
        b"From: <Saved by Blink>\nSnapshot-Content-Location: http://a.org/\nSubject: A page\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n"
        b"<title>Page</title><body><p>Words</p>\n--b\nContent-Type: text/css\n\np {}\n"
        b"--b\nContent-Type: image/png\n\nx\n--b--\n"
    )
    read = extract(page, "a.mhtml")
    assert (read.kind, read.title, read.text.strip()) == ("mhtml", "Page", "Words")
    assert not list(read.members)


def test_mails_nested_without_end_are_read_in_part() -> None:
    nested = b"Content-Type: text/plain\n\nx"
    for level in range(200):
        nested = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%b\n--b%d--\n" % (level, level, nested, level)
    assert extract(HEAD + nested, "a.eml").partial == "1 part could not be read"


SAMPLE = message("Grüße", "<p>Grüße und mehr</p>")
SAMPLE.add_attachment(b"\x00\xff", maintype="application", subtype="pdf", filename="Übersicht.pdf")


@settings(max_examples=60)
@given(st.integers(), st.integers(0, 30), st.integers(0, 2000))
def test_a_damaged_mail_is_read_or_refused(seed: int, flips: int, cut: int) -> None:
    data = bytearray(SAMPLE.as_bytes()[: -cut or None])
    chance = random.Random(seed)
    for _ in range(flips if data else 0):
        data[chance.randrange(len(data))] = chance.choice(b'=?;"\n\r\x00\xff-<(')
    with suppress(Refused):
        assert extract(bytes(data), "a.eml").kind in ("eml", "text")


@pytest.mark.parametrize(
    "hostile",
    [
        b"From: " + b"(a<" * 20_000 + b"\nTo: " + b'"\\' * 20_000 + b"\nCc: " + b"a (" * 20_000 + b"\n\nx",
        HEAD + b"Content-Type: text/plain" + b";a*0=" * 10_000 + b"\n\nx",
        HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 100_000,
        HEAD + b"\n" + b"begin 644 x\nend\n" * 50_000,
        b"Subject: " + b"=?a?b?" * 10_000 + b"\n\nx",
    ],
)
@pytest.mark.timeout(20)
def test_a_hostile_mail_costs_no_more_than_its_size(hostile: bytes) -> None:
    with suppress(Refused):
        assert extract(hostile, "a.eml").kind == "eml"
