"""From settings to a serving process: database up, migrated, first start done, then HTTP until a signal."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
import uvloop

from api.app import make_app, make_metrics_app
from api.metrics import count_cut, serving_figures, show_connections
from api.services import Services
from database import migrate
from database.connections import connect
from database.deadlines import REQUESTS_AT_STOP, STOP
from database.faults import no_fault
from delivery.leftovers import seal_leftovers
from ledger.key_epochs import KeyFollower
from ledger.sealing import Kek
from operations.tokens import bind
from runtime import embedded
from runtime.bootstrap import (
    StartError,
    Urls,
    first_start,
    machine,
)
from runtime.deliver import run_delivery
from runtime.disk import Disk
from runtime.erasure_list import ErasureList
from runtime.listening import BACKLOG, listen, make_room
from runtime.local_socket import ASGIApp, local_socket, marked_local
from runtime.logs import configure_logs
from runtime.machine_database import database
from runtime.process_figures import Process, figures_directory, named_processes
from runtime.protocol import Doorkeeper, Limits, Protocol
from runtime.reaching import reach, reach_as_served, standby_named
from runtime.root_key import ensure_kek, providers_of
from runtime.served_settings import note_settings
from runtime.settings import Settings, unknown_settings
from runtime.supervisor import Beat, Supervisor, beating
from runtime.telemetry import check_tracing, open_tracer
from runtime.wiring import open_alone, open_services, webhooks_of

# The interpreter's switch interval: after it a computing thread yields to the event loop. A request needs about ten switches.
SWITCH_INTERVAL_S = 0.001
_log = structlog.get_logger("runtime")
INNER_CONNECTIONS = 100  # connections of this machine's commands and of scrapers
SIGNAL_NOTICE_S = 0.2  # interval at which a signal is noticed if other processes serve


@dataclass(frozen=True, slots=True)
class Doors:
    """The sockets of serving processes, which share them: for requests, for scrapes (LEDGER_METRICS_PORT), for this machine's commands."""

    requests: socket.socket
    scrapes: socket.socket | None
    local: socket.socket | None = None

    def all(self) -> list[socket.socket]:
        return [sock for sock in (self.requests, self.scrapes, self.local) if sock is not None]


@dataclass(slots=True)
class Signals:
    """Remembers SIGTERM and SIGINT that come before the HTTP server listens for them."""

    server: uvicorn.Server | None = None
    supervisor: Supervisor | None = None
    seen: bool = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self.seen:
            last = threading.Timer(STOP.seconds, _give_up)
            last.daemon = True
            last.start()
        self.seen = True
        if self.supervisor is not None:
            self.supervisor.dismiss()
        if self.server is not None:
            self.server.should_exit = True


def _give_up() -> None:
    """End the process at once: something hangs although each wait has a deadline. Acknowledged changes are in the database."""
    _log.critical("killed_at_stop", seconds=STOP.seconds)
    os._exit(1)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is queued and return. Raises StartError."""
    configure_logs(settings.log_format)
    check_tracing(settings.tracing)
    _tell_of_unknown_settings()
    signals = Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.handle)
    # Bound first, so that a taken port is reported at once and leaves nothing behind, and port 0 gets its number.
    with contextlib.ExitStack() as bound:
        sock = bound.enter_context(contextlib.closing(listen(settings.host, settings.port, "LEDGER_PORT")))
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})
        scrapes = None
        if settings.metrics_port is not None:
            scrapes = bound.enter_context(contextlib.closing(listen("127.0.0.1", settings.metrics_port, "LEDGER_METRICS_PORT")))
        _make_data_dir(settings)
        with database(settings) as urls:
            _start(settings, urls, Doors(sock, scrapes), signals)


def _tell_of_unknown_settings() -> None:
    """A misspelt setting has no effect, so it must not pass in silence. Its value is not shown."""
    for name, meant in unknown_settings().items():
        _log.warning("unknown_setting", name=name, did_you_mean=meant, do="see `scim-ledger settings`")


def _make_data_dir(settings: Settings) -> None:
    try:
        with embedded.in_words(settings.data_dir):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
    except embedded.EmbeddedPostgresError as broken:
        raise StartError(str(broken)) from broken


def _start(settings: Settings, urls: Urls, doors: Doors, signals: Signals) -> None:
    urls, concerns = reach(urls, settings, lambda: signals.seen)
    for concern in concerns:
        _log.warning(concern.reason, says=concern.says)
    try:
        for name in migrate.migrate(urls.migrate):
            _log.info("migrated", migration=name)
    except migrate.MigrationError as broken:
        raise StartError(str(broken)) from broken
    reach_as_served(urls, settings, lambda: signals.seen)
    with standby_named(urls.serve):
        first, kek = asyncio.run(_prepare_ledger(settings, urls))
    if signals.seen:
        return
    _note_settings(settings)
    with _local_door(settings) as local, figures_directory(settings.data_dir) as figures:
        _announce(settings, first)
        _run(settings, urls, replace(doors, local=local), signals, kek, figures)


def _note_settings(settings: Settings) -> None:
    """If they cannot be noted, the service starts all the same; commands without a service then use their own environment."""
    try:
        note_settings(settings)
    except OSError as refused:
        _log.warning("settings_not_noted", reason=str(refused))


@contextlib.contextmanager
def _local_door(settings: Settings) -> Generator[socket.socket | None]:
    """The local socket. If it cannot be made, the service starts all the same; commands are then slower."""
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with contextlib.ExitStack() as stack:
        door: socket.socket | None = None
        try:
            door = stack.enter_context(local_socket(settings.data_dir, url))
        except OSError as refused:
            _log.warning("no_local_socket", reason=str(refused))
        yield door


def _run(settings: Settings, urls: Urls, doors: Doors, signals: Signals, kek: Kek, figures: Path | None) -> None:
    """Serve in this process or in several, with the delivery processes beside. `figures`: the directory of their sockets for figures."""
    several = settings.workers > 1
    serving, delivering = named_processes(settings.workers, settings.delivery_workers, figures)
    further = [partial(_work, settings, urls, doors, kek, each) for each in serving] if several else []
    further += [partial(run_delivery, settings, urls, kek, each) for each in delivering]
    supervisor = signals.supervisor = Supervisor(further)
    supervisor.start()
    try:
        while several and not signals.seen:
            supervisor.join(SIGNAL_NOTICE_S)
        if not several:
            run_http(settings, urls, doors, signals, kek, serving[0])
    finally:
        supervisor.finish()


def _work(settings: Settings, urls: Urls, doors: Doors, kek: Kek, process: Process, beat: Beat) -> None:
    """A serving process among several."""
    configure_logs(settings.log_format)
    signals = Signals()
    signal.signal(signal.SIGTERM, signals.handle)
    # Ctrl-C reaches the whole process group, but only the parent decides when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_http(settings, urls, doors, signals, kek, process, beat)


def run_http(
    settings: Settings, urls: Urls, doors: Doors, signals: "Signals", kek: Kek, process: Process, beat: Beat = lambda: None
) -> None:
    """Serve HTTP on bound sockets until told to stop. `beat` gives a sign of life to the supervisor.

    `kek`: the ledger's keys, read at the start, so that a process can be replaced while the database or the provider of root keys is away.
    """
    make_room(settings.connections)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_http(settings, urls, doors, signals, kek, process, beat))


async def _serve_http(
    settings: Settings, urls: Urls, doors: Doors, signals: "Signals", kek: Kek, process: Process, beat: Beat
) -> None:
    async with _beside(beating(beat)), process.answering(serving_figures):
        await _served(settings, urls, doors, signals, kek, process)


async def _served(settings: Settings, urls: Urls, doors: Doors, signals: "Signals", kek: Kek, process: Process) -> None:
    # Objects of the start live as long as the process; freezing them saves the garbage collector 5 % of a create.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    room = no_fault if urls.place is None else Disk(urls.place).trouble
    async with contextlib.AsyncExitStack() as parts:
        tracer = parts.enter_context(open_tracer(settings.tracing, process.name))
        services = await parts.enter_async_context(
            open_services(
                urls.serve,
                kek,
                settings.base_url,
                webhooks_of(settings),
                urls.pooled,
                room=room,
                process=process,
                tracer=tracer,
                keys=KeyFollower(kek, providers_of(settings)),
                owner_url=urls.migrate,
                erasures=ErasureList(settings.erasure_list_path),
            )
        )
        server = _HttpServer(services, settings.connections, doors)
        signals.server = server
        if signals.seen:
            return
        async with _beside(server.keeper.sweep(), server.inner.sweep(), _let_go(server, services)):
            await server.serve(sockets=doors.all())


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Run coroutines during the block, and cancel them at its end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _config(app: ASGIApp, keeper: Doorkeeper) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False, date_header=True,
        headers=[("X-Content-Type-Options", "nosniff")],
        timeout_graceful_shutdown=int(REQUESTS_AT_STOP.seconds), ws="none", backlog=BACKLOG,
        http=keeper.protocol,  # pyright: ignore[reportArgumentType]  # uvicorn only calls it
        proxy_headers=False,  # LEDGER_PUBLIC_URL says how clients reach us; nothing here believes X-Forwarded headers
    )  # fmt: skip


class _HttpServer(uvicorn.Server):
    """Serves requests, and beside them the local socket and the metrics port, with connection limits of their own.

    Callers through the local socket are `sys`; no request can set that. The metrics port serves only /metrics.
    """

    def __init__(self, services: Services, connections: int, doors: Doors) -> None:
        self.keeper = Doorkeeper(Limits(connections=connections), count_cut, show_connections)
        self.inner = Doorkeeper(Limits(connections=INNER_CONNECTIONS))
        app = make_app(services)
        super().__init__(_config(app, self.keeper))
        self._doors = doors
        self._local, self._scrapes = _config(marked_local(app), self.inner), _config(make_metrics_app(services), self.inner)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        doors, loop = self._doors, asyncio.get_running_loop()
        await super().startup([sock for sock in sockets or [] if sock is doors.requests])
        if doors.local is not None:
            self.servers.append(await loop.create_unix_server(self._protocols(self._local), sock=doors.local))
        if doors.scrapes is not None:
            self.servers.append(await loop.create_server(self._protocols(self._scrapes), sock=doors.scrapes))

    def _protocols(self, config: uvicorn.Config) -> Callable[[], Protocol]:
        config.load()
        return lambda: self.inner.protocol(config, self.server_state, self.lifespan.state)


async def _let_go(server: uvicorn.Server, services: Services) -> None:
    """End streams and long polls once the server stops; it would wait for them otherwise."""
    while not server.should_exit:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(SIGNAL_NOTICE_S)
    services.stopping = True
    services.arrivals.announce()
    services.tail.arrivals.announce()


async def _prepare_ledger(settings: Settings, urls: Urls) -> tuple[bool, Kek]:
    conn = await connect(urls.serve)
    try:
        kek = await ensure_kek(conn, settings)
        sealed = await seal_leftovers(conn, kek, os.urandom)
    finally:
        await conn.close()
    if sealed:
        _log.info("notes_sealed", notes=sealed)
    async with open_alone(urls.serve, kek) as ledger:
        first = await first_start(ledger, settings)
        bound = await bind(ledger, machine())
        erasures = ErasureList(settings.erasure_list_path)
        await erasures.erase_again(ledger, machine)
        await erasures.note(ledger)
    if bound:
        _log.info("tokens_bound", tokens=bound)
    return first, kek


def _announce(settings: Settings, first: bool) -> None:
    lines = [f"Provisioning ledger on {settings.base_url}"]
    if first:
        lines.append(f"  first start: directory acme, tokens in {settings.first_run_path}")
        lines.append(f"  back up {settings.kek_path}: without this key no backup of the database can be read")
    lines.append(f"  SCIM    {settings.base_url}/scim/<directory>/v2")
    lines.append(f"  events  {settings.base_url}/v1/events")
    lines.append(f"  health  {settings.base_url}/readyz")
    print("\n".join(lines), flush=True)
