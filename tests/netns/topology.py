"""Hosts on one machine: each has a network, a host name and a view of the file system of its own, on one switch.

A host is a process that holds its namespaces; everything is gone with it. Nothing of it touches the machine's own
network. As root; ``reason_against`` says why it does not go elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Host", "Network", "reason_against"]

ROOT = Path(__file__).resolve().parents[2]
_TETHER = ROOT / "headwater" / "tether.py"
_CLONE_NEWNET = 0x40000000
_PREFIX = "10.66.0."
#: made in a host before it is used: $1 its name, $2 the folder of documents, $3 where the host sees it
_SETTLE = """
set -e
hostname "$1"
ip link set lo up
if [ -n "$2" ]; then
  mkdir -p "$3"
  mount --bind "$2" "$3"
  mount -t tmpfs -o size=1m tmpfs "$2"
fi
echo settled
exec sleep infinity
"""


def reason_against() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    missing = [tool for tool in ("ip", "nsenter", "unshare", "mount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True)
    return None if tried.returncode == 0 else "namespaces cannot be made here"


@dataclass
class Host:
    """``folder`` is where it sees the documents."""

    name: str
    address: str
    holder: subprocess.Popen[str]
    folder: Path | None

    def inside(self, *command: str) -> list[str]:
        """A command, by which another one is run on this host."""
        return [_tool("nsenter"), "-t", str(self.holder.pid), "--net", "--uts", "--mount", "--", *command]

    def run(self, *command: str) -> None:
        subprocess.run(self.inside(*command), check=True, capture_output=True)


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed"
    return found


class Network:
    """A switch with hosts. ``watcher`` is the host from which a test looks at the others."""

    def __init__(self, documents: Path, places: Mapping[str, Path | None]) -> None:
        """``places``: the hosts, with where each sees the documents."""
        self.hosts: dict[str, Host] = {}
        self._documents = documents
        self._switch = self._hold("switch", None)
        self._run_in(self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        self._run_in(self._switch, "ip", "link", "set", "bridge", "up")
        for number, (name, place) in enumerate({"watcher": None, **places}.items(), 1):
            self._add(name, f"{_PREFIX}{number}", place)

    def _add(self, name: str, address: str, place: Path | None) -> None:
        host = Host(name, address, self._hold(name, place), place)
        self.hosts[name] = host
        port, switch, own = f"to-{name}", str(self._switch.pid), str(host.holder.pid)
        link = ["link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", own]
        subprocess.run([_tool("ip"), *link], check=True, capture_output=True)
        self._run_in(self._switch, "ip", "link", "set", port, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def _hold(self, name: str, place: Path | None) -> subprocess.Popen[str]:
        shown = ["", ""] if place is None else [str(self._documents), str(place)]
        settle = [_tool("sh"), "-c", _SETTLE, "sh", name, *shown]
        tied = [sys.executable, "-I", str(_TETHER), str(os.getpid())]
        holder = subprocess.Popen(
            [*tied, _tool("unshare"), "--net", "--uts", "--mount", *settle],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "settled\n", f"the host {name} cannot be made"
        holder.stdout.close()
        return holder

    def _run_in(self, holder: subprocess.Popen[str], *command: str) -> None:
        subprocess.run([_tool("nsenter"), "-t", str(holder.pid), "--net", "--", *command], check=True)

    # -- faults of the network -------------------------------------------------------------------------------

    def cut(self, name: str, *, quiet: bool) -> None:
        """The host's link goes down: at the switch if ``quiet`` (what it sends is lost without a word), or at the host,
        whose calls then fail at once."""
        self._link(name, "down", quiet)

    def mend(self, name: str) -> None:
        for quiet in (True, False):
            self._link(name, "up", quiet)

    def _link(self, name: str, state: str, quiet: bool) -> None:
        if quiet:
            self._run_in(self._switch, "ip", "link", "set", f"to-{name}", state)
        else:
            self.hosts[name].run("ip", "link", "set", "eth0", state)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and those that it starts, are on the watcher's network meanwhile."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.hosts['watcher'].holder.pid}/ns/net") as other:
            _set_network(other.fileno())
            try:
                yield
            finally:
                _set_network(own.fileno())

    def end(self) -> None:
        for holder in (self._switch, *(host.holder for host in self.hosts.values())):
            holder.kill()
            holder.wait()


def _set_network(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
