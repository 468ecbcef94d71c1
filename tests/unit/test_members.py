"""Files within documents: which are read, under which names, and what happens to hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extracted import Extracted, Member, Refused
from worker.members import Limits, Reading, read_deep

Found = dict[str | None, str]
USUAL = Limits()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return packed.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def found_in(data: bytes, name: str = "a.zip", limits: Limits = USUAL, passwords: tuple[str, ...] = ()) -> Found:
    return found_and_told(data, name, limits, passwords)[0]


def found_and_told(
    data: bytes, name: str = "a.zip", limits: Limits = USUAL, passwords: tuple[str, ...] = ()
) -> tuple[Found, Reading]:
    reading = Reading()
    pieces = read_deep(data, name, reading, limits=limits, passwords=passwords)
    return {piece.name: piece.read.text for piece in pieces}, reading


def refusal(data: bytes, name: str = "a.zip", limits: Limits = USUAL) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        found_in(data, name, limits)
    return caught.value.code, caught.value.reason


def test_a_document_without_files_within_it_is_one_piece_without_a_name() -> None:
    assert found_in(b"Some words.", "a.txt") == {None: "Some words."}


def test_each_file_in_a_zip_is_a_piece_and_directories_are_none() -> None:
    data = zipped({"docs/": b"", "docs/a.txt": b"One.", "b.md": b"# Two"})
    assert found_in(data) == {"docs/a.txt": "One.", "b.md": "# Two"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_archive_is_read_however_it_is_compressed(pack: object) -> None:
    data = pack(tarred({"a.txt": b"One.", "d/b.txt": b"Two."}))  # type: ignore[operator]  # four functions of bytes
    assert found_in(data, "whatever") == {"a.txt": "One.", "d/b.txt": "Two."}


@pytest.mark.parametrize(
    ("name", "inner"),
    [("x/notes.txt.gz", "notes.txt"), ("page.svgz.GZ", "page.svgz"), ("odd", "content"), (".gz", "content")],
)
def test_a_compressed_document_is_found_under_its_name_without_the_ending(name: str, inner: str) -> None:
    assert found_in(gzip.compress(b"Some words."), name) == {inner: "Some words."}


def test_archives_in_archives_show_the_way_in_the_path() -> None:
    data = zipped({"in/b.zip": zipped({"c.txt": b"Deep."}), "d.txt.gz": gzip.compress(b"Flat.")})
    assert found_in(data) == {"in/b.zip!/c.txt": "Deep.", "d.txt.gz!/d.txt": "Flat."}


def test_a_name_stays_within_its_document_and_is_there_once() -> None:
    data = tarred({"../../etc/passwd": b"Up.", "/abs/./a.txt": b"Root.", "abs/a.txt": b"Again.", "new\nline": b"Two."})
    assert list(found_in(data, "a.tar")) == ["etc/passwd", "abs/a.txt", "abs/a.txt (2)", "new\ufffdline"]


def test_a_name_that_is_not_unicode_is_shown_in_percent() -> None:
    data = tarred({os.fsdecode(b"caf\xe9.txt"): b"Words."})
    assert list(found_in(data, "a.tar")) == ["caf%E9.txt"]


def test_what_has_no_words_leaves_an_archive_whole_and_is_named() -> None:
    found, reading = found_and_told(zipped({"a.txt": b"One.", "p.png": b"\x89PNG\r\n\x1a\n\0", "empty": b""}))
    assert found == {"a.txt": "One."} and reading.why_partial() is None
    assert reading.reasons() == [
        "p.png: a picture: its text is read when OCR is switched on (HEADWATER_OCR)",
        "empty: an empty file",
    ]


def test_a_damaged_file_leaves_an_archive_in_part() -> None:
    found, reading = found_and_told(zipped({"a.txt": b"One.", "b.docx": b"PK\x03\x04 broken", "c.pdf": b"%PDF-1.4 x"}))
    assert found == {"a.txt": "One."}
    assert reading.why_partial() == "b.docx and 1 more within it: a damaged ZIP container"


def test_an_archive_of_which_nothing_can_be_read_says_why() -> None:
    picture = b"\x89PNG\r\n\x1a\n\0"
    assert refusal(zipped({})) == ("empty", "an archive without files")
    assert refusal(zipped({"a.png": picture})) == (
        "unsupported",
        "a.png within it: a picture: its text is read when OCR is switched on (HEADWATER_OCR)",
    )
    code, reason = refusal(zipped({"a.png": picture, "b.zip": b"PK\x03\x04 broken"}))
    assert (code, reason) == ("damaged", "none of the 2 files within it can be read: a damaged ZIP container")


def test_an_archive_that_breaks_off_is_read_up_to_there() -> None:
    words = "".join(f"{number} " for number in range(50_000)).encode()
    whole = gzip.compress(tarred({"a.txt": words, "b.txt": words[::-1]}))
    found, reading = found_and_told(whole[: len(whole) * 3 // 4], "a.tar.gz")
    assert list(found) == ["a.txt"] and "damaged in the archive" in str(reading.why_partial())


# -- limits -----------------------------------------------------------------------------------------------------


def test_depth_is_limited() -> None:
    data = b"Deep."
    for level in range(5):
        data = zipped({f"{level}.txt" if level == 0 else f"{level}.zip": data})
    assert list(found_in(data, limits=Limits(depth=5))) == ["4.zip!/3.zip!/2.zip!/1.zip!/0.txt"]
    assert refusal(data, limits=Limits(depth=4))[0] == "too large"
    found, reading = found_and_told(zipped({"a.txt": b"One.", "b.zip": data}), limits=Limits(depth=4))
    assert list(found) == ["a.txt"]
    deep = "b.zip!/4.zip!/3.zip!/2.zip within it: files within files are read to a depth of 4"
    assert reading.why_partial() == deep


def test_a_depth_of_nothing_leaves_archives_alone_and_mails_whole() -> None:
    assert refusal(zipped({"a.txt": b"One."}), limits=Limits(depth=0))[0] == "unsupported"


def test_the_number_of_files_is_limited() -> None:
    found, reading = found_and_told(zipped({f"{n}.txt": b"Words." for n in range(9)}), limits=Limits(members=4))
    assert len(found) == 4 and reading.why_partial() == "only 4 files within it are read"


def test_the_size_of_one_file_is_limited_whatever_it_claims() -> None:
    bomb = zipped({"a.txt": b"a" * 5000, "b.txt": b"Words."}, zipfile.ZIP_DEFLATED)
    found, reading = found_and_told(bomb, limits=Limits(member_bytes=1000))
    assert list(found) == ["b.txt"]
    assert reading.why_partial() == "a.txt within it: larger than the 1000 bytes that are allowed there"


def test_all_files_together_are_limited() -> None:
    data = zipped({f"{n}.txt": b"Words. " * 100 for n in range(9)})
    found, reading = found_and_told(data, limits=Limits(total_bytes=2000))
    assert len(found) == 2 and "larger than" in str(reading.why_partial())


def test_a_file_that_inflates_out_of_all_proportion_is_left_out() -> None:
    """100 MiB of nothing in 100 kB: more than 16 MiB and 250 times its size."""
    bomb = zipped({"a.txt": b"Words.", "zeros.txt": b"0" * (100 << 20)}, zipfile.ZIP_DEFLATED)
    found, reading = found_and_told(bomb, limits=Limits(member_bytes=1 << 30))
    assert list(found) == ["a.txt"] and reading.unread[0].code == "too large"


# -- passwords --------------------------------------------------------------------------------------------------


def encrypted_zip(password: bytes, data: bytes) -> bytes:
    """One stored file by the classic encryption of ZIP (PKWARE's APPNOTE, 6.1), which zipfile can only read."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = _crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = _crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    crc = zlib.crc32(data)
    secret = bytearray()
    for byte in bytes(11) + bytes([crc >> 24]) + data:
        mask = keys[2] | 2
        secret.append(byte ^ ((mask * (mask ^ 1) >> 8) & 0xFF))
        update(byte)
    plain = bytearray(zipped({"a.txt": bytes(secret)}))
    for head, flags, crc_at, size_at in ((b"PK\x03\x04", 6, 14, 22), (b"PK\x01\x02", 8, 16, 24)):
        at = plain.find(head)
        plain[at + flags] |= 1
        plain[at + crc_at : at + crc_at + 4] = crc.to_bytes(4, "little")
        plain[at + size_at : at + size_at + 4] = len(data).to_bytes(4, "little")
    return bytes(plain)


def _crc(value: int, byte: int) -> int:
    return zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def test_an_encrypted_zip_is_read_with_the_right_password_and_refused_without() -> None:
    data = encrypted_zip(b"heron", b"Secret words.")
    assert refusal(data)[0] == "encrypted"
    assert found_in(data, passwords=("stork", "heron")) == {"a.txt": "Secret words."}


@pytest.mark.parametrize("hidden", [False, True], ids=["files", "names too"])
def test_an_encrypted_7z_is_read_with_the_right_password_and_refused_without(hidden: bool) -> None:
    py7zr = pytest.importorskip("py7zr")
    packed = io.BytesIO()
    with py7zr.SevenZipFile(packed, "w", password="heron", header_encryption=hidden) as archive:
        archive.writestr(b"Secret words.", "d/a.txt")
    assert refusal(packed.getvalue(), "a.7z")[0] == "encrypted"
    assert found_in(packed.getvalue(), "a.7z", passwords=("stork", "heron")) == {"d/a.txt": "Secret words."}


# -- damage -----------------------------------------------------------------------------------------------------

ARCHIVES = {
    "a.zip": zipped({"a.txt": b"One word. " * 50, "b/c.txt": b"Two words. " * 50}, zipfile.ZIP_DEFLATED),
    "a.tar": tarred({"a.txt": b"One word. " * 50, "b/c.txt": b"Two words. " * 50}),
    "a.tar.gz": gzip.compress(tarred({"a.txt": b"One word. " * 50})),
    "a.txt.bz2": bz2.compress(b"One word. " * 50),
    "a.txt.xz": lzma.compress(b"One word. " * 50),
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ARCHIVES)), st.data())
def test_damage_ends_in_pieces_or_in_a_refusal(name: str, data: st.DataObject) -> None:
    whole = bytearray(ARCHIVES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        found_in(damaged, name)
    except Refused as refused:
        assert refused.code and refused.reason


def test_a_container_that_breaks_off_between_its_files_keeps_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    def members() -> Iterator[Member]:
        yield Member("a.txt", lambda most: b"One."[:most])
        raise Refused("damaged", "a damaged list of files")

    def read_one(data: bytes, name: str, **means: object) -> Extracted:
        return Extracted("zip", "", members=members()) if name == "a.zip" else Extracted("text", data.decode())

    monkeypatch.setattr("worker.members.read", read_one)
    found, reading = found_and_told(b"-")
    assert found == {"a.txt": "One."}
    assert reading.why_partial() == "the files within it: a damaged list of files"
