"""What deploy/ promises, as far as it can be checked without a container engine.

The files are held against the official Compose schema and hadolint; the flags, commands, environment and health checks
that they name are run against the real parts, outside containers.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner

from headwater.broker import embedded_binary
from headwater.cli import app
from headwater.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
EXAMPLE = ROOT / "deploy" / ".env.example"
PARTS = ("producer", "worker", "query")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]

#: seconds in which a worker drains, as headwater.supervisor allows it
_DRAIN_S = 30
#: an exact version, perhaps with a variant: 9.1.2-alpine, v1.19.1-unprivileged
_PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)*$")
#: environment of other libraries that the parts may be given
_FOREIGN = {"HF_HOME", "HF_HUB_OFFLINE"}
#: variables for Compose itself and the builds
_COMPOSE_ONLY = {"DOCUMENTS", "QUERY_PORT", "APP_UID", "APP_GID", "TORCH_INDEX_URL"}


# -- the files --------------------------------------------------------------------------------------------------


def test_the_compose_file_follows_the_compose_specification() -> None:
    done = _run(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))
    assert done.returncode == 0, done.stdout


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("stop_grace_period: 60s", "stop_grace_periods: 60s"))
    done = _run(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(broken))
    assert done.returncode == 1, done.stdout


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = _run(_tool("hadolint"), "--no-color", "--failure-threshold", "style", str(DOCKERFILE))
    assert (done.returncode, done.stdout) == (0, "")


def test_only_the_query_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["query"]
    assert all(port.startswith("127.0.0.1:") for port in published["query"])
    assert not any("network_mode" in service for service in SERVICES.values())


def test_documents_are_mounted_read_only_and_a_missing_folder_is_never_made() -> None:
    for name, service in SERVICES.items():
        binds = [v for v in service.get("volumes", []) if isinstance(v, dict)]
        if name not in ("producer", "worker"):
            assert not binds
            continue
        [documents] = binds
        assert documents["source"].startswith("${DOCUMENTS:?")
        assert documents["read_only"] is True
        assert documents["bind"]["create_host_path"] is False
        assert documents["target"] == service["environment"]["HEADWATER_FOLDER"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_watched_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})
    assert all(need == {"condition": "service_healthy"} for need in needs.values())
    wanted = {"producer": {"redis"}, "worker": {"redis", "qdrant"}, "query": {"qdrant", "worker"}}
    assert set(needs) == wanted.get(name, set())


def test_a_worker_gets_longer_to_stop_than_it_drains() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > _DRAIN_S


def test_a_worker_has_no_way_out_and_its_pdf_library_can_be_loaded() -> None:
    networks = yaml.safe_load(COMPOSE.read_text("utf-8"))["networks"]
    assert [networks[name] for name in SERVICES["worker"]["networks"]] == [{"internal": True}]
    [temporary] = SERVICES["worker"]["tmpfs"]
    assert temporary.startswith("/tmp:")
    assert "exec" in temporary.split(":")[1].split(",")


def test_images_are_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    stages = _stages()
    bases = set(stages.values()) - set(stages)
    assert len(images) == 2 and len(bases) == 1
    for image in (*images, *bases):
        assert _PINNED.match(image), image


def test_no_image_runs_as_root() -> None:
    users = {line.split()[1] for name in PARTS for line in _instructions(name, "USER")}
    assert users == {"${APP_UID}:${APP_GID}"}
    assert all(len(_instructions(name, "USER")) == 1 for name in PARTS)
    defaults = dict(line.split()[1].split("=") for line in _instructions("base", "ARG"))
    assert all(int(number) > 0 for number in defaults.values())
    assert SERVICES["redis"]["user"].split(":")[0] != "0"
    assert SERVICES["qdrant"]["image"].endswith("-unprivileged")


def test_the_commands_are_commands_of_headwater() -> None:
    for name in PARTS:
        [default] = _instructions(name, "CMD")
        for command in (SERVICES[name]["command"], yaml.safe_load(default.removeprefix("CMD "))):
            assert command[0] == "headwater"
            assert CliRunner().invoke(app, [*command[1:], "--help"]).exit_code == 0, command
    assert CliRunner().invoke(app, ["work", "--no-such-option", "--help"]).exit_code != 0


def test_environment_names_are_settings() -> None:
    names = {alias for field, info in Settings.model_fields.items() for alias in _names(field, info.validation_alias)}
    given = {variable for part in PARTS for variable in SERVICES[part]["environment"]}
    assert given <= names | _FOREIGN
    assert _example_variables() <= names | _COMPOSE_ONLY


def test_the_example_names_each_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text("utf-8")))
    assert used == _COMPOSE_ONLY | {"QDRANT_API_KEY"}
    assert used <= _example_variables()


def test_the_build_sees_the_package_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    metadata = [project["project"]["readme"], *project["project"]["license-files"]]
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {"pyproject.toml", "constraints.txt", *packages, *metadata}


def test_extras_that_the_images_install_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(re.findall(r"/src\[(\w+)\]", DOCKERFILE.read_text("utf-8"))) <= set(project["optional-dependencies"])


def test_no_package_index_is_named() -> None:
    for path in (COMPOSE, DOCKERFILE, EXAMPLE):
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text("utf-8")))
        assert hosts <= {"qdrant", "127.0.0.1"}, path


# -- what they say, run ------------------------------------------------------------------------------------------


def test_the_broker_takes_its_flags_and_never_evicts(tmp_path: Path) -> None:
    with _broker(tmp_path) as client:
        config = client.config_get("*")
    assert config["maxmemory-policy"] == "noeviction"
    assert config["maxmemory"] == str(256 * 1024**2)
    assert config["save"] == "60 1"
    assert config["appendonly"] == "no"
    assert config["stop-writes-on-bgsave-error"] == "no"


@pytest.mark.parametrize(("key", "expected"), [("", "unset"), ("a secret", "a secret")])
def test_qdrant_asks_for_a_key_only_if_there_is_one(tmp_path: Path, key: str, expected: str) -> None:
    entrypoint = tmp_path / "entrypoint.sh"
    entrypoint.write_text('#!/usr/bin/env bash\nprintf %s "${QDRANT__SERVICE__API_KEY-unset}"\n')
    entrypoint.chmod(0o755)
    done = _run(*_unescaped(SERVICES["qdrant"]["command"]), cwd=tmp_path, env={**os.environ, "QDRANT_API_KEY": key})
    assert (done.returncode, done.stdout) == (0, expected)


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_of_qdrant_reads_the_status(status: int, healthy: bool) -> None:
    with _answering("/readyz", status) as port:
        check = [part.replace("6333", str(port)) for part in _check("qdrant")]
        assert (_run(*check).returncode == 0) is healthy
    assert _run(*check).returncode != 0, "nobody listens any more"


@pytest.mark.timeout(240)
def test_producer_and_worker_run_as_configured_and_their_health_checks_tell(tmp_path: Path) -> None:
    """With Qdrant's embedded engine in the place of the server, and the broker's flags of the compose file."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "river.md").write_text("# River\n\nThe headwater is where a river begins.\n")
    port = _free_port()
    with _broker(tmp_path) as client:
        here = {
            "redis://redis:6379/0": f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0",
            "/documents": str(documents),
            "/state": str(tmp_path / "state"),
            "/tmp/headwater": str(tmp_path / "worker"),
            "/models": str(tmp_path / "models"),
            "6780": str(port),
        }
        environments = {part: _environment(part, here) for part in ("producer", "worker")}
        checks = {part: [word.replace("6780", str(port)) for word in _check(part)] for part in environments}

        def healthy(part: str) -> bool:
            return _run(*checks[part], cwd=tmp_path, env=environments[part]).returncode == 0

        assert not healthy("producer") and not healthy("worker")
        with _part("producer", environments, tmp_path), _part("worker", environments, tmp_path):
            _wait_until(lambda: healthy("producer"), 90)
            _wait_until(lambda: healthy("worker"), 120)
            _wait_until(lambda: '"in_step": true' in _status(environments["producer"], tmp_path), 60)
            assert '"indexed": 1' in _status(environments["producer"], tmp_path)
        assert not healthy("producer") and not healthy("worker")


# -- means -------------------------------------------------------------------------------------------------------


def _tool(name: str) -> str:
    """A command of the test extra, beside this interpreter."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is missing: pip install -e '.[test]' -c constraints.txt"
    return found


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, **options
    )


def _stages() -> dict[str, str]:
    """Name of a stage -> what it is made from."""
    return {
        name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE.read_text("utf-8"), flags=re.M)
    }


def _instructions(stage: str, instruction: str) -> list[str]:
    """The instructions of one kind in one stage, its bases not included."""
    body = re.split(r"^FROM .* AS ", DOCKERFILE.read_text("utf-8"), flags=re.M)[1:]
    [lines] = [part.splitlines()[1:] for part in body if part.splitlines()[0] == stage]
    return [line for line in lines if line.startswith(f"{instruction} ")]


def _names(field: str, alias: Any) -> set[str]:
    return {alias} if alias else {f"HEADWATER_{field.upper()}"}


def _example_variables() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text("utf-8"), flags=re.M))


def _unescaped(words: list[str]) -> list[str]:
    """As the container gets them: in a compose file, $$ stands for $."""
    return [word.replace("$$", "$") for word in words]


def _check(service: str) -> list[str]:
    kind, *words = _unescaped(SERVICES[service]["healthcheck"]["test"])
    command = words if kind == "CMD" else ["/bin/sh", "-c", *words]
    return [sys.executable if word == "python" else word for word in command]


def _environment(part: str, here: dict[str, str]) -> dict[str, str]:
    """The environment of a part, with the places of this machine for those of a container."""
    foreign = ("HEADWATER_", "CELERY_", "QDRANT_", "HF_")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    inside = {name: here.get(value, value) for name, value in SERVICES[part]["environment"].items()}
    del inside["QDRANT_URL"]
    return {**outside, **inside, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{outside['PATH']}"}


def _status(environment: dict[str, str], cwd: Path) -> str:
    return _run(_tool("headwater"), "status", "--json", cwd=cwd, env=environment).stdout


@contextlib.contextmanager
def _part(part: str, environments: dict[str, dict[str, str]], cwd: Path) -> Iterator[None]:
    """Run the command of a part; stop it as Compose does, within the time that Compose gives it."""
    command = SERVICES[part]["command"]
    log = cwd / f"{part}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [_tool(command[0]), *command[1:]], cwd=cwd, env=environments[part], stdout=output, stderr=output
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(int(SERVICES[part]["stop_grace_period"].removesuffix("s"))) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _broker(directory: Path) -> Iterator[redis.Redis]:
    """A real server with the flags of the compose file; the name of the program is left out."""
    port = _free_port()
    flags = [*SERVICES["redis"]["command"][1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    process = subprocess.Popen([embedded_binary(), *flags], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, decode_responses=True)
    try:
        _wait_until(lambda: _answers(client), 90)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(15)


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


@contextlib.contextmanager
def _answering(path: str, status: int) -> Iterator[int]:
    """An HTTP server with one answer; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
