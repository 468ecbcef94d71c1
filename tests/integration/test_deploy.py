"""What deploy/ promises, as far as it can be checked without a container engine.

The files are held against the official Compose schema and hadolint; the flags, commands, environment and health checks
that they name are run against the real parts, outside containers.
"""

from __future__ import annotations

import contextlib
import http.server
import json
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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner

from headwater.broker import embedded_binary, make_app, reachable
from headwater.cli import app
from headwater.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
EXAMPLE = ROOT / "deploy" / ".env.example"
PARTS = ("producer", "worker", "query")
#: images of the Dockerfile, and the part that each of them runs
TARGETS = {
    "producer": "producer", "query": "query", "query-model": "query", "worker": "worker", "worker-cuda": "worker",
    "flower": "flower",
}  # fmt: skip
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]

#: seconds in which a worker drains, as headwater.supervisor allows it
_DRAIN_S = 30
#: an exact version, perhaps with a variant: 9.1.2-alpine, v1.19.1-unprivileged
_PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)*$")
#: environment of other libraries that the parts may be given
_FOREIGN = {"HF_HOME", "HF_HUB_OFFLINE"}
#: variables for Compose itself and the builds
_COMPOSE_ONLY = {
    "DOCUMENTS", "QUERY_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "FLOWER_PORT", "FLOWER_BASIC_AUTH", "REDIS_PASSWORD",
    "APP_UID", "APP_GID", "TORCH_INDEX_URL", "TORCH_CUDA_INDEX_URL", "BAKED_MODEL",
}  # fmt: skip
#: and those that Compose hands on to parts under the same name
_HANDED_ON = {"CELERY_BROKER_URL", "QDRANT_URL", "QDRANT_API_KEY"}


# -- the files --------------------------------------------------------------------------------------------------


def test_the_compose_files_follow_the_compose_specification() -> None:
    files = [str(COMPOSE), str(ROOT / "deploy" / "compose.gpu.yml")]
    done = _run(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("stop_grace_period: 60s", "stop_grace_periods: 60s"))
    done = _run(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(broken))
    assert done.returncode == 1, done.stdout


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = _run(_tool("hadolint"), "--no-color", "--failure-threshold", "style", str(DOCKERFILE))
    assert (done.returncode, done.stdout) == (0, "")


def test_only_the_query_api_and_what_was_asked_for_are_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"query", "prometheus", "grafana", "flower"}
    assert {name for name in SERVICES if "profiles" in SERVICES[name]} == {"prometheus", "grafana", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
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
    wanted |= {"grafana": {"prometheus"}, "flower": {"redis"}}
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
    assert len(images) == 4 and len(bases) == 1
    for image in (*images, *bases):
        assert _PINNED.match(image), image


def test_no_image_runs_as_root() -> None:
    users = {line.split()[1] for name in TARGETS for line in _instructions(name, "USER")}
    assert users == {"${APP_UID}:${APP_GID}"}
    assert all(len(_instructions(name, "USER")) == 1 for name in TARGETS)
    defaults = dict(line.split()[1].split("=") for line in _instructions("base", "ARG"))
    assert all(int(number) > 0 for number in defaults.values())
    assert all(SERVICES[name]["user"].split(":")[0] != "0" for name in ("redis", "prometheus", "grafana"))
    assert SERVICES["qdrant"]["image"].endswith("-unprivileged")


def test_each_image_runs_the_command_of_its_part_and_says_whether_it_is_well() -> None:
    stages = _stages()
    assert set(TARGETS) == set(stages) - {"base", "torch", "torch-cuda"}
    for name, part in TARGETS.items():
        [default] = _instructions(name, "CMD")
        command = json.loads(default.removeprefix("CMD "))
        assert command == SERVICES[part]["command"]
        assert len(_instructions(name, "HEALTHCHECK")) == 1
        if part != "flower":
            assert CliRunner().invoke(app, [*command[1:], "--help"]).exit_code == 0, command
    assert CliRunner().invoke(app, ["work", "--no-such-option", "--help"]).exit_code != 0


def test_only_what_needs_a_model_has_torch() -> None:
    bases = _stages()
    assert {name for name in TARGETS if bases[name].startswith("torch")} == {"query-model", "worker", "worker-cuda"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    without = [*project["dependencies"], *(project["optional-dependencies"][name] for name in ("gateway", "flower"))]
    assert not re.search("torch|transformers", str(without))
    assert SERVICES["query"]["build"]["target"] == "query"
    assert SERVICES["query"]["environment"]["HEADWATER_EMBED_URL"] == "http://worker:6780"
    assert SERVICES["worker"]["environment"]["HEADWATER_ALLOWED_HOSTS"] == "worker"


def test_a_model_is_baked_in_alike_where_there_is_one() -> None:
    """Run once by hand: it takes 15 s, and what it saves can be loaded."""
    commands = {name: line for name in TARGETS for line in _body(name) if ".save('/opt/model')" in line}
    assert set(commands) == {"query-model", "worker", "worker-cuda"} and len(set(commands.values())) == 1
    assert all('ARG MODEL=""' in _body(name) for name in commands)


def test_environment_names_are_settings() -> None:
    names = {alias for field, info in Settings.model_fields.items() for alias in _names(field, info.validation_alias)}
    given = {variable for part in PARTS for variable in SERVICES[part]["environment"]}
    assert given <= names | _FOREIGN
    assert _example_variables() <= names | _COMPOSE_ONLY | {"HEADWATER_CELERY_EVENTS"}


def test_the_example_names_each_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text("utf-8")))
    assert used == _COMPOSE_ONLY | _HANDED_ON
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
    named = re.findall(r"/src\[([\w,]+)\]", DOCKERFILE.read_text("utf-8"))
    assert {extra for names in named for extra in names.split(",")} <= set(project["optional-dependencies"])


def test_no_package_index_is_named() -> None:
    for path in (COMPOSE, DOCKERFILE, EXAMPLE):
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text("utf-8")))
        assert hosts <= {"qdrant", "worker", "127.0.0.1"}, path


# -- what they say, run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "s3cret"])
def test_the_broker_takes_its_flags_and_its_password_and_never_evicts(tmp_path: Path, password: str) -> None:
    with _broker(tmp_path, password) as client:
        config = client.config_get("*")
        assert config["requirepass"] == password
        port = client.connection_pool.connection_kwargs["port"]
        url = f"redis://:{password}@127.0.0.1:{port}/0"  # as the compose file writes it, also without one
        assert reachable(Settings(broker_url=url, state_dir=tmp_path))
        with make_app(Settings(broker_url=url, state_dir=tmp_path)).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
        if shutil.which("redis-cli") is not None:
            assert _broker_is_well(tmp_path, password, port)
            assert not password or not _broker_is_well(tmp_path, "another", port)
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


@pytest.mark.timeout(300)
def test_the_parts_run_as_configured_and_their_health_checks_tell(tmp_path: Path) -> None:
    """With Qdrant's embedded engine in the place of the server, and the broker's command of the compose file. The query
    server has a copy of the index, which a server would share."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "river.md").write_text("# River\n\nThe headwater is where a river begins.\n")
    ports = {part: str(_free_port()) for part in PARTS}
    with _broker(tmp_path) as client:
        here = {
            SERVICES["worker"]["environment"]["CELERY_BROKER_URL"]: (
                f"redis://:@127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"
            ),
            "/documents": str(documents),
            "/state": str(tmp_path / "state"),
            "/models": str(tmp_path / "models"),
            "0.0.0.0": "127.0.0.1",
            "http://worker:6780": f"http://127.0.0.1:{ports['worker']}",
        }
        environments = {
            part: _environment(part, {**here, "/tmp/headwater": str(tmp_path / part), "6780": port})
            | {"HEADWATER_METRICS_PORT": str(_free_port())}
            for part, port in ports.items()
        }
        checks = {part: [word.replace("6780", ports[part]) for word in _check(part)] for part in PARTS}

        def healthy(part: str) -> bool:
            return _run(*checks[part], cwd=tmp_path, env=environments[part]).returncode == 0

        assert not any(map(healthy, PARTS))
        with _part("producer", environments, tmp_path), _part("worker", environments, tmp_path):
            _wait_until(lambda: healthy("producer"), 90)
            _wait_until(lambda: healthy("worker"), 120)
            _wait_until(lambda: '"in_step": true' in _status(environments["producer"], tmp_path), 60)
            assert '"indexed": 1' in _status(environments["producer"], tmp_path)
            kept = shutil.ignore_patterns("*.lock", "service.json", "sandbox")
            shutil.copytree(tmp_path / "worker", tmp_path / "query", ignore=kept)
            with _part("query", environments, tmp_path):
                _wait_until(lambda: healthy("query"), 90)
                asked = f"http://127.0.0.1:{ports['query']}/v1/search"
                body = json.dumps({"text": "where does it spring", "mode": "dense"}).encode()
                with urllib.request.urlopen(asked, body, timeout=30) as answer:
                    assert json.load(answer)["hits"][0]["path"] == "river.md"
                for part in PARTS:
                    metrics = f"http://127.0.0.1:{environments[part]['HEADWATER_METRICS_PORT']}/metrics"
                    with urllib.request.urlopen(metrics, timeout=30) as answer:
                        assert b"headwater_" in answer.read()
        assert not any(map(healthy, PARTS))


def test_flower_shows_the_broker_and_its_health_check_tells(tmp_path: Path) -> None:
    port = str(_free_port())
    with _broker(tmp_path) as client:
        url = f"redis://:@127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"
        environment = {**os.environ, "CELERY_BROKER_URL": url, "FLOWER_BASIC_AUTH": ""}
        command = [word.replace("5555", port).replace("0.0.0.0", "127.0.0.1") for word in SERVICES["flower"]["command"]]
        check = [word.replace("5555", port) for word in _check("flower")]
        assert _run(*check).returncode != 0
        with open(tmp_path / "flower.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )
        try:
            _wait_until(lambda: _run(*check).returncode == 0, 60)
            # whoever may look may not act without a password
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/workers", timeout=10)
        finally:
            process.terminate()
            process.wait(20)


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
    """The instructions of one kind in one stage, its bases not included; continued lines as one."""
    joined = "\n".join(_body(stage)).replace("\\\n", " ").splitlines()
    return [line for line in joined if line.startswith(f"{instruction} ")]


def _body(stage: str) -> list[str]:
    """The lines of one stage."""
    bodies = re.split(r"^FROM .* AS ", DOCKERFILE.read_text("utf-8"), flags=re.M)[1:]
    [lines] = [part.splitlines()[1:] for part in bodies if part.splitlines()[0] == stage]
    return lines


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
def _broker(directory: Path, password: str = "") -> Iterator[redis.Redis]:
    """A real server with the command of the compose file; only its port and directory are of this machine."""
    port = _free_port()
    (directory / "bin").mkdir()
    server = directory / "bin" / "valkey-server"
    server.write_text(
        f'#!/bin/sh\nexec {embedded_binary()} "$@" --port {port} --bind 127.0.0.1 --dir "{directory}" --daemonize no\n'
    )
    server.chmod(0o755)
    environment = {**os.environ, "PATH": f"{server.parent}:{os.environ['PATH']}", "REDIS_PASSWORD": password}
    process = subprocess.Popen(_unescaped(SERVICES["redis"]["command"]), stdout=subprocess.DEVNULL, env=environment)
    client = redis.Redis(port=port, password=password or None, decode_responses=True)
    try:
        _wait_until(lambda: _answers(client), 90)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(15)


def _broker_is_well(directory: Path, password: str, port: int) -> bool:
    """Its health check, with Redis' client in the place of Valkey's."""
    (directory / "bin" / "valkey-cli").write_text(f'#!/bin/sh\nexec redis-cli -p {port} "$@"\n')
    (directory / "bin" / "valkey-cli").chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "REDIS_PASSWORD": password}
    return _run(*_check("redis"), env=environment).returncode == 0


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
