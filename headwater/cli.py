"""The command ``headwater``: one short function per verb. Only this and ``verbs`` know producer and worker."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headwater import __version__, notify
from headwater.errors import HeadwaterError
from headwater.failpoints import reach
from headwater.generations import serve as serve_generation
from headwater.logs import log_to_stderr
from headwater.settings import Settings, shown_url
from headwater.state import Layout, Lock, Service, check_free_space, find_layout, used_now
from headwater.verbs.accept_deletions import accept_deletions
from headwater.verbs.ask import ask, context
from headwater.verbs.evaluate import evaluate
from headwater.verbs.extract import extract
from headwater.verbs.failures import failures
from headwater.verbs.options import AsJson, Generation, StateDir
from headwater.verbs.plan import plan
from headwater.verbs.reindex import reindex
from headwater.verbs.rollback import rollback
from headwater.verbs.search import duplicates, search, similar, similarity
from headwater.verbs.verify import verify
from headwater.verbs.why import why

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from headwater.following import Follow

app = typer.Typer(
    help="Keeps a vector index in step with a folder of documents, and asks it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Shows the settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")


def main() -> None:
    """Run the command; an error that is foreseen is one sentence and an exit status, never a traceback."""
    try:
        app(prog_name="headwater")
    except HeadwaterError as error:
        print(f"headwater: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def up(
    folder: Annotated[Path, typer.Argument(help="The folder of documents to follow.")],
    once: Annotated[bool, typer.Option("--once", help="Leave when the index is in step.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of the query API (default: any free one).")] = None,
    model: Annotated[str | None, typer.Option(help="Embedding model, by name or path.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Everything on this machine: follow FOLDER, keep the index in step, answer questions."""
    from headwater.screen import Screen
    from headwater.supervisor import Supervisor
    from headwater.verbs.moving import as_answering, following, refuse_other_model
    from producer.status import Observer, forget_step

    given = Settings.read(folder=folder, port=port, model=model, state_dir=state_dir)
    given.required_folder()
    settings = as_answering(given, once=once)
    refuse_other_model(settings, model)
    layout = find_layout(settings).create()
    check_free_space(layout.root, settings.min_free_bytes)
    lock = Lock(layout, "up").acquire()
    forget_step(layout)
    serve_generation(layout)
    screen = Screen(
        Console(emoji=False), Observer(layout), as_json=as_json, api=lambda: None if once else _api_url(layout)
    )
    manager = notify.WhenReady(layout)

    def tick() -> None:
        screen.tick()
        manager.look()

    def drain() -> None:
        notify.stopping()
        screen.drain()

    supervisor = Supervisor(settings, layout, once, tick, drain)
    moves = None if once else following(supervisor, given, screen)
    try:
        with used_now(layout):
            screen.start()
            supervisor.run()
            screen.tick(now=True)
    finally:
        if moves is not None:
            moves.stop()
        screen.stop()
        lock.release()
    if supervisor.interrupted and once:
        sys.exit(130)


app.command()(search)
app.command()(context)
app.command()(ask)
app.command()(similar)
app.command()(similarity)
app.command()(duplicates)


@app.command()
def status(
    folder: Annotated[Path | None, typer.Option(help="The folder whose status is asked.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if it is failing or does not run.")] = False,
) -> None:
    """Whether the index is in step, what it holds, and what is wrong, if anything: its cause and the next step."""
    from headwater.verbs.moving import of_moves
    from producer.status import check_state

    settings = Settings.load(folder=folder, state_dir=state_dir)
    layout = find_layout(settings)
    check_state(layout)
    own = _status(settings) if layout.ledger.exists() else _asked(settings)
    found = {**own, **of_moves(layout, Settings.read(folder=folder, state_dir=state_dir))}
    print(json.dumps(found)) if as_json else _print_status(found)
    if check and (found["health"] == "failing" or not found["running"]):
        sys.exit(1)


def _print_status(found: dict[str, Any]) -> None:
    documents = ", ".join(f"{number} {state}" for state, number in found["documents"].items())
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{found['health']}, {'in step' if found['in_step'] else 'not in step'}"
                  f"{'' if found['running'] else ', not running'}")  # fmt: skip
    console.print(f"folder     {found['folder']}")
    console.print(f"state      {found['state_dir']}")
    console.print(f"documents  {documents}")
    console.print(f"chunks     {found['chunks']}")
    console.print(f"texts      {found['embedded_texts_total']} embedded, {found['reused_texts_total']} reused")
    if found["generation"] != 1 or found["previous_generation"] is not None:
        console.print(f"generation {found['generation']}")
    if (under_way := found["reindex"]) is not None:
        console.print(
            f"reindex    generation {under_way['generation']} is {under_way['phase']}: "
            f"{under_way['done']} of {under_way['total']} documents"
        )
    if (under_way := found["rollback"]) is not None:
        console.print(
            f"rollback   to generation {under_way['generation']} is under way or was ended before its time: "
            f"{under_way['done']} of {under_way['total']} documents; 'headwater rollback' goes on with it"
        )
    for cause in found["causes"]:
        console.print(f"{cause['health']}: {cause['part']}: {cause['cause']}", soft_wrap=not console.is_terminal)
        console.print(f"  next: {cause['next_step']}", soft_wrap=not console.is_terminal)
    for note in found["notes"]:
        console.print(f"- {note}", soft_wrap=not console.is_terminal)


def _status(settings: Settings) -> dict[str, Any]:
    from producer.status import read_status

    layout = find_layout(settings)
    running = any(Lock.is_held(layout, name) for name in ("up", "producer"))
    found = read_status(layout, running=running, least_free_bytes=settings.min_free_bytes)
    return {**found, "api": _api_url(layout)}


def _asked(settings: Settings) -> dict[str, Any]:
    """On a host without a producer, the service that answers questions there knows more than its files."""
    from headwater.client import service_status

    found = _status(settings)
    return found if found["api"] is None else {**found, **service_status(found["api"])}


def _status_here(settings: Settings, troubles: Mapping[str, str]) -> dict[str, Any]:
    """Of a process that answers questions: it runs, and what is wrong with it is told with the rest."""
    from producer.verdict import with_troubles

    return with_troubles(_status(settings), troubles)


def _progress(settings: Settings) -> Callable[[], tuple[int, bool]]:
    from producer.status import Progress

    return Progress(find_layout(settings)).read


def _numbers(settings: Settings) -> Collector:
    from producer.numbers import ProducerNumbers

    return ProducerNumbers(settings, find_layout(settings))


def _api_url(layout: Layout) -> str | None:
    service = Service.read(layout)
    return None if service is None else service.url


@app.command()
def watch(
    folder: Annotated[Path | None, typer.Argument(help="The folder of documents to follow.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Leave when the index is in step.")] = False,
    state_dir: StateDir = None,
    generation: Generation = None,
) -> None:
    """Only the producer: notice changes and queue them (CELERY_BROKER_URL names the queue)."""
    from headwater.following import Expiry, Follow, begin_anew
    from producer.service import Producer

    settings = Settings.load(folder=folder, state_dir=state_dir, generation=generation)
    log_to_stderr(settings)
    settings.required_folder()
    producer = Producer(settings, find_layout(settings).create())
    to_end = threading.Event()

    def end() -> None:
        to_end.set()
        producer.stop()

    _on_signal(end)
    follow = _follow(Settings.read(generation=generation), lambda: Follow.of(settings, producer.stop), once=once)
    if follow is not None and find_spec("qdrant_client") is not None:  # an image without it leaves that to other hosts
        Expiry(settings, find_layout(settings)).start()
    producer.run(once=once)
    if follow is not None and follow.moved:
        begin_anew(to_end.is_set)


@app.command()
def work(
    serve: Annotated[bool, typer.Option("--serve", help="Answer questions over HTTP as well.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where this machine sees the folder.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the query API, with --serve.")] = None,
    state_dir: StateDir = None,
    generation: Generation = None,
    api_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    private_api: Annotated[bool, typer.Option(hidden=True)] = False,
    own_api: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Only a worker: take queued changes, embed, and write to the index (QDRANT_URL names a server)."""
    from headwater.following import Follow, at_server, begin_anew
    from headwater.listening import lasting
    from headwater.standin import dismiss, stand_in
    from worker.service import Ending, run_worker
    from worker.serving import ApiPlace

    settings = at_server(Settings.load(folder=folder, port=port, state_dir=state_dir, generation=generation))
    log_to_stderr(settings)
    follows = Settings.read(generation=generation).generation is None
    place = ApiPlace(api_fd, private_api)
    if serve and api_fd is None and follows:
        place = ApiPlace.own_from(own_api or str(lasting(settings.host, settings.port)))
        if own_api is not None:
            reach("work:anew")
    ending = Ending()
    pid: int | None = None
    anew: dict[str, str] | None = None

    def move() -> None:
        nonlocal anew, pid
        if place.own and place.descriptor is not None:
            pid = stand_in(settings, place.descriptor)
            anew = {"own_api": f"{place.descriptor}:{pid or ''}"}
        else:
            anew = {}
        ending.drain()

    if follows:
        Follow.at(settings, move).start()
    run_worker(
        settings,
        serve=serve,
        status=lambda: _status(settings),
        progress=_progress(settings),
        numbers=_numbers(settings),
        place=place,
        ending=ending,
    )
    if anew is not None:
        begin_anew(ending.asked, **anew)
    if pid is not None:
        dismiss(pid)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Port (default: any free one).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    state_dir: StateDir = None,
    api_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Only the query API, over an index that no other process holds (a server's, say)."""
    from headwater.serve import serve_index
    from headwater.standin import end_with_parent

    load = partial(Settings.load, port=port, host=host, state_dir=state_dir)
    settings = load()
    log_to_stderr(settings)
    ended = threading.Event()
    _on_signal(ended.set)
    if api_fd is not None:
        end_with_parent(ended.set)

    def answers(url: str) -> None:
        print(url, flush=True)
        notify.ready()

    serve_index(
        settings,
        lambda troubles: _status_here(settings, troubles),
        _progress(settings),
        on_url=answers,
        ended=ended,
        numbers=_numbers(settings),
        again=load if Settings.read().generation is None else None,
        descriptor=api_fd,
    )


app.command()(accept_deletions)
app.command()(why)
app.command()(plan)
app.command()(extract)
app.command()(failures)
app.command()(verify)
app.command()(reindex)
app.command()(rollback)
app.command()(evaluate)


@config_app.command("show")
def config_show(as_json: AsJson = False, state_dir: StateDir = None) -> None:
    """Every setting with its value in force."""
    settings = Settings.load(state_dir=state_dir)
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["qdrant_api_key"] = "***" if settings.qdrant_api_key else None
    values["broker_sentinel_password"] = "***" if settings.broker_sentinel_password else None
    values["llm_api_key"] = "***" if settings.llm_api_key else None
    for name in ("broker_url", "qdrant_url", "llm_url"):
        values[name] = shown_url(values[name]) if values[name] else None
    if as_json:
        print(json.dumps(values))
        return
    for name, value in values.items():
        print(f"{name} = {json.dumps(value)}")


def _follow(given: Settings, make: Callable[[], Follow], *, once: bool = False) -> Follow | None:
    """Follows the current generation, unless one is named or the command ends by itself."""
    if once or given.generation is not None:
        return None
    follow = make()
    follow.start()
    return follow


def _on_signal(stop: Callable[[], None]) -> None:
    """The first signal ends in order, a second one at once."""

    def first(number: int, frame: FrameType | None) -> None:
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, lambda *_: os._exit(130))
        notify.stopping()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, first)
