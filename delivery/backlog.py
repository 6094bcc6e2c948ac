"""The backlog of one consumer: what is open, what goes next, what became of it, and what must be on record. No IO.

The dispatcher reads, sends and stores; what that means is decided here. Time and randomness are arguments. A decision goes into the next
report, and what waits for it is let go only when that report is stored: so a killed process repeats at most what was under way, or
accepted and not yet on record, and no event of a lane overtakes another.

    window        events from the log that are simply next: they hold back the watermark `low`
    exceptional   events with a row of their own: tried in vain, blocked, held, or waiting behind such a one; `low` passes them
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from delivery.lanes import Item, Lanes, rebuilt
from delivery.pace import OPEN_MAX, Moment
from delivery.reports import BLOCKED, HELD, RETRYING, REVOCATION_KINDS, WAITING, Exceptional, Place, Report
from delivery.runs import Planned, Run
from delivery.scheduler import Open, Replay, Request, Scheduler, failed, state_of
from delivery.terms import Terms
from delivery.transport import Retry, Rewind
from ledger.cursor import START, Anchor, EventId
from ledger.ids import DirectoryNumber, Position, Seq

WINDOW_MAX: Final = 1_000  # events read ahead of the low watermark
OPEN_IN_DOUBT_MAX: Final = 20_000  # exceptions while nobody seems to be there: far enough to find leavers
PAUSE_MAX_S: Final = 60.0  # how long a 429 holds up what it was not said of
PREFETCH: Final = 100  # events whose JSON is fetched together
REWINDS_MAX: Final = 3  # of a directory in an hour
REWIND_EVENTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Budgets:
    """Bytes of JSON: of one request, and of all open events of a consumer together. Beyond it is fetched when the event goes."""

    request: int
    consumer: int


@dataclass(slots=True)
class _Decided:
    """What takes effect once the report that says it is stored."""

    accepted: list[Open] = field(default_factory=list[Open])
    returned: list[Open] = field(default_factory=list[Open])  # to their queues
    blocked: list[Open] = field(default_factory=list[Open])
    reopens: bool = False  # the receiver is back
    # By directory, the seq that was delivered last.
    rewound: dict[DirectoryNumber, Seq] = field(default_factory=dict[DirectoryNumber, Seq])
    places: bool = False  # rows were made of events that nobody sends meanwhile


class Backlog:
    """The open events of one consumer, and all that is decided about them. `consumer` and `fence` are those of its lease."""

    def __init__(self, terms: Terms, budgets: Budgets, *, consumer: int, fence: int, epoch: int) -> None:
        self.not_before = 0.0  # until then the receiver asked for nothing at all
        self.read_to = START
        self._terms = terms
        self._budgets = budgets
        self._directories: Collection[DirectoryNumber] | None = None
        self._key = (consumer, fence, epoch)
        self._lanes = Lanes(terms.ordering)
        self._open: dict[Position, Open] = {}
        self._window: dict[Position, None] = {}
        self._replays: dict[UUID, Replay] = {}
        self._scheduler = Scheduler(terms, self._open, self._replays)
        self._through = Position(0)
        self._reported = -1
        self._held_bytes = 0  # JSON of open events
        self._sent_bytes = 0  # of that, what is under way
        self._fetching: Request | None = None  # at most one request waits for its JSON
        self._previous: dict[DirectoryNumber, Seq] = {}
        self._rewinds: defaultdict[DirectoryNumber, deque[float]] = defaultdict(deque)
        self._lacks: Callable[[Item], bool] = lambda _: False
        self._report = self._new_report()
        self._decided = _Decided()
        self._storing = _Decided()
        self._blocked: list[Open] = []

    # -- taking up ----------------------------------------------------------

    def restore(
        self,
        place: Place,
        read_to: Anchor,
        opens: Iterable[Open],
        runs: Sequence[tuple[Run, Sequence[Planned]]] = (),
        *,
        directories: Collection[DirectoryNumber] | None = None,
        dropped: Iterable[Position] = (),
        held: Container[tuple[DirectoryNumber, Seq]] = (),
        lacks: Callable[[Item], bool] = lambda _: False,
        now: float,
    ) -> None:
        """Begin where the last report says that the consumer stands; once, before anything else.

        `opens` are the events that the place leaves open and those with a row (which each has as `exceptional`); of `held`, by directory
        and seq, the surge policy still says that they are held. The rows at the positions `dropped` go. `runs` are under way, each with
        what its plan sends; `lacks` says whether the consumer never got an event that a run sends. `directories`: all that it can get
        events of, None where any.
        """
        self._directories = directories
        self._through = self._reported = place.through
        self.read_to, self._lacks = read_to, lacks
        self._report.settled += dropped
        for found in opens:
            row = found.exceptional
            if row is None:
                self._window[found.item.position] = None
            else:
                self._resume(found, row, held)
            self._remember(found)
        for run, planned in runs:
            self._join(run, planned, now)
        self._rebuild()

    def _resume(self, found: Open, row: Exceptional, held: Container[tuple[DirectoryNumber, Seq]]) -> None:
        if row.state == HELD and (row.directory, row.seq) not in held:
            row.state = WAITING  # an operator let it go
        found.alone = row.state in {RETRYING, BLOCKED} or row.tried_at is not None
        found.item.replay, found.again = row.replay, row.replay is not None

    def _join(self, run: Run, planned: Iterable[Planned], now: float) -> None:
        """Take up a run where it stands. What is still open here is not sent twice: it becomes part of the run, and due."""
        done = set(run.ahead)
        stuck = {o.item.position for o in self._open.values() if o.item.replay == run.id}
        replay = Replay(run, {}, stuck, done, run.through, run.done, allowance=1.0, at=now)
        self._replays[run.id] = replay
        for p in planned:
            if p.position in done or p.position in stuck:
                continue
            known = self._open.get(p.position)
            if known is not None:  # sent once, as part of the run. In memory only: if that is cancelled it stays open
                known.item.replay = run.id
            if p.position > run.through:
                replay.left[p.position] = None
            elif known is not None:  # it failed as part of the run, with the row of a live event
                stuck.add(p.position)
            if known is None and run.through < p.position <= self.read_to.position:  # the rest is taken up when it is read
                item = Item(p.position, p.directory, p.seq, p.kind, p.obj, p.mem, p.at, run.id)
                self._open[p.position] = Open(item, again=True)

    # -- reading on ---------------------------------------------------------

    @property
    def reads_on(self) -> bool:
        """Whether there may be more exceptions. While nobody seems to be there fewer are enough."""
        doubt = self._scheduler.doubt
        return self._exceptions < (OPEN_IN_DOUBT_MAX if doubt.open and doubt.away else OPEN_MAX)

    @property
    def full(self) -> bool:
        """Whether as much is read ahead as may be."""
        return len(self._window) >= WINDOW_MAX

    @property
    def keeps_json(self) -> bool:
        """Whether the JSON of one more event is kept in memory."""
        return self._held_bytes < self._budgets.consumer

    @property
    def json_held(self) -> int:
        """Bytes of JSON of its open events in memory."""
        return self._held_bytes

    @property
    def replays(self) -> bool:
        """Whether a run is under way."""
        return bool(self._replays)

    @property
    def holds(self) -> bool:
        """Whether the surge policy holds something of it."""
        return any(state_of(found) == HELD for found in self._open.values())

    @property
    def _exceptions(self) -> int:
        return len(self._open) - len(self._window) - sum(len(replay.left) for replay in self._replays.values())

    def admit(self, opens: Iterable[Open], read_to: Anchor, held: Container[tuple[DirectoryNumber, Seq]] = ()) -> None:
        """Take what was read, in the order of the log up to `read_to`; of `held`, by directory and seq, the surge policy holds back."""
        for found in opens:
            item = found.item
            if (item.directory, item.seq) in held:
                self._set_aside(found, HELD)
            else:
                self._window[item.position] = None
            self._remember(found)
            item.replay = next((run for run, replay in self._replays.items() if item.position in replay.left), None)
            self._lanes.admit(item)
            self._scheduler.hurry(found)
            self._scheduler.queue(found)
        self.read_to = max(self.read_to, read_to, key=lambda place: place.position)

    def _remember(self, found: Open) -> None:
        json, found.json = found.json, b""
        self._open[found.item.position] = found
        if found.exceptional is None and self.keeps_json:
            self._hold(found, json)

    def _hold(self, found: Open, json: bytes) -> None:
        """Keep the JSON of an open event in memory; with none, let go of it."""
        self._held_bytes += len(json) - len(found.json)
        found.json = json

    def make_room(self) -> None:
        """Let the watermark pass what waits behind something stuck, so that a poison event never stops it.

        In doubt also what has not been tried yet: a leaver may be behind it.
        """
        if not (self.full or self._resting) or self._all_stuck() or self._exceptions >= OPEN_MAX:
            return
        if not self._scheduler.doubt.open and (self._scheduler.sending or not self._scheduler.idle):
            return
        for found in [found for found in map(self._open.__getitem__, self._window) if not found.under_way]:
            del self._window[found.item.position]
            self._hold(found, b"")
            self._set_aside(found, WAITING)

    def _set_aside(self, found: Open, state: int) -> None:
        item = found.item
        found.exceptional = self._begun(item, state)
        self._through = max(self._through, item.position)
        self._decided.places = True

    def _begun(self, item: Item, state: int) -> Exceptional:
        row = Exceptional(item.position, item.directory, item.seq, state)
        self._report.begun.append(row)
        return row

    @property
    def _resting(self) -> bool:
        """Whether nothing of the window goes any more, because it waits for what an operator must decide about."""
        resting = self._window and not self._scheduler.sending and self._scheduler.idle  # asked first: the open ones may be many
        return bool(resting) and any(state_of(found) in {BLOCKED, HELD} for found in self._open.values())

    def _all_stuck(self) -> bool:
        """Whether reading on can bring nothing that may go: each directory of an ordered consumer has something stuck."""
        if self._terms.ordering == "subject" or self._directories is None:
            return False
        return {o.item.directory for o in self._open.values()}.issuperset(self._directories)

    # -- what goes next -----------------------------------------------------

    def next_request(self, now: float) -> Request | None:
        """What goes now, and is under way from then on; None where nothing may go."""
        if self.must_store or now < self._paused_to(now):
            return None
        if self._scheduler.sending and (self._fetching is not None or self._sent_bytes >= self._budgets.consumer):
            return None  # the end of a fetch, or of a request, asks again
        request = self._scheduler.next_request(now)
        if request is None:
            return None
        request.counted = sum(len(found.json) for found in request.events)
        self._sent_bytes += request.counted
        self._fetching = None if request.complete else request
        return request

    def missing(self, request: Request) -> list[Open]:
        """Events whose JSON is to be fetched: those of the request first, then what goes after them."""
        wanted = {found.item.position: found for found in request.events if not found.json}
        ahead = deque(request.events)
        while ahead and len(wanted) < PREFETCH:
            for dependant in ahead.popleft().item.dependants[: PREFETCH - len(wanted)]:
                waiting = self._open.get(dependant.position)
                if waiting is not None and not waiting.json and dependant.position not in wanted:
                    wanted[dependant.position] = waiting
                    ahead.append(waiting)
        for found in self._scheduler.upcoming(PREFETCH - len(wanted)):
            if not found.json:
                wanted.setdefault(found.item.position, found)
        return list(wanted.values())

    def fetched(self, request: Request, events: Iterable[tuple[Position, EventId, bytes | None, bytes]]) -> None:
        """Take (position, event id, trace context, JSON) of what was missing. The first of the request always has its JSON from now on."""
        own = {found.item.position for found in request.events}
        for position, event_id, trace, text in events:
            found = self._open.get(position)
            if found is not None and text and not found.json and (position in own or self.keeps_json):
                found.id, found.trace = event_id, trace
                self._hold(found, text)
        self._fetching = None
        size = sum(len(found.json) for found in request.events)
        self._sent_bytes, request.counted = self._sent_bytes + size - request.counted, size

    def forget(
        self, subjects: Container[UUID | None], stale: Callable[[UUID, bytes], bool], among: Iterable[Open] | None = None
    ) -> None:
        """Let go of what was rendered of erased users and groups before, and of what receivers answered about them.

        An answer to a batch stands with each of its events, and goes with all of them.
        """
        about = [
            found
            for found in (self._open.values() if among is None else among)
            if found.item.obj in subjects or found.item.mem in subjects
        ]
        for found in about:
            if found.item.mem is None and stale(found.item.obj, found.json):
                self._hold(found, b"")
        answers = {found.exceptional.answer for found in about if found.exceptional is not None} - {None}
        if answers:
            for found in self._open.values():
                if found.exceptional is not None and found.exceptional.answer in answers:
                    found.exceptional.answer = None

    def fit(self, request: Request) -> None:
        """Keep the beginning of a request that may leave together; what is behind it goes back to its queue. Its order allows that."""
        size = end = 0
        events = request.events
        while end < len(events) and events[end].json and (not end or size + len(events[end].json) <= self._budgets.request):
            size += len(events[end].json) if end else 0
            end += 1
        self._return(events[end:])
        del events[end:]

    def _return(self, events: Sequence[Open]) -> None:
        for found in events:
            found.under_way = False
            self._scheduler.queue(found)

    def previous_of(self, directory: DirectoryNumber) -> Seq | None:
        """The seq that was delivered last in a directory, 0 where none was; None where that is not known yet: note_previous."""
        return self._previous.get(directory)

    def note_previous(self, directory: DirectoryNumber, seq: Seq) -> None:
        """What the log says about previous_of."""
        self._previous.setdefault(directory, seq)

    # -- what became of it --------------------------------------------------

    def too_late(self, request: Request) -> None:
        """Nothing left: it goes another time, if it is still ours."""
        self._return(request.events)

    def gone(self, request: Request) -> None:
        """The receiver is no more; the events stay where they are."""
        for found in request.events:
            found.under_way = False

    def ended(self, request: Request) -> None:
        """A request is over, however that was, and its place is free."""
        self._sent_bytes -= request.counted
        self._scheduler.ended(request)
        if self._fetching is request:
            self._fetching = None  # it failed meanwhile

    def accepted(self, request: Request) -> None:
        """The receiver has all of it."""
        for found in request.events:
            self._settle(found)
        self._decided.accepted += request.events
        self._decided.reopens |= self._scheduler.accepted()

    def _settle(self, found: Open) -> None:
        item = found.item
        if found.exceptional is not None:
            self._report.settled.append(item.position)
        if found.again and self._lacks(item):
            self._report.replayed.append(item.position)
        if item.position in self._window:
            del self._window[item.position]
            self._through = max(self._through, item.position)
        if item.kind in REVOCATION_KINDS:
            self._report.revocations.append((item.directory, item.seq, item.at))
        for replay in self._replays.values():  # also one that an event of its range was open for
            if item.position in replay.left or item.position in replay.stuck:
                replay.left.pop(item.position, None)
                replay.stuck.discard(item.position)
                replay.done += 1
                replay.ahead.add(item.position)

    def refused(self, request: Request, retry: Retry, sealed: bytes | None, now: float, random: Callable[[], float]) -> bool:
        """The receiver did not take it. `sealed` is its answer, `random` gives numbers in [0, 1). Gives whether there is something to store."""
        if retry.asks_all and retry.after_s is not None:
            # It may speak of all that it gets, but whoever has nothing to do with the failure is tried after a minute.
            self.not_before = now + min(retry.after_s, PAUSE_MAX_S)
        if len(request.events) > 1:
            return self._take_apart(request.events, retry, sealed, now, random)
        return self._refuse(request.events[0], retry, sealed, now, random)

    def _take_apart(
        self, events: Sequence[Open], retry: Retry, sealed: bytes | None, now: float, random: Callable[[], float]
    ) -> bool:
        """One of them may be to blame, so each goes alone: at once, or after as much of what the receiver asked for as holds for all."""
        self._scheduler.taken_apart(events, now)
        if not retry.after_s:
            self._return(events)
            return False
        patience = replace(retry, after_s=min(retry.after_s, PAUSE_MAX_S))
        for found in events:
            self._note(found, patience, sealed, now, random(), blamed=False)
        self._decided.returned += events
        return True

    def _refuse(self, found: Open, retry: Retry, sealed: bytes | None, now: float, random: Callable[[], float]) -> bool:
        blamed = self._scheduler.blamed(found, now, away=retry.away)
        if not blamed and not retry.after_s:
            self._hold(found, b"")
            self._return([found])
            return False
        self._note(found, retry, sealed, now, random(), blamed=blamed)
        self._decided.returned.append(found)
        if blamed and state_of(found) == BLOCKED:
            self._decided.blocked.append(found)
        return True

    def _note(self, found: Open, retry: Retry, sealed: bytes | None, now: float, random: float, *, blamed: bool) -> None:
        """Note on its row what the receiver answered."""
        row = self._row_of(found, now, RETRYING if blamed else WAITING)
        row.error, row.answer = retry.error, sealed
        failed(row, self._terms.retry_schedule, now, random, blamed=blamed, asked_s=retry.after_s)

    def _row_of(self, found: Open, now: float, state: int = RETRYING) -> Exceptional:
        """Its row, made in this state at the first failure: from then on the watermark passes it."""
        row = found.exceptional
        if row is None:
            item = found.item
            row = found.exceptional = self._begun(item, state)
            row.replay = item.replay if found.again else None
            self._window.pop(item.position, None)
            self._through = max(self._through, 0 if found.again else item.position)
            replay = self._replays.get(item.replay) if item.replay is not None else None
            if replay is not None:
                replay.left.pop(item.position, None)
                replay.stuck.add(item.position)
        else:
            self._report.went_on.append(row)
        row.since = now if row.since is None else row.since
        return row

    def may_rewind(self, request: Request, asked: Rewind) -> bool:
        """Whether a receiver may say that it lacks what comes before: one in order of the directory, of a live event."""
        item = request.events[0].item
        return self._terms.ordering == "directory" and item.replay is None and asked.seq < item.seq

    def rewound(self, request: Request, asked: Rewind, lacking: Sequence[Item], sealed: bytes | None, now: float) -> None:
        """Send again what the receiver lacks, all events between what it has and the request; too many, or too often, block the request."""
        directory = request.events[0].item.directory
        times = self._rewinds[directory]
        while times and times[0] <= now - 3_600:
            times.popleft()
        if len(times) >= REWINDS_MAX or len(lacking) > REWIND_EVENTS_MAX:
            self._block(request.events, replace(asked.otherwise, error="rewind_refused"), sealed, now)
            return
        times.append(now)
        for item in (item for item in lacking if item.position not in self._open):
            self._open[item.position] = Open(item, self._begun(item, WAITING))
        self._decided.places = True
        self._decided.returned += request.events
        self._decided.rewound[directory] = asked.seq

    def _block(self, events: Sequence[Open], retry: Retry, sealed: bytes | None, now: float) -> None:
        for found in events:
            row = self._row_of(found, now)
            row.attempts += 1
            row.state, row.next_at = BLOCKED, None
            row.error, row.answer = retry.error, sealed
        self._decided.returned += events
        self._decided.blocked += events

    # -- on record ----------------------------------------------------------

    @property
    def must_store(self) -> bool:
        """Whether rows were made that must be on record before anything goes: an event would be settled before its row is there."""
        return self._decided.places or self._storing.places

    @property
    def moved_on(self) -> bool:
        """Whether the place moved past events that are none of this consumer's, which no delivery reports."""
        return self._place().through > self._reported

    def take_report(self) -> Report:
        """What happened since the last one, with the place as it is now. Whoever takes it stores it, and then says stored()."""
        report, self._report = self._report, self._new_report()
        self._storing, self._decided = self._decided, _Decided()
        report.place, report.read_to = self._place(), self.read_to
        report.replays = [_progress(replay) for replay in self._replays.values()]
        self._reported = report.place.through
        return report

    def stored(self, now: float) -> None:
        """The report that was taken last is on record: what waited for it takes effect."""
        decided, self._storing = self._storing, _Decided()
        if decided.reopens:
            self._scheduler.reopen(now)
        for found in decided.accepted:
            self._let_go(found)
        for found in decided.returned:
            self._hold(found, b"")  # the next attempt may be hours away
        self._return(decided.returned)
        self._blocked += decided.blocked
        if decided.rewound:
            self._previous.update(decided.rewound)
            self._rebuild()

    def _let_go(self, found: Open) -> None:
        self._hold(found, b"")
        item = found.item
        del self._open[item.position]
        if not found.again:
            self._previous[item.directory] = max(self._previous.get(item.directory, item.seq), item.seq)
        for freed in self._lanes.settle(item):
            self._scheduler.queue(self._open[freed.position])

    def take_blocked(self) -> list[Open]:
        """What waits for an operator since the last call: it is to be told of."""
        blocked, self._blocked = self._blocked, []
        return blocked

    def take_finished(self) -> list[Run]:
        """The runs that are through since the last call, and on record."""
        over = [replay for replay in self._replays.values() if not replay.left and not replay.stuck]
        if not over:
            return []
        open_still = {found.item.replay for found in self._open.values()}  # accepted, but not on record yet
        over = [replay for replay in over if replay.run.id not in open_still]
        for replay in over:
            del self._replays[replay.run.id]
        # What a rewind sent again counts once.
        return [replace(replay.run, done=min(replay.done, replay.run.total)) for replay in over]

    def at(self, positions: Iterable[Position]) -> list[Open]:
        """Those of these positions that are open."""
        return [found for position in positions if (found := self._open.get(position)) is not None]

    def _new_report(self) -> Report:
        consumer, fence, epoch = self._key
        return Report(consumer, fence, Place(epoch, Position(0), Position(0)))

    def _place(self) -> Place:
        """Everything up to `through` is settled but `open` and what has a row."""
        epoch = self._key[2]
        if not self._window:
            return Place(epoch, Position(self.read_to.position), Position(self.read_to.position))
        first = next(iter(self._window))
        through = max(self._through, first - 1)
        still: list[Position] = []
        for position in self._window:
            if position > through:
                break
            still.append(position)
        return Place(epoch, Position(first - 1), Position(through), tuple(still))

    # -- time ---------------------------------------------------------------

    def next_time(self, now: float) -> float | None:
        """When something may go by the clock alone; None where it waits for something else."""
        times = self._scheduler.times(now)
        return max(min(times), self._paused_to(now)) if times else None

    def _paused_to(self, now: float) -> float:
        """Until when nothing goes. A time that is further away was said before the clock was set back."""
        return self.not_before if self.not_before <= now + PAUSE_MAX_S else 0.0

    def moment(self, now: float, *, unread: bool) -> Moment:
        """What keeps the next event from going. `unread`: there is more in the log."""
        return self._scheduler.moment(now, unread=unread, crowded=self._exceptions >= OPEN_MAX)

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: nothing waits until it says again what it said."""
        self._scheduler.set_back(seconds)
        self._rebuild()

    def _rebuild(self) -> None:
        """Lanes and queues anew, from what is open."""
        every = self._open.values()
        under_way = [found.item for found in every if found.under_way]
        self._lanes = rebuilt(self._terms.ordering, under_way, (found.item for found in every if not found.under_way))
        self._scheduler.reset()
        for found in every:
            self._scheduler.hurry(found)
            self._scheduler.queue(found)


def _progress(replay: Replay) -> tuple[UUID, int, Position, tuple[Position, ...]]:
    low = next(iter(replay.left), None)
    replay.through = replay.run.range.through if low is None else Position(low - 1)
    replay.ahead = {position for position in replay.ahead if position > replay.through}
    return replay.run.id, min(replay.done, replay.run.total), replay.through, tuple(sorted(replay.ahead))
