"""A transport that is not a webhook, given to a delivery process through the public interface only."""

import asyncio
import re
from pathlib import Path
from typing import get_args

import orjson
import psycopg

from delivery.terms import Mode
from delivery.transport import Batch, Outcome, Target
from runtime.deliver import open_worker
from tests.lines import Lines, answering
from tests.postgres.deliveries import WAIT_S, scene


class _Elsewhere(Lines):
    """The consumer's URL is that of a webhook; this transport sends to a socket instead."""

    def __init__(self, path: Path) -> None:
        super().__init__(3.0)
        self._path = path

    async def send(self, target: Target, batch: Batch) -> Outcome:
        return await super().send(Target(str(self._path)), batch)


def test_events_are_sent_in_order_over_another_transport(app_url: str, tmp_path: Path) -> None:
    received: list[list[bytes]] = []

    async def body() -> None:
        async with scene(app_url) as s, answering(tmp_path / "receiver", b"ok\n", received):
            await s.make(ordering="directory")
            await asyncio.gather(*(s.ledger.create_user(f"u{number}") for number in range(5)))
            async with open_worker(s.url, s.kek, {"webhook": _Elsewhere(tmp_path / "receiver")}, 3.0) as worker:
                running = asyncio.create_task(worker.run())
                try:
                    await s.settled()
                finally:
                    worker.stop()
                    await asyncio.wait_for(running, WAIT_S)
            assert s.hook.took == []
            seqs = [orjson.loads(json)["seq"] for lines in received for json in lines]
            assert seqs == sorted(seqs)
            assert len(seqs) >= 5

    asyncio.run(asyncio.wait_for(body(), 120))


def test_the_database_accepts_exactly_the_modes_of_the_code(superuser_url: str) -> None:
    with psycopg.connect(superuser_url) as conn:
        text = conn.execute(
            "select pg_get_constraintdef(oid) from pg_constraint where conname = 'consumers_mode_check'"
        ).fetchone()
    assert text is not None
    assert set(re.findall(r"'(\w+)'", text[0])) == set(get_args(Mode))
