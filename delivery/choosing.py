"""Which of a consumer's open events goes next: retries that are due, batches, the rate of replays, a receiver that is away. No IO."""

import heapq
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from delivery.consumers import Terms
from delivery.lanes import Item
from delivery.progress import RETRYING, WAITING, Exceptional
from delivery.replays import Run

CIRCUIT: Final = 8  # different events failing in a row: the receiver is away, and one is enough to find out when it is back
PROBED_MAX: Final = 64  # of these, how many take turns in finding out


@dataclass(eq=False, slots=True)
class Open:
    """An event that is not settled, with its place among the others."""

    item: Item
    exceptional: Exceptional | None = None
    under_way: bool = False
    alone: bool = False  # it failed in a batch by its own fault, or may have
    json: bytes = b""
    again: bool = False  # a replay sends what was delivered before
    urgent: bool = False  # of a replay: a live event waits for it

    @property
    def may_go(self) -> bool:
        if self.under_way or not self.item.ready:
            return False
        return self.exceptional is None or self.exceptional.state == WAITING


@dataclass(slots=True)
class Replay:
    """A run that is under way here."""

    run: Run
    left: dict[int, None]  # planned positions that are not done, in order
    stuck: set[int]  # those of them that failed: they have rows
    ahead: set[int]
    through: int
    done: int
    allowance: float = 0.0  # events that may go now
    at: float = 0.0  # when that was so


class Choosing:
    """The queues of what may go. `opens` and `replays` are the pusher's own, and change under it."""

    def __init__(self, definition: Terms, opens: dict[int, Open], replays: dict[UUID, Replay]) -> None:
        self._definition = definition
        self._open = opens
        self._replays = replays
        self.failing: dict[int, None] = {}  # positions that failed since the last success
        self.away = False  # whether the last failure said that nobody is there
        self.reset()

    def reset(self) -> None:
        """Forget the queues, before everything that is open is queued anew."""
        self._ready: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._replay_ready: list[int] = []
        self._urgent: list[int] = []  # of replays: a live event waits for them

    @property
    def idle(self) -> bool:
        """Whether no live event may go for the first time."""
        return not self._ready

    def queue(self, found: Open) -> None:
        """Put an open event where it is found when it may go; nothing happens while it may not."""
        if not found.item.ready or found.under_way:
            return
        exceptional = found.exceptional
        if exceptional is not None and exceptional.state == RETRYING:
            heapq.heappush(self._due, (exceptional.next_at or 0.0, found.item.position))
        elif found.may_go:
            heapq.heappush(self._heap_of(found), found.item.position)

    def _heap_of(self, found: Open) -> list[int]:
        if not self._of_run(found):
            return self._ready
        return self._urgent if found.urgent else self._replay_ready

    def _of_run(self, found: Open) -> bool:
        return found.again and found.item.replay in self._replays

    def hurry(self, found: Open) -> None:
        """A live event first drains the replay of its subject, ahead of the rate."""
        if found.item.replay is not None:
            return
        waiting = list(found.item.replays)
        while waiting:
            item = waiting.pop()
            if item.gate:
                waiting += item.replays
                item.replays = []  # once for all that wait behind it
                continue
            blocker = self._open.get(item.position)
            if blocker is not None and not blocker.urgent:
                blocker.urgent = True
                waiting += blocker.item.replays
                self.queue(blocker)

    @property
    def circuit_open(self) -> bool:
        """Whether the receiver seems to take nothing. Blocked events alone say nothing of it."""
        return len(self.failing) >= CIRCUIT and self._probe() is not None

    def _probe(self) -> Open | None:
        """While the receiver is away one event is tried at a time, in turn: the first may be the one that it cannot take."""
        failed = [self._open[p] for p in self.failing if p in self._open and state_of(self._open[p]) == RETRYING]
        return min(failed, key=lambda o: (attempts_of(o), o.item.position), default=None)

    def next_batch(self, now: float) -> list[Open]:
        """What to send now, in the order of the log; empty where nothing may go."""
        if self.circuit_open:
            # Where somebody is there but refuses, the next event may be one that is taken: many poison events hold back no others.
            fresh = None if self.away else self._pop(self._ready) or self._next_replayed(now)
            if fresh is not None:
                return [fresh]
            probe = self._probe()
            due = probe is not None and probe.exceptional is not None and (probe.exceptional.next_at or 0.0) <= now
            return [probe] if probe is not None and due and not probe.under_way else []
        while self._due and self._due[0][0] <= now:
            found = self._open.get(heapq.heappop(self._due)[1])
            if found is not None and not found.under_way and found.item.ready and state_of(found) == RETRYING:
                return [found] if found.alone else self._extended(found)
        first = self._pop(self._ready) or self._next_replayed(now)
        return self._extended(first) if first is not None else []

    def upcoming(self, count: int) -> list[Open]:
        """About `count` of those that go soon: the tops of the heaps, unsorted, because there may be hundreds of thousands."""
        tops = [position for heap in (self._ready, self._urgent, self._replay_ready) for position in heap[:count]]
        return [found for position in tops[:count] if (found := self._open.get(position)) is not None and found.may_go]

    def _pop(self, heap: list[int]) -> Open | None:
        while heap:
            found = self._open.get(heapq.heappop(heap))
            if found is not None and found.may_go:
                return found
        return None

    def _next_replayed(self, now: float) -> Open | None:
        urgent = self._pop(self._urgent)
        if urgent is not None:
            return urgent
        while self._replay_ready:
            found = self._open.get(self._replay_ready[0])
            if found is None or not found.may_go:
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
            batch.append(found)
            self._release(found, left, candidates)
        return sorted(batch, key=lambda o: o.item.position)

    def _release(self, found: Open, left: dict[Item, int], candidates: list[tuple[int, Open]]) -> None:
        for dependant in found.item.dependants:
            left[dependant] = left.get(dependant, dependant.waits) - 1
            waiting = self._open.get(dependant.position)
            if left[dependant] == 0 and waiting is not None and _plain(waiting) and dependant.replay == found.item.replay:
                heapq.heappush(candidates, (dependant.position, waiting))

    def _companion(self, first: Open) -> Open | None:
        """Another one that may go now. With `ordering: directory` a batch is of one directory, so there is none."""
        if self._definition.ordering == "directory":
            return None
        heap = self._heap_of(first)
        found = self._pop(heap)
        if found is first:
            found = self._pop(heap)
        if found is not None and (found.alone or found.item.replay != first.item.replay):
            heapq.heappush(heap, found.item.position)
            return None
        return found

    def times(self, *, busy: bool) -> list[float]:
        """When something may go by the clock alone."""
        replays = [at for replay in self._replays.values() if (at := self._allowed_at(replay)) is not None]
        if not self.circuit_open:
            return [self._due[0][0], *replays] if self._due else replays
        probe = self._probe()
        if busy or probe is None or probe.exceptional is None:
            return []  # one at a time: its end is what to wait for
        return [probe.exceptional.next_at or 0.0, *([] if self.away else replays)]


def state_of(found: Open) -> int:
    return found.exceptional.state if found.exceptional is not None else 0


def attempts_of(found: Open) -> int:
    return found.exceptional.attempts if found.exceptional is not None else 0


def _plain(found: Open) -> bool:
    return not found.under_way and not found.alone and (found.exceptional is None or found.exceptional.state == WAITING)


def _spend(replay: Replay, now: float) -> bool:
    """Whether the rate allows one more; a second's worth can be saved up."""
    rate = replay.run.rate_per_second
    if rate is None:
        return True
    replay.allowance = min(replay.allowance + (now - replay.at) * rate, float(max(rate, 1)))
    replay.at = now
    if replay.allowance < 1.0:
        return False
    replay.allowance -= 1.0
    return True
