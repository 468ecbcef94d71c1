"""The part of the fault harness that runs in ``make test``: from fixed seeds, in short form.

``HEADWATER_FAULTS`` chooses how much: ``none``, ``few`` (one fault of each group, the default), ``short`` (some eight
minutes), ``each`` (every fault once), or a number of minutes of the whole at random. The full form is ``make faults``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Harness, make_model, to_json
from registry import Fault, load
from run import at_random

_SEED = 1
_CHOICE = os.environ.get("HEADWATER_FAULTS", "few")
_ALL = list(load().values())


#: faults of the short form: one of each sort, those that taught something first
_SHORT = {
    "kill -9 worker",
    "kill -9 producer",
    "kill -9 broker",
    "kill -9 all at once",
    "kill -9 at worker:staged",
    "kill -9 at worker:upserted",
    "held past the lease at worker:embedded",
    "stalled 60 s",
    "FLUSHALL",
    "wrong password",
    "hour-old messages",
    "garbage messages",
    "a pickle body",
    "power cut",
    "disk full under the ledger",
    "EIO in the producer",
    "truncated shard file",
    "ledger restored from an older copy",
    "lost events",
    "changed 1,000 times a second while read",
    "rename cycles and swaps",
    "folder swapped",
    "clock back by a day and forward",
}
#: groups whose faults take half a minute each
_HALF_A_MINUTE = ("broker", "index")
#: faults of file systems of one's own
_ROOT_ONLY = ("power cut", "read-only", "disk full", "folder unmounted")


def _chosen() -> list[Fault]:
    if _CHOICE == "few":
        return list({fault.group: fault for fault in reversed(_ALL) if fault.name in _SHORT}.values())
    return [fault for fault in _ALL if _CHOICE == "each" or (_CHOICE == "short" and fault.name in _SHORT)]


_CHOSEN = _chosen()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def harness(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with Harness(tmp_path_factory.mktemp("faults"), full=False, model=model) as made:
        yield made


_CASES = [
    pytest.param(
        number, id=f"{fault.group} {fault.name}", marks=[pytest.mark.long] if fault.group in _HALF_A_MINUTE else []
    )
    for number, fault in enumerate(_CHOSEN)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", _CASES)
def test_the_index_is_in_step_after(number: int, harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0 and _CHOSEN[number].name.startswith(_ROOT_ONLY):
        pytest.skip("mounting takes root")
    if _CHOSEN[number].name.startswith("EIO") and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # Given a service in step, when a fault happens while its folder is edited
    following = _CHOSEN[number + 1] if number + 1 < len(_CHOSEN) else None
    line = harness.run(_CHOSEN[number], _SEED, following)
    with capsys.disabled():
        print(f"\n{to_json(line)}")
    # Then it comes to rest, and the index is that of the folder
    assert line["verdict"] == "ok", f"{to_json(line)}\n{line.get('logs', '')}"


@pytest.mark.skipif(not _CHOICE.replace(".", "", 1).isdigit(), reason="HEADWATER_FAULTS names no number of minutes")
@pytest.mark.timeout(0)
def test_the_index_is_in_step_after_faults_at_random(model: Path) -> None:
    with Harness(full=True, model=model) as harness:
        for line in harness.lines(at_random(_ALL, _SEED, float(_CHOICE))):
            assert line["verdict"] == "ok", f"{to_json(line)}\n{line.get('logs', '')}"
