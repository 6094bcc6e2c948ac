"""The database for commands on this machine, for the time of a block: the configured one, or the embedded one.

Imports nothing of the HTTP edge, whose import would delay a rebuild or a verification.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import structlog

from api.field_reasons import reason_of
from database.server import SPARE_CONNECTIONS
from runtime import embedded
from runtime.bootstrap import DATABASE, StartError, Urls, configured_urls, embedded_urls
from runtime.exits import USAGE, CommandError
from runtime.reaching import connections_of, refuse_two_databases
from runtime.settings import Settings, load_settings

KEEPER_INTERVAL_S = 0.5  # interval at which the embedded PostgreSQL is checked
KEEPER_PAUSE_MAX_S = 10.0  # longest pause between two attempts to start it again
EMBEDDED_CONNECTIONS_MIN = 100  # smallest max_connections of the embedded PostgreSQL
_log = structlog.get_logger("runtime")


def main_settings() -> Settings:
    """The settings of a command. Raises CommandError, which names the wrong variable."""
    from pydantic import ValidationError

    try:
        return load_settings()
    except ValidationError as wrong:
        raise CommandError(
            " ".join(_said(error) for error in wrong.errors()), USAGE
        ) from None  # a traceback could quote a secret


def _said(error: Mapping[str, Any]) -> str:
    """What is wrong with a setting. Of a validator of ours its own sentence, which quotes no secret."""
    name = str(error["loc"][0])
    field = Settings.model_fields.get(name)
    own = error.get("ctx", {}).get("error")
    reason, _ = (str(own).rstrip("."), ()) if own is not None else reason_of(error, field, tuple(Settings.model_fields), None)
    return f"LEDGER_{name.upper()} {reason}."


@contextlib.contextmanager
def database(settings: Settings) -> Generator[Urls]:
    """A database for the time of the block: the configured one, or the embedded one, started before and stopped after it."""
    urls = configured_urls(settings)
    if urls is not None:
        yield urls
        return
    try:
        cluster = embedded.start(
            settings.data_dir.absolute() / "postgres",
            settings={"max_connections": str(max(EMBEDDED_CONNECTIONS_MIN, connections_of(settings) + SPARE_CONNECTIONS))},
            report=lambda line: print(line, file=sys.stderr),
        )
    except embedded.EmbeddedPostgresError as broken:
        raise StartError(str(broken)) from broken
    keeper = _Keeper(cluster)
    try:
        urls = embedded_urls(cluster)
        keeper.start()
        yield urls
    finally:
        embedded.stop(keeper.finish())


class _Keeper(threading.Thread):
    """Starts the embedded PostgreSQL again if it dies while the service runs."""

    def __init__(self, cluster: embedded.Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._over = threading.Event()

    def run(self) -> None:
        pause = KEEPER_INTERVAL_S
        while not self._over.wait(pause):
            pause = KEEPER_INTERVAL_S if self._kept_alive() else min(2 * pause, KEEPER_PAUSE_MAX_S)

    def _kept_alive(self) -> bool:
        """Whether it runs, started again if necessary. No error ends the watching, because files may come back."""
        try:
            if not embedded.alive(self._cluster):
                _log.error("postgres_died", restarting=True)
                self._cluster = embedded.revive(self._cluster)
        except (embedded.EmbeddedPostgresError, OSError) as missing:
            _log.error("postgres_restart_failed", reason=str(missing))
            return False
        return True

    def finish(self) -> embedded.Cluster:
        """Stop watching. Returns the current cluster."""
        self._over.set()
        if self.is_alive():
            self.join()
        return self._cluster


def no_ledger(data_dir: Path) -> str:
    """What is said where a data directory has no embedded database; a service with a database of its own may still run from there."""
    if any(data_dir.glob("service-*")):
        return (
            f"The service of {data_dir} has a PostgreSQL by URL: set LEDGER_DATABASE_URL (and LEDGER_MIGRATE_URL) as the service has them, or "
            "LEDGER_URL and LEDGER_TOKEN_FILE to ask it over HTTP."
        )
    return f"There is no ledger in {data_dir}. Start one with `make run`, or set LEDGER_DATA_DIR or LEDGER_DATABASE_URL to where yours is."


@contextlib.contextmanager
def running_urls(settings: Settings) -> Generator[Urls]:
    """The database for a command beside the service: the running one, or the embedded one started for the command."""
    if settings.url is not None:
        print(
            f"LEDGER_URL is not used: this command works on the database of this machine, not on {settings.url}.", file=sys.stderr
        )
    urls = configured_urls(settings)
    if urls is not None:
        asyncio.run(refuse_two_databases(urls))
        yield urls
        return
    place = settings.data_dir.absolute() / "postgres"
    if not (place / "data").exists():
        raise StartError(no_ledger(settings.data_dir))
    running = embedded.running(place)
    if running is not None:
        yield Urls(running.url("ledger_app", DATABASE), running.url("ledger_owner", DATABASE))
        return
    with database(settings) as urls:
        yield urls
