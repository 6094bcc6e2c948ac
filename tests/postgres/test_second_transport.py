"""A transport that is no webhook, handed to a delivery process through the public seam only."""

import asyncio
from pathlib import Path

import orjson

from delivery.transport import Batch, Outcome, Target
from runtime.deliver import open_worker
from tests.lines import Lines, answering
from tests.postgres.deliveries import WAIT_S, scene


class _Elsewhere(Lines):
    """The consumer's URL is a webhook's; these lines go to a socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(3.0)
        self._path = path

    async def send(self, target: Target, batch: Batch) -> Outcome:
        return await super().send(Target(str(self._path)), batch)


def test_events_go_out_in_order_over_another_transport(app_url: str, tmp_path: Path) -> None:
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
