"""Archives, passwords and files of all kinds on a real folder, as a person meets them on the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater

PICTURE = b"\x89PNG\r\n\x1a\n\0"


def zipped(files: dict[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def answers(run: Headwater, *arguments: str, status: int = 0) -> Any:
    done = run.run(*arguments, "--json", "--folder", str(run.folder), "--state-dir", str(run.state), check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def found(run: Headwater, text: str, *options: str) -> list[str]:
    return [hit["path"] for hit in answers(run, "search", text, *options)]


def test_an_archive_is_one_document_to_watch_and_many_to_search(headwater: Headwater) -> None:
    inner = zipped({"owl.txt": "Owls hunt voles at night."})
    files = {"heron.md": "# Heron\n\nHerons wait for fish.", "in.zip": inner, "a.png": PICTURE}
    (headwater.folder / "birds.zip").write_bytes(zipped(files))
    headwater.once()
    assert found(headwater, "owls hunt voles", "--limit", "1") == ["birds.zip!/in.zip!/owl.txt"]
    hit = answers(headwater, "search", "herons wait for fish", "--limit", "1")[0]
    assert (hit["path"], hit["member"], hit["start_line"]) == ("birds.zip!/heron.md", "heron.md", 1)
    assert hit["stale"] is False
    why = answers(headwater, "why", "birds.zip")
    assert (why["state"], why["chunks"]) == ("indexed", 2)
    assert why["notes"] == [
        "not indexed within it: a.png: a picture: its text is read when OCR is switched on (HEADWATER_OCR)"
    ]
    # and when the archive changes, all of it does
    (headwater.folder / "birds.zip").write_bytes(zipped({"stork.txt": "Storks nest on roofs."}))
    headwater.once()
    assert set(found(headwater, "herons owls storks")) == {"birds.zip!/stork.txt"}
    (headwater.folder / "birds.zip").unlink()
    (headwater.folder / "other.txt").write_text("Something else.")
    headwater.once()
    assert found(headwater, "storks nest") == ["other.txt"]
    assert answers(headwater, "verify")["findings"] == []


def test_why_answers_for_a_file_within_an_archive(headwater: Headwater) -> None:
    (headwater.folder / "a.zip").write_bytes(zipped({"a.txt": "Some words.", "b.docx": b"PK\x03\x04 broken"}))
    headwater.once()
    assert answers(headwater, "why", "a.zip!/a.txt")["state"] == "partial"
    refused = answers(headwater, "why", "a.zip!/b.docx", status=1)
    assert (refused["state"], refused["answer"]) == ("refused", "a damaged ZIP container")
    absent = answers(headwater, "why", "a.zip!/c.txt", status=1)
    assert (absent["state"], absent["answer"]) == ("absent", "no such file is known within a.zip")


def test_what_is_similar_to_a_file_within_an_archive_is_found(headwater: Headwater) -> None:
    (headwater.folder / "a.zip").write_bytes(zipped({"a.txt": "Herons wait for fish.", "b.txt": "Stars burn."}))
    (headwater.folder / "c.txt").write_text("Herons wait for fish in the water.")
    headwater.once()
    assert answers(headwater, "similar", "a.zip!/a.txt")[0]["path"] == "c.txt"
    assert answers(headwater, "similar", "c.txt")[0]["path"] == "a.zip!/a.txt"


def test_a_change_of_settings_reads_archives_again(headwater: Headwater) -> None:
    (headwater.folder / "a.zip").write_bytes(zipped({"a.txt": "Some words."}))
    headwater.environment["HEADWATER_ARCHIVE_DEPTH"] = "0"
    headwater.once()
    assert "HEADWATER_ARCHIVE_DEPTH is 0" in answers(headwater, "why", "a.zip", status=1)["answer"]
    del headwater.environment["HEADWATER_ARCHIVE_DEPTH"]
    headwater.once()
    assert found(headwater, "some words") == ["a.zip!/a.txt"]


def test_a_file_of_passwords_that_others_may_read_is_refused_in_one_sentence(
    headwater: Headwater, tmp_path: Path
) -> None:
    secrets = tmp_path / "passwords"
    secrets.write_text("heron\n")
    secrets.chmod(0o644)
    headwater.environment["HEADWATER_PASSWORD_FILE"] = str(secrets)
    done = headwater.run("up", str(headwater.folder), "--once", check=False)
    assert done.returncode == 78
    assert f"the file of passwords {secrets} may be read by others: run 'chmod 600' on it" in done.stderr


def test_an_encrypted_document_is_indexed_once_its_password_is_known(
    headwater: Headwater, tmp_path: Path, data: Path
) -> None:
    name = "test-protected.pdf"
    shutil.copy(data / "formats" / "files" / "fscrawler" / "documents" / name, headwater.folder)
    headwater.once()
    assert "protected by a password" in answers(headwater, "why", name, status=1)["answer"]
    secrets = tmp_path / "passwords"
    secrets.write_text("stork\npdfpassword\n")
    secrets.chmod(0o600)
    headwater.environment["HEADWATER_PASSWORD_FILE"] = str(secrets)
    headwater.once()
    assert answers(headwater, "why", name)["state"] == "indexed"
    everything = b"".join(path.read_bytes() for path in headwater.state.rglob("*") if path.is_file())
    assert b"pdfpassword" not in everything


# -- headwater extract ------------------------------------------------------------------------------------------


def test_extract_shows_what_is_read_in_a_file(headwater: Headwater, tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(zipped({"a.md": "---\nauthor: Ada\n---\n# Title\n\nWords below.", "b.png": PICTURE}))
    done = headwater.run("extract", str(file), "--json")
    told = json.loads(done.stdout)
    assert (told["outcome"], told["kind"], told["unread"]) == (
        "indexed",
        "zip",
        ["b.png: a picture: its text is read when OCR is switched on (HEADWATER_OCR)"],
    )
    member, chunk = told["members"][0], told["chunks"][0]
    assert (member["name"], member["kind"], member["title"], member["metadata"]) == (
        "a.md", "markdown", "Title", {"author": "Ada"},
    )  # fmt: skip
    assert (chunk["path"], chunk["start_line"], chunk["end_line"]) == ("a.zip!/a.md", 4, 6)
    assert chunk["text"] == "# Title\n\nWords below." and chunk["tokens"] > 3
    shown = headwater.run("extract", str(file)).stdout
    for line in (
        f"indexed  {file}",
        "  kind       zip",
        "  not read: b.png: a picture: its text is read when OCR is switched on (HEADWATER_OCR)",
        "a.zip!/a.md",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "is not there: name a document"),
        (lambda path: path.mkdir(), "is no regular file: name a document"),
        (lambda path: os.mkfifo(path), "is no regular file: name a document"),
        (lambda path: path.write_bytes(b"x" * 2000), "is larger than the limit of 1000 bytes"),
    ],
)
def test_extract_names_what_is_wrong_with_a_file(
    headwater: Headwater, tmp_path: Path, make: Any, sentence: str
) -> None:
    file = tmp_path / "file"
    make(file)
    headwater.environment["HEADWATER_MAX_FILE_BYTES"] = "1000"
    done = headwater.run("extract", str(file), check=False)
    assert done.returncode == 78 and f"{file} {sentence}" in done.stderr


def test_extract_says_why_a_file_is_not_indexed(headwater: Headwater, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE)
    done = headwater.run("extract", str(file), check=False)
    assert (done.returncode, done.stdout) == (
        1,
        f"refused  {file}\n  a picture: its text is read when OCR is switched on (HEADWATER_OCR)\n",
    )


# -- the formats pack -------------------------------------------------------------------------------------------


def test_every_file_of_the_formats_pack_has_its_outcome(headwater: Headwater, data: Path) -> None:
    """399 real files, broken and hostile ones among them: none fails, stalls or ends its reader."""
    shutil.copytree(data / "formats" / "files", headwater.folder, dirs_exist_ok=True)
    end = json.loads(headwater.once().stdout.splitlines()[-1])
    documents = end["documents"]
    assert documents["failed"] == documents["waiting"] == 0
    assert documents["indexed"] + documents["partial"] > 330 and documents["refused"] < 60
    assert answers(headwater, "failures")["failures"] == []
    log = (headwater.state / "logs" / "worker.log").read_text()
    assert "was killed" not in log and "crashed" not in log and "took longer" not in log
