"""Which event is sent next while a receiver fails on some events, hangs or is down: unrelated events are delivered within a
minute.
"""

import heapq
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.backlog import PAUSE_MAX_S
from delivery.backoff import SCHEDULE_S
from delivery.doubt import BLAMED_MAX, CIRCUIT, HUNG_MAX, IN_FLIGHT_MAX, PROBE_S, Doubt
from delivery.lanes import Item, Lanes
from delivery.reports import BLOCKED, WAITING, Exceptional
from delivery.runs import Range, Run
from delivery.scheduler import Open, Replay, Request, Scheduler, failed, state_of
from delivery.terms import Terms
from ledger import events as e
from tests.conftest import examples

MINUTE = 60.0
TIMEOUT_S = 15.0
NAMES = UUID(int=7)
RUN = Run(
    UUID(int=9), "", 1, "", Range(0, 0, 0, ()), 0, None, "", "running", 0, 0, datetime.fromtimestamp(0, UTC), None, 0, 0, (), None
)
CREATED, UPDATED, DEACTIVATED = e.USER_CREATED.number, e.USER_UPDATED.number, e.USER_DEACTIVATED.number


@dataclass
class Simulation:
    """A consumer in a simulation: events arrive, requests take time, a receiver answers.

    There is no process and no real clock.
    """

    batch_max: int = 1
    poison: dict[UUID, str] = field(default_factory=dict)  # how the receiver fails on a subject: hang, late (502), refuse (422)
    away: list[tuple[float, float]] = field(default_factory=list)
    now: float = 1_000.0
    position: int = 0
    tries: list[tuple[float, Item]] = field(default_factory=list)
    taken: dict[int, float] = field(default_factory=dict)
    came: dict[int, float] = field(default_factory=dict)
    most: int = 0
    asks_s: float | None = None  # the Retry-After of the receiver's failures

    def __post_init__(self) -> None:
        self.open: dict[int, Open] = {}
        self.subjects: dict[int, UUID] = {}
        self.lanes = Lanes("subject")
        terms = Terms(("*",), ("*",), "webhook", "subject", self.batch_max, SCHEDULE_S)
        self.scheduler = Scheduler(terms, self.open, {RUN.id: Replay(RUN, {}, set(), set(), 0, 0)})
        self.flights: list[tuple[float, int, Request, str]] = []

    def arrive(self, kind: int, subject: UUID, *, again: bool = False) -> int:
        self.position += 1
        item = Item(self.position, 1, self.position, kind, subject, replay=RUN.id if again else None)
        found = self.open[self.position] = Open(item, again=again)
        self.came[self.position], self.subjects[self.position] = self.now, subject
        self.lanes.admit(found.item)
        self.scheduler.hurry(found)
        self.scheduler.queue(found)
        return self.position

    def run(self, seconds: float) -> None:
        """Let time go by."""
        end = self.now + seconds
        while True:
            while flight := self.scheduler.next_request(self.now):
                self._send(flight)
            times = [self.flights[0][0]] if self.flights else []
            times += [at for at in self.scheduler.times(self.now) if at > self.now]
            if not times or min(times) > end:
                self.now = end
                return
            self.now = min(times)
            while self.flights and self.flights[0][0] <= self.now:
                _, _, flight, answer = heapq.heappop(self.flights)
                self.scheduler.ended(flight)
                self._answered(flight.events, answer)

    def _send(self, flight: Request) -> None:
        batch = flight.events
        self.tries += [(self.now, found.item) for found in batch]
        for found in batch:
            assert found.item.ready or len(batch) > 1
        gone = any(start <= self.now < end for start, end in self.away)
        answer = "late" if gone else next((self.poison[f.item.obj] for f in batch if f.item.obj in self.poison), "")
        takes = {"hang": TIMEOUT_S, "": 0.02}.get(answer, 0.005)
        heapq.heappush(self.flights, (self.now + takes, len(self.tries), flight, answer))
        self.most = max(self.most, len(self.flights))

    def _answered(self, batch: list[Open], answer: str) -> None:
        for found in batch:
            found.under_way = False
        if not answer:
            self._accepted(batch)
        elif len(batch) > 1:
            if self.asks_s:
                self._noted(batch, blamed=False, asked_s=min(self.asks_s, PAUSE_MAX_S))
            self.scheduler.taken_apart(batch, self.now)
            for found in batch:
                self.scheduler.queue(found)
        else:
            self._failed(batch[0], away=answer != "refuse")

    def _accepted(self, batch: list[Open]) -> None:
        if self.scheduler.accepted():
            self.scheduler.reopen(self.now)
        for found in batch:
            del self.open[found.item.position]
            self.taken[found.item.position] = self.now
            for item in self.lanes.settle(found.item):
                self.scheduler.queue(self.open[item.position])

    def _failed(self, found: Open, *, away: bool) -> None:
        blamed = self.scheduler.blamed(found, self.now, away=away)
        if blamed or self.asks_s:
            self._noted([found], blamed=blamed, asked_s=self.asks_s)
        self.scheduler.queue(found)

    def _noted(self, batch: list[Open], *, blamed: bool, asked_s: float | None) -> None:
        for found in batch:
            row = found.exceptional = found.exceptional or Exceptional(found.item.position, 1, found.item.seq, WAITING)
            failed(row, SCHEDULE_S, self.now, 0.5, blamed=blamed, asked_s=asked_s)

    def first_try(self, position: int) -> float:
        return next((at for at, item in self.tries if item.position == position), float("inf"))


def subject(name: object) -> UUID:
    return uuid5(NAMES, str(name))


def stumbling(count: int, how: str, *, again: bool = False, **more: object) -> Simulation:
    """A receiver that fails on `count` subjects; events of all of them were sent already."""
    found = Simulation(poison={subject(n): how for n in range(count)}, **more)  # pyright: ignore[reportArgumentType]
    for n in range(count):
        found.arrive(CREATED, subject(n), again=again)
    found.run(20)
    return found


@pytest.mark.parametrize("how", ["hang", "late", "refuse"])
@pytest.mark.parametrize("batch_max", [1, 50])
@pytest.mark.parametrize("count", [8, 40, 200])
@pytest.mark.parametrize("again", [False, True])
def test_an_unrelated_leaver_is_delivered_at_once(how: str, batch_max: int, count: int, *, again: bool) -> None:
    """In every case: the failing events are live ones or those of a replay, sent alone or in batches."""
    s = stumbling(count, how, batch_max=batch_max, again=again)
    leaver = s.arrive(DEACTIVATED, subject("leaver"))
    s.run(MINUTE)
    assert s.first_try(leaver) - s.came[leaver] <= HUNG_MAX / IN_FLIGHT_MAX
    assert leaver in s.taken


def test_a_leaver_whose_earlier_events_wait_is_sent_together_with_them_before_others() -> None:
    s = stumbling(10, "hang")
    for n in range(500):
        s.arrive(CREATED, subject(f"newcomer {n}"))
        s.poison[subject(f"newcomer {n}")] = "hang"
    s.arrive(UPDATED, subject("leaver"))
    leaver = s.arrive(DEACTIVATED, subject("leaver"))
    s.run(5)
    assert leaver in s.taken


def test_after_an_outage_of_two_seconds_a_new_leaver_is_delivered_at_once() -> None:
    s = Simulation(away=[(1_000.0, 1_002.0)])
    for n in range(10):
        s.arrive(CREATED, subject(n))
    s.run(3)
    leaver = s.arrive(DEACTIVATED, subject("leaver"))
    s.run(0.1)
    assert s.first_try(leaver) == s.came[leaver]
    s.run(1)
    assert len(s.taken) == 11, "the first success makes all due"


def test_probes_rotate_over_the_lanes_and_ends_of_access_come_first() -> None:
    """No new event comes for an hour: the waiting events are tried in turn, and the first success makes all of them due."""
    s = Simulation(away=[(0.0, 4_000.0)])
    for n in range(300):
        s.arrive(CREATED, subject(n))
    leavers = [s.arrive(DEACTIVATED, subject(f"leaver {n}")) for n in range(100)]
    s.run(2_000)
    assert {s.open[p].probes for p in leavers} == {0, 1}, "no lane is probed twice before each was probed once"
    assert not any(o.probes for p, o in s.open.items() if p not in leavers)
    assert sum(o.probes for o in s.open.values()) > 20
    s.run(1_000 + PROBE_S + MINUTE)
    assert len(s.taken) == 400


@pytest.mark.long
def test_an_outage_uses_up_attempts_of_few_events_and_no_more_than_the_schedule_has() -> None:
    s = Simulation(away=[(0.0, 1_000.0 + 80 * 3_600)])
    for n in range(500):
        s.arrive(CREATED, subject(n))
    s.run(79 * 3_600)
    assert len([o for o in s.open.values() if state_of(o) == BLOCKED]) <= BLAMED_MAX + IN_FLIGHT_MAX
    s.run(2 * 3_600)
    assert len(s.taken) >= 500 - BLAMED_MAX - IN_FLIGHT_MAX


def test_an_event_that_always_fails_is_blocked_no_sooner_because_others_are_accepted() -> None:
    s = stumbling(20, "hang")
    for n in range(600):
        s.arrive(CREATED, subject(f"innocent {n}"))
        s.run(1)
    assert len(s.taken) == 600
    assert max(o.exceptional.attempts for o in s.open.values() if o.exceptional is not None) <= 5, "in ten minutes"


lanes = st.lists(
    st.tuples(
        st.sampled_from([CREATED, UPDATED, DEACTIVATED]),
        st.integers(0, 60),
        st.sampled_from([0.0, 0.0, 0.0, 0.05, 1.0, 20.0]),
    ),
    min_size=1,
    max_size=150,
)
faults = st.dictionaries(st.integers(0, 60), st.sampled_from(["hang", "late", "refuse"]), max_size=50)
outages = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=2)


@settings(max_examples=examples(150))
@given(drawn=lanes, faulty=faults, gone=outages, batch_max=st.sampled_from([1, 7]))
def test_no_unrelated_lane_waits_longer_than_a_minute_for_its_first_try(
    drawn: list[tuple[int, int, float]], faulty: dict[int, str], gone: list[tuple[float, float]], batch_max: int
) -> None:
    s = Simulation(batch_max, {subject(n): how for n, how in faulty.items()}, [(1_000 + a, 1_000 + a + b) for a, b in gone])
    for kind, name, pause in drawn:
        s.arrive(kind, subject(name))
        s.run(pause)
    s.run(5 * MINUTE)
    innocent = {p: o for p, o in s.open.items() if o.item.obj not in s.poison}
    assert not innocent, "a receiver that is back gets everything"
    ready = dict(s.came)
    for position, at in sorted(s.taken.items()):  # an event is ready when the one before it in its lane was accepted
        lane = [p for p in s.came if p > position and s.subjects[p] == s.subjects[position]]
        if lane:
            ready[lane[0]] = max(ready[lane[0]], at)
    late = {p: s.first_try(p) - ready[p] for p in s.taken if s.first_try(p) - ready[p] > MINUTE}
    assert not late
    assert s.most <= HUNG_MAX


@pytest.mark.parametrize("how", ["late", "refuse"])
@pytest.mark.parametrize("batch_max", [1, 50])
@pytest.mark.parametrize("count", [7, 8, 200])
@pytest.mark.parametrize("again", [False, True])
def test_a_retry_after_is_kept_in_doubt_and_after_it(how: str, batch_max: int, count: int, *, again: bool) -> None:
    """With a Retry-After of ten minutes, neither a probe nor the success of another event comes before its end, and the retry
    comes soon after it.
    """
    s = stumbling(count, how, batch_max=batch_max, again=again, asks_s=10 * MINUTE)
    s.run(2 * MINUTE)
    leaver = s.arrive(DEACTIVATED, subject("leaver"))
    s.run(48 * MINUTE)
    assert s.taken[leaver] - s.came[leaver] < MINUTE
    for position in range(1, count + 1):
        times = [at for at, item in s.tries if item.position == position]
        gaps = [after - before for before, after in pairwise(times)]
        if batch_max > 1 and gaps:
            assert gaps.pop(0) >= min(PAUSE_MAX_S, 10 * MINUTE), "the first went in a batch, of which one may be to blame"
        assert all(gap >= 10 * MINUTE for gap in gaps), position
        assert len(times) > 1
    s.poison.clear()
    s.run(62 * MINUTE)
    assert not s.open


def test_the_scheduler_does_not_search_all_the_time_during_a_retry_after() -> None:
    s = stumbling(CIRCUIT, "late", asks_s=60 * MINUTE)
    s.run(MINUTE)
    assert s.scheduler.doubt.silent(s.now)
    assert min(s.scheduler.times(s.now)) - s.now > 50 * MINUTE


def test_doubt_is_not_affected_by_a_clock_that_is_set() -> None:
    doubt = Doubt()
    for n in range(CIRCUIT):
        doubt.tried(1_000.0)
        assert doubt.failed(n, 1_000.0, away=True)
    assert doubt.open
    assert not doubt.may_try(1_000.0)
    assert not doubt.may_try(10.0), "an hour back"
    assert doubt.may_try_at(10.0) - 10.0 < 1.0
    assert doubt.probe_at(10.0) <= 10.0 + PROBE_S
    assert not doubt.strained(10.0)
    assert doubt.may_try(11.0)


def test_a_clock_that_is_set_back_delays_no_retry_and_no_replay() -> None:
    """The clock is set back by an hour: earlier, the first retry came after an hour, and a replay of ten a second went on after
    one.
    """
    s = Simulation(poison={subject("u"): "refuse"})
    failed = s.arrive(CREATED, subject("u"))
    s.run(1)
    slow = Replay(replace(RUN, rate_per_second=10), {}, set(), set(), 0, 0, allowance=1.0, at=s.now)
    s.scheduler = Scheduler(Terms(("*",), ("*",), "webhook", "subject", 1, SCHEDULE_S), s.open, {RUN.id: slow})
    again = s.arrive(CREATED, subject("other"), again=True)
    s.now -= 3_600
    s.scheduler.set_back(3_600)
    s.scheduler.queue(s.open[failed])
    s.poison.clear()
    s.run(SCHEDULE_S[1] + 1)
    assert set(s.taken) == {failed, again}


def test_a_rate_survives_a_clock_that_is_set_back() -> None:
    s = Simulation()
    replay = Replay(replace(RUN, rate_per_second=10), {}, set(), set(), 0, 0, allowance=1.0, at=s.now)
    s.scheduler = Scheduler(Terms(("*",), ("*",), "webhook", "subject", 1, SCHEDULE_S), s.open, {RUN.id: replay})
    s.now -= 3_600
    for n in range(2):
        s.arrive(CREATED, subject(n), again=True)
    s.run(1)
    s.run(1)
    assert len(s.taken) == 2
