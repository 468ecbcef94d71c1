"""A few faults on six hosts: the rest is ``make netns``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Harness, to_json
from many_hosts import UNUSED_MODEL, chosen
from network_session import NetworkSession
from servers import REDIS
from topology import reason_against

_SEED = 1
_NAMES = (
    "kill -9 worker",
    "zombie at worker:embedded",
    "kill -9 broker and qdrant at once",
    "the query server cut off",
)
_REASON = reason_against() or (None if REDIS else "redis-server is not installed")
pytestmark = [pytest.mark.long, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    work = tmp_path_factory.mktemp("netns")
    with Harness(work, full=False, model=UNUSED_MODEL, kind=NetworkSession) as made:
        yield made


@pytest.mark.parametrize("name", _NAMES)
def test_on_many_hosts_the_index_is_in_step_after(
    name: str, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {fault.name: fault for fault in chosen()}
    following = None if name == _NAMES[-1] else faults[_NAMES[_NAMES.index(name) + 1]]
    line = harness.run(faults[name], _SEED, following)
    with capsys.disabled():
        print(f"\n{to_json(line)}")
    assert line["verdict"] == "ok", f"{to_json(line)}\n{line.get('logs', '')}"
