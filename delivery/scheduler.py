"""Which of a consumer's open events goes next: first tries, retries, batches, the rate of replays, a receiver in doubt. No IO.

No first try of a live event waits for what others failed at: it has places of its own among the requests under way, and its turn
comes before retries and replays, three times out of four. What ends somebody's access comes before everything else.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from delivery.backoff import delay_s
from delivery.doubt import Doubt
from delivery.lanes import ORDINARY, RANKS, Item
from delivery.pace import Moment
from delivery.reports import BLOCKED, RETRYING, WAITING, Exceptional
from delivery.runs import Run
from delivery.terms import Terms
from ledger.cursor import EventId
from ledger.ids import Position

RESERVED: Final = 4  # of the requests at once, those that are kept for first tries of live events
OTHERS_TURN: Final = 4  # every so many turns retries and replays come first, so that a flood of new events never starves them


@dataclass(eq=False, slots=True)
class Open:
    """An event that is not settled, with its place among the others."""

    item: Item
    exceptional: Exceptional | None = None
    under_way: bool = False
    alone: bool = False  # it failed in a batch by its own fault, or may have
    id: EventId | None = None  # of the event; known when it was read
    json: bytes = field(default=b"", repr=False)
    trace: bytes | None = None  # the trace context of its commit; known when it was read
    again: bool = False  # a replay sends what was delivered before
    urgent: bool = False  # the end of somebody's access waits for it; or it is of a replay and a live event waits for it
    aside: bool = False  # it failed because nobody was there, and waits until somebody is
    early: bool = False  # it is tried before its time, which uses up no attempt
    hasty: bool = False  # its next attempt was made sooner once, because the receiver was back
    probes: int = 0  # how often it was tried before its time

    @property
    def may_go(self) -> bool:
        if self.under_way or not self.item.ready:
            return False
        return self.exceptional is None or (self.exceptional.state == WAITING and not self.exceptional.asked_s)

    @property
    def not_before(self) -> float:
        """Until when the receiver asked to be left alone with it; 0 where it did not."""
        return self.exceptional.not_before if self.exceptional is not None else 0.0

    @property
    def due_at(self) -> float | None:
        """When it is tried again; None of what was not tried, or waits for no time."""
        if self.exceptional is None:
            return None
        if self.exceptional.state == RETRYING:
            return self.exceptional.next_at or 0.0
        return self.exceptional.not_before if self.exceptional.state == WAITING and self.exceptional.asked_s else None

    @property
    def rank(self) -> int:
        return 0 if self.urgent else RANKS.get(self.item.kind, ORDINARY)


@dataclass(slots=True)
class Replay:
    """A run that is under way here."""

    run: Run
    left: dict[Position, None]  # planned positions that are not done, in order
    stuck: set[Position]  # those of them that failed: they have rows
    ahead: set[Position]
    through: Position
    done: int
    allowance: float = 0.0  # events that may go now
    at: float = 0.0  # when that was so


@dataclass(eq=False, slots=True)
class Request:
    """A request under way: its events in the order of the log, and when it began. `counted`: bytes of their JSON that count as under way."""

    events: list[Open]
    began: float
    fresh: bool  # the first try of live events
    counted: int = 0

    @property
    def complete(self) -> bool:
        """Whether the JSON of all of them is in memory."""
        return all(found.json for found in self.events)

    @property
    def attempt(self) -> int:
        """How often one of them was tried, this time included."""
        return max(attempts_of(found) for found in self.events) + 1


class Scheduler:
    """The queues of events that may go. `opens` and `replays` belong to the backlog, which changes them."""

    def __init__(self, definition: Terms, opens: dict[Position, Open], replays: dict[UUID, Replay]) -> None:
        self._definition = definition
        self._open = opens
        self._replays = replays
        self._requests: dict[Request, None] = {}  # under way, the oldest first
        self._others = 0  # of the requests under way, those of retries and replays
        self._turn = 0
        self.doubt = Doubt()
        self.reset()

    def reset(self) -> None:
        """Forget the queues, before everything that is open is queued anew."""
        self._ready: list[tuple[int, Position]] = []  # rank and position
        self._due: list[tuple[float, Position]] = []  # by the time of the next attempt
        self._late: list[tuple[int, int, Position]] = []  # of these, whose time has come: attempts, rank, position
        self._aside: dict[Position, None] = {}
        self._replay_ready: list[tuple[int, Position]] = []
        self._urgent: list[tuple[int, Position]] = []  # of replays: a live event waits for them

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: what waits for a time waits no longer than it would have. Everything is queued anew then."""
        for found in self._open.values():
            if found.exceptional is not None:
                found.exceptional.set_back(seconds)
        for replay in self._replays.values():
            replay.at -= seconds

    @property
    def sending(self) -> bool:
        """Whether a request is under way."""
        return bool(self._requests)

    @property
    def idle(self) -> bool:
        """Whether no live event may go for the first time."""
        return not self._ready

    def queue(self, found: Open) -> None:
        """Put an open event into the queue where it is found when its turn comes; one that waits for others is left out until it is ready."""
        if not found.item.ready or found.under_way:
            return
        due_at = found.due_at
        if found.aside:
            self._aside[found.item.position] = None
        elif due_at is not None:
            heapq.heappush(self._due, (due_at, found.item.position))
        elif found.may_go:
            heapq.heappush(self._heap_of(found), self._key_of(found))

    def _heap_of(self, found: Open) -> list[tuple[int, Position]]:
        if not self._of_run(found):
            return self._ready
        return self._urgent if found.urgent else self._replay_ready

    def _key_of(self, found: Open) -> tuple[int, Position]:
        return 0 if self._of_run(found) else found.rank, found.item.position  # a run goes in the order of the log

    def _of_run(self, found: Open) -> bool:
        return found.again and found.item.replay in self._replays

    def hurry(self, found: Open) -> None:
        """Make urgent what a live event waits for: replayed events of its subject, ahead of the rate; for the end of all access every event before it."""
        if found.item.replay is not None:
            return
        whole = found.rank == 0
        waiting = [item for item in found.item.behind if whole or item.sent_again]
        while waiting:
            item = waiting.pop()
            if item.gate:
                waiting += item.behind
                item.behind = []  # visited once, however many items wait for the gate
                continue
            blocker = self._open.get(item.position)
            if blocker is not None and not blocker.urgent:
                blocker.urgent = True
                waiting += [before for before in blocker.item.behind if whole or before.sent_again]
                self.queue(blocker)

    # -- what became of it --------------------------------------------------

    def ended(self, request: Request) -> None:
        """The request is over. Its events may be under way again by now, in another one."""
        del self._requests[request]
        self._others -= not request.fresh

    def accepted(self) -> bool:
        """A success. Gives whether it ends a doubt; then everything else is tried again, once its report is stored: reopen()."""
        ends = self.doubt.open or bool(self._aside)
        self.doubt.accepted()
        return ends

    def reopen(self, now: float) -> None:
        """The receiver is back: what failed meanwhile is due. Each once: what fails again has a fault of its own, and its schedule.

        None before the receiver asked for it: that it takes others does not say that it takes this one.
        """
        for found in [self._open[position] for position in self._aside if position in self._open]:
            found.aside = False
            if found.exceptional is not None and found.not_before <= now:
                found.exceptional.asked_s = None
            self.queue(found)
        self._aside.clear()
        for found in self._open.values():
            exceptional = found.exceptional
            if exceptional is not None and exceptional.state == RETRYING and not found.under_way and not found.hasty:
                found.hasty, exceptional.next_at = True, max(min(exceptional.next_at or now, now), exceptional.not_before)
                self.queue(found)

    def blamed(self, found: Open, now: float, *, away: bool) -> bool:
        """A failure of an event that went alone. Gives whether it uses up an attempt; otherwise it keeps its place in the schedule."""
        blamed = self.doubt.failed(found.item.position, now, away=away) or state_of(found) == RETRYING
        blamed = blamed and not found.early
        found.aside = not blamed and state_of(found) != RETRYING
        found.early = False
        found.alone = True
        return blamed

    def taken_apart(self, batch: Sequence[Open], now: float) -> None:
        """A failure of several, of which one may be to blame: each goes alone from now on, and none has used up an attempt by it."""
        self.doubt.strain(now)
        for found in batch:
            found.alone = True

    # -- what goes next -----------------------------------------------------

    def next_request(self, now: float) -> Request | None:
        """What to send now, under way from now on; None where nothing may go.

        Whoever takes it says when its request ended().
        """
        self._come_due(now)
        room = self._room(now)
        if len(self._requests) >= room or not self.doubt.may_try(now):
            return None
        first, fresh = self._first(now, room), True
        if first is not None:
            fresh = not self._of_run(first) and first.due_at is None
        elif self.doubt.silent(now):
            first, fresh = self._probe(now), False
        if first is None:
            return None
        self.doubt.tried(now)
        first.under_way = True
        lonely = first.alone or self.doubt.open or state_of(first) == RETRYING
        request = Request([first] if lonely else self._extended(first), now, fresh)
        self._requests[request] = None
        self._others += not fresh
        return request

    def moment(self, now: float, *, unread: bool, crowded: bool) -> Moment:
        """What keeps the next event from going."""
        under_way = sum(len(request.events) for request in self._requests)
        full = len(self._requests) >= self._room(now)
        retries = bool(self._due or self._late)
        paced = bool(self._replay_ready) and any(replay.run.rate_per_second for replay in self._replays.values())
        return Moment(len(self._open), under_way, full, bool(self._ready), self.doubt.open, retries, paced, unread, crowded)

    def _first(self, now: float, room: int) -> Open | None:
        """Choose between first tries of live events and everything else; RESERVED places are kept for first tries."""
        self._turn += 1
        may_others = self._may_others(room)
        if may_others and self._turn % OTHERS_TURN == 0:
            return self._other(now) or self._pop(self._ready)
        return self._pop(self._ready) or (self._other(now) if may_others else None)

    def _may_others(self, room: int) -> bool:
        return self._others < room - RESERVED

    def _other(self, now: float) -> Open | None:
        return self._pop_late(now) or self._next_replayed(now)

    def _room(self, now: float) -> int:
        return self.doubt.room(self._began(), now) if self.doubt.strained(now) else self.doubt.room([], now)

    def _began(self) -> list[float]:
        return [request.began for request in self._requests]

    def _come_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            found = self._open.get(heapq.heappop(self._due)[1])
            if found is not None:
                heapq.heappush(self._late, (attempts_of(found), found.rank, found.item.position))

    def _pop_late(self, now: float) -> Open | None:
        """Give, of the retries whose time has come, the one with the fewest attempts: so the turn goes round over all lanes."""
        while self._late:
            found = self._open.get(heapq.heappop(self._late)[2])
            if found is None or found.under_way or not found.item.ready or found.aside:
                continue
            if found.due_at is not None and found.due_at <= now:
                return found
        return None

    def _probes(self) -> list[Open]:
        """Those that failed, and may be tried before their time."""
        some = [self._open[p] for p in (*self.doubt.failing, *self._aside) if p in self._open]
        return [o for o in some if not o.under_way and o.item.ready and (o.aside or o.due_at is not None)]

    def _probe(self, now: float) -> Open | None:
        """Give an event to try before its time: the one that was probed least, ends of access first; none that the receiver asked to delay."""
        fit = [o for o in self._probes() if o.not_before <= now]
        found = min(fit, key=lambda o: (o.probes, o.rank, o.item.position), default=None)
        if found is not None:
            found.probes += 1
            found.early = True
            found.aside = False
            self._aside.pop(found.item.position, None)
        return found

    def upcoming(self, count: int) -> list[Open]:
        """About `count` of those that go soon: the tops of the heaps, unsorted, because there may be hundreds of thousands."""
        tops = [key[-1] for heap in (self._ready, self._urgent, self._replay_ready) for key in heap[:count]]
        return [found for position in tops[:count] if (found := self._open.get(position)) is not None and found.may_go]

    def _pop(self, heap: list[tuple[int, Position]]) -> Open | None:
        while heap:
            found = self._open.get(heapq.heappop(heap)[-1])
            if found is not None and found.may_go and not found.aside:
                return found
        return None

    def _next_replayed(self, now: float) -> Open | None:
        urgent = self._pop(self._urgent)
        if urgent is not None:
            return urgent
        while self._replay_ready:
            found = self._open.get(self._replay_ready[0][-1])
            if found is None or not found.may_go or found.aside:
                heapq.heappop(self._replay_ready)
                continue
            replay = self._replays[found.item.replay] if found.item.replay is not None else None
            if replay is not None and not _spend(replay, now):
                return None
            heapq.heappop(self._replay_ready)
            return found
        return None

    def _allowed_at(self, replay: Replay) -> float | None:
        rate = replay.run.rate_per_second
        if rate is None or not self._replay_ready:
            return None
        return replay.at + max(1.0 - replay.allowance, 0.0) / rate

    def _extended(self, first: Open) -> list[Open]:
        """A batch that begins with it: others that may go, and those that only wait for events before them in the batch."""
        size = self._definition.batch_max
        batch, left = [first], dict[Item, int]()
        replay = self._replays.get(first.item.replay) if first.again and first.item.replay is not None else None
        if size == 1 or first.alone or (replay is not None and replay.run.rate_per_second is not None):
            return batch
        candidates: list[tuple[int, Open]] = []
        self._release(first, left, candidates)
        while len(batch) < size:
            found = heapq.heappop(candidates)[1] if candidates else self._companion(first)
            if found is None:
                break
            found.under_way = True  # at once: one that became urgent stands in its heap twice, and would go twice
            batch.append(found)
            self._release(found, left, candidates)
        return sorted(batch, key=lambda o: o.item.position)

    def _release(self, found: Open, left: dict[Item, int], candidates: list[tuple[int, Open]]) -> None:
        for dependant in found.item.dependants:
            left[dependant] = left.get(dependant, dependant.waits) - 1
            waiting = self._open.get(dependant.position)
            if left[dependant] == 0 and waiting is not None and _untried(waiting) and dependant.replay == found.item.replay:
                heapq.heappush(candidates, (dependant.position, waiting))

    def _companion(self, first: Open) -> Open | None:
        """Another one that may go now. With `ordering: directory` a batch is of one directory, so there is none."""
        if self._definition.ordering == "directory":
            return None
        heap = self._heap_of(first)
        found = self._pop(heap)
        if found is not None and (found.alone or found.item.replay != first.item.replay):
            heapq.heappush(heap, self._key_of(found))
            return None
        return found

    def times(self, now: float) -> list[float]:
        """When something may go by the clock alone."""
        self._come_due(now)
        room = self._room(now)
        replays = [at for replay in self._replays.values() if (at := self._allowed_at(replay)) is not None]
        others = self._may_others(room) and bool(self._late or self._urgent or (self._replay_ready and not replays))
        times = [at for at, _ in self._due[:1]] + (replays if self._may_others(room) else [])
        if len(self._requests) >= room:
            sooner = self.doubt.room_at(self._began(), now)
            return [] if sooner is None else [sooner]
        if self.doubt.open:
            paced = self.doubt.may_try_at(now)
            times = [max(at, paced) for at in times] + ([paced] if self._ready or others else [])
            if self.doubt.away and (probe := self._probe_at(now)) is not None:
                times.append(max(probe, paced))
        return times

    def _probe_at(self, now: float) -> float | None:
        """When an event is tried before its time. The event is looked for only after PROBE_S of silence: there may be many."""
        at = self.doubt.probe_at(now)
        return at if at > now else min((max(at, found.not_before) for found in self._probes()), default=None)


def state_of(found: Open) -> int:
    return found.exceptional.state if found.exceptional is not None else 0


def attempts_of(found: Open) -> int:
    return found.exceptional.attempts if found.exceptional is not None else 0


def failed(
    row: Exceptional, schedule: Sequence[int], now: float, random: float, *, blamed: bool, asked_s: float | None = None
) -> None:
    """Note a failed attempt on its row, and when the next one is; BLOCKED if there is none. Without blame the place in the schedule stays."""
    row.tried_at, row.asked_s = now, asked_s or None
    if blamed:
        row.attempts += 1
        delay = delay_s(schedule, row.attempts, random, asked_s)
        row.state, row.next_at = (BLOCKED, None) if delay is None else (RETRYING, now + delay)
    elif row.next_at is not None:
        row.next_at = max(row.next_at, row.not_before)


def _untried(found: Open) -> bool:
    fresh = found.exceptional is None or found.exceptional.state == WAITING
    return fresh and not found.under_way and not found.alone and not found.aside


def _spend(replay: Replay, now: float) -> bool:
    """Whether the rate of a replay allows one more event now. At most one second's worth is saved up."""
    rate = replay.run.rate_per_second
    if rate is None:
        return True
    replay.allowance = min(replay.allowance + max(now - replay.at, 0.0) * rate, float(max(rate, 1)))
    replay.at = now
    if replay.allowance < 1.0:
        return False
    replay.allowance -= 1.0
    return True
