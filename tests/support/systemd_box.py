"""A real systemd, started in namespaces of its own over a copy-on-write view of this machine: units run as they would
where they are installed, and nothing of it is left.

It needs root, overlayfs and a cgroup v2 hierarchy. The network is that of this machine; everything else is apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SystemdBox", "why_not"]

_SYSTEMD = Path("/lib/systemd/systemd")
#: targets that units order themselves by; the real ones would start this machine's services
_TARGETS = (
    "basic", "default", "local-fs", "multi-user", "network-online", "paths", "remote-fs", "shutdown", "slices",
    "sockets", "sysinit", "timers",
)  # fmt: skip
#: run as the first process of the new namespaces; $1 is the directory with what the box is made of
_START = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 box /run
mkdir /run/box /run/units
mount --bind "$2" /mnt                       # the environment of this interpreter
for place in etc opt var/lib; do
    mkdir -p /run/box/$place/upper /run/box/$place/work
    mount -t overlay -o lowerdir=/$place,upperdir=/run/box/$place/upper,workdir=/run/box/$place/work overlay /$place
done
mkdir -p /opt/headwater /opt/python /opt/source /run/box/venv/upper /run/box/venv/work
mount -t overlay -o lowerdir=/mnt,upperdir=/run/box/venv/upper,workdir=/run/box/venv/work overlay /opt/headwater
umount /mnt
mount --bind "$3" /opt/python
mount --bind "$4" /opt/source
python=$(basename "$(readlink -f /opt/headwater/bin/python3)")
ln -sf /opt/python/bin/$python /opt/headwater/bin/python3
printf 'home = /opt/python/bin\n' > /opt/headwater/pyvenv.cfg
printf '#!/opt/headwater/bin/python3 -P\nfrom headwater.cli import main\nmain()\n' > /opt/headwater/bin/headwater
chmod 755 /opt /opt/headwater /opt/headwater/bin /opt/headwater/bin/headwater
cp -r "$1"/units/. /run/units/
cp -r "$1"/etc/. /etc/
systemd-sysusers "$1"/sysusers.conf
umount --recursive /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup      # from the group of the box downwards
export container=other SYSTEMD_UNIT_PATH=/run/units SYSTEMD_LOG_TARGET=console
exec /lib/systemd/systemd --system --unit=default.target --show-status=no
"""


def why_not() -> str | None:
    """Why this machine cannot have a box; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can start a systemd apart"
    if not _SYSTEMD.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed (Debian: apt-get install systemd)"
    if _groups() is None:
        return "there is no cgroup v2 hierarchy that may be written to"
    overlay = "overlay" in Path("/proc/filesystems").read_text()
    namespaces = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--cgroup", "true"], capture_output=True, check=False
    )
    return None if overlay and namespaces.returncode == 0 else "namespaces or overlayfs are not to be had here"


def _groups() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


def _remove(group: Path) -> None:
    """A control group and those in it; the last processes may take a moment to go."""
    deadline = time.monotonic() + 10
    for place in (*(path for path in sorted(group.rglob("*"), reverse=True) if path.is_dir()), group):
        while place.exists():
            try:
                place.rmdir()
            except OSError:
                assert time.monotonic() < deadline, f"{place} is still in use"
                time.sleep(0.02)


class SystemdBox:
    """``start`` boots it, ``systemctl`` asks it, ``root`` is its view of the files."""

    def __init__(self, directory: Path, source: Path) -> None:
        self.directory = directory
        self._source = source
        self._unshare: subprocess.Popen[bytes] | None = None
        for name in ("units", "etc/headwater"):
            (directory / name).mkdir(parents=True)
        for target in _TARGETS:
            self.add(f"{target}.target", f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")

    def add(self, name: str, text: str) -> None:
        """A unit, or a drop-in for one."""
        path = self.directory / "units" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")

    @contextlib.contextmanager
    def booted(self) -> Iterator[SystemdBox]:
        groups = _groups()
        assert groups is not None, why_not()
        group = groups / f"headwater-box-{os.getpid()}"
        group.mkdir()
        arguments = [str(self.directory), sys.prefix, sys.base_prefix, str(self._source)]
        with open(self.directory / "systemd.log", "wb") as log:
            self._unshare = subprocess.Popen(
                [
                    *("bash", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)),
                    *("unshare", "--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts", "--mount-proc"),
                    *("--kill-child=SIGKILL", "bash", "-c", _START, "box", *arguments),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            self._await()
            yield self
        finally:
            self._unshare.send_signal(signal.SIGKILL)
            self._unshare.wait()
            _remove(group)

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def run(self, *command: str, **environment: str) -> str:
        """A command in there, as root; what it prints."""
        own = dict(line.split("=", 1) for line in self.python_environment().splitlines())
        done = subprocess.run(
            ["nsenter", f"--target={self._pid()}", "--mount", "--pid", *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ["PATH"], **own, **environment},
        )
        return (done.stdout + done.stderr).strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def processes(self, unit: str) -> list[dict[str, str]]:
        """Of a unit: what /proc/PID/status says, the command line and the network namespace."""
        group = self.show(unit, "ControlGroup")
        listed = self.root / f"sys/fs/cgroup{group}/cgroup.procs"
        if not group or not listed.exists():
            return []
        return [self._process(int(pid)) for pid in listed.read_text().split()]

    def _process(self, pid: int) -> dict[str, str]:
        place = Path(f"/proc/{pid}")  # the list is as this side numbers them
        lines = [line.split(":", 1) for line in (place / "status").read_text().splitlines()]
        command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return {
            **{key: value.strip() for key, value in lines},
            "command": command,
            "net": os.readlink(place / "ns/net"),
        }

    @staticmethod
    def python_environment() -> str:
        """For an EnvironmentFile=: where the interpreter finds its library and the source."""
        return "LD_LIBRARY_PATH=/opt/python/lib\nPYTHONPATH=/opt/source:/opt/source/tests/support\n"

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self._pid()}/root")

    def log(self) -> str:
        return (self.directory / "systemd.log").read_text("utf-8", "replace")

    def _pid(self) -> int:
        """The first process in there, as this side numbers it."""
        assert self._unshare is not None
        assert self._unshare.poll() is None, self.log()
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return int(children[0]) if children else os.getpid()  # not forked yet

    def _await(self) -> None:
        deadline = time.monotonic() + 30
        while self._pid() == os.getpid() or self.systemctl("is-active", "default.target") != "active":
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
