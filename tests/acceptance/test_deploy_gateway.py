"""A query server without a model: a worker embeds its questions, and torch is not even there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater
from server_mode import collection_of

pytestmark = pytest.mark.long


def test_a_query_server_without_torch_answers_as_the_worker_does(headwater: Headwater, tmp_path: Path) -> None:
    # Given an index, a service that holds it, and a copy of it (in the place of a server, where there is none)
    (headwater.folder / "a.md").write_text("# Rivers\n\nA quokka crosses the river.\n")
    (headwater.folder / "b.md").write_text("# Home\n\nA numbat stays at home.\n")
    headwater.once()
    copy = tmp_path / "copy"
    shutil.copytree(headwater.state, copy)
    headwater.up()
    worker = headwater.status()["api"]
    # When a query server runs on the copy, where neither torch nor the libraries of models can be imported
    absent = tmp_path / "absent"
    for name in ("torch", "sentence_transformers", "transformers", "word_embedder"):
        (absent / name).mkdir(parents=True)
        (absent / name / "__init__.py").write_text(f"raise ImportError('{name} is not installed')\n")
    before = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "HEADWATER_STATE_DIR": str(copy), "PYTHONPATH": f"{absent}{os.pathsep}{before}"}
    if headwater.servers is not None:
        environment |= headwater.servers.environment(collection_of(headwater.state))
    refused = _serve(environment)
    assert "ImportError" not in refused[1] and refused[0] == 78, "without a worker it needs a model"
    with subprocess.Popen(
        _SERVE, env={**environment, "HEADWATER_EMBED_URL": worker}, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            # Then it answers each kind of question as the worker does
            for question in (
                {"text": "who crosses water", "mode": "dense"},
                {"text": "numbat", "mode": "hybrid", "limit": 1},
                {"text": "quokka", "mode": "sparse"},
            ):
                assert _hits(url, question) == _hits(worker, question) != []
            with pytest.raises(urllib.error.HTTPError) as too_long:
                _hits(url, {"text": "word " * 300, "mode": "dense"})
            assert too_long.value.code == 400 and "shorten it" in too_long.value.read().decode()
            # And when no worker is left, it says so, and words are still found
            headwater.stop()
            with pytest.raises(urllib.error.HTTPError) as gone:
                _hits(url, {"text": "who crosses water", "mode": "dense"})
            assert gone.value.code == 503 and "does not answer" in gone.value.read().decode()
            assert _hits(url, {"text": "quokka", "mode": "sparse"})[0]["path"] == "a.md"
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    status, said = _serve({**environment, "HEADWATER_EMBED_URL": worker})
    assert status == 75 and "no worker answers at HEADWATER_EMBED_URL" in said and len(said.splitlines()) == 1


_SERVE = [sys.executable, "-P", "-m", "headwater", "serve"]


def _serve(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(_SERVE, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr.strip()


def _hits(url: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/v1/search", json.dumps(question).encode(), timeout=30) as answer:
        hits: list[dict[str, Any]] = json.load(answer)["hits"]
    return hits
