"""What operators do to a directory, on a connection beside a running service."""

import asyncio
from collections.abc import Callable
from typing import Any

from database.connections import connect
from ledger.administration import record_facts
from ledger.commands import RecordFacts
from ledger.directories import Directories, Directory
from ledger.lifecycle import closed, paused, resumed
from runtime import embedded
from runtime.bootstrap import DATABASE
from runtime.identifiers import uuid7
from runtime.wiring import make_transaction, read_kek
from tests.acceptance.conftest import Service


def pause(service: Service) -> None:
    _act(service, lambda directory: paused(directory, "we move the database"))


def resume(service: Service) -> None:
    _act(service, lambda directory: resumed(directory, "it is moved"))


def close(service: Service) -> None:
    _act(service, lambda directory: closed(directory, "the customer left", directory.slug))


def _act(service: Service, make: Callable[[Directory], RecordFacts | None]) -> None:
    async def act() -> None:
        running = embedded.running(service.data_dir / "postgres")
        assert running is not None
        url = running.url("ledger_app", DATABASE)
        kek = await read_kek(url, service.data_dir / "kek")
        async with await connect(url) as conn:
            directory = await Directories(kek).by_slug(conn, "acme")
            assert directory is not None
            facts = make(directory)
            assert facts is not None
            await record_facts(conn, make_transaction(kek), directory, facts, "sys", uuid7())

    asyncio.run(act())


def events_of(service: Service, **params: Any) -> list[dict[str, Any]]:
    """The log of the directory."""
    found: list[dict[str, Any]] = []
    after = None
    with service.client("consumer") as reader:
        while True:
            asked = {"directory": "acme", "limit": 1000, **params} | ({"after": after} if after else {})
            page = reader.get(service.base + "/v1/events", params=asked).json()
            found += page["data"]
            after = page["list_metadata"]["after"]
            if not page["has_more"]:
                return found
