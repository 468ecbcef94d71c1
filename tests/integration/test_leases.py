"""Who has a document in hand, and who follows a folder: leases on a real broker."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from driver import wait_until

from headwater.broker import make_client
from headwater.errors import AlreadyRunning
from headwater.messages import claim_key, producer_key
from headwater.settings import Settings
from producer import lease as producer_lease
from producer.lease import Lease, Leased, LeaseLost
from producer.queues import Queues
from worker import claims as worker_claims
from worker.claims import Claims


@pytest.fixture
def space() -> str:
    return f"c{uuid.uuid4().hex[:8]}"


@pytest.fixture
def settings(valkey: Any) -> Settings:
    return Settings.load(broker_url=valkey.settings.broker_url)


@pytest.fixture
def queues(settings: Settings, space: str) -> Iterator[Queues]:
    with make_client(settings) as client:
        yield Queues(client, space)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that end within a second."""
    for module in (worker_claims, producer_lease):
        monkeypatch.setattr(module, "_RENEW_S", 0.2)
    monkeypatch.setattr(worker_claims, "LEASE_MS", 1000)
    monkeypatch.setattr(producer_lease, "_LEASE_MS", 1000)
    monkeypatch.setattr(producer_lease, "_LOOK_S", 0.1)


class Workers:
    """Claims of several workers, closed with the test."""

    def __init__(self, settings: Settings, space: str) -> None:
        self._settings, self._space = settings, space
        self.made: list[Claims] = []

    def start(self, *others: str) -> Claims:
        claims = Claims(make_client(self._settings), (self._space, *others), f"w{len(self.made)}")
        claims.start()
        self.made.append(claims)
        return claims

    def close(self) -> None:
        for claims in self.made:
            claims.close()


@pytest.fixture
def workers(settings: Settings, space: str) -> Iterator[Workers]:
    made = Workers(settings, space)
    yield made
    made.close()


# -- documents ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_a_document_is_one_workers_until_it_lets_go(workers: Workers, queues: Queues, space: str) -> None:
    first, second = workers.start(), workers.start()
    order: list[str] = []

    def wait() -> None:
        with second.held(space, ["b", "c"]) as ours:
            order.append("second" if ours else "nobody")

    with first.held(space, ["a", "b"]) as ours:
        assert ours and queues.claimed([["a"], ["c", "b"], ["c"]]) == [True, True, False]
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(1.5)  # longer than a lease lasts that is not renewed
        assert queues.claimed([["a"], ["b"], ["c"]]) == [True, True, False], "one that waits holds nothing meanwhile"
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert queues.claimed([["a", "b"], ["c"]]) == [False, False]


@pytest.mark.usefixtures("soon")
def test_the_lease_of_a_worker_that_is_gone_ends(workers: Workers, settings: Settings, space: str) -> None:
    with make_client(settings) as client:
        client.set(claim_key(space, "a"), "a worker that died", px=700)
    started = time.monotonic()
    with workers.start().held(space, ["a"]) as ours:
        assert ours and time.monotonic() - started > 0.5


@pytest.mark.usefixtures("soon")
def test_a_document_that_another_keeps_for_too_long_is_left_to_it(
    workers: Workers, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_claims, "_PATIENCE_S", 0.5)
    first, second = workers.start(), workers.start()
    with first.held(space, ["a"]), second.held(space, ["a", "b"]) as ours:
        assert not ours


def test_without_a_broker_the_work_goes_on(own_valkey: Any, space: str) -> None:
    settings = Settings.load(broker_url=own_valkey.settings.broker_url)
    claims = Claims(make_client(settings, retries=0), (space,), "w")
    claims.start()
    own_valkey.stop()
    with claims.held(space, ["a"]) as ours:
        assert ours
    claims.close()


@pytest.mark.usefixtures("soon")
def test_workers_count_while_they_are_there_and_for_their_share(workers: Workers, queues: Queues) -> None:
    assert queues.workers() == 0
    workers.start()
    last = workers.start("another folder")
    assert queues.workers() == 1.5
    time.sleep(1.5)
    assert queues.workers() == 1.5
    last.close()
    workers.made.remove(last)
    assert queues.workers() == 1.0


# -- the folder -----------------------------------------------------------------------------------------------


class Producers:
    """Leases of several producers on one folder, given back with the test."""

    def __init__(self, settings: Settings, space: str) -> None:
        self._settings, self._space = settings, space
        self.made: list[Lease] = []

    def start(self, identity: str) -> tuple[Lease, list[Leased | LeaseLost]]:
        told: list[Leased | LeaseLost] = []
        lease = Lease(make_client(self._settings), self._space, identity, "/srv/docs", told.append)
        self.made.append(lease)
        lease.start()
        return lease, told


@pytest.fixture
def producers(settings: Settings, space: str) -> Iterator[Producers]:
    made = Producers(settings, space)
    yield made
    for lease in made.made:
        lease.stop()


@pytest.mark.usefixtures("soon")
def test_a_second_producer_is_refused_with_a_sentence_that_names_the_first(producers: Producers) -> None:
    first, told = producers.start("one")
    wait_until(lambda: told == [Leased()], "the first has the lease", timeout_s=10)
    second, refused = producers.start("two")
    wait_until(lambda: bool(refused), "the second is refused", timeout_s=10)
    assert isinstance(refused[0], LeaseLost) and isinstance(refused[0].error, AlreadyRunning)
    assert "/srv/docs" in str(refused[0].error) and "HEADWATER_SOURCE" in str(refused[0].error)
    assert first.held and not second.held and told == [Leased()]


@pytest.mark.usefixtures("soon")
def test_the_lease_of_a_producer_that_is_gone_is_waited_for(
    producers: Producers, settings: Settings, space: str
) -> None:
    with make_client(settings) as client:
        client.set(producer_key(space), json.dumps({"id": "gone", "host": "h", "pid": 1}), px=900)
    _, told = producers.start("one")
    assert not told
    wait_until(lambda: told == [Leased()], "it has the lease", timeout_s=10)


@pytest.mark.usefixtures("soon")
def test_a_successor_with_the_same_ledger_takes_over_at_once(
    producers: Producers, settings: Settings, space: str
) -> None:
    _, told = producers.start("one")
    wait_until(lambda: told == [Leased()], "it has the lease", timeout_s=10)
    with make_client(settings) as client:
        client.persist(producer_key(space))  # as if the first had been killed just now
        _, later = producers.start("one")
        wait_until(lambda: later == [Leased()], "the successor has it", timeout_s=10)


@pytest.mark.usefixtures("soon")
def test_a_producer_that_was_cut_off_ends_when_another_has_taken_its_place(
    producers: Producers, settings: Settings, space: str
) -> None:
    lease, told = producers.start("one")
    wait_until(lambda: told == [Leased()], "it has the lease", timeout_s=10)
    with make_client(settings) as client:
        client.set(producer_key(space), json.dumps({"id": "two", "host": "h", "pid": 1}), px=5000)
    wait_until(lambda: len(told) == 2, "it is told", timeout_s=10)
    assert isinstance(told[1], LeaseLost) and not lease.held


def test_a_broker_that_lost_everything_gives_the_lease_again(
    producers: Producers, settings: Settings, space: str, soon: None
) -> None:
    lease, told = producers.start("one")
    wait_until(lambda: told == [Leased()], "it has the lease", timeout_s=10)
    with make_client(settings) as client:
        client.delete(producer_key(space))
        wait_until(lambda: client.exists(producer_key(space)), "the lease is there again", timeout_s=10)
    assert lease.held and told == [Leased()]
