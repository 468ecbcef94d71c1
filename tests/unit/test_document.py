"""Identities and fingerprints."""

from __future__ import annotations

import string
import uuid

from hypothesis import given
from hypothesis import strategies as st

from headwater.document import (
    content_hash,
    document_id,
    path_from_wire,
    path_to_text,
    path_to_wire,
    point_id,
    record_id,
    text_hash,
)

PATHS = st.binary(min_size=1, max_size=60).filter(lambda path: b"\0" not in path)


@given(PATHS)
def test_a_path_comes_back_from_the_wire(path: bytes) -> None:
    wire = path_to_wire(path)
    assert path_from_wire(wire) == path
    assert set(wire) <= set(string.ascii_letters + string.digits + "_.-~/ %")


@given(PATHS)
def test_a_path_is_always_text_that_can_be_stored(path: bytes) -> None:
    assert path_to_text(path).encode("utf-8")


@given(st.text(min_size=1))
def test_a_path_in_utf8_is_shown_as_it_is(name: str) -> None:
    assert path_to_text(name.encode()) == name


@given(PATHS, PATHS)
def test_different_paths_have_different_ids(a: bytes, b: bytes) -> None:
    assert (document_id(a) == document_id(b)) == (a == b)


def test_bytes_that_are_not_utf8_are_shown_in_hexadecimal() -> None:
    assert path_to_text(b"caf\xe9/\xff.md") == "caf%E9/%FF.md"
    assert path_to_text("caf\u00e9/50%.md".encode()) == "caf\u00e9/50%.md"
    assert path_to_text(b"\xed\xa0\x80") == "%ED%A0%80"  # a lone surrogate is not UTF-8


def test_ids_are_those_of_every_index_made_so_far() -> None:
    document = document_id(b"guide/setup.md")
    assert document == "c4c7c604-1244-5a55-b1c4-c4a49b336f83"
    assert point_id(document, 0) == "7bd59d4b-20ec-5796-b6b0-44eebef27ff6"
    assert point_id(document, 12) == "7b5cc218-a7bc-51b3-a3c1-c2b4e61de290"
    assert record_id(document) == "2cf48450-f085-52f1-b22f-ba1b4b1899ee"
    assert text_hash("The river rises.\n") == "193c15d52ec2064ab73d2afb9c3bbb19"
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_ids_are_uuids_and_never_meet() -> None:
    documents = [document_id(b"%d" % number) for number in range(50)]
    points = [point_id(document, number) for document in documents for number in range(20)]
    records = [record_id(document) for document in documents]
    every = documents + points + records
    assert len(set(every)) == len(every)
    assert all(uuid.UUID(one).version == 5 for one in every)


@given(st.text(), st.text())
def test_different_texts_have_different_hashes(a: str, b: str) -> None:
    assert (text_hash(a) == text_hash(b)) == (a == b)
    assert len(text_hash(a)) == 32


def test_a_text_with_a_lone_surrogate_has_a_hash() -> None:
    assert text_hash("\ud800") != text_hash("")
