"""Everything that can be wrong with files, folders, disks and ports: the right outcome, one clear sentence, and
everything else indexed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from driver import Headwater, pids_with
from server_mode import embedded_only


def _states(run: Headwater) -> dict[bytes, tuple[str, str | None]]:
    from producer.ledger import Ledger

    ledger = Ledger(run.state / "ledger.sqlite3", read_only=True)
    try:
        return {row.path: (row.state, row.reason) for row in ledger.rows(limit=10_000)}
    finally:
        ledger.close()


def test_nasty_files_each_have_their_outcome_and_the_rest_is_indexed(headwater: Headwater, tmp_path: Path) -> None:
    # Given one folder with everything in it
    folder = headwater.folder
    outside = tmp_path / "outside.md"
    outside.write_text("Nobody shall find this armadillo.\n")
    (folder / "good.md").write_text("# Good\n\nA quokka in good order.\n")
    (folder / "empty.md").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n\n\t\n")
    (folder / "binary.dat").write_bytes(bytes(range(256)) * 40)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to("self")
    (folder / "out.md").symlink_to(outside)
    with open(os.fsencode(folder) + b"/caf\xe9.md", "w") as file:
        file.write("# Latin\n\nA numbat with a strange name.\n")
    (folder / "long.txt").write_text("x" * 1_000_000)
    (folder / "latin1.txt").write_bytes("Der Bär im Gehölz trägt größere Äpfel über die Brücke.\n".encode("latin-1"))
    (folder / ".env").write_text("SECRET=armadillo\n")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "sock"))
    # When it is indexed
    headwater.once()
    listener.close()
    # Then each has its outcome
    states = _states(headwater)
    assert states[b"good.md"] == ("indexed", None)
    assert states[b"caf\xe9.md"] == ("indexed", None)
    assert states[b"latin1.txt"] == ("indexed", None)
    assert states[b"long.txt"] == ("indexed", None)
    for refused in (b"empty.md", b"blank.txt", b"binary.dat", b"pipe", b"loop", b"self", b"out.md", b"sock"):
        state, reason = states[refused]
        assert state == "refused" and reason, refused
    assert b".env" not in states
    status = headwater.status()
    assert status["in_step"] and status["documents"]["waiting"] == 0
    # And the texts are found under readable paths, the outside one is not
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "good.md"
    assert headwater.search("numbat", "--mode", "sparse")[0]["path"] == "caf%E9.md"
    assert "Gehölz" in headwater.search("Gehölz", "--mode", "sparse")[0]["text"]
    assert headwater.search("armadillo", "--mode", "sparse") == []


def test_a_file_that_may_not_be_read_fails_with_its_reason(headwater: Headwater) -> None:
    # Given a file without permissions and a user who is not above them
    (headwater.folder / "closed.md").write_text("Nobody reads this.\n")
    (headwater.folder / "closed.md").chmod(0)
    (headwater.folder / "open.md").write_text("A quokka for everybody.\n")
    command = [sys.executable, "-m", "headwater", "up", str(headwater.folder), "--once"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("as root this needs setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *command]
    # When the folder is indexed
    done = subprocess.run(command, capture_output=True, text=True, env=headwater.full_environment(), timeout=120)
    # Then it is failed, said so, and the other one is indexed
    assert done.returncode == 0, done.stderr
    state, reason = _states(headwater)[b"closed.md"]
    assert state == "failed" and "Permission denied" in str(reason)
    status = headwater.status()
    assert status["documents"]["indexed"] == 1 and status["documents"]["failed"] == 1
    assert status["health"] == "degraded" and "closed.md" in status["reasons"][0]
    # And once it may be read, it is indexed
    (headwater.folder / "closed.md").chmod(stat.S_IRUSR | stat.S_IWUSR)
    headwater.once()
    assert headwater.status()["documents"]["indexed"] == 2


def test_a_file_that_could_not_be_read_for_a_while_is_indexed_when_it_can(headwater: Headwater) -> None:
    from driver import wait_until

    # Given a disk or a mount that gives no bytes of a file until all its tries are spent
    failing = ";".join(["worker:reading=error~shaky"] * 3)
    headwater.environment |= {"HEADWATER_FAILPOINTS": failing, "HEADWATER_RESCAN_S": "2"}
    (headwater.folder / "firm.md").write_text("A numbat on a firm one.\n")
    headwater.up()
    (headwater.folder / "shaky.md").write_text("A quokka on a shaky disk.\n")
    wait_until(lambda: "cannot be read: a failpoint" in str(_states(headwater)), "it fails")
    # When it can be read again, which no event tells
    wait_until(lambda: headwater.peek()["documents"]["indexed"] == 2, "a scan tries it again")
    # Then it is found
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "shaky.md"
    assert headwater.status()["health"] == "ok"


def _one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_a_missing_folder_is_one_sentence(headwater: Headwater) -> None:
    headwater.folder.rmdir()
    _one_sentence(headwater.run("up", str(headwater.folder), check=False), str(headwater.folder), "does not exist")


def test_a_file_instead_of_a_folder_is_one_sentence(headwater: Headwater) -> None:
    file = headwater.folder / "file.md"
    file.write_text("text")
    _one_sentence(headwater.run("up", str(file), check=False), str(file), "not a folder")


def test_a_wrong_setting_is_one_sentence(headwater: Headwater) -> None:
    headwater.environment["HEADWATER_PRECISION"] = "int3"
    done = headwater.run("up", str(headwater.folder), check=False)
    _one_sentence(done, "HEADWATER_PRECISION", "int3", "bf16")


def test_an_unknown_model_is_one_sentence_and_burns_no_document(headwater: Headwater) -> None:
    (headwater.folder / "a.md").write_text("Words.\n")
    headwater.environment["HEADWATER_MODEL"] = "/nowhere/no-such-model"
    _one_sentence(
        headwater.run("up", str(headwater.folder), "--once", check=False), "no-such-model", "cannot be loaded"
    )
    assert headwater.status()["documents"] == {"indexed": 0, "partial": 0, "refused": 0, "failed": 0, "waiting": 1}


def test_a_search_before_anything_is_indexed_is_one_sentence(headwater: Headwater) -> None:
    embedded = headwater.servers is None or headwater.servers.qdrant_url is None
    told = ("there is no index", "headwater up") if embedded else ("there is no collection", "start")
    _one_sentence(headwater.run("search", "anything", check=False), *told)


def test_a_taken_port_is_one_sentence(headwater: Headwater) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = headwater.run("up", str(headwater.folder), "--port", str(port), check=False)
    _one_sentence(done, str(port), "--port")
    assert pids_with(str(headwater.state)) == {}


def test_a_second_up_on_the_same_state_is_one_sentence(headwater: Headwater) -> None:
    headwater.up()
    assert headwater.process is not None
    done = headwater.run("up", str(headwater.folder), check=False)
    _one_sentence(done, "already runs", str(headwater.process.pid))
    assert headwater.status()["in_step"]


def test_a_broker_that_is_not_there_is_one_sentence(headwater: Headwater) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        headwater.environment["CELERY_BROKER_URL"] = f"redis://127.0.0.1:{free.getsockname()[1]}/0"
    _one_sentence(headwater.run("up", str(headwater.folder), "--once", check=False), "broker", "does not answer")


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 400 MiB, as root."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(mount)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@embedded_only("the index does not lie on the disk that fills up")
@pytest.mark.timeout(300)
def test_a_disk_that_fills_up_is_one_sentence_and_loses_nothing(headwater: Headwater, small_disk: Path) -> None:
    # Given an index on a small disk that then fills up
    headwater.state = small_disk / "state"
    (headwater.folder / "before.md").write_text("A quokka before the flood.\n")
    headwater.once()
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 30 * 2**20))
    # When another document comes
    (headwater.folder / "after.md").write_text("A numbat after the flood.\n")
    done = headwater.run("up", str(headwater.folder), "--once", check=False)
    # Then that is said, also by a search that would have to open the index
    _one_sentence(done, str(headwater.state), "MiB", "free some space")
    _one_sentence(headwater.run("search", "quokka", check=False), "free some space")
    # And with space again, all is indexed
    ballast.unlink()
    headwater.once()
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "before.md"
    assert headwater.search("numbat", "--mode", "sparse")[0]["path"] == "after.md"


@embedded_only("the index does not lie on the disk that fills up")
@pytest.mark.timeout(300)
def test_a_disk_that_fills_up_while_it_runs_degrades_and_recovers(headwater: Headwater, small_disk: Path) -> None:
    from driver import wait_until

    headwater.state = small_disk / "state"
    (headwater.folder / "before.md").write_text("A quokka before the flood.\n")
    headwater.up()
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 30 * 2**20))
    (headwater.folder / "after.md").write_text("A numbat after the flood.\n")
    wait_until(lambda: headwater.peek()["health"] != "ok", "the full disk is noticed")
    assert any("free some space" in reason for reason in headwater.status()["reasons"])
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "before.md"
    ballast.unlink()
    wait_until(lambda: headwater.peek()["in_step"], "in step again")
    assert headwater.search("numbat", "--mode", "sparse")[0]["path"] == "after.md"
    assert headwater.status()["health"] == "ok"
