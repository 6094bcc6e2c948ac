"""Seals what earlier releases stored in clear about consumers and replays. A start does it, because migrations have no key."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from database.arrays import byteas, int8s, uuids
from database.connections import Connection
from database.deadlines import STATEMENT
from database.queries import load_queries
from ledger.refused import RefusedError
from ledger.sealing import Kek, NoteKind, seal_note

SQL: Final = load_queries(__file__)
_HELD: Final = (
    "What an earlier release kept in clear is sealed at this start, and another session reads it: a dump, perhaps. Nothing was changed. "
    "Start again when that has ended."
)
_BLOCKS: Final[dict[NoteKind, str]] = {
    "url": "seal_urls", "parked": "seal_parked", "skipped": "seal_skipped", "replay_name": "seal_replay_names",
    "replay_reason": "seal_replay_reasons",
}  # fmt: skip


async def seal_leftovers(conn: Connection, kek: Kek, random: Callable[[int], bytes]) -> int:
    """Seal what is left, in one transaction, and leave no file of it; how many notes that were. At every start, before anybody reads.

    Raises RefusedError where another session reads what is left for long: a dump beside the first start after an upgrade.
    """
    row = await (await conn.execute(SQL["notes_left"])).fetchone()
    if row is None or not row[0]:
        return 0
    async with conn.transaction():
        await conn.execute("select set_config('lock_timeout', $1, true)", (f"{STATEMENT.ms}ms",))
        try:
            rows = await (await conn.cursor(binary=True).execute(SQL["take_notes_left"])).fetchall()
        except psycopg.errors.LockNotAvailable as held:
            raise RefusedError(_HELD) from held
        for kind, block in _BLOCKS.items():
            some = [note for note in rows if note[0] == kind]
            await conn.execute(SQL[block], _columns(kek, kind, some, random))
    return len(rows)


def _columns(kek: Kek, kind: NoteKind, notes: Sequence[tuple[Any, ...]], random: Callable[[int], bytes]) -> tuple[Any, ...]:
    """Owners, positions and sealed contents."""
    sealed = [seal_note(kek, text, kind=kind, owner=owner, random=random) for _, owner, _, text in notes]
    return uuids([note[1] for note in notes]), int8s([note[2] for note in notes]), byteas(sealed)
