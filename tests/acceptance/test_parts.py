"""The same parts one by one, as on many machines: a broker, a producer, Celery's own command, a query API."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Headwater, wait_until

from headwater.broker import embedded_binary


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    """A Valkey server on a TCP port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [embedded_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, "the broker listens")
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(10)


def test_the_parts_run_one_by_one(headwater: Headwater, broker_url: str, tmp_path: Path) -> None:
    # Given a folder, a broker, and a worker under Celery's own command
    (headwater.folder / "a.md").write_text("# Rivers\n\nA quokka crosses the river.\n")
    (headwater.folder / "b.txt").write_text("A numbat stays at home.\n")
    headwater.environment["CELERY_BROKER_URL"] = broker_url
    environment = {**headwater.full_environment(), "HEADWATER_FOLDER": str(headwater.folder)}
    log = tmp_path / "celery.log"
    with open(log, "w") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "info"],
            env=environment,
            cwd=Path(__file__).resolve().parents[2],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    # When the producer runs until in step
    try:
        done = headwater.run("watch", str(headwater.folder), "--once", timeout_s=120)
    finally:
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(60)
    assert done.returncode == 0 and code == 0, log.read_text()
    assert headwater.status()["documents"]["indexed"] == 2
    # Then a query API of its own answers from that index, and ends when told
    api = subprocess.Popen(
        [sys.executable, "-m", "headwater", "serve"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert api.stdout is not None
        url = api.stdout.readline().strip()
        asked = json.dumps({"text": "who crosses water", "mode": "dense", "limit": 1}).encode()
        with urllib.request.urlopen(f"{url}/v1/search", asked) as answer:
            hits = json.load(answer)["hits"]
        assert hits[0]["path"] == "a.md" and hits[0]["headings"] == ["Rivers"]
    finally:
        api.send_signal(signal.SIGTERM)
        assert api.wait(30) == 0
        api.stdout.close()


def test_an_index_that_was_deleted_is_made_again(headwater: Headwater) -> None:
    import shutil

    (headwater.folder / "a.md").write_text("A quokka crosses the river.\n")
    headwater.once()
    shutil.rmtree(headwater.state / "index")
    (headwater.state / "index.json").unlink()
    headwater.once()
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "a.md"
    assert headwater.status()["embedded_texts_total"] == 1


def test_the_state_directory_may_lie_in_the_folder(headwater: Headwater) -> None:
    headwater.state = headwater.folder / "state"
    (headwater.folder / "a.md").write_text("A quokka crosses the river.\n")
    headwater.once()
    assert headwater.status()["documents"] == {"indexed": 1, "partial": 0, "refused": 0, "failed": 0, "waiting": 0}


def test_another_model_on_the_same_index_is_refused_with_one_sentence(headwater: Headwater) -> None:
    (headwater.folder / "a.md").write_text("A quokka crosses the river.\n")
    headwater.once()
    headwater.environment["HEADWATER_TRUNCATE_DIM"] = "128"
    done = headwater.run("up", str(headwater.folder), "--once", check=False)
    assert done.returncode != 0
    assert "was made with the model" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    headwater.environment.clear()
    assert headwater.search("quokka", "--mode", "sparse")[0]["path"] == "a.md"


def test_modules_in_the_working_directory_are_not_imported(headwater: Headwater, tmp_path: Path) -> None:
    # Given a working directory with files named like modules of the standard library
    for name in ("html.py", "logging.py", "email.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working directory')\n")
    (headwater.folder / "a.html").write_text("<p>A quokka crosses the river.</p>\n")
    # When the service runs there, Then it is not disturbed
    command = [sys.executable, "-P", "-m", "headwater", "up", str(headwater.folder), "--once"]
    environment = headwater.full_environment()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert headwater.status()["documents"]["indexed"] == 1
