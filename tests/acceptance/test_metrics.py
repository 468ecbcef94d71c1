"""What a running service tells of itself: metrics, verdict and logs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from driver import Headwater, wait_until
from prometheus_client.parser import text_string_to_metric_families

import producer

ROOT = Path(producer.__file__).parents[1]
#: a word of documents, which no log may have
MARKER = "marzipan"


def scrape(run: Headwater) -> dict[str, float]:
    """Name and labels -> value, as Prometheus would read them."""
    with urllib.request.urlopen(f"{run.peek()['api']}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


def test_one_scrape_tells_of_the_whole_service(headwater: Headwater) -> None:
    # Given a service in step, and then an edit, a deletion and a question
    for n in range(3):
        (headwater.folder / f"{n}.md").write_text(f"# Note {n}\n\nA quokka is number {n}.\n")
    (headwater.folder / "empty.md").write_bytes(b"")
    headwater.up()
    (headwater.folder / "0.md").write_text("# Note 0\n\nA numbat instead.\n")
    (headwater.folder / "1.md").unlink()
    wait_until(lambda: scrape(headwater)["headwater_saved_to_searchable_seconds_count"] == 2, "both are told", 30)
    assert headwater.search("numbat", "--mode", "sparse")
    # Then one place tells the numbers of all parts
    told = scrape(headwater)
    assert told["headwater_documents{state=indexed}"] == 2 and told["headwater_documents{state=refused}"] == 1
    assert told["headwater_in_step"] == told["headwater_broker_up"] == told["headwater_producer_up"] == 1
    assert told["headwater_queue_oldest_seconds{lane=live}"] == told["headwater_queue_depth{lane=bulk}"] == 0
    assert told["headwater_outcomes_total{state=deleted}"] == 1
    assert told["headwater_hinted_documents_total{lane=live}"] == 2
    assert told["headwater_hints_taken_total{lane=live}"] >= 1
    assert told["headwater_texts_embedded_total{kind=document}"] == 4
    assert told["headwater_extract_seconds_count{kind=markdown}"] == 4
    assert told["headwater_flush_seconds_count"] >= 2
    assert told["headwater_watched_directories"] == 1 and told["headwater_missed_events_total"] == 0
    assert told["headwater_query_seconds_count{mode=sparse}"] == 1
    assert told["headwater_index_points{kind=document}"] in (2, 3)  # counted at most every half minute
    assert 0 < told["headwater_saved_to_searchable_seconds_sum"] < 60
    # And every metric that the dashboard and the alerts name is among them
    names = {re.sub(r"(_bucket|_count|_sum)?(\{.*)?$", "", key) for key in told}
    for file in ("grafana/dashboards/headwater.json", "prometheus/alerts.yml"):
        text = (ROOT / "deploy" / file).read_text("utf-8")
        named = set(re.findall(r"\b(?:headwater|process)_[a-z_]+\b", text))
        assert len(named) >= 15
        assert {re.sub(r"(_bucket|_count|_sum)$", "", name) for name in named} <= names
    # And what stands in labels is never a path
    assert not any(".md" in key for key in told)
    # And the verdict is good, also for a health check
    status = json.loads(headwater.run("status", "--json", "--check").stdout)
    assert (status["health"], status["causes"]) == ("ok", [])
    # And without the service the check fails, though nothing is wrong
    headwater.stop()
    done = headwater.run("status", "--check", check=False)
    assert done.returncode == 1 and "ok, in step, not running" in done.stdout


def test_status_of_a_directory_without_state_is_one_sentence(headwater: Headwater, tmp_path: Path) -> None:
    done = headwater.run("status", "--state-dir", str(tmp_path / "nothing"), check=False)
    assert done.returncode == 78 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "holds no state of Headwater" in done.stderr


def test_each_part_listens_on_a_port_of_its_own(headwater: Headwater, tmp_path: Path) -> None:
    # Given a broker that does not answer, and a producer that has a port for metrics
    environment = {
        **os.environ,
        **headwater.environment,
        "CELERY_BROKER_URL": f"redis+socket://{tmp_path}/none.sock",
        "HEADWATER_STATE_DIR": str(headwater.state),
        "HEADWATER_METRICS_PORT": "29464",
    }
    (headwater.folder / "a.md").write_text("A quokka.\n")
    command = [sys.executable, "-P", "-m", "headwater", "watch", str(headwater.folder)]
    with open(tmp_path / "watch.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        # Then it tells so
        def told() -> str:
            try:
                with urllib.request.urlopen("http://127.0.0.1:29464/metrics") as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        wait_until(lambda: 'headwater_trouble{part="broker"} 1.0' in told(), "the trouble is told", 30)
        assert "headwater_broker_up 0.0" in told()
        assert 'headwater_due_documents{lane="bulk"} 1.0' in told()
        # And the status has the cause and what to do
        done = headwater.run("status", "--check", check=False)
        assert done.returncode == 1
        assert re.search(r"^failing: broker: .+does not answer.+\n  next: start the broker", done.stdout, re.MULTILINE)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture
def gossips(tmp_path: Path, headwater: Headwater) -> None:
    """A reader and an embedder that quote the document in their errors, and print it."""
    site = tmp_path / "site"
    info = site / "gossip-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gossip\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headwater.readers]\ntext/x-fountain = gossip:read\n")
    (site / "gossip.py").write_text(
        "import sys, logging\n"
        "from worker.plugins import reads\n"
        "@reads('fountain')\n"
        "def read(given):\n"
        "    text = given.data.decode()\n"
        "    print(text, file=sys.stderr); logging.getLogger('x').error(text)\n"
        "    raise ValueError('cannot read ' + text)\n"
        "def make(settings):\n"
        "    from word_embedder import WordEmbedder\n"
        "    class Gossip(WordEmbedder):\n"
        "        def encode(self, texts, kind):\n"
        f"            if any('{MARKER}' in text for text in texts):\n"
        "                raise RuntimeError('cannot embed ' + str(texts)) from KeyError(texts[0])\n"
        "            return super().encode(texts, kind)\n"
        "    return Gossip(32)\n"
    )
    headwater.environment["PYTHONPATH"] = f"{site}{os.pathsep}{headwater.environment['PYTHONPATH']}"
    headwater.environment["HEADWATER_MODEL"] = "python:gossip:make"


@pytest.mark.usefixtures("gossips")
def test_the_logs_are_json_and_hold_no_text_of_a_document(headwater: Headwater) -> None:
    from headwater.document import document_id

    # Given documents whose text breaks their reader, or the model
    headwater.environment |= {"HEADWATER_LOG_FORMAT": "json", "HEADWATER_LOG_LEVEL": "debug", "HEADWATER_ATTEMPTS": "1"}
    (headwater.folder / "read.fountain").write_text(f"A scene with {MARKER}.\n")
    (headwater.folder / "embed.md").write_text(f"# {MARKER}\n\nA recipe with {MARKER} and almonds.\n")
    (headwater.folder / "good.md").write_text("A quokka in good order.\n")
    # When they are indexed
    headwater.once()
    # Then both failed, and a person who asks hears the whole reason
    failures = headwater.run("failures", check=False).stdout
    assert "read.fountain" in failures and "embed.md" in failures and failures.count(MARKER) >= 2
    # And the logs have the documents and not a word of their text
    logs = {log.name: log.read_text() for log in (headwater.state / "logs").glob("*.log")}
    assert not [name for name, text in logs.items() if MARKER in text]
    said = [line for name in ("producer.log", "worker.log") for line in logs[name].splitlines()]
    lines = [json.loads(line) for line in said if line and not line.startswith("worker: ")]  # Celery's farewell
    assert all({"ts", "level", "logger", "message"} <= set(line) for line in lines)
    failed = {line["document_id"]: line["message"] for line in lines if "document_id" in line}
    assert "read.fountain failed: the extraction failed" in failed[document_id(b"read.fountain")]
    assert "could not be embedded: RuntimeError at gossip.py" in failed[document_id(b"embed.md")]
