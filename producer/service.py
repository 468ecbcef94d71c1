"""The producer: one loop that owns the ledger. Threads only put things into its inbox.

Reads top to bottom: subscribe, scan, then take each event as it comes and ring for what is due.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from headwater import metrics, notify, tracing
from headwater.broker import make_app, make_client
from headwater.document import path_to_text
from headwater.errors import BrokerUnavailable, FolderError, HeadwaterError
from headwater.failpoints import reach
from headwater.messages import Census, Embedded, Hello, Hindered, Holding, Outcome, events_key, namespace
from headwater.metrics import PROCESS, PRODUCER, join, listen
from headwater.rights import refused
from headwater.settings import Settings
from headwater.state import Layout, Lock
from producer.census import CensusTaker, compare
from producer.expecting import Expecting
from producer.follower import Follower
from producer.hindrances import Hindrances
from producer.inbox import Inbox
from producer.indexcheck import IndexCheck
from producer.lease import Lease, Leased, LeaseLost
from producer.ledger import Ledger
from producer.numbers import CountsFile, LedgerNumbers
from producer.outcomes import BrokerBack, Reader, ReaderDied, Reported
from producer.publisher import Publisher, blame
from producer.queues import Queues
from producer.rules import Rules
from producer.scanner import Scanner
from producer.stall import Stall
from producer.watcher import Dirty, Watcher

__all__ = ["Producer"]

log = logging.getLogger(__name__)

#: seconds between attempts to reach a broker that does not answer
_BROKER_RETRY_S = 0.5
#: how long ``once`` puts up with a service that cannot write (disk full, index away)
_TROUBLE_S = 15.0
_TICK_S = 0.25
#: a worker that was cut off and is back may write what it had in hand for so long; then the index is counted again
_LATE_WRITES_S = 60.0


@dataclass(frozen=True, slots=True)
class _Stop:
    """Asks the loop to end."""


@dataclass(frozen=True, slots=True)
class _Crash:
    """A thread has died: the loop must not go on half deaf."""

    error: BaseException


_Message = Dirty | Reported | BrokerBack | ReaderDied | Leased | LeaseLost | _Stop | _Crash


class Producer:
    """Follows one folder. ``run`` blocks until ``stop`` is called, or with ``once`` until the index is in step."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        self._root = settings.required_folder()
        self._lock = Lock(layout, "producer").acquire(wait_s=10)
        self._ledger = Ledger(layout.ledger)
        rules = Rules(
            os.fsencode(self._root),
            settings.include,
            settings.exclude,
            frozenset({os.fsencode(layout.root)}),
        )
        self._scanner = Scanner(os.fsencode(self._root), rules)
        self._watcher = Watcher(
            self._root, settings.debounce_ms, settings.debounce_max_ms, heartbeat_s=settings.heartbeat_s
        )
        self._follower = Follower(settings, self._ledger, self._scanner, self._watcher, self._note)
        app = make_app(settings)
        space = namespace(settings.prefix, settings.source)
        self._publisher = Publisher(
            app,
            Queues(make_client(settings), space),
            space,
            settings.bulk_window,
            settings.lease_s,
            settings.attempts,
            source=settings.source,
            pipeline=settings.pipeline_fingerprint(),
            fleet=settings.qdrant_url is not None,
        )
        self._fleet = settings.qdrant_url is not None
        self._expecting = Expecting(make_client(settings), space, settings)
        self._hindrances = Hindrances()
        self._check = IndexCheck(settings.index_check_s, min(settings.lease_s, 2 * settings.index_check_s))
        self._inbox: Inbox[_Message] = Inbox()
        key = events_key(space)
        last_id = self._ledger.meta("last_event") or "0-0"
        self._reader = Reader(make_client(settings, retries=0), key, last_id, self._inbox.put)
        self._lease = self._make_lease(space)
        #: the reader has told of the broker: what was rung before that counts as lost, and would be rung for twice
        self._broker_heard = False
        self._reasons: dict[str, str] = {}
        # with a broker of one's own, or after a restart of this process alone, workers said hello long ago
        known = self._ledger.meta("worker_pid")
        self._greeted = settings.broker_url is not None or (
            known is not None and known == Lock.holder(layout, "worker")
        )
        # a worker that said hello to the process before this one does not send its census again by itself
        # (with a broker of one's own there may be no worker now to answer, so ``once`` does not wait for that)
        self._census = CensusTaker(settings.lease_s, settled=settings.broker_url is not None, due=self._greeted)
        self._trouble_since: float | None = None
        self._stall = Stall(self._publisher.hints_waiting)
        self._counts = CountsFile(layout)
        self._end_metrics: Callable[[], None] = lambda: None
        self._ring_at = 0.0
        self._stopped = False

    def stop(self) -> None:
        """End the loop soon; safe to call from a signal handler or another thread."""
        self._inbox.put(_Stop())

    def run(self, *, once: bool = False) -> None:
        """Raises HeadwaterError with ``once`` if the index cannot be brought in step."""
        fresh = {"scanned": "0", "checked": "0", "reasons": "[]", "troubles": "{}"}
        self._ledger.set_metas({**fresh, "folder": path_to_text(os.fsencode(self._root))})
        try:
            self._begin()
            while not self._stopped:
                self._take(self._inbox.take(_TICK_S))
                self._keep_up()
                if once and self._finished():
                    return
        finally:
            self._end()

    # -- begin and end ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        tracing.start(self._settings, "watch")
        numbers = LedgerNumbers(self._settings, self._layout)
        self._end_metrics = listen(self._settings, join(PRODUCER, PROCESS, numbers))
        self._check_pipeline()
        self._check_index()
        self._ledger.drop_old_tombstones()
        self._subscribe()
        if self._lease is None:
            self._reader.start()
        else:
            self._lease.start()
        notify.ready()
        self._follower.scan("the start")

    def _subscribe(self) -> None:
        try:
            self._watcher.start()
        except OSError as error:
            log.warning("the folder cannot be watched (%s): it is looked at every few seconds", error.strerror)
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def _watch(self) -> None:
        try:
            for dirty in self._watcher.changes():
                self._inbox.put(dirty)
        except BaseException as error:
            self._inbox.put(_Crash(error))
            raise

    def _end(self) -> None:
        self._end_metrics()
        tracing.end()
        self._watcher.stop()
        self._reader.stop()
        if self._lease is not None:
            self._lease.stop()
        self._ledger.close()
        self._lock.release()

    def _make_lease(self, space: str) -> Lease | None:
        """With a broker of its own, the lock of the state directory says that this is the only producer."""
        if self._settings.broker_url is None:
            return None
        identity = self._ledger.meta("identity") or uuid.uuid4().hex
        self._ledger.set_meta("identity", identity)
        folder = path_to_text(os.fsencode(self._root))
        return Lease(make_client(self._settings), space, identity, folder, self._inbox.put)

    @property
    def _leads(self) -> bool:
        """Whether the folder is ours to follow."""
        return self._lease is None or (self._lease.held and self._broker_heard)

    def _check_pipeline(self) -> None:
        """Other settings of cutting or another version of it: every document is due."""
        fingerprint = self._settings.pipeline_fingerprint()
        with self._ledger.transaction():
            if (self._ledger.meta("pipeline") or fingerprint) != fingerprint:
                self._ledger.want_all_again(also_due=True)
            self._ledger.set_meta("pipeline", fingerprint)

    def _check_index(self) -> None:
        """An embedded index that was deleted is noticed at once, not only when a worker says hello."""
        known = self._ledger.meta("index_id")
        if known and not self._settings.qdrant_url and not self._layout.manifest.exists():
            with self._ledger.transaction():
                self._ledger.new_index("")

    # -- the loop --------------------------------------------------------------------------------------------

    def _take(self, message: _Message | None) -> None:
        match message:
            case Dirty(rescan=str(reason)):
                self._follower.scan(reason)
            case Dirty():
                self._follower.look(message.paths)
            case Reported():
                self._note_events(message)
            case BrokerBack():
                self._publisher.forget_all()
                self._broker_heard = True
            case _Stop():
                self._stopped = True
            case Leased():
                self._reader.start()
            case _Crash() | ReaderDied() | LeaseLost():
                raise message.error

    def _keep_up(self) -> None:
        self._follower.keep_up()
        self._counts.keep_up()
        metrics.lease_held.set(self._leads)
        if self._lease is not None and not self._leads:
            self._note("broker", self._refused(self._lease.trouble or self._reader.trouble))
        if time.monotonic() >= self._ring_at and "folder" not in self._reasons and self._leads:
            self._ring()

    def _ring(self) -> None:
        try:
            if self._fleet:
                self._expecting.keep_up(self._ledger)
            self._publisher.ring(self._ledger)
            if self._publisher.lost_hints():
                self._census.again_in(_LATE_WRITES_S)
            self._ask_for_census()
            self._note("broker", self._refused(self._reader.trouble))
            self._note_hindrances(self._stall.reason(self._publisher.on_their_way))
        except BrokerUnavailable as error:
            self._note("broker", self._refused(str(error)))
            self._ring_at = time.monotonic() + _BROKER_RETRY_S

    def _finished(self) -> bool:
        """In step, and a worker has told that the index is the one we know."""
        self._give_up_if_hopeless()
        quiet = self._inbox.is_empty and self._watcher.quiet and self._census.settled
        return (
            self._leads
            and self._greeted
            and quiet
            and self._ledger.meta("scanned") == "1"
            and not self._ledger.waiting(most=1)
        )

    def _give_up_if_hopeless(self) -> None:
        if self._trouble_since is not None and self._worker_restarts():
            self._trouble_since = time.monotonic()  # the next one may do better, and must get the time to start
        if self._trouble_since is not None and time.monotonic() - self._trouble_since > _TROUBLE_S:
            raise HeadwaterError(self._reasons["service"])
        for part in ("folder", "deletions"):
            if part in self._reasons:
                raise FolderError(self._reasons[part])
        if "index" in self._reasons:
            raise HeadwaterError(self._reasons["index"])

    def _worker_restarts(self) -> bool:
        """Whether the one worker of an embedded index is not there just now."""
        return self._settings.qdrant_url is None and not Lock.is_held(self._layout, "worker")

    # -- workers -> ledger -----------------------------------------------------------------------------------

    def _note_events(self, reported: Reported) -> None:
        again: set[bytes] = set()
        reach("producer:heard")
        with self._ledger.transaction():
            for event in reported.events:
                match event:
                    case Outcome():
                        again |= self._note_outcome(event)
                    case Embedded():
                        self._ledger.add_embedded(event)
                    case Hello():
                        self._greet(event)
                    case Census():
                        self._hear_census(event)
                    case Holding():
                        self._hear_holding(event)
                    case Hindered():
                        self._hindrances.hear(event)
                        if event.part == "qdrant" and event.reason is None:
                            self._check.doubt()  # it may be back with an older state
            self._ledger.set_meta("last_event", reported.last_id)
        reach("producer:noted")
        self._reader.acknowledge(reported.last_id)
        if again:
            self._follower.look(frozenset(again))

    def _note_outcome(self, outcome: Outcome) -> set[bytes]:
        """Returns the path if it must be looked at again."""
        self._publisher.landed(outcome.path)
        self._stall.landed()
        metrics.outcomes.labels("service_failure" if outcome.service else outcome.state).inc()
        if outcome.state == "vanished" and self._scanner.look(outcome.path):
            if self._fleet:  # that host may see another folder, and the next one the file
                where = outcome.reason or "another host"
                pause_s = self._hindrances.unseen(outcome.path, where)
                self._ledger.put_off(outcome.path, pause_s, f"the producer sees it, and the worker on {where} does not")
                return set()
            reason = "the worker does not find the file: does it see the same folder?"
            outcome = replace(outcome, state="failed", reason=reason, retryable=True, unread=True)
        self._hindrances.landed(outcome.path)
        seen = self._ledger.fingerprint(outcome.path)
        if (
            self._fleet and seen is not None and outcome.fingerprint is not None
        ):  # other hosts may number files otherwise
            outcome = replace(outcome, fingerprint=seen if seen.is_like(outcome.fingerprint) else outcome.fingerprint)
        settled = self._ledger.applied(outcome, self._settings.attempts)
        if settled:
            self._follower.latency.settled(outcome)
        if outcome.state in ("indexed", "partial") and not self._ledger.wants_index(outcome.path):
            self._ledger.want_delete_again(outcome.path, outcome.seq)
        self._note("service", outcome.reason if outcome.service else None)
        if outcome.service:
            self._check.doubt()
            self._trouble_since = self._trouble_since or time.monotonic()
        else:
            self._trouble_since = None
        if outcome.state == "superseded" and outcome.index_seq >= self._beyond(outcome.path):
            self._ledger.raise_seq(outcome.index_seq)
            if not self._ledger.wants_index(outcome.path):
                self._ledger.want_delete_again(outcome.path, outcome.index_seq)
                return set()
        elif outcome.state not in ("vanished", "changed"):
            # another file was there for a moment and was read: the one that we saw may be back, as it was
            other = settled and outcome.fingerprint is not None and outcome.fingerprint != seen
            return {outcome.path} if other else set()
        self._ledger.look_again(outcome.path)
        return {outcome.path}

    def _beyond(self, path: bytes) -> int:
        """The lowest seq that the index may not hold: of a deleted document any, of a wanted one those above its."""
        return self._ledger.wanted_seq(path) + (1 if self._ledger.wants_index(path) else 0)

    def _greet(self, hello: Hello) -> None:
        """A worker started: what an earlier one held is lost, and its index may not be the one we know."""
        metrics.worker_starts.inc()
        self._stall.landed()
        self._trouble_since = None  # that of an earlier worker may have ended with it
        # an embedded index has one worker: this is its successor, and a first one has lost nothing
        succeeds = self._settings.qdrant_url is None and self._greeted
        if succeeds and (killer := self._publisher.worker_died()) is not None:
            blame(self._ledger, *killer)
        self._greeted = True
        self._ledger.set_meta("worker_pid", hello.worker.rpartition(":")[2])
        if self._ledger.meta("index_id") != hello.index_id:
            self._ledger.new_index(hello.index_id)
        self._census.expect()
        self._ledger.set_meta("checked", "0")

    def _hear_census(self, page: Census) -> None:
        """Compare what the index holds with the ledger; read again what is damaged, sweep what nobody wants."""
        counts = self._census.hear(page)
        if counts is None or page.index_id != self._ledger.meta("index_id"):
            return
        verdict = compare(self._ledger.versions(), counts)
        self._ledger.raise_seq(verdict.highest_seq)
        metrics.census_findings.labels("damaged").inc(len(verdict.damaged))
        metrics.census_findings.labels("unwanted").inc(len(verdict.unwanted))
        if verdict.findings:
            log.warning(
                "the index is not what the ledger says: %d documents are read again, %d versions are swept",
                len(verdict.damaged), len(verdict.unwanted),
            )  # fmt: skip
        self._ledger.read_again(verdict.damaged)
        goes_on = self._census.conclude(verdict, at_rest=not self._ledger.waiting(most=1))
        self._ledger.set_meta("checked", "1" if self._census.settled else "0")
        self._note(
            "index",
            None
            if goes_on
            else "the index does not become what the ledger says, though documents were read again: "
            "run 'headwater verify'",
        )

    def _ask_for_census(self) -> None:
        """Once all is settled, ask again whether the index agrees now. Raises BrokerUnavailable."""
        name = self._census.to_ask()
        if name is not None and not self._ledger.waiting(most=1):
            self._publisher.ask_for_census(name, self._census.sweep)
            self._census.asked(name)
        if self._fleet and self._check.is_due():
            self._publisher.ask_for_census("brief", (), brief=True)
            self._check.asked()

    def _hear_holding(self, held: Holding) -> None:
        """The index of a server may become another one while all parts run: restored, emptied."""
        self._check.answered()
        at_rest = not (self._ledger.waiting() or self._publisher.on_their_way) and self._census.settled
        if not at_rest or held.index_id != self._ledger.meta("index_id"):
            return
        if self._check.differs((held.points, held.newest_seq), self._ledger.holding()):
            log.warning("the index holds %d points, which is not what the ledger says: it is compared", held.points)
            self._census.due, self._census.settled = True, False
            self._ledger.set_meta("checked", "0")

    # -- what people see -------------------------------------------------------------------------------------

    def _note_hindrances(self, stalled: str | None) -> None:
        """What workers tell of themselves; if none takes hints for such a reason, that is why."""
        self._note("qdrant", self._hindrances.sentence("qdrant"))
        host = self._hindrances.sentence("host")
        none_left = host is not None and self._publisher.workers == 0
        self._note("worker", host if none_left else stalled)
        self._note("host", None if none_left else host)

    def _refused(self, trouble: str | None) -> str | None:
        """Trouble with the broker; if it is for want of rights, all that this user lacks."""
        if trouble is None or "no permissions" not in trouble.lower():
            return trouble
        return refused(self._settings, "producer", (self._settings.source,)) or trouble

    def _note(self, part: str, reason: str | None) -> None:
        """Keep or clear the reason why a part of the service is degraded."""
        if self._reasons.get(part) == reason:
            return
        metrics.trouble.labels(part).set(reason is not None)
        if reason is None:
            self._reasons.pop(part, None)
        else:
            log.warning("%s", reason)
            self._reasons[part] = reason
        self._ledger.set_metas(
            {"reasons": json.dumps(list(self._reasons.values())), "troubles": json.dumps(self._reasons)}
        )
