"""A Redis server of one's own: TLS, an ACL and Sentinels, as a program of another machine would meet them."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headwater.broker import make_app, make_client, reachable
from headwater.errors import BrokerUnavailable, SettingsError
from headwater.messages import APPLY_TASK, Hint, Item, queue_name
from headwater.settings import Settings

REDIS = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(
    REDIS is None, reason="needs the package redis-server: TLS is not in the embedded broker"
)

_WAIT_S = 10.0
USER, PASSWORD = "headwater", "p@ss/word"
ACL = f"user {USER} on >{PASSWORD} ~* &* +@all -@admin -@dangerous +info +keys"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {_WAIT_S} s: {what}"
        time.sleep(0.05)


class Servers:
    """Redis servers that end with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *lines: str, sentinel: bool = False) -> subprocess.Popen[bytes]:
        config = self._directory / f"{len(self._running)}.conf"
        config.write_text(
            "\n".join((*lines, f"dir {self._directory}", 'save ""', "bind 127.0.0.1") if not sentinel else lines)
        )
        assert REDIS is not None
        command = [REDIS, str(config), *(["--sentinel"] if sentinel else [])]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._running.append(server)
        return server

    def end(self) -> None:
        for server in self._running:
            server.kill()
            server.wait(10)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.end()


def make_certificates(directory: Path) -> None:
    """An authority (ca.pem), and a certificate of it for 127.0.0.1 (server.pem, server.key)."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, "authority", authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("127.0.0.1", key, "authority", authority_key)
    for name, made in (("ca.pem", authority), ("server.pem", certificate)):
        (directory / name).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _certificate(name: str, key: Any, issuer: str, issuer_key: Any) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
    )
    if name != issuer:
        address = x509.IPAddress(ipaddress.ip_address(name))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def check_both_ways(settings: Settings) -> None:
    """A hint goes out by Celery and comes in, and a client of our own speaks to the same server."""
    hint = Hint((Item(b"a.md", 7),), "live")
    queue = queue_name(settings.collection, "live")
    app = make_app(settings)
    app.send_task(APPLY_TASK, args=[hint.to_wire()], queue=queue, retry=False)
    with make_client(settings) as client:
        assert client.llen(queue) == 1
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as received:
        message = received.get(timeout=5)
        message.ack()
    assert message.payload[0][0] == hint.to_wire()


def test_tls_with_an_authority_of_ones_own_and_an_acl(servers: Servers, tmp_path: Path) -> None:
    # Given a server that speaks nothing but TLS, to users with a password
    make_certificates(tmp_path)
    port = free_port()
    servers.start(
        "port 0", f"tls-port {port}", f"tls-cert-file {tmp_path}/server.pem", f"tls-key-file {tmp_path}/server.key",
        f"tls-ca-cert-file {tmp_path}/ca.pem", "tls-auth-clients no", "user default off", ACL,
    )  # fmt: skip
    url = f"rediss://{USER}:p%40ss%2Fword@127.0.0.1:{port}/0"
    settings = Settings.load(broker_url=url, broker_ca_file=tmp_path / "ca.pem")
    wait_until(lambda: reachable(settings), "the broker answers")
    # Then both clients come in
    check_both_ways(settings)
    # And nobody does who trusts another authority, or has another password: a sentence says so, without the password
    assert not reachable(Settings.load(broker_url=url))
    with pytest.raises(BrokerUnavailable, match="refuses us") as refused:
        reachable(Settings.load(broker_url=url.replace("word", "words"), broker_ca_file=tmp_path / "ca.pem"))
    assert "p%40ss" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"gone\.pem"):
        make_client(Settings.load(broker_url=url, broker_ca_file=tmp_path / "gone.pem"))


def test_a_client_certificate_is_shown_where_it_is_asked_for(servers: Servers, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    port = free_port()
    servers.start(
        "port 0", f"tls-port {port}", f"tls-cert-file {tmp_path}/server.pem", f"tls-key-file {tmp_path}/server.key",
        f"tls-ca-cert-file {tmp_path}/ca.pem", "tls-auth-clients yes",
    )  # fmt: skip
    given = {"broker_url": f"rediss://127.0.0.1:{port}/0", "broker_ca_file": tmp_path / "ca.pem"}
    shown = {"broker_cert_file": tmp_path / "server.pem", "broker_key_file": tmp_path / "server.key"}
    settings = Settings.load(**given, **shown)
    wait_until(lambda: reachable(settings), "the broker answers")
    check_both_ways(settings)
    assert not reachable(Settings.load(**given))


def test_a_master_that_sentinels_watch_is_followed_to_its_successor(servers: Servers) -> None:
    # Given a master with a replica, and a Sentinel that watches them
    first, second, watch = free_port(), free_port(), free_port()
    master = servers.start(f"port {first}")
    servers.start(f"port {second}", f"replicaof 127.0.0.1 {first}")
    wait_until(lambda: _link(second) == "up", "the replica follows")
    servers.start(
        f"port {watch}", f"sentinel monitor docs 127.0.0.1 {first} 1",
        "sentinel down-after-milliseconds docs 500", "sentinel failover-timeout docs 2000", sentinel=True,
    )  # fmt: skip
    settings = Settings.load(broker_url=f"sentinel://127.0.0.1:{watch}/0", broker_master="docs")
    wait_until(lambda: reachable(settings), "the Sentinel names the master")
    wait_until(lambda: _replicas(watch) == 1, "the Sentinel knows the replica")
    check_both_ways(settings)
    # When the master dies, Then what is sent next goes to its successor
    master.kill()
    wait_until(lambda: _role(second) == "master", "the replica is promoted")
    wait_until(lambda: reachable(settings), "the successor is found")
    check_both_ways(settings)


def test_sentinels_without_the_name_of_their_master_are_refused_with_one_sentence() -> None:
    with pytest.raises(SettingsError, match="HEADWATER_BROKER_MASTER"):
        make_app(Settings.load(broker_url="sentinel://127.0.0.1:1"))


def _link(port: int) -> str:
    return str(_info(port, "replication").get("master_link_status"))


def _role(port: int) -> str:
    return str(_info(port, "replication").get("role"))


def _replicas(port: int) -> int:
    return int(_info(port, "sentinel").get("master0", {}).get("slaves", 0))


def _info(port: int, section: str) -> dict[str, Any]:
    try:
        with redis.Redis(port=port) as client:
            found: dict[str, Any] = client.info(section)
            return found
    except redis.RedisError:
        return {}
