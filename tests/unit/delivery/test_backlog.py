"""The backlog under random histories: arrivals, failures, kills, replays, held events, rewinds; without a database and without a clock.

A world has a log, a store that applies reports as the database does, a receiver, and a backlog that is rebuilt from the store
alone after each kill. The order is checked against the rules of docs/consumers.md ("Order") as they are written there, not
against the lanes.
"""

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery import doubt
from delivery.backlog import PAUSE_MAX_S, REWIND_EVENTS_MAX, REWINDS_MAX, WINDOW_MAX, Backlog, Budgets
from delivery.lanes import Item
from delivery.reports import BLOCKED, HELD, PARKED, RETRYING, WAITING, Exceptional, Place, Report
from delivery.runs import Planned, Range, Run
from delivery.scheduler import Open, Request, state_of
from delivery.terms import Terms
from delivery.transport import Retry, Rewind
from ledger import events as e
from ledger.cursor import Anchor, EventId
from tests.conftest import examples

DIRECTORIES = (1, 2)
RUN = Run(
    UUID(int=99),
    "",
    7,
    "",
    Range(0, 0, 0, ()),
    0,
    None,
    "",
    "running",
    0,
    0,
    datetime.fromtimestamp(0, UTC),
    None,
    0,
    0,
    (),
    None,
)
REFUSED = Retry("http_422", "no")
UNAVAILABLE = Retry("http_503", away=True)
HUNG = Retry("timeout", away=True, may_have_arrived=True)
ASKS = Retry("http_429", after_s=90.0, asks_all=True, away=True)
PATIENCE = Retry("http_503", after_s=5.0, away=True)
ANSWERS = (None, REFUSED, UNAVAILABLE, HUNG, ASKS, PATIENCE)  # None accepts


def user(n: int) -> UUID:
    return UUID(int=1_000 + n)


def group(n: int) -> UUID:
    return UUID(int=2_000 + n)


def must_precede(a: Item, b: Item, ordering: str) -> bool:
    """Whether b may be sent only after a, which is earlier in the log, was accepted."""
    if a.directory != b.directory:
        return False
    if ordering == "directory":
        return True
    if e.DIRECTORY_CLOSED.number in {a.kind, b.kind}:
        return b.kind == e.DIRECTORY_DELETED.number
    if b.kind == e.DIRECTORY_DELETED.number:
        return True
    of_a, of_b = {a.obj, a.mem} - {None}, {b.obj, b.mem} - {None}
    if a.mem is None and b.mem is None:
        return a.obj == b.obj
    if a.mem is not None and b.mem is not None:
        return (a.obj, a.mem) == (b.obj, b.mem)
    if b.mem is not None:
        return a.obj in of_b and a.kind in LIFECYCLE
    return b.obj in of_a and b.kind in ENDS


LIFECYCLE = e.numbers(e.Fact.LIFECYCLE)
ENDS = e.numbers(e.Fact.ENDS_RESOURCE)


@dataclass
class Store:
    """The rows that the database has of the consumer. A report is stored completely or not at all."""

    place: Place = field(default_factory=lambda: Place(1, 0, 0))
    rows: dict[int, Exceptional] = field(default_factory=dict)
    run: Run | None = None
    replayed: list[int] = field(default_factory=list)

    def take(self, report: Report) -> None:
        assert report.place.through >= self.place.through
        self.place = report.place
        self.replayed += report.replayed
        for position in report.settled:
            self.rows.pop(position, None)
        for row in report.begun:
            if row.replay is None or self.run is not None:
                self.rows[row.position] = copy.copy(row)
        for row in report.went_on:
            if row.position in self.rows:
                self.rows[row.position] = copy.copy(row)
        for run, done, through, ahead in report.replays:
            if self.run is not None and self.run.id == run:
                self.run = replace(self.run, done=done, through=through, ahead=ahead)


@dataclass
class Flight:
    request: Request
    items: list[Item]

    rewound: tuple[int, int, int, int] | None = None  # set by the receiver's answer, with the fields of World.rewinds

    @property
    def deliveries(self) -> list[tuple[int, bool]]:
        """The positions of the deliveries, and whether a run sends events that were recorded before."""
        return [(found.item.position, found.again) for found in self.request.events]


class World:
    def __init__(self, ordering: Any, batch_max: int, budgets: Budgets, schedule: tuple[int, ...] = (0, 0, 30)) -> None:
        self.terms = Terms(("*",), ("*",), "webhook", ordering, batch_max, schedule)
        self.holes: set[int] = set()  # events that the consumer never got
        self.budgets = budgets
        self.now, self.log, self.kept = 1e9, list[Item](), Store()
        self.held: set[int] = set()
        self.flights: list[Flight] = []
        self.took: list[tuple[int, bool]] = []
        self.recorded: set[tuple[int, bool]] = set()  # accepted, live or in the run, and the report that says so is stored
        self.open_before: set[int] = set()  # live events that were open when the run began
        # (index in `took`, directory, seq that is expected, seq that was sent)
        self.rewinds: list[tuple[int, int, int, int]] = []
        self.pending: Report | None = None  # taken from the backlog, not stored yet
        self.decided: list[tuple[Flight, bool]] = []  # outcomes since the last report: the flight, and whether it was accepted
        self.storing: list[tuple[Flight, bool]] = []
        self.over: list[Request] = []  # answered, but not ended yet
        self.seqs: dict[int, int] = dict.fromkeys(DIRECTORIES, 0)
        self.set_aside: set[int] = set()  # parked or skipped at some time: no event waits for it any more
        self.skipped: set[int] = set()
        self.counted = True  # whether the run still sends everything that it planned
        self.take_up()

    # -- what happens -------------------------------------------------------

    def arrive(self, kind: int, directory: int, obj: UUID, mem: UUID | None = None, *, held: bool = False) -> None:
        self.seqs[directory] += 1
        item = Item(len(self.log) + 1, directory, self.seqs[directory], kind, obj, mem)
        self.log.append(item)
        if held:
            self.held.add(item.position)

    def take_up(self) -> None:
        """A process begins, with nothing but the stored rows."""
        self.backlog = Backlog(self.terms, self.budgets, consumer=7, fence=1, epoch=1)
        run = self.kept.run
        resting = run.id if run is not None and run.state == "paused" else None
        rows = {
            p: copy.copy(row)
            for p, row in self.kept.rows.items()
            if row.state != PARKED and (row.replay is None or row.replay != resting)
        }
        opens = [self.opened(p, json=False) for p in self.kept.place.open if p not in rows]
        opens += [replace_row(self.opened(p, json=False), row) for p, row in sorted(rows.items())]
        held = {(self.log[p - 1].directory, self.log[p - 1].seq) for p in self.held}
        planned = [
            Planned(i.position, i.directory, i.seq, i.kind, i.obj, i.mem, 0)
            for i in self.log
            if run and i.position <= run.head and i.position not in self.aside
        ]
        self.backlog.restore(
            self.kept.place, Anchor(self.kept.place.through), opens, [(run, planned)] if run and not resting else [], directories=DIRECTORIES, held=held,
            lacks=lambda item: item.position in self.holes, now=self.now,
        )  # fmt: skip
        self.flights, self.pending, self.decided, self.storing, self.over = [], None, [], [], []

    @property
    def aside(self) -> set[int]:
        """The events that an operator skipped, or parked and has not retried."""
        return self.skipped | {p for p, row in self.kept.rows.items() if row.state == PARKED}

    def kill(self, *, arrived: bool, committed: bool) -> None:
        """The process ends at a random moment: requests under way may have arrived, the report may have been stored."""
        if arrived:
            for flight in self.flights:
                self.took += flight.deliveries
        if self.pending is not None and committed:
            self._committed()
        self.take_up()

    def read(self, count: int) -> None:
        if not self.backlog.reads_on or self.backlog.full:
            self.backlog.make_room()
            return
        start = self.backlog.read_to.position
        page = self.log[start : start + count]
        held = {(i.directory, i.seq) for i in page if i.position in self.held}
        self.backlog.admit((self.opened(i.position) for i in page), Anchor(start + len(page)), held)
        self.backlog.make_room()

    def go(self, count: int, requests: int) -> None:
        self.read(count)
        for _ in range(requests):
            self.send()

    def send(self) -> bool:
        request = self.backlog.next_request(self.now)
        if request is None:
            return False
        if not request.complete:
            assert self.backlog.next_request(self.now) is None or self.flights == []
            wanted = self.backlog.missing(request)
            assert wanted[: len([o for o in request.events if not o.json])] == [o for o in request.events if not o.json]
            self.backlog.fetched(
                request, [(o.item.position, EventId("acme", o.item.position, b"leaf"), None, b"x" * 10) for o in wanted]
            )
        self.backlog.fit(request)
        flight = Flight(request, [self.log[found.item.position - 1] for found in request.events])
        assert all(found.json and found.id and found.id.seq == found.item.position for found in request.events)
        self._check_leaves(flight)
        self.flights.append(flight)
        return True

    def answer(self, number: int, answer: Retry | None) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(number % len(self.flights))
        if answer is None or answer.may_have_arrived:
            self.took += flight.deliveries
        if answer is None:
            self.backlog.accepted(flight.request)
            self.decided.append((flight, True))
        else:
            self._refused(flight, answer)

    def _refused(self, flight: Flight, answer: Retry) -> None:
        if self.backlog.refused(flight.request, answer, b"sealed" if answer.answer else None, self.now, lambda: 0.5):
            self.decided.append((flight, False))
        else:
            self.over.append(flight.request)

    def rewind(self, number: int, back: int) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(number % len(self.flights))
        first = flight.items[0]
        asked = Rewind(max(first.seq - 1 - back, 0), REFUSED)
        if not self.backlog.may_rewind(flight.request, asked):
            self._refused(flight, REFUSED)
            return
        lacking = [
            i
            for i in self.log
            if i.directory == first.directory and asked.seq < i.seq < first.seq and i.position not in self.aside
        ]
        self.backlog.rewound(flight.request, asked, [fresh(i) for i in lacking], None, self.now)
        if not any(row.error == "rewind_refused" for row in (o.exceptional for o in flight.request.events) if row):
            flight.rewound = len(self.took), first.directory, asked.seq, first.seq
        self.decided.append((flight, False))

    def store(self, *, ends: bool = True) -> None:
        self.store_committed(ends=ends)
        self.store_report()
        self.store_committed(ends=ends)

    def store_report(self) -> None:
        if self.pending is None:
            self.pending, self.storing, self.decided = copy.deepcopy(self.backlog.take_report()), self.decided, []

    def store_committed(self, *, ends: bool = True) -> None:
        """The database committed the report; lanes that waited for it go on, and sooner or later its request ends."""
        if self.pending is None:
            return
        self._committed()
        self.backlog.stored(self.now)
        self.over += [flight.request for flight, _ in self.storing]
        self.storing = []
        if ends:
            self.end()
        self.backlog.take_blocked()
        for run in self.backlog.take_finished():
            assert self.kept.run is not None
            assert run.done == run.total or not self.counted
            self.run_ends()

    def end(self) -> None:
        """The answered requests end, and their places become free."""
        while self.over:
            self.backlog.ended(self.over.pop())

    def run_ends(self) -> None:
        self.kept.run = None
        self.recorded = {(p, again) for p, again in self.recorded if not again}

    def _committed(self) -> None:
        assert self.pending is not None
        self.kept.take(self.pending)
        self.recorded |= {one for flight, accepted in self.storing if accepted for one in flight.deliveries}
        for rewound in [flight.rewound for flight, _ in self.storing if flight.rewound]:
            _, directory, expected, sent = rewound
            self.rewinds.append(rewound)
            self.recorded -= {(i.position, False) for i in self.log if i.directory == directory and expected < i.seq < sent}
        self.pending = None

    def replay(self, rate: int | None = None) -> None:
        if self.kept.run is None and self.log:
            self.quiesce()
            head, self.counted = self.backlog.read_to.position, True
            total = head - len({p for p in self.aside if p <= head})
            self.kept.run = replace(RUN, head=head, range=Range(0, head, 0, ()), total=total, rate_per_second=rate)
            self.recorded = {(p, again) for p, again in self.recorded if not again}
            self.open_before = {item.position for item in self.log if (item.position, False) not in self.recorded}
            self.take_up()

    def cancel(self) -> None:
        if self.kept.run is not None:
            self.quiesce()
            self.run_ends()
            self.kept.rows = {p: row for p, row in self.kept.rows.items() if row.replay is None}
            self.take_up()

    def rest(self) -> None:
        """An operator pauses the run."""
        if self.kept.run is not None:
            self.quiesce()
            if self.kept.run is not None:
                self.kept.run, self.counted = replace(self.kept.run, state="paused"), False
            self.take_up()

    def resume(self) -> None:
        if self.kept.run is not None:
            self.quiesce()
            if self.kept.run is not None:
                self.kept.run = replace(self.kept.run, state="running")
            self.take_up()

    def put_aside(self, number: int, *, skip: bool) -> None:
        """An operator parks or skips a delivery that is blocked or retried."""
        while self.flights:
            self.answer(0, REFUSED)
        self.quiesce()
        some = [p for p, row in sorted(self.kept.rows.items()) if row.state in {BLOCKED, RETRYING}]
        if some:
            position = some[number % len(some)]
            self.set_aside.add(position)
            self.counted = False
            if skip:
                del self.kept.rows[position]
                self.skipped.add(position)
            else:
                self.kept.rows[position].state = PARKED
        self.take_up()

    def bring_back(self) -> None:
        """An operator retries a parked delivery."""
        self.quiesce()
        for row in self.kept.rows.values():
            if row.state == PARKED:
                row.state, row.attempts, row.next_at = RETRYING, 0, self.now
        self.take_up()

    def release(self) -> None:
        """An operator releases held events, and retries blocked ones."""
        self.quiesce()
        self.held.clear()
        for row in self.kept.rows.values():
            if row.state == BLOCKED:
                row.state, row.attempts, row.next_at = RETRYING, 0, self.now
        self.take_up()

    def quiesce(self) -> None:
        """The process is stopped as it is when an operator changes the consumer: requests under way are answered and stored."""
        while self.flights:
            self.answer(0, None)
        self.store()

    # -- what must hold -----------------------------------------------------

    def opened(self, position: int, *, json: bool = True) -> Open:
        keeps = json and self.backlog.keeps_json
        return Open(fresh(self.log[position - 1]), id=EventId("acme", position, b"leaf"), json=b"x" * 10 if keeps else b"")

    def _check_leaves(self, flight: Flight) -> None:
        """For each event that is sent: all events that must precede it are recorded or in the same request; no other request of
        its lanes is under way; no event is in two requests.
        """
        assert [item.position for item in flight.items] == sorted({item.position for item in flight.items})
        others = [item for other in [*self.flights, *(f for f, _ in [*self.decided, *self.storing])] for item in other.items]
        assert not self.recorded.intersection(flight.deliveries), "it is recorded, and sent again"
        for item, (_, of_run) in zip(flight.items, flight.deliveries, strict=True):
            for other in others:
                first, second = sorted((item, other), key=lambda i: i.position)
                assert not must_precede(first, second, self.terms.ordering), "two events of one lane are under way"
            for before in self.log[: item.position - 1]:
                if (
                    must_precede(before, item, self.terms.ordering)
                    and before not in flight.items
                    and before.position not in self.set_aside
                ):
                    again = of_run and before.position not in self.open_before
                    assert (before.position, again) in self.recorded, "it overtakes an event that must precede it"

    def check_order(self) -> None:
        """Before an event was first accepted, the receiver had all events that must precede it; the same holds for the last time
        it was accepted.
        """
        if self.rewinds:
            if not self.set_aside:
                self._check_rewinds()
            return
        for again in (False, True):
            took = [position for position, of_run in self.took if of_run == again]
            first, last = {p: took.index(p) for p in took}, {p: len(took) - took[::-1].index(p) for p in took}
            for a, b in combinations(sorted(first.keys() - self.set_aside), 2):
                if must_precede(self.log[a - 1], self.log[b - 1], self.terms.ordering):
                    assert first[a] < first[b], (a, b)
                    assert last[a] < last[b], (a, b)

    def _check_rewinds(self) -> None:
        """After a rewind its directory continues in order from there, up to the last event that was sent when the receiver asked."""
        for start, directory, expected, sent in self.rewinds:
            seen = [self.log[p - 1].seq for p, again in self.took[start:] if not again and self.log[p - 1].directory == directory]
            until = seen.index(sent) if sent in seen else len(seen)
            went = list(dict.fromkeys(seen[:until]))
            later = [r for r in self.rewinds if r[0] >= start and r[1] == directory and r != (start, directory, expected, sent)]
            if not later:
                assert went == list(range(expected + 1, sent)), (went, expected, sent)

    def finish(self) -> None:
        """From now on the receiver accepts everything, and the operator does everything that an operator must do."""
        self.resume()
        self.bring_back()
        self.release()
        for _ in range(10 * len(self.log) + 50):
            self.read(50)
            while self.send():
                pass
            while self.flights:
                self.answer(0, None)
            self.store()
            at = self.backlog.next_time(self.now)
            self.now = max(self.now, at) if at is not None else self.now
            moment = self.backlog.moment(self.now, unread=False)
            if self.backlog.read_to.position == len(self.log) and not (moment.open or self.backlog.moved_on or self.kept.run):
                break
        assert not self.backlog.moment(self.now, unread=False).under_way, "the place of a request was not freed"
        assert {p for p, _ in self.took} | self.skipped >= {item.position for item in self.log}, "an event was lost"
        assert (self.kept.rows, self.kept.run) == ({}, None)
        assert self.kept.place == Place(1, len(self.log), len(self.log))
        assert (self.backlog.replays, self.backlog.holds) == (False, False)
        assert self.backlog.json_held == 0


def fresh(item: Item) -> Item:
    return Item(item.position, item.directory, item.seq, item.kind, item.obj, item.mem)


def replace_row(found: Open, row: Exceptional) -> Open:
    found.exceptional = row
    return found


# -- random histories ---------------------------------------------------------

Step = tuple[Any, ...]
few = st.integers(0, 2)  # a small range, so that values collide
small = st.integers(0, 5)
directories = st.sampled_from((*DIRECTORIES, 1, 1))


def _arrival(kind: e.EventType, directory: int, member: int, in_group: int, held: int) -> Step:
    if kind.membership:
        return "arrive", (kind.number, directory, group(in_group % 2), user(member)), False
    obj = {e.USER: user(member), e.GROUP: group(in_group % 2)}.get(kind.subject, UUID(int=directory))
    return "arrive", (kind.number, directory, obj), held == 0 and kind is e.USER_DEACTIVATED


KINDS = (
    *(e.USER_CREATED, e.USER_UPDATED, e.USER_DEACTIVATED, e.USER_DEACTIVATED, e.USER_DELETED, e.GROUP_CREATED, e.GROUP_DELETED),
    *(e.MEMBER_ADDED, e.MEMBER_REMOVED) * 3,
    *(e.DIRECTORY_CLOSED, e.DIRECTORY_DELETED),
)
arrivals = st.builds(_arrival, st.sampled_from(KINDS), directories, few, few, few)
steps = st.sampled_from(("arrive",) * 6 + ("go",) * 4 + ("answer",) * 6 + ("store",) * 3 + ("once",) * 4).flatmap(
    {
        "arrive": arrivals,
        "go": st.tuples(st.just("go"), st.integers(1, 12), st.integers(0, 6)),
        "answer": st.tuples(st.just("answer"), small, st.sampled_from((None, *ANSWERS))),
        "store": st.sampled_from([("store",), ("store_report",), ("store_committed",), ("commit",), ("end",)]),
        "once": st.one_of(
            st.tuples(st.just("wait"), st.sampled_from((1.0, 30.0, 600.0))),
            st.tuples(st.just("set_back"), st.sampled_from((2.0, 3_600.0))),
            st.tuples(st.just("kill"), st.booleans(), st.booleans()),
            st.tuples(st.just("rewind"), small, small),
            st.sampled_from(
                [("replay", None), ("replay", None), ("replay", 1), ("cancel",), ("release",), ("rest",), ("resume",)]
            ),
            st.sampled_from([("bring_back",), ("aside", 0, True), ("aside", 0, False), ("aside", 3, False)]),
        ),
    }.__getitem__
)


def do(world: World, step: Step) -> None:
    match step:
        case ("arrive", what, held):
            world.arrive(*what, held=held)
        case ("wait", seconds):
            world.now += seconds
        case ("set_back", seconds):
            world.now -= seconds
            world.backlog.set_back(seconds)
        case ("aside", number, skip):
            world.put_aside(number, skip=skip)
        case ("commit",):
            world.store_committed(ends=False)
        case ("kill", arrived, committed):
            world.kill(arrived=arrived, committed=committed)
        case _:
            getattr(world, step[0])(*step[1:])


@pytest.mark.parametrize("ordering", ["subject", "directory"])
@settings(max_examples=examples(500), deadline=None)
@given(
    batch_max=st.sampled_from((1, 3, 100)),
    room=st.sampled_from((0, 35, 10_000)),
    circuit=st.sampled_from((2, doubt.CIRCUIT)),
    history=st.lists(steps, min_size=10, max_size=120),
)
def test_order_is_exact_and_nothing_is_lost_in_any_history(
    ordering: str, batch_max: int, room: int, circuit: int, history: list[Step]
) -> None:
    with patch.object(doubt, "CIRCUIT", circuit):
        world = World(ordering, batch_max, Budgets(request=25, consumer=room))
        for step in history:
            if step[0] != "rewind" or ordering == "directory":
                do(world, step)
        world.finish()
        world.check_order()


# -- single promises ----------------------------------------------------------

ROOMY = Budgets(request=10_000, consumer=10_000)
CREATED, UPDATED, LEFT = e.USER_CREATED.number, e.USER_UPDATED.number, e.USER_DEACTIVATED.number


def world(*arrivals: tuple[int, int, bool], ordering: str = "subject", batch_max: int = 1) -> World:
    """A world with these events in its log: kind, user, and whether the surge policy holds it."""
    made = World(ordering, batch_max, ROOMY)
    for kind, who, held in arrivals:
        made.arrive(kind, 1, user(who), held=held)
    return made


def under_way(world: World) -> list[list[int]]:
    return [[item.position for item in flight.items] for flight in world.flights]


def test_an_event_that_became_urgent_is_sent_only_once_in_a_batch() -> None:
    w = world((LEFT, 0, False), (CREATED, 2, False), (LEFT, 2, False), batch_max=100)
    w.go(10, 2)
    assert under_way(w) == [[1, 2, 3]]


def test_a_batch_that_began_with_a_leaver_frees_its_place() -> None:
    w = world(batch_max=2)
    for n in range(doubt.HUNG_MAX + 1):
        w.arrive(CREATED, 1, user(2 * n))
        w.arrive(LEFT, 1, user(2 * n + 1))
        w.go(10, 1)
        assert under_way(w) == [[2 * n + 1, 2 * n + 2]]
        w.quiesce()


def test_a_request_that_ends_after_the_next_try_of_its_event_began_frees_its_place() -> None:
    w = World("subject", 1, ROOMY, (0,) * (doubt.HUNG_MAX + 2))
    w.arrive(CREATED, 1, user(0))
    w.go(10, 1)
    for n in range(doubt.HUNG_MAX):
        w.answer(0, REFUSED)
        w.store(ends=n % 2 == 0)
        w.go(10, 1)
        assert under_way(w) == [[1]]
        w.end()


def test_no_event_is_sent_before_the_rows_that_reading_made_are_stored() -> None:
    w = world((LEFT, 0, True), (CREATED, 1, False))
    w.go(10, 5)
    assert under_way(w) == []
    w.store()
    w.go(10, 5)
    assert under_way(w) == [[2]]
    assert w.kept.rows[1].state == HELD


def test_deliveries_of_a_run_that_were_out_of_order_are_not_repeated_by_the_next_process() -> None:
    w = world((CREATED, 0, False), (UPDATED, 0, False), (CREATED, 1, False))
    w.go(10, 5)
    w.quiesce()
    w.go(10, 5)
    w.quiesce()
    w.replay()
    w.go(10, 5)
    assert under_way(w) == [[1], [3]]
    w.answer(1, None)
    w.store()
    w.kill(arrived=False, committed=False)
    w.go(10, 5)
    assert under_way(w) == [[1]]


def test_a_lane_waits_for_the_request_under_way_also_after_the_clock_was_set_back() -> None:
    w = world((CREATED, 0, False), (UPDATED, 0, False), (UPDATED, 0, False))
    w.go(10, 1)
    w.backlog.set_back(3_600.0)
    w.go(10, 5)
    assert under_way(w) == [[1]]


def test_when_the_receiver_is_gone_its_events_stay_open_for_the_next_process() -> None:
    w = world((CREATED, 0, False))
    w.go(10, 1)
    request = w.flights[0].request
    w.backlog.gone(request)
    w.backlog.ended(request)
    w.kill(arrived=False, committed=False)
    w.finish()


def test_an_event_that_could_not_be_sent_in_time_is_sent_later() -> None:
    w = world((CREATED, 0, False))
    w.go(10, 1)
    request = w.flights.pop().request
    w.backlog.too_late(request)
    w.backlog.ended(request)
    w.go(10, 1)
    assert under_way(w) == [[1]]


def test_a_fetch_that_fails_frees_its_place() -> None:
    w = World("subject", 1, Budgets(request=25, consumer=0))
    w.arrive(CREATED, 1, user(0))
    w.read(10)
    request = w.backlog.next_request(w.now)
    assert request is not None
    assert not request.complete
    w.backlog.ended(request)
    w.kill(arrived=False, committed=False)
    w.finish()


def test_previous_seqs_are_read_from_the_log_once_and_then_taken_from_deliveries() -> None:
    w = world((CREATED, 0, False), (UPDATED, 0, False), ordering="directory")
    assert w.backlog.previous_of(1) is None
    w.backlog.note_previous(1, 0)
    assert w.backlog.previous_of(1) == 0
    w.go(10, 1)
    w.answer(0, None)
    w.store()
    assert w.backlog.previous_of(1) == 1


@pytest.mark.parametrize(("hours", "state"), [(0, BLOCKED), (1, 0)])
def test_a_directory_may_be_rewound_only_a_few_times_in_an_hour(hours: int, state: int) -> None:
    w = world(*[(UPDATED, n, False) for n in range(5)], ordering="directory")
    for n in range(REWINDS_MAX + 1):
        w.go(10, 1)
        while w.flights[0].items[0].position != 5:
            w.answer(0, None)
            w.store()
            w.go(10, 1)
        w.now += 3_600 * hours * (n == REWINDS_MAX)
        w.rewind(0, 2)
        w.store()
    (found,) = w.backlog.at([5, 77])
    assert state_of(found) == state


def test_too_many_events_to_rewind_block() -> None:
    w = world(*[(UPDATED, n, False) for n in range(REWIND_EVENTS_MAX + 3)], ordering="directory", batch_max=1)
    w.kept.place = Place(1, REWIND_EVENTS_MAX + 2, REWIND_EVENTS_MAX + 2)
    w.recorded = {(item.position, False) for item in w.log[:-1]}
    w.take_up()
    w.go(10, 1)
    w.rewind(0, REWIND_EVENTS_MAX + 1)
    w.store()
    assert w.kept.rows[REWIND_EVENTS_MAX + 3].error == "rewind_refused"


def test_an_event_that_always_fails_stops_only_its_lane_however_many_events_wait_behind_it() -> None:
    w = world((CREATED, 0, False), *[(UPDATED, 0, False)] * WINDOW_MAX, (LEFT, 1, False))
    for _ in range(4):
        w.go(WINDOW_MAX + 100, 10)
        for n, flight in reversed(list(enumerate(w.flights))):
            w.answer(n, REFUSED if flight.items[0].obj == user(0) else None)
        w.store()
        w.now += 60
    assert w.kept.rows[1].state == BLOCKED
    assert WINDOW_MAX + 2 in {position for position, _ in w.took}
    assert w.kept.place.through == WINDOW_MAX + 2
    w.finish()


def test_a_directory_whose_only_lane_is_stuck_is_not_read_further() -> None:
    w = world(*[(CREATED, n, False) for n in range(3)], ordering="directory")
    w.arrive(CREATED, 2, user(0))
    for _ in range(4):
        w.go(10, 10)
        while w.flights:
            w.answer(0, REFUSED)
        w.store()
        w.now += 60
    assert [row.state for row in w.kept.rows.values()] == [BLOCKED, BLOCKED]
    assert w.kept.place.open == (2, 3)


def test_an_event_that_is_tried_before_its_time_uses_up_no_attempt() -> None:
    w = World("subject", 1, ROOMY, (0, 3_600))
    w.arrive(CREATED, 1, user(0))
    with patch.object(doubt, "CIRCUIT", 1):
        w.go(10, 1)
        w.answer(0, UNAVAILABLE)
        w.store()
        w.now += doubt.PROBE_S
        w.go(10, 1)
        assert [flight.request.attempt for flight in w.flights] == [2]
        w.answer(0, UNAVAILABLE)
    w.store()
    assert (w.kept.rows[1].state, w.kept.rows[1].attempts) == (RETRYING, 1)


def test_an_event_that_only_a_run_delivered_is_reported() -> None:
    w = world((CREATED, 0, False), (CREATED, 1, False))
    w.go(10, 5)
    w.quiesce()
    w.holes = {2}
    w.replay()
    w.go(10, 5)
    w.quiesce()
    assert w.kept.replayed == [2]


def test_a_pause_that_was_stored_while_a_clock_was_ahead_delays_nothing() -> None:
    w = world((CREATED, 0, False))
    w.backlog.not_before = w.now + PAUSE_MAX_S + 1
    w.go(10, 1)
    assert under_way(w) == [[1]]


# -- what a later process finds -------------------------------------------------


def test_an_event_under_way_when_the_process_ends_is_sent_by_the_next_one_although_a_later_one_was_accepted() -> None:
    w = world((CREATED, 0, False), (CREATED, 1, False))
    w.go(10, 2)
    w.answer(1, None)
    w.store()
    assert w.kept.place == Place(1, 0, 2, (1,))
    w.kill(arrived=False, committed=False)
    w.go(10, 2)
    assert under_way(w) == [[1]]


def test_an_event_that_was_released_is_sent_by_the_next_process() -> None:
    w = world((LEFT, 0, True))
    w.go(10, 1)
    w.store()
    assert w.kept.rows[1].state == HELD
    w.release()
    w.go(10, 1)
    assert under_way(w) == [[1]]


# -- runs -------------------------------------------------------------------------


def failing_in_a_run() -> World:
    """A run is under way: of the three events that it sends, the second failed as part of it, with the row of its live delivery."""
    w = world((CREATED, 0, False), (CREATED, 1, False), (UPDATED, 1, False))
    refuse(w, 2)
    w.replay()
    refuse(w, 2)
    return w


def refuse(w: World, position: int) -> None:
    """All that goes now is accepted but for one event, and stored."""
    w.go(10, 5)
    w.answer(under_way(w).index([position]), REFUSED)
    w.quiesce()


def test_a_run_sends_an_open_event_once_and_the_event_behind_it_after_it() -> None:
    w = failing_in_a_run()
    assert w.kept.run is not None
    assert (w.kept.run.done, w.kept.rows[2].replay) == (1, None)
    w.finish()
    assert sorted(position for position, _ in w.took) == [1, 1, 2, 3]
    w.check_order()


def test_a_failed_event_of_a_run_belongs_to_it_in_the_next_process_too() -> None:
    w = failing_in_a_run()
    w.kill(arrived=False, committed=False)
    w.finish()
    assert sorted(position for position, _ in w.took) == [1, 1, 2, 3]
    w.check_order()


def test_an_open_event_that_first_failed_as_part_of_a_run_belongs_to_it_in_the_next_process_too() -> None:
    w = world((CREATED, 0, False), (CREATED, 1, False))
    w.go(10, 2)
    w.answer(1, None)
    w.store()
    w.kill(arrived=False, committed=False)
    w.replay()
    refuse(w, 1)
    assert w.kept.rows[1].replay is None
    w.kill(arrived=False, committed=False)
    w.finish()
    assert sorted(position for position, _ in w.took) == [1, 2, 2]


def test_a_repeated_delivery_that_fails_gets_a_row_of_its_run() -> None:
    w = world((CREATED, 0, False))
    w.go(10, 1)
    w.quiesce()
    w.replay()
    w.go(10, 1)
    w.answer(0, REFUSED)
    w.store()
    assert w.kept.rows[1].replay == RUN.id
    w.finish()


def test_an_event_that_came_after_a_run_was_planned_is_not_counted_by_it() -> None:
    w = world((CREATED, 0, False), (CREATED, 1, False))
    w.go(10, 2)
    w.quiesce()
    w.replay(rate=1)
    w.arrive(CREATED, 1, user(2))
    w.go(10, 5)
    assert under_way(w) == [[3], [1]]
    w.quiesce()
    assert w.kept.run is not None
    assert w.kept.run.done == 1


def test_a_live_event_hurries_the_deliveries_of_a_run_that_it_waits_for() -> None:
    w = world((CREATED, 0, False), (UPDATED, 0, False), (CREATED, 1, False))
    w.go(10, 1)
    w.quiesce()
    w.go(10, 5)
    w.quiesce()
    w.replay(rate=1)
    w.go(10, 1)
    w.quiesce()  # the rate allows no more at this moment
    w.go(10, 5)
    assert under_way(w) == []
    w.arrive(UPDATED, 1, user(0))
    w.go(10, 5)
    assert under_way(w) == [[2]]


# -- batches, those that are refused, and receivers that ask for patience ------------------


def test_a_batch_of_a_directory_has_its_events_in_order_and_no_others() -> None:
    w = world((CREATED, 0, False), (UPDATED, 0, False), ordering="directory", batch_max=3)
    w.arrive(CREATED, 2, user(1))
    w.go(10, 2)
    assert under_way(w) == [[1, 2], [3]]


def test_a_membership_goes_in_the_batch_of_both_events_that_it_waits_for() -> None:
    w = world((CREATED, 0, False), batch_max=3)
    w.arrive(e.GROUP_CREATED.number, 1, group(0))
    w.arrive(e.MEMBER_ADDED.number, 1, group(0), user(0))
    w.go(10, 1)
    assert under_way(w) == [[1, 2, 3]]


def refused(answer: Retry) -> World:
    """A batch of two got this answer."""
    w = world((CREATED, 0, False), (CREATED, 1, False), batch_max=2)
    w.go(10, 1)
    assert under_way(w) == [[1, 2]]
    w.answer(0, answer)
    w.store()
    return w


def test_the_events_of_a_refused_batch_go_alone_and_at_once() -> None:
    w = refused(REFUSED)
    w.go(10, 1)
    assert under_way(w) == [[1]]
    assert w.kept.rows == {}


def test_the_events_of_a_batch_that_asks_for_patience_go_alone_and_after_it() -> None:
    w = refused(PATIENCE)
    assert [(row.state, row.attempts) for row in w.kept.rows.values()] == [(WAITING, 0), (WAITING, 0)]
    w.go(10, 1)
    assert under_way(w) == []
    w.now += 5
    w.go(10, 1)
    assert under_way(w) == [[1]]


def test_a_receiver_that_asks_for_patience_with_everything_gets_nothing_for_a_minute_at_most() -> None:
    w = world((CREATED, 0, False), (CREATED, 1, False))
    w.go(10, 1)
    w.answer(0, ASKS)
    w.store()
    w.go(10, 1)
    assert under_way(w) == []
    w.now += PAUSE_MAX_S
    w.go(10, 1)
    assert under_way(w) == [[2]]


def test_a_success_ends_the_doubt_and_all_that_failed_meanwhile_is_due() -> None:
    w = World("subject", 1, ROOMY, (0, 3_600))
    for n in range(2):
        w.arrive(CREATED, 1, user(n))
    with patch.object(doubt, "CIRCUIT", 1):
        w.go(10, 2)
        w.answer(0, UNAVAILABLE)
        w.store()
        assert w.backlog.moment(w.now, unread=False).doubt
        w.answer(0, None)
        w.store()
        assert not w.backlog.moment(w.now, unread=False).doubt
        w.go(10, 1)
    assert under_way(w) == [[1]]


def test_json_of_an_event_that_is_no_longer_open_is_not_kept() -> None:
    w = World("subject", 1, Budgets(request=25, consumer=0))
    w.arrive(CREATED, 1, user(0))
    w.read(10)
    request = w.backlog.next_request(w.now)
    assert request is not None
    w.backlog.fetched(request, [(n, EventId("acme", n, b"leaf"), None, b"x" * 10) for n in (1, 2)])
    assert (request.complete, w.backlog.json_held) == (True, 10)


def test_what_was_rendered_or_answered_about_somebody_erased_is_forgotten() -> None:
    """Only of the erased user, and only what was rendered before: the erased form of an event is kept, and its answers go too."""
    w = world((CREATED, 0, False), (CREATED, 1, False), ordering="subject", batch_max=3)
    w.arrive(e.MEMBER_ADDED.number, 1, group(0), user(0))
    w.read(10)
    request = w.backlog.next_request(w.now)
    assert request is not None
    for found in request.events:
        answer = b"of another time" if found.item.obj == user(1) else b"Ada is unknown"
        found.exceptional = Exceptional(found.item.position, 1, found.item.seq, RETRYING, answer=answer)
    w.backlog.forget({user(0)}, lambda _subject, json: bool(json))
    about = {found.item.position: (bool(found.json), found.exceptional.answer) for found in request.events if found.exceptional}
    assert about == {1: (False, None), 2: (True, b"of another time")} | ({3: (True, None)} if 3 in about else {})
    for found in request.events:
        found.exceptional = None
    w.backlog.forget({user(1)}, lambda _subject, _json: False, request.events)
    assert all(found.json for found in request.events if found.item.obj == user(1))
