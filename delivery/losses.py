"""Counts users who lost access, commit by commit, the newest first; page by page, so that no statement takes long however large a group was."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

from database.arrays import int8s, uuids
from database.connections import Connection
from database.deadlines import COUNT
from database.queries import load_queries
from delivery.surge_policy import HOUR_US, Limit, Loss
from ledger.ids import DirectoryNumber, Seq

SQL: Final = load_queries(__file__)
LOSSES_PAGE: Final = 5_000  # events that end somebody's access, in one look
EDGES: Final = 20_000  # memberships of groups in groups, in one look
GROUPS: Final = 200  # groups whose memberships one look reads
EVER: Final = 2**62
Commit = tuple[int, Seq]  # time in µs, first seq


class UncountedError(Exception):
    """Counting who lost access took longer than COUNT. `users`: how many were found until then."""

    users: int = 0


async def losses(
    conn: Connection, directory: DirectoryNumber, after: int, through: int, *, enough: int, seen: set[UUID] | None = None
) -> AsyncGenerator[Loss]:
    """The commits of a directory after an instant and until another (µs) that took access from users, the newest first.

    Of each commit at most `enough` users, or a few more: it is not looked at further. A large one comes in several pieces. With `seen`
    each group is looked into once for all commits, which is enough for whoever counts all of them together: who was inside earlier
    and not later lost access by a commit between. Raises UncountedError where it takes too long.
    """
    at, seq = through, EVER
    until = time.monotonic() + COUNT.seconds
    while True:
        page = await (
            await conn.cursor(binary=True).execute(SQL["losses_between"], (directory, after, at, LOSSES_PAGE, seq))
        ).fetchall()
        for commit, when, users, groups, lowest, made in page:
            found = set[UUID](users or ())
            known = set[UUID]() if seen is None else seen
            await _add_inside(conn, (directory, commit - 1, until), groups or (), found, enough, known)
            yield Loss(commit, made, found)
            at, seq = when, commit if len(found) >= enough else lowest
        if not page:
            return
        if time.monotonic() > until:
            raise UncountedError


async def _add_inside(
    conn: Connection, asked: tuple[int, int, float], groups: Sequence[UUID], users: set[UUID], enough: int, seen: set[UUID]
) -> None:
    """Add the active users inside groups, and inside the groups in them, until there are `enough`. Asked: directory, seq, and until when."""
    directory, at_seq, until = asked
    left = [(group, 0, 0) for group in groups if group not in seen]
    seen.update(groups)
    while left and len(users) < enough:
        if time.monotonic() > until:
            raise UncountedError
        some, left = left[:GROUPS], left[GROUPS:]
        each = max(min(EDGES, 4 * enough) // len(some), 1)
        params = (
            directory,
            at_seq,
            uuids([g for g, *_ in some]),
            int8s([t for _, t, _ in some]),
            int8s([f for *_, f in some]),
            each,
        )
        rows = await (await conn.cursor(binary=True).execute(SQL["edges_inside"], params)).fetchall()
        read, last = [0] * len(some), list(some)
        new = set[UUID]()
        for number, member, is_group, to_seq, from_seq in rows:
            read[number - 1] += 1
            last[number - 1] = some[number - 1][0], to_seq, from_seq
            if is_group and member not in seen:
                seen.add(member)
                left.append((member, 0, 0))
            elif not is_group and member not in users:
                new.add(member)
        params = (directory, at_seq, uuids(tuple(new)))
        rows = await (await conn.cursor(binary=True).execute(SQL["active_at"], params)).fetchall() if new else []
        users.update(user for (user,) in rows)
        left += [place for place, count in zip(last, read, strict=True) if count == each]


async def users_between(
    conn: Connection, directory: DirectoryNumber, after: int, through: int, most: int, *, made_after: int = 0
) -> int:
    """How many users lost access after an instant and until another, in µs: all, or more than `most`. Raises UncountedError.

    `made_after`: only by commits that were made later, whatever their time says.

    One leaver of many groups is many events.
    """
    users = set[UUID]()
    try:
        async with aclosing(losses(conn, directory, after, through, enough=most + 1, seen=set())) as walk:
            async for loss in walk:
                users.update(loss.users if loss.at > made_after else ())
                if len(users) > most:
                    break
    except UncountedError as late:
        late.users = len(users)
        raise
    return len(users)


async def hours_of(conn: Connection, directory: DirectoryNumber, commits: Sequence[Commit], limit: Limit) -> list[list[Loss]]:
    """What the brake must know to judge these commits: those of the hour that ends with each, in order; in stretches that do not touch.

    What came before more users than the limit had lost access is left out: it changes no verdict. Nor does any of it where they are not
    that many all together. Raises UncountedError.
    """
    stretches: list[list[Commit]] = []
    for commit in sorted(commits):
        if stretches and commit[0] - stretches[-1][-1][0] <= HOUR_US:
            stretches[-1].append(commit)
        else:
            stretches.append([commit])
    return [await _hours_of(conn, directory, stretch[0], stretch[-1], limit) for stretch in stretches]


async def _hours_of(conn: Connection, directory: DirectoryNumber, first: Commit, last: Commit, limit: Limit) -> list[Loss]:
    if await users_between(conn, directory, first[0] - HOUR_US, last[0], limit.per_hour) <= limit.per_hour:
        return []
    found: dict[Seq, tuple[int, set[UUID]]] = {}
    before = set[UUID]()  # who lost access by the first, or earlier
    async with aclosing(losses(conn, directory, first[0] - HOUR_US, last[0], enough=limit.per_hour + 1)) as walk:
        async for loss in walk:
            found.setdefault(loss.seq, (loss.at, set()))[1].update(loss.users)
            if loss.seq <= first[1]:
                before.update(loss.users)
            if len(before) > limit.per_hour:
                break
    return [Loss(seq, at, users) for seq, (at, users) in sorted(found.items())]
