"""Row 21: moving subject keys into a new key epoch while users are created."""

import asyncio
import threading
import time

from psycopg.conninfo import make_conninfo

from bench.environment import Service, Stage
from bench.figures import Figure, Sizes, count
from database.connections import connect_owner
from ledger.key_epochs import kek_at
from ledger.rewrapping import Moved, rewrap
from ledger.root_keys.local import FileKeys
from ledger.sealing import Kek

KEYS_BAR = 20_000  # keys a second
CREATES = 2_000


def rewrapping(stage: Stage, sizes: Sizes) -> list[Figure]:
    """All keys of a directory, once alone and once beside creates, whose rate is compared with that before."""
    service = stage.service()
    stage.say(f"{sizes.grown} users, whose keys are moved")
    service.make_users(sizes.grown)
    alone = service.drive(service.creates(CREATES)).rate
    figures: list[Figure] = []
    for writes in (False, True):
        service.cli("key", "rotate")
        during: list[float] = []
        writer = threading.Thread(target=lambda: during.append(service.drive(service.creates(CREATES)).rate))  # noqa: B023
        if writes:
            writer.start()
        moved, seconds = _timed(service)
        if writes:
            writer.join()
        rate = (moved.keys + moved.notes) / seconds
        beside = f"creates {during[0]:.0f}/s, {during[0] / alone:.2f} × of before" if writes else ""
        work = f"{count(moved.keys)} keys moved into a new epoch" + (", while users are created" if writes else "")
        figures.append(Figure(21, work, f"{rate:,.0f} keys/s".replace(",", " "), beside, "", f"≥ {count(KEYS_BAR)}/s",
                              rate >= KEYS_BAR, {"keys_per_s": rate}))  # fmt: skip
    return figures


def _timed(service: Service) -> tuple[Moved, float]:
    url = service.owner_url()
    kek = kek_at(make_conninfo(url, user="ledger_app"), [FileKeys(service.data_dir / "kek")])
    return asyncio.run(_rewrap(url, kek))


async def _rewrap(url: str, kek: Kek) -> tuple[Moved, float]:
    async with await connect_owner(url) as conn:
        await conn.execute("set search_path to ledger")
        began = time.perf_counter()
        moved = await rewrap(conn, kek, lambda _done, _total: None)
        return moved, time.perf_counter() - began
