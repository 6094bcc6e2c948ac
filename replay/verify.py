"""Recompute everything that can be recomputed, and report the first rows that differ. Changes nothing.

The log: dense seq and rv, canonical leaves, leaf hashes, the columns beside a leaf, ciphertext hashes, commit rows, positions.
The erasures: what was erased has no body and no key any more, and a body or key is missing only after an event that says so.
The tokens: each row against its seal and against the opened events of its token.
The read models: recomputed in temporary tables and compared row by row.
"""

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final, LiteralString, NamedTuple, cast

import orjson

from database.connections import connect_owner
from database.queries import load_queries
from ledger.bindings import TokenRow, Told, differs
from ledger.client_bindings import ClientRow, client_differs
from ledger.clients import find_clients, seals_told
from ledger.directories import SYSTEM, Directory
from ledger.sealing import Kek
from ledger.tokens import find_all, told
from proofs.body import BodyError
from proofs.keys import WrapError
from replay.shadow_tables import TABLES, Owner, Progress, ShadowTables, heads, make_tables, run
from replay.stored_events import Finding

SQL: Final = load_queries(__file__)
FINDINGS_MAX = 20
ERASED_MEANWHILE_MAX: Final = 5  # times that it begins again because something was erased while it read


class Verified(NamedTuple):
    """The findings, the number of events, and how many of them have no body any more because of an erasure."""

    findings: list[Finding]
    events: int
    erased: int


async def verify(
    url: str, kek: Kek, directories: Sequence[Directory], progress: Progress, executor: Executor | None = None
) -> Verified:
    """Recompute everything.

    `url` logs in as the owner. The log is read once; each stretch is checked and applied to temporary tables, in one snapshot that is
    rolled back. The read models are not compared if the log or a token has findings, because they would only repeat them. `executor`
    runs stretches.compute. If something is erased meanwhile, the readers of stretches no longer find bodies that the snapshot's read
    models follow from: then findings may be wrong, and it begins again.
    """
    async with await connect_owner(url) as conn:
        for again in range(ERASED_MEANWHILE_MAX):
            before = await _erasures(conn)
            found = await _verified(conn, url, kek, directories, progress, executor)
            if not found.findings or again == ERASED_MEANWHILE_MAX - 1 or await _erasures(conn) == before:
                return found
        raise AssertionError("the last attempt returns")


async def _erasures(conn: Owner) -> int:
    row = await (await conn.execute(SQL["erasures_so_far"])).fetchone()
    assert row is not None
    return row[0]


async def _verified(
    conn: Owner, url: str, kek: Kek, directories: Sequence[Directory], progress: Progress, executor: Executor | None
) -> Verified:
    tokens = await verify_tokens(conn, kek, directories)
    async with one_snapshot(conn, "pg_temp", "ledger"):
        until = await heads(conn)
        await make_tables(conn, temporary=True)
        shadow = ShadowTables(conn, url, kek, progress, executor, record=False, verifies=True)
        await shadow.catch_up(until)
        findings = shadow.findings[:FINDINGS_MAX] + await _log_differences(conn, directories) + tokens
        findings = findings or shadow.unreadable[:FINDINGS_MAX]
        findings = findings or await _read_model_differences(conn)
        return Verified(findings, sum(until.values()), shadow.erased)


async def _log_differences(conn: Owner, directories: Sequence[Directory]) -> list[Finding]:
    """Checks that need the whole log: commit rows and positions."""
    found = [finding for directory in directories for finding in await _check_commits(conn, directory)]
    return found + await _check_positions(conn) + await _check_erasures(conn)


async def _check_commits(conn: Owner, directory: Directory) -> list[Finding]:
    """Compare number and types of events with each commit row."""
    rows = await (await conn.cursor(binary=True).execute(SQL["commit_differences"], (directory.id,))).fetchall()
    return [Finding(f"{directory.slug} commit at seq {seq}", "its size or types differ from its events") for (seq,) in rows]


async def _check_positions(conn: Owner) -> list[Finding]:
    rows = await (await conn.execute(SQL["position_holes"])).fetchall()
    return [Finding(f"position {position}", "positions are not dense here") for (position,) in rows]


async def _check_erasures(conn: Owner) -> list[Finding]:
    """What should be gone and is not, and keys that are gone and should not be."""
    rows = await (await conn.execute(SQL["erasure_differences"])).fetchall()
    return [Finding(f"{slug} {obj}", problem) for slug, obj, problem in rows]


async def verify_tokens(conn: Owner, kek: Kek, directories: Sequence[Directory]) -> list[Finding]:
    """Compare each row of `tokens` and `clients` with the log: finds rows without events, widened rights, revived tokens, other secrets."""
    system = next((directory for directory in directories if directory.slug == SYSTEM), None)
    if system is None:
        return []
    findings: list[Finding] = []
    async with one_snapshot(conn, "ledger"):
        for row in await find_all(conn):
            problem = await _token_problem(conn, kek, system, row)
            if problem is not None:
                findings.append(Finding(f"token {row.id}", problem))
        for client in await find_clients(conn):
            problem = await _client_problem(conn, kek, system, client)
            if problem is not None:
                findings.append(Finding(f"client {client.id}", problem))
        tokens_gone = await (await conn.execute(SQL["tokens_gone"], (system.id,))).fetchall()
        clients_gone = await (await conn.execute(SQL["clients_gone"], (system.id,))).fetchall()
    return [
        *findings[:FINDINGS_MAX],
        *(Finding(f"token {token}", "its row is missing: token.issued says that it exists") for (token,) in tokens_gone),
        *(Finding(f"client {client}", "its row is missing: client.created says that it exists") for (client,) in clients_gone),
    ]


async def _token_problem(conn: Owner, kek: Kek, system: Directory, row: TokenRow) -> str | None:
    try:
        said: Told = (await told(conn, kek, system, [row.id]))[row.id]
    except (BodyError, WrapError):
        return "one of its events cannot be opened: this service did not write it"
    return differs(kek, row, said)


async def _client_problem(conn: Owner, kek: Kek, system: Directory, row: ClientRow) -> str | None:
    try:
        seals = await seals_told(conn, kek, system, row.id)
    except (BodyError, WrapError):
        return "one of its events cannot be opened: this service did not write it"
    return client_differs(kek, row, seals)


@asynccontextmanager
async def one_snapshot(conn: Owner, *schemas: LiteralString) -> AsyncGenerator[None]:
    """Run the block in one snapshot, and roll it back.

    The read models are locked first, in a mode that blocks only a rebuild's swap: a snapshot from before a swap would find the new
    tables empty. LOCK itself takes no snapshot; the next statement does.
    """
    await conn.execute("begin isolation level repeatable read")
    try:
        for table in TABLES:
            await run(conn, "lock table ledger.{} in access share mode", table)
        await conn.execute(f"set local search_path to {', '.join(schemas)}")
        yield
    finally:
        await conn.execute("rollback")


async def _read_model_differences(conn: Owner) -> list[Finding]:
    """Compare the live tables with the recomputed ones, row by row."""
    return [finding for table in TABLES for finding in await _row_differences(conn, table)]


async def _row_differences(conn: Owner, table: str) -> list[Finding]:
    findings = list[Finding]()
    for text, problem in (_LIVE_ONLY, _LOG_ONLY):
        statement = cast("LiteralString", text.format(table=table, limit=FINDINGS_MAX))
        rows = await (await conn.execute(statement)).fetchall()
        findings += [Finding(f"table {table}", f"{problem}: {orjson.dumps(row[0]).decode()}") for row in rows]
    return findings


_DIFFERENCE = "select to_jsonb(t) from (select * from {a}.{{table}} except all select * from {b}.{{table}}) t limit {{limit}}"
_LIVE_ONLY = (_DIFFERENCE.format(a="ledger", b="pg_temp"), "the read model has a row that does not follow from the log")
_LOG_ONLY = (_DIFFERENCE.format(a="pg_temp", b="ledger"), "the read model lacks a row that follows from the log")
