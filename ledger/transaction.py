"""One write transaction, from the locks to COMMIT: all rules of concurrency on one screen.

    begin · lock the directories · tokens, tails, state      (one pipeline flush; each statement has its own snapshot)
    decide, number, build in memory
    insert events, bodies, keys · read models · lock the ledger · insert commits and notify · commit      (one flush)

A giant commit is built and sent in pieces, so that it needs the memory of one piece; the ledger lock is taken after the last piece.
The directory lock is taken before any read of that directory, the ledger lock before the read of the last position. So no snapshot
is older than its lock: otherwise two transactions could give the same number twice. Positions become visible in order because the
ledger lock is held until COMMIT has finished.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import anyio.to_thread

from database.arrays import Int4Array, byteas, int2s, int4s, int8s, uuids
from database.connections import Connection, refuse_if_warned
from database.deadlines import SIGN
from database.pipeline import Together, together
from database.prepared import Answer
from database.queries import load_queries
from ledger.bindings import token_row
from ledger.build import Built, Decided, PlacedCommit, build
from ledger.client_bindings import access_row
from ledger.clients import believed_access
from ledger.clocks import ClockError
from ledger.commands import Command, DeleteGroup, DeleteUser, Erase, Needs, RecordFacts, Statement, of_the_idp
from ledger.decide import Decision, Effort, RunsAloneError, TooHeavyError, decide
from ledger.directories import Directory
from ledger.erasing import Erased, deletions, receipts
from ledger.events import USER, Draft, Recorded
from ledger.ids import DirectoryNumber, Seq
from ledger.sealing import Kek
from ledger.state import BatchState, StateReads
from ledger.tokens import believed
from scim.apply import PATCH_STEPS
from scim.errors import ScimError, Unauthorized
from scim.leniency import TEST_OBJECT, Leniency
from scim.profile import Profile, is_test_object, mapped_user
from scim.work import Work

SQL = load_queries(__file__)
BATCH_LOOP_BYTES_MAX = 256 * 1024  # request bytes of a batch; a larger batch is built in a worker thread
PIECE_EVENTS = 5_000  # events that are built and sent together; bounds the memory of a giant commit


class InlineProjection(Protocol):
    """A read model that is updated in the commit: returns the statements that apply events to it. Pure; rebuild uses the same function."""

    def __call__(self, events: Sequence[Recorded]) -> list[Statement]: ...


DAMAGED_SAYS: Final = (
    "The stored attributes of this resource are damaged, so it cannot be changed; it can be deleted. An operator finds what is "
    "damaged with `scim-ledger replay verify`."
)


class Outcome(NamedTuple):
    """The result of a command. `seq` is None for a no-op; times are µs since the epoch."""

    seq: Seq | None
    document: dict[str, Any] | None
    etag_rv: int
    created_at: int
    updated_at: int
    in_groups: bool = False
    events: int = 0
    large: bool = False  # the answer is large: render it in a worker thread
    size: int = 0  # bytes of the resource's body before the command


@dataclass(eq=False, slots=True)
class Submission:
    """A queued command, with its actor and the future that receives the outcome."""

    directory: Directory
    command: Command
    needs: Needs
    actor: str
    request: UUID
    op: int
    waiter: "asyncio.Future[Outcome]"
    token: UUID | None = None  # of a bearer token, or of an access token
    weight: int = 1_000  # bytes of the request, counted by the queue
    leniency: Leniency = field(default_factory=Leniency)  # the tolerances of the profile; none for acts of operators
    # the budget of the decision; all operations of a bulk request share one
    work: Work = field(default_factory=lambda: Work(PATCH_STEPS))
    deferrals: int = 0  # how often the command was put back because another process held the directory's lock
    trace: bytes | None = None  # the trace context of the request
    by_client: bool = False  # `token` is the access token of an OAuth 2.0 client
    until: float = math.inf  # event loop time by which it is answered, unless the database is already working on it

    def settle(self, result: Outcome | Exception) -> None:
        """Set the result, unless the client has gone away."""
        if self.waiter.done():
            return
        if isinstance(result, Exception):
            self.waiter.set_exception(result)
        else:
            self.waiter.set_result(result)


@dataclass(slots=True)
class BatchReport:
    """What a transaction did with its submissions. A submission that is in no list stays with the caller."""

    settled: list[tuple[Submission, Outcome | Exception]] = field(default_factory=list[tuple[Submission, "Outcome | Exception"]])
    locked_out: list[Submission] = field(default_factory=list[Submission])
    run_alone: list[Submission] = field(default_factory=list[Submission])
    heavy: list[Submission] = field(default_factory=list[Submission])
    committing: list[tuple[Submission, Outcome]] = field(default_factory=list[tuple[Submission, "Outcome"]])


@dataclass(frozen=True, slots=True)
class Transaction:
    """The parts that a write transaction needs besides a connection; made once by the wiring."""

    kek: Kek
    project: InlineProjection
    random: Callable[[int], bytes]
    service_clock: Callable[[], int]  # µs since the epoch: compared with the database's clock, never used as the time of an event

    async def run(self, conn: Connection, batch: Sequence[Submission], report: BatchReport, *, wait_for_locks: bool) -> None:
        """Write a batch in one transaction.

        `report` is filled step by step, so that it is usable if the connection breaks: `committing` holds the submissions whose COMMIT
        was sent, but not confirmed or not known to be on the synchronous standby. psycopg errors are passed on; the caller rolls back.
        """
        began = self.service_clock()
        async with together(conn) as pipeline:
            pipeline.execute("begin")
            reads = _sent(pipeline, batch, wait=wait_for_locks)
            locked = await _held_locks(pipeline, reads, self.kek)
            batch_state = await reads.state.collect(self.kek, locked.directories)
            for tail in batch_state.tails.values():
                tail.compare(began, self.service_clock())
            mine = self._sort_out(batch, locked, batch_state, report)
            large = any(s.needs.alone for s in mine) or sum(s.weight for s in mine) > BATCH_LOOP_BYTES_MAX
            work = self._work(mine, batch_state, report)
            early = len(mine) == 1  # the server inserts the events while the read models are made; in a batch it gained nothing
            while (piece := await _in_a_thread(pipeline, work) if large else next(work, None)) is not None:
                for sql, params in piece:
                    pipeline.execute(sql, params)
                if large:
                    await pipeline.flush()
                elif early:
                    pipeline.push()
                    early = False
            pipeline.execute("commit")
        refuse_if_warned(conn)
        report.settled += report.committing
        report.committing = []

    def _sort_out(
        self, batch: Sequence[Submission], locked: "_Locked", state: BatchState, report: BatchReport
    ) -> list[Submission]:
        """The submissions to write. `report` gets the others: locked out, refused for their token or a clock, or too heavy."""
        mine: list[Submission] = []
        for submission in batch:
            if submission.directory.id not in locked.directories:
                report.locked_out.append(submission)
            elif submission.token is not None and submission.token not in locked.tokens:
                refused = Unauthorized("The token was revoked or has expired. Issue a new one and put it into the IdP.")
                report.settled.append((submission, refused))
            elif of_the_idp(submission.command) and (trouble := state.tails[submission.directory.id].trouble) is not None:
                report.settled.append((submission, ClockError(trouble)))
            elif submission.needs.user in state.large or submission.needs.group in state.large:
                report.heavy.append(submission)
            else:
                mine.append(submission)
        return mine

    def _work(self, mine: Sequence[Submission], state: BatchState, report: BatchReport) -> Iterator[list[Statement]]:
        """Decide, build and encode a batch without IO. Yields the statements in pieces; the last piece has the rows of `commits`."""
        decided, unchanged = self._decide_each(mine, state, report)
        commits = list[PlacedCommit]()
        for built in build([item for _, item in decided], state, self.kek, self.random, PIECE_EVENTS):
            commits += built.commits
            yield [insert_statement(built)]
            yield self.project([stored.recorded for stored in built.stored])
        report.committing = [
            *unchanged,
            *(_written(s, item, placed, state) for (s, item), placed in zip(decided, commits, strict=True)),
        ]
        if commits:
            yield _ending(commits, [submission for submission, _ in decided], state, self.kek.current)

    def _decide_each(
        self, mine: Sequence[Submission], state: BatchState, report: BatchReport
    ) -> tuple[list[tuple[Submission, Decided]], list[tuple[Submission, Outcome]]]:
        """Decide each command alone. Returns those that make events, and those that change nothing."""
        decided = list[tuple[Submission, Decided]]()
        unchanged = list[tuple[Submission, Outcome]]()
        for submission in mine:
            try:
                decision = self._decide(submission, state)
            except RunsAloneError:
                report.run_alone.append(submission)
            except TooHeavyError:
                report.heavy.append(submission)
            except ScimError as refused:
                report.settled.append((submission, refused))
            except Exception as broken:  # only this command fails
                report.settled.append((submission, broken))
            else:
                if decision.drafts:
                    decided.append((submission, _decided(submission, decision)))
                else:
                    unchanged.append((submission, _unchanged(submission, decision, state)))
        return decided, unchanged

    def _decide(self, submission: Submission, state: BatchState) -> Decision:
        view, needs = state.of(submission.directory), submission.needs
        if (
            needs.document
            and {needs.user, needs.group} & state.damaged
            and not isinstance(submission.command, DeleteUser | DeleteGroup)
        ):
            raise ScimError(DAMAGED_SAYS)
        effort = Effort(submission.work, shared=not needs.alone)
        return decide(view, submission.command, submission.leniency, effort)


@dataclass(frozen=True, slots=True)
class _Locked:
    directories: set[DirectoryNumber]
    tokens: set[UUID]


class _Reads(NamedTuple):
    """The first flush: all its statements are gathered before the first answer is awaited."""

    locks: Answer
    waits: bool  # the locks were waited for, so their rows say nothing
    tokens: Answer | None
    access: Answer | None
    state: StateReads


def _sent(pipeline: Together, batch: Sequence[Submission], *, wait: bool) -> _Reads:
    directories = int4s(sorted({submission.directory.id for submission in batch}))
    locks = pipeline.execute(SQL["lock_directories" if wait else "try_lock_directories"], (directories,))
    tokens = list({s.token for s in batch if s.token is not None and not s.by_client})
    live = pipeline.execute(SQL["live_tokens"], (uuids(tokens),)) if tokens else None
    of_clients = list({s.token for s in batch if s.token is not None and s.by_client})
    access = pipeline.execute(SQL["live_access"], (uuids(of_clients),)) if of_clients else None
    state = StateReads(pipeline)
    state.send([(submission.directory, submission.needs, submission.command) for submission in batch])
    return _Reads(locks, wait, live, access, state)


async def _held_locks(pipeline: Together, reads: _Reads, kek: Kek) -> _Locked:
    held = {directory for directory, locked in await pipeline.rows(reads.locks) if reads.waits or locked}
    rows = await pipeline.rows(reads.tokens) if reads.tokens else []
    live = {token.id for token in believed(kek, map(token_row, rows))}
    if reads.access:
        live |= {access.id for access in believed_access(kek, map(access_row, await pipeline.rows(reads.access)))}
    return _Locked(held, live)


async def _in_a_thread(pipeline: Together, work: Iterator[list[Statement]]) -> list[Statement] | None:
    """Compute the next piece in a thread. Statements in between show that the session lives; else another process would end it."""
    computing = asyncio.ensure_future(anyio.to_thread.run_sync(next, work, None))
    try:
        while not (await asyncio.wait([computing], timeout=SIGN.seconds))[0]:
            pipeline.execute(SQL["sign"])
            await pipeline.flush()
    finally:
        if not computing.done():  # the connection broke or the task was cancelled: a thread cannot be stopped, so wait for it
            await asyncio.wait([computing])
    return computing.result()


def _decided(submission: Submission, decision: Decision) -> Decided:
    if submission.directory.profile.file.test_objects and any(_of_a_test(draft, submission) for draft in decision.drafts):
        submission.leniency.note(TEST_OBJECT)
    drafts = tuple(_with_user(draft, submission.directory.profile) for draft in decision.drafts)
    return Decided(submission.directory, drafts, decision.document, submission.actor, submission.request)


def _of_a_test(draft: Draft, submission: Submission) -> bool:
    """Whether the event is about a test user that the IdP creates to check its connection. It is noted for auditors."""
    body = draft.body
    return draft.ot == USER and body is not None and is_test_object(submission.directory.profile, body.object.get("userName", ""))


def _with_user(draft: Draft, profile: Profile) -> Draft:
    """Add `user`, mapped by the directory's current profile, to the body of a user event."""
    body = draft.body
    if body is None or draft.ot != USER:
        return draft
    return draft._replace(body=body._replace(user=mapped_user(profile, body.object)))


def _unchanged(submission: Submission, decision: Decision, state: BatchState) -> Outcome:
    etag_rv, created_at, updated_at = state.versions(submission)
    return Outcome(
        None, decision.document, etag_rv, created_at, updated_at, state.in_groups(submission), 0, submission.needs.heavy,
        state.size(submission),
    )  # fmt: skip


def _written(submission: Submission, item: Decided, placed: PlacedCommit, state: BatchState) -> tuple[Submission, Outcome]:
    new = submission.needs.user is None and submission.needs.group is None
    created, grouped = placed.at if new else state.created_at(submission), state.in_groups(submission)
    return submission, Outcome(
        placed.last_seq, item.document, placed.etag_rv, created, placed.at, grouped, placed.size, submission.needs.heavy,
        state.size(submission),
    )  # fmt: skip


async def lock_directories(conn: Connection, directories: Int4Array) -> None:
    """Wait for the locks of directories: afterwards no transaction is writing there."""
    await conn.execute(SQL["lock_directories"], (directories,))


def insert_statement(built: Built) -> Statement:
    """The insert statement for `events`, `bodies` and `subject_keys`."""
    stored = built.stored
    rows = [s.recorded for s in stored]
    sealed, keys = [s for s in stored if s.ct is not None], built.new_keys
    return SQL["insert_events"], (
        int4s([r.directory for r in rows]), int8s([r.seq for r in rows]), int2s([r.kind.number for r in rows]),
        int4s([r.rv for r in rows]), int4s([r.etag_rv for r in rows]), uuids([r.obj for r in rows]), uuids([r.mem for r in rows]),
        byteas([s.leaf_hash for s in stored]), byteas([s.leaf for s in stored]),
        int4s([s.recorded.directory for s in sealed]), int8s([s.recorded.seq for s in sealed]), byteas([s.ct for s in sealed]),
        uuids([k.obj for k in keys]), int4s([k.directory for k in keys]), byteas([k.wrapped for k in keys]),
    )  # fmt: skip


def _ending(commits: Sequence[PlacedCommit], submissions: Sequence[Submission], state: BatchState, epoch: int) -> list[Statement]:
    """The rows of administrative acts and what erasures delete, then the ledger's lock, then the rows of erasures and of `commits`."""
    facts = [statement for s in submissions if isinstance(s.command, RecordFacts) for statement in s.command.statements]
    erased = [
        Erased(s.directory.id, s.command, state.of(s.directory).erasable[s.command.subject], placed.last_seq, placed.size, epoch)
        for placed, s in zip(commits, submissions, strict=True)
        if isinstance(s.command, Erase)
    ]
    commit_rows = SQL["insert_commits"], _commit_rows(commits, submissions)
    return [*facts, *deletions(erased), (SQL["lock_ledger"], ()), *receipts(erased), commit_rows]


def _commit_rows(commits: Sequence[PlacedCommit], submissions: Sequence[Submission]) -> tuple[Any, ...]:
    offsets, total = list[int](), 0
    for commit in commits:
        offsets.append(total)
        total += commit.size
    return (
        int8s(offsets), int4s([c.directory for c in commits]), int8s([c.first_seq for c in commits]), int4s([c.size for c in commits]),
        int8s([c.types for c in commits]), int8s([c.at for c in commits]), uuids([s.request for s in submissions]),
        int4s([s.op for s in submissions]), byteas([s.trace for s in submissions]),
    )  # fmt: skip
