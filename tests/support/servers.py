"""Servers as processes of a test's own: a Qdrant server, and Debian's Redis."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from driver import wait_until
from server_mode import Servers

from headwater.broker import embedded_binary

__all__ = ["REDIS", "OwnServers", "QdrantServer", "RedisServer", "free_port", "make_certificate"]

#: Debian's, where it is installed
REDIS = shutil.which("redis-server")
_SERVER = Path(__file__).with_name("qdrant_server.py")
_START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class _Server:
    """A process that may be killed and started again on what it left. ``prefix`` is a command before its own."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 0
    prefix: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._started, f"{type(self).__name__} answers", _START_S)

    @property
    def log(self) -> Path:
        return self.directory / f"{type(self).__name__}.log"

    def _started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{type(self).__name__} ended: {self.log.read_text('utf-8')[-2000:]}"
        return self.ready()

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)
                os.kill(self.process.pid, number)
            self.process.wait(30)
            self.process = None

    def restart(self) -> None:
        """kill -9, and a new start."""
        self.stop()
        self.start()


@dataclass
class QdrantServer(_Server):
    """``qdrant_server.py``, in strict mode."""

    api_key: str | None = None
    read_key: str | None = None
    #: certificate and key
    tls: tuple[Path, Path] | None = None
    #: what it says of itself
    version: str | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    def command(self) -> list[str]:
        given = ["--host", self.host, "--port", str(self.port), "--path", str(self.directory / "storage"), "--strict"]
        given += [] if self.api_key is None else ["--api-key", self.api_key]
        given += [] if self.version is None else ["--version", self.version]
        given += [] if self.read_key is None else ["--read-only-api-key", self.read_key]
        given += [] if self.tls is None else ["--tls-cert", str(self.tls[0]), "--tls-key", str(self.tls[1])]
        return [sys.executable, "-P", str(_SERVER), *given]

    def ready(self) -> bool:
        context = None if self.tls is None else ssl.create_default_context(cafile=str(self.tls[0]))
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", context=context) as answer:
            return bool(answer.status == 200)
        return False


@dataclass
class RedisServer(_Server):
    """Redis (or Valkey) that lets in one user of its access list alone, and with a certificate over TLS alone. It keeps
    nothing over a restart."""

    user: str = "headwater"
    password: str = "broker-secret"
    tls: tuple[Path, Path] | None = None
    binary: str = REDIS or "redis-server"
    #: other users, as lines of an access list
    others: Sequence[str] = ()

    @property
    def url(self) -> str:
        where = f"{self.user}:{self.password}@{self.host}:{self.port}/0"
        return f"redis://{where}" if self.tls is None else f"rediss://{where}?ssl_ca_certs={self.tls[0]}"

    def command(self) -> list[str]:
        access = self.directory / "users.acl"
        own = f"user {self.user} on >{self.password} ~* &* +@all"
        access.write_text("\n".join(["user default off", own, *self.others, ""]), "utf-8")
        ports = ["--port", str(self.port)]
        if self.tls is not None:
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            ports += ["--tls-cert-file", str(self.tls[0]), "--tls-key-file", str(self.tls[1])]
            ports += ["--tls-ca-cert-file", str(self.tls[0])]
        kept = ["--save", "", "--appendonly", "no", "--dir", str(self.directory), "--loglevel", "warning"]
        found = ["--set-proc-title", "no"]  # by its directory, which is in its command
        return [self.binary, "--bind", self.host, *ports, "--aclfile", str(access), *kept, *found]

    def client(self) -> redis.Redis:
        made: redis.Redis = redis.Redis.from_url(self.url, socket_timeout=10)
        return made

    def ready(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


@dataclass
class OwnServers:
    """A broker that lets in one user alone, and Qdrant in strict mode with a key, which a test may kill: over TLS where
    Debian's Redis is installed, else with the Valkey of the wheel, which knows none."""

    redis: RedisServer
    qdrant: QdrantServer

    @classmethod
    def start(cls, directory: Path) -> OwnServers:
        tls = make_certificate(directory / "tls", "127.0.0.1") if REDIS else None
        made = cls(
            RedisServer(directory / "redis", tls=tls, binary=REDIS or embedded_binary()),
            QdrantServer(directory / "qdrant", api_key="secret", tls=tls),
        )
        made.redis.start()
        made.qdrant.start()
        return made

    @property
    def servers(self) -> Servers:
        authority = None if self.qdrant.tls is None else self.qdrant.tls[0]
        return Servers(self.redis.url, self.qdrant.url, self.qdrant.api_key, authority)


def make_certificate(directory: Path, *hosts: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for addresses, and its key: for those who name it as their authority."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / "tls.pem", directory / "tls.key"
    names = ",".join(f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts)
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"]
    whose = ["-subj", "/CN=headwater-test", "-addext", f"subjectAltName={names}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *kind, *whose, *files], check=True, capture_output=True)
    return certificate, key
