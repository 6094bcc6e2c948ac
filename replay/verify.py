"""Recomputing everything that can be recomputed, and naming the first rows that differ. Changes nothing.

The log: dense seq and rv, canonical leaves, leaf hashes, the columns beside a leaf, ciphertext hashes, commit rows, positions.
The tokens: each row against its seal and against what the opened events of its token say.
The read models: recomputed in temporary tables and compared row by row.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, cast
from uuid import UUID

import orjson

from ledger.bindings import TokenRow, Told, differs
from ledger.directories import SYSTEM, Directory
from ledger.events import BY_TOPIC, Fact
from ledger.sealing import Kek
from ledger.tokens import find_all, told
from proofs.body import BodyError
from proofs.keys import WrapError
from proofs.leaf import LeafError, check_leaf, leaf_hash
from replay.shadow_tables import SQL, TABLES, Owner, Progress, SideTables, heads, make_tables, run
from replay.stored_events import StoredEvent

CHUNK = 5_000
FINDINGS_MAX = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that differs: where, and what was expected and found (structure only)."""

    place: str
    problem: str


@dataclass(slots=True)
class _Expected:
    """What the next event of a directory must continue."""

    seq: int = 0
    at: int = 0
    commit: tuple[int, int, int, str] = (0, 0, 0, "")  # tx, txn, at, req of the commit under way


_Commits = dict[int, tuple[int, int, str]]  # first seq -> size, at, req as the commit row has them


async def verify_log(conn: Owner, directories: Sequence[Directory], progress: Progress, total: int) -> list[Finding]:
    """Check every event against its leaf, its ciphertext and its neighbours."""
    findings: list[Finding] = []
    done = 0
    for directory in directories:
        streams: dict[UUID, tuple[int, int]] = {}
        expected = _Expected()
        while len(findings) < FINDINGS_MAX:
            params = (directory.id, expected.seq, expected.seq + CHUNK)
            rows = await (await conn.cursor(binary=True).execute(SQL["events_with_keys"], params)).fetchall()
            if not rows:
                break
            # Only as far as the rows just read: beside writes, commits have begun behind them meanwhile.
            commits = await _commits(conn, (directory.id, expected.seq, rows[-1][0]))
            for row in rows:
                _check_event(directory, StoredEvent(*row), expected, streams, commits, findings)
                if len(findings) >= FINDINGS_MAX:
                    return findings
            # What is left has no first event: a commit row of its own making.
            findings += [Finding(f"{directory.slug} commit at seq {seq}", "no event begins a commit here") for seq in commits]
            done += len(rows)
            progress(done, total)
        findings += await _check_commits(conn, directory)
    return findings + await _check_positions(conn)


def _check_event(
    directory: Directory,
    event: StoredEvent,
    expected: _Expected,
    streams: dict[UUID, tuple[int, int]],
    commits: _Commits,
    findings: list[Finding],
) -> None:
    place = f"{directory.slug} seq {event.seq}"

    def report(problem: str) -> None:
        findings.append(Finding(place, problem))

    if event.seq != expected.seq + 1:
        report(f"the log has a hole: seq {expected.seq + 1} is missing")
    expected.seq = event.seq
    try:
        leaf = check_leaf(event.leaf)
    except LeafError as broken:
        report(f"the leaf is not canonical: {broken}")
        return
    if leaf_hash(event.leaf) != event.leaf_hash:
        report("the leaf does not have its stored hash")
    for problem in _differences(directory, event, leaf):
        report(problem)
    _check_stream(event, leaf, streams, report)
    _check_commit(leaf, expected, commits, report)
    at = int(leaf["at"])
    if at < expected.at:
        report("time runs backwards")
    expected.at = at


def _differences(directory: Directory, event: StoredEvent, leaf: dict[str, Any]) -> list[str]:
    """Columns beside the leaf against the leaf."""
    kind = BY_TOPIC.get(leaf["type"])
    pairs = {
        "directory": (str(directory.uuid), leaf["dir"]),
        "seq": (event.seq, leaf["seq"]),
        "type": (event.type, kind.number if kind else None),
        "rv": (event.rv, leaf["rv"]),
        "obj": (str(event.obj), leaf["obj"]),
        "mem": (str(event.mem) if event.mem else None, leaf.get("mem")),
    }
    found = [f"column {name} is {column}, the leaf says {said}" for name, (column, said) in pairs.items() if column != said]
    if event.ct is not None and hashlib.sha256(event.ct).hexdigest() != leaf.get("ct"):
        found.append("the sealed body is not the one the leaf commits to")
    if "ct" in leaf and event.ct is None:
        found.append("its sealed body is missing")
    elif event.ct is not None and event.wrapped is None:
        found.append("the key of its sealed body is missing")
    return found


def _check_stream(
    event: StoredEvent, leaf: dict[str, Any], streams: dict[UUID, tuple[int, int]], report: Callable[[str], None]
) -> None:
    rv, etag_rv = streams.get(event.obj, (0, 0))
    if event.rv != rv + 1:
        report(f"rv {event.rv} follows rv {rv} of the same resource")
    expected = etag_rv if Fact.DERIVED in BY_TOPIC[leaf["type"]].facts else event.rv
    if event.etag_rv != expected:
        report(f"column etag_rv is {event.etag_rv}, {expected} follows from the events")
    streams[event.obj] = (event.rv, event.etag_rv)


async def _commits(conn: Owner, stretch: tuple[int, int, int]) -> _Commits:
    rows = await (await conn.cursor(binary=True).execute(SQL["commits_between"], stretch)).fetchall()
    return {seq: (size, at, str(req)) for seq, size, at, req in rows}


def _check_commit(leaf: dict[str, Any], expected: _Expected, commits: _Commits, report: Callable[[str], None]) -> None:
    """The commit that a leaf says it belongs to: told alike by all its leaves, and by its row (time and request included)."""
    told = (leaf["tx"], leaf["txn"], leaf["at"], leaf["req"])
    if leaf["seq"] == leaf["tx"]:
        row = commits.pop(leaf["seq"], None)
        if row is None:
            report("its commit has no row")
        elif row != told[1:]:
            names = [name for name, a, b in zip(("size", "at", "req"), row, told[1:], strict=True) if a != b]
            report(f"the commit row's {', '.join(names)} differ from the leaf's")
        expected.commit = told
    elif told != expected.commit:
        report("its commit is another than that of the event before it")


async def _check_commits(conn: Owner, directory: Directory) -> list[Finding]:
    """Number and types of events by commit row."""
    rows = await (await conn.cursor(binary=True).execute(SQL["commit_differences"], (directory.id,))).fetchall()
    return [Finding(f"{directory.slug} commit at seq {seq}", "its size or types differ from its events") for (seq,) in rows]


async def _check_positions(conn: Owner) -> list[Finding]:
    rows = await (await conn.execute(SQL["position_holes"])).fetchall()
    return [Finding(f"position {position}", "positions are not dense here") for (position,) in rows]


async def verify_tokens(conn: Owner, kek: Kek, directories: Sequence[Directory]) -> list[Finding]:
    """Hold every row of `tokens` against the log: one that no event made, that was given more, or its life back, is named."""
    system = next((directory for directory in directories if directory.slug == SYSTEM), None)
    if system is None:
        return []
    findings: list[Finding] = []
    async with one_snapshot(conn, "ledger"):
        for row in await find_all(conn):
            problem = await _token_problem(conn, kek, system, row)
            if problem is not None:
                findings.append(Finding(f"token {row.id}", problem))
        gone = await (await conn.execute(SQL["tokens_gone"], (system.id,))).fetchall()
    return findings[:FINDINGS_MAX] + [
        Finding(f"token {token}", "its row is missing: token.issued says that it exists") for (token,) in gone
    ]


async def _token_problem(conn: Owner, kek: Kek, system: Directory, row: TokenRow) -> str | None:
    try:
        said: Told = (await told(conn, kek, system, [row.id]))[row.id]
    except (BodyError, WrapError):
        return "an event of it does not open: this service did not write it"
    return differs(kek, row, said)


@asynccontextmanager
async def one_snapshot(conn: Owner, *schemas: LiteralString) -> AsyncGenerator[None]:
    """See everything as of one instant; what the block makes is rolled back.

    The read models are locked first (against nothing but being swapped): a snapshot from before a rebuild's swap sees none of
    the rows that were swapped in. LOCK takes no snapshot, the statement after it does.
    """
    await conn.execute("begin isolation level repeatable read")
    try:
        for table in TABLES:
            await run(conn, "lock table ledger.{} in access share mode", table)
        await conn.execute(f"set local search_path to {', '.join(schemas)}")
        yield
    finally:
        await conn.execute("rollback")


async def verify_read_models(conn: Owner, reader: Owner, kek: Kek, progress: Progress) -> list[Finding]:
    """Recompute the read models in temporary tables and compare row by row, all in one snapshot that is rolled back."""
    async with one_snapshot(conn, "pg_temp", "ledger"):
        await make_tables(conn, temporary=True)
        side = SideTables(conn, reader, kek, progress, record=False)
        side.unreadable = []
        await side.catch_up(await heads(conn))
        if side.unreadable:  # what was recomputed without them would only repeat the news
            return [Finding(found.place, found.problem) for found in side.unreadable[:FINDINGS_MAX]]
        return [finding for table in TABLES for finding in await _compare(conn, table)]


async def _compare(conn: Owner, table: str) -> list[Finding]:
    findings = list[Finding]()
    for text, problem in (_LIVE_ONLY, _LOG_ONLY):
        statement = cast("LiteralString", text.format(table=table, limit=FINDINGS_MAX))
        rows = await (await conn.execute(statement)).fetchall()
        findings += [Finding(f"table {table}", f"{problem}: {orjson.dumps(row[0]).decode()}") for row in rows]
    return findings


_DIFFERENCE = "select to_jsonb(t) from (select * from {a}.{{table}} except all select * from {b}.{{table}}) t limit {{limit}}"
_LIVE_ONLY = (_DIFFERENCE.format(a="ledger", b="pg_temp"), "the read model has a row that does not follow from the log")
_LOG_ONLY = (_DIFFERENCE.format(a="pg_temp", b="ledger"), "the read model lacks a row that follows from the log")
