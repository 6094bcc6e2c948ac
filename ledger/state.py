"""Read the state that the decisions of a batch need: set-wise queries, in the same pipeline flush as the locks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
from anyio import to_thread
from psycopg.rows import TupleRow

from database.arrays import byteas, int4s, uuids
from database.connections import Connection
from database.pipeline import Together
from database.prepared import Answer
from database.queries import load_queries
from ledger.clocks import DirectoryTail
from ledger.commands import (
    UNKNOWN_ENOUGH,
    CleanUp,
    Command,
    DirectoryState,
    Erasable,
    Erase,
    GroupState,
    Last,
    Needs,
    RecordFacts,
    UserState,
)
from ledger.directories import Directory
from ledger.events import MEMBER_TYPE_NAMES, USER
from ledger.ids import DirectoryNumber, Seq
from ledger.rendering import DAMAGED, tell_unreadable
from ledger.sealing import USER_NAME, Kek, mac, open_payload, unwrap_key
from proofs.body import BodyError, PayloadTooLargeError
from proofs.keys import WrapError

SQL = load_queries(__file__)
Wanted = Sequence[tuple[Directory, Needs, Command]]
SHARED_BYTES_MAX: Final = 16 * 1024  # the largest document that is opened in a shared batch: it takes a fifth of a millisecond
ROWS_AT_ONCE: Final = 1_000
SOUGHT_AT_ONCE: Final = 2_000  # members that one statement looks up: encoding their ids takes one or two milliseconds
_UNBOUNDED: Final = 2**31 - 1
_NO_DOCUMENT: Final = -1
# Shared tuples, because a group may have 100 000 members.
_SEEN: Final = {(number, active): (name, active) for number, name in MEMBER_TYPE_NAMES.items() for active in (True, False)}


class Placed(Protocol):
    """The part of a Submission that reading the state needs."""

    @property
    def directory(self) -> Directory: ...
    @property
    def needs(self) -> Needs: ...


@dataclass(slots=True)
class BatchState:
    """The state that was read for a batch. build.py advances `stream_tails` and `tails` while it numbers the events."""

    directories: dict[DirectoryNumber, DirectoryState] = field(default_factory=dict[DirectoryNumber, DirectoryState])
    tails: dict[DirectoryNumber, DirectoryTail] = field(default_factory=dict[DirectoryNumber, DirectoryTail])
    keys: dict[UUID, bytes] = field(default_factory=dict[UUID, bytes])
    stream_tails: dict[UUID, tuple[int, int]] = field(default_factory=dict[UUID, tuple[int, int]])
    sizes: dict[UUID, int] = field(default_factory=dict[UUID, int])  # bytes of each opened body, by resource
    large: set[UUID] = field(default_factory=set[UUID])  # resources whose documents are too large for a shared batch
    damaged: set[UUID] = field(default_factory=set[UUID])  # resources whose bodies cannot be opened; their documents are empty

    def of(self, directory: Directory) -> DirectoryState:
        return self.directories.setdefault(directory.id, DirectoryState())

    def versions(self, submission: Placed) -> tuple[int, int, int]:
        """(etag_rv, created_at, updated_at) of the resource of a no-op, for the answer."""
        state, needs = self.of(submission.directory), submission.needs
        if needs.user is not None and needs.user in state.users:
            user = state.users[needs.user]
            return user.etag_rv, user.created_at, user.updated_at
        if needs.group is not None and needs.group in state.groups:
            group = state.groups[needs.group]
            return self.stream_tails[group.id][1], group.created_at, 0
        return 0, 0, 0

    def size(self, submission: Placed) -> int:
        """Bytes of the resource's body before the command; 0 if it is new, or only its members were read."""
        resource = submission.needs.user or submission.needs.group
        return 0 if resource is None else self.sizes.get(resource, 0)

    def created_at(self, submission: Placed) -> int:
        return self.versions(submission)[1]

    def in_groups(self, submission: Placed) -> bool:
        user = submission.needs.user
        return user is not None and user in (users := self.of(submission.directory).users) and users[user].in_groups


def tail_of(row: TupleRow) -> tuple[DirectoryNumber, DirectoryTail, str]:
    """Convert a row of the query `tails`: the directory, its tail and its state."""
    directory, seq, at, now, standing, accepted = row
    return directory, DirectoryTail(seq or Seq(0), at or 0, now, accepted), standing


async def tail_now(conn: Connection, directory: Directory) -> DirectoryTail:
    """The current end of a directory's log, read without the directory's lock."""
    row = await (await conn.execute(SQL["tails"], (int4s([directory.id]),))).fetchone()
    assert row is not None
    _, tail, _ = tail_of(row)
    return tail


async def _at_once(work: Callable[[], None]) -> None:
    work()


class StateReads:
    """Sends the reads of a batch (only those that some command needs), then collects them into a BatchState."""

    def __init__(self, pipeline: Together) -> None:
        self._pipeline = pipeline
        self._answers: dict[str, Answer] = {}
        self._whole: list[tuple[str, Directory, UUID, Answer]] = []
        self._directories: dict[DirectoryNumber, Directory] = {}
        self._names: dict[tuple[DirectoryNumber, bytes], str] = {}
        self._bytes_max = SHARED_BYTES_MAX
        self._without_document: set[UUID] = set()
        self._standing: tuple[Directory, Answer] | None = None
        self._many: list[tuple[Directory, Needs]] = []  # commands with so many members that they are looked up in slices

    def send(self, wanted: Wanted) -> None:
        self._directories = {directory.id: directory for directory, _, _ in wanted}
        self._read("tails", (int4s(list(self._directories)),))
        self._send_names(wanted)
        self._bytes_max = _UNBOUNDED if any(needs.alone for _, needs, _ in wanted) else SHARED_BYTES_MAX
        self._send_pairs("users_state", [(d.id, n.user) for d, n, _ in wanted if n.user], self._bytes_max)
        self._send_groups(wanted)
        self._send_edges(wanted)
        self._many = [(d, n) for d, n, _ in wanted if len(n.members) > SOUGHT_AT_ONCE]
        sought = [(d, n.members if len(n.members) <= SOUGHT_AT_ONCE else ()) for d, n, _ in wanted]
        sought += [(d, n.edges) for d, n, _ in wanted if not n.whole]
        self._send_pairs("members_known", [(d.id, member) for d, members in sought for member in members])
        for directory, needs, command in wanted:
            if needs.whole:
                self._send_whole(directory, needs)
            if isinstance(command, RecordFacts):
                if command.subject is not None:
                    self._pipeline.execute(SQL["lock_subjects"], (uuids([command.subject]),))
                self._send_streams([draft.obj for draft in command.drafts])
                if command.stands is not None:
                    self._standing = (directory, self._pipeline.execute(*command.stands))
            elif isinstance(command, CleanUp):
                self._send_left(directory, command)
        self._send_erasures([(directory, command) for directory, _, command in wanted if isinstance(command, Erase)])

    def _read(self, name: str, params: tuple[Any, ...]) -> None:
        self._answers[name] = self._pipeline.execute(SQL[name], params)

    def _send_pairs(self, name: str, pairs: Sequence[tuple[DirectoryNumber, UUID]], *more: int) -> None:
        if pairs:
            pairs = list(dict.fromkeys(pairs))
            self._read(name, (int4s([d for d, _ in pairs]), uuids([i for _, i in pairs]), *more))

    def _send_groups(self, wanted: Wanted) -> None:
        """Read groups. Their documents are read only if attributes change: adding one member must not read 32 MiB."""
        most: dict[tuple[DirectoryNumber, UUID], int] = {}
        for directory, needs, _ in wanted:
            if needs.group is not None:
                key = (directory.id, needs.group)
                most[key] = max(most.get(key, _NO_DOCUMENT), self._bytes_max if needs.document else _NO_DOCUMENT)
        self._without_document = {group for (_, group), size in most.items() if size == _NO_DOCUMENT}
        if most:
            self._read("groups_state", (int4s([d for d, _ in most]), uuids([g for _, g in most]), int4s(list(most.values()))))

    def _send_names(self, wanted: Wanted) -> None:
        for directory, needs, _ in wanted:
            for name in needs.names:
                self._names[directory.id, mac(directory.index_key, USER_NAME, name)] = name
        if self._names:
            self._read("names_taken", (int4s([d for d, _ in self._names]), byteas([m for _, m in self._names])))

    def _send_edges(self, wanted: Wanted) -> None:
        # Not for a `whole` command, here and above: it reads all members of its group, and may name 500 000.
        edges = list(dict.fromkeys((d.id, n.group, m) for d, n, _ in wanted if n.group and not n.whole for m in n.edges))
        edges += [(d.id, group, m) for d, _, c in wanted if isinstance(c, CleanUp) for group, m, _ in c.memberships]
        if edges:
            self._read("edges_open", (int4s([e[0] for e in edges]), uuids([e[1] for e in edges]), uuids([e[2] for e in edges])))

    def _send_whole(self, directory: Directory, needs: Needs) -> None:
        for kind, obj in (("members_of_group", needs.group), ("groups_of_member", needs.group), ("groups_of_member", needs.user)):
            if obj is not None:
                self._whole.append((kind, directory, obj, self._pipeline.execute(SQL[kind], (directory.id, obj))))

    def _send_streams(self, objs: Sequence[UUID]) -> None:
        self._read("stream_tails", (uuids(objs),))
        self._read("wrapped_keys", (uuids(objs),))

    def _send_left(self, directory: Directory, command: CleanUp) -> None:
        groups = dict.fromkeys(group for group, _, _ in command.memberships)
        self._send_streams([directory.uuid, *groups, *command.users, *command.groups])
        self._read("last_of_users", (directory.id, uuids(command.users)))
        self._read("last_of_groups", (directory.id, uuids(command.groups)))

    def _send_erasures(self, erasures: Sequence[tuple[Directory, Erase]]) -> None:
        """Read the subjects after their locks: a hold that is placed at the same moment waits, or is seen here."""
        if not erasures:
            return
        numbers, subjects = int4s([d.id for d, _ in erasures]), uuids([c.subject for _, c in erasures])
        self._pipeline.execute(SQL["lock_subjects"], (subjects,))
        self._read("erasable", (numbers, subjects))
        self._read("erased_tails", (subjects,))
        for directory, command in erasures:
            kinds = ("groups_of_member",) if command.ot == USER else ("members_of_group", "groups_of_member")
            for kind in kinds:
                answer = self._pipeline.execute(SQL[kind], (directory.id, command.subject))
                self._whole.append((kind, directory, command.subject, answer))

    # -- collecting ---------------------------------------------------------

    async def collect(self, kek: Kek, locked: set[DirectoryNumber]) -> BatchState:
        """Collect the answers. Directories outside `locked` are left out, because what was read of them may be stale."""
        state = BatchState()
        for directory, tail, standing in map(tail_of, await self._rows("tails")):
            state.tails[directory] = tail
            self._of(state, directory).directory, self._of(state, directory).clock = standing, tail.state
        for directory, mac_, user in await self._rows("names_taken"):
            self._of(state, directory).names[self._names[directory, mac_]] = user
        users, groups = await self._rows("users_state"), await self._rows("groups_state")
        open_all = partial(self._open_resources, state, kek, locked, users, groups)
        # A command that runs alone may have large documents: they are opened in a worker thread.
        await (to_thread.run_sync(open_all) if self._bytes_max == _UNBOUNDED else _at_once(open_all))
        for directory, group, member in await self._rows("edges_open"):
            self._of(state, directory).edges.add((group, member))
        if known := self._answers.get("members_known"):
            async for directory, member, kind, active in self._each(known):
                self._of(state, directory).members[member] = _SEEN[kind, active]
        for directory, needs in self._many:
            if directory.id in locked:
                await self._seek(state.of(directory), directory, needs)
        if self._standing is not None:
            directory, answer = self._standing
            state.of(directory).stands = bool(await self._pipeline.rows(answer))
        await self._collect_erasable(state)
        await self._collect_whole(state)
        await self._collect_streams(state, kek)
        await self._collect_left(state)
        return state

    async def _seek(self, view: DirectoryState, directory: Directory, needs: Needs) -> None:
        """Look up very many members in slices, and let other tasks run in between.

        The look-up ends once more than UNKNOWN_ENOUGH are unknown: the command is refused then, however many members it names.
        """
        for start in range(0, len(needs.members), SOUGHT_AT_ONCE):
            ids = list(dict.fromkeys(needs.members[start : start + SOUGHT_AT_ONCE]))
            answer = self._pipeline.execute(SQL["members_known"], (int4s([directory.id] * len(ids)), uuids(ids)))
            async for _, member, kind, active in self._each(answer):
                view.members[member] = _SEEN[kind, active]
            if sum(1 for member in ids if member not in view.members) > UNKNOWN_ENOUGH:
                view.cut = True  # slices are in the order of the request, so the first unknown members were looked up
                return

    async def _rows(self, name: str) -> list[TupleRow]:
        answer = self._answers.get(name)
        return await self._pipeline.rows(answer) if answer else []

    async def _each(self, answer: Answer) -> AsyncIterator[TupleRow]:
        """Iterate over the rows, of which there may be 100 000, and let other tasks run in between."""
        await self._pipeline.received(answer)
        for start in range(0, answer.count, ROWS_AT_ONCE):
            for row in answer.rows(start, start + ROWS_AT_ONCE):
                yield row
            await asyncio.sleep(0)

    def _of(self, state: BatchState, directory: DirectoryNumber) -> DirectoryState:
        return state.of(self._directories[directory])

    def _open_resources(
        self, state: BatchState, kek: Kek, locked: set[DirectoryNumber], users: Sequence[TupleRow], groups: Sequence[TupleRow]
    ) -> None:
        for d, obj, active, body_seq, rv, etag_rv, created, updated, ct, wrapped, in_groups in users:
            opened = self._open(state, kek, d, obj, body_seq, ct, wrapped) if d in locked else None
            if opened is not None:
                document, key = opened
                self._of(state, d).users[obj] = UserState(obj, document, active, key, rv, etag_rv, created, updated, in_groups)
                state.stream_tails[obj] = (rv, etag_rv)
        for d, obj, body_seq, created, ct, wrapped, rv, etag_rv in groups:
            opened = self._open_group(state, kek, d, obj, body_seq, ct, wrapped) if d in locked else None
            if opened is not None:
                self._of(state, d).groups[obj] = GroupState(obj, opened[0], etag_rv, created, 0)
                state.stream_tails[obj] = (rv, etag_rv)

    def _open_group(
        self, state: BatchState, kek: Kek, directory: DirectoryNumber, obj: UUID, seq: Seq, ct: bytes | None, wrapped: bytes
    ) -> tuple[dict[str, Any], str] | None:
        if obj in self._without_document:
            return {}, ""
        return self._open(state, kek, directory, obj, seq, ct, wrapped)

    def _open(
        self, state: BatchState, kek: Kek, directory: DirectoryNumber, obj: UUID, seq: Seq, ct: bytes | None, wrapped: bytes
    ) -> tuple[dict[str, Any], str] | None:
        """The document and its key; empty if the document is too large for a shared batch."""
        uuid = self._directories[directory].uuid
        try:
            key = state.keys.get(obj)
            if key is None:
                key = state.keys[obj] = unwrap_key(kek, wrapped, directory=uuid, obj=obj)
            limit = None if self._bytes_max == _UNBOUNDED else self._bytes_max
            payload = None if ct is None else open_payload(key, ct, directory=uuid, obj=obj, seq=seq, payload_max=limit)
        except DAMAGED as broken:
            if self._bytes_max == _UNBOUNDED or not isinstance(broken, PayloadTooLargeError):
                tell_unreadable(self._directories[directory], seq)
                state.damaged.add(obj)
                return {}, ""
            payload = None
        if payload is None:
            state.large.add(obj)
            return None
        state.sizes[obj] = len(payload)
        read = orjson.loads(payload)
        return read["data"]["object"], read["key"]

    async def _collect_whole(self, state: BatchState) -> None:
        parents: dict[UUID, tuple[UUID, ...]] = {}
        for kind, directory, obj, answer in self._whole:
            view = state.of(directory)
            if obj in view.erasable:
                await self._collect_edges_of_erasable(view, kind, obj, answer, parents)
            elif kind == "members_of_group" and obj in view.groups:
                members: dict[UUID, str] = {}
                async for member, mt, active in self._each(answer):
                    members[member] = MEMBER_TYPE_NAMES[mt]
                    view.members[member] = _SEEN[mt, active]
                view.groups[obj] = replace(view.groups[obj], members=members)
            elif kind == "groups_of_member":
                parents[obj] = tuple([row[0] async for row in self._each(answer)])
                if obj in view.users:
                    view.users[obj] = replace(view.users[obj], groups=parents[obj])
                if obj in view.groups:
                    view.groups[obj] = replace(view.groups[obj], parents=parents[obj])
        above = [group for groups in parents.values() for group in groups]
        if above:
            answer = self._pipeline.execute(SQL["stream_tails"], (uuids(above),))
            state.stream_tails |= {obj: (rv, etag_rv) for obj, rv, etag_rv in await self._pipeline.rows(answer)}

    async def _collect_erasable(self, state: BatchState) -> None:
        for directory, obj, ot, living, active, erased, hold, bodies, keys, leaves, lines in await self._rows("erasable"):
            counts = {"bodies": bodies, "keys": keys, "leaves": leaves, "journal_lines": lines}
            self._of(state, directory).erasable[obj] = Erasable(MEMBER_TYPE_NAMES[ot], living, active, erased, hold, counts)

    async def _collect_edges_of_erasable(
        self, view: DirectoryState, kind: str, obj: UUID, answer: Answer, parents: dict[UUID, tuple[UUID, ...]]
    ) -> None:
        if kind == "groups_of_member":
            parents[obj] = tuple([row[0] async for row in self._each(answer)])
            view.erasable[obj] = view.erasable[obj]._replace(groups=parents[obj])
            return
        members: list[UUID] = []
        async for member, mt, active in self._each(answer):
            members.append(member)
            view.members[member] = _SEEN[mt, active]
        view.erasable[obj] = view.erasable[obj]._replace(members=tuple(members))

    async def _collect_left(self, state: BatchState) -> None:
        """Collect the resources of a clean-up piece. If a body cannot be opened, the resource is deleted without its last state."""
        for d, obj, seq, ct in [*await self._rows("last_of_users"), *await self._rows("last_of_groups")]:
            key = state.keys.get(obj)
            last = Last(None)
            if ct is not None and key is not None:
                with contextlib.suppress(BodyError):
                    payload = orjson.loads(open_payload(key, ct, directory=self._directories[d].uuid, obj=obj, seq=seq))
                    last = Last(payload["data"]["object"], payload["key"])
            self._of(state, d).left[obj] = last

    async def _collect_streams(self, state: BatchState, kek: Kek) -> None:
        for obj, rv, etag_rv in [*await self._rows("stream_tails"), *await self._rows("erased_tails")]:
            state.stream_tails[obj] = (rv, etag_rv)
        for obj, directory, wrapped in await self._rows("wrapped_keys"):
            if directory in self._directories:
                # a damaged key: commands that need it are refused, and the clean-up deletes without a last state
                with contextlib.suppress(WrapError):
                    state.keys[obj] = unwrap_key(kek, wrapped, directory=self._directories[directory].uuid, obj=obj)
