"""What must stay in order for a consumer (docs/consumers.md, "Order"): items are admitted in the order of the log, and told when they may go.

`ordering: directory`: one delivery at a time per directory. `ordering: subject`:

- events of one resource (not its memberships) go one after the other;
- a membership event waits for earlier events of the same edge and for unfinished lifecycle events of its user and group;
- the end of a resource waits for its open edges;
- `directory.closed` waits for nothing: it ends all access, so nothing that is stuck may hold it back, and nothing waits for it but
  `directory.deleted`, the last event of a directory, which waits for all that is open of it;
- everything else goes in parallel, so a poison event holds back only what depends on it.

While deliveries of a subject are replayed, its live events wait for them and they for live ones under way: the two never interleave.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from uuid import UUID

from ledger.events import DIRECTORY_CLOSED, DIRECTORY_DELETED, Fact, numbers
from ledger.ids import DirectoryNumber, Position, Seq

Key = TypeVar("Key", bound=Hashable)
Ordering = Literal["directory", "subject"]
Side = tuple[UUID, bool]  # a subject's live items (False) or replayed ones (True)
LIFECYCLE: Final = numbers(Fact.LIFECYCLE)
ENDS: Final = numbers(Fact.ENDS_RESOURCE)
RANKS: Final = {  # events that end access go first: those that end all access before those that end some
    **dict.fromkeys(numbers(Fact.ENDS_ALL_ACCESS), 0),
    **dict.fromkeys(numbers(Fact.ENDS_SOME_ACCESS), 1),
}
ORDINARY: Final = 2


@dataclass(eq=False, slots=True)
class Item:
    """An event that a consumer has not settled yet. `kind` is the number of its type, `mem` the member of a membership event."""

    position: Position
    directory: DirectoryNumber
    seq: Seq
    kind: int
    obj: UUID
    mem: UUID | None = None
    at: int = 0  # µs since the epoch
    replay: UUID | None = None  # the run that sends it again
    waits: int = 0  # how many unfinished items it depends on
    dependants: "list[Item]" = field(default_factory=list["Item"])
    behind: "list[Item]" = field(default_factory=list["Item"])  # what it waits for
    gate: bool = (
        False  # a node that is no event: many items wait for it, and it waits for many; without it each would need a link to each
    )

    @property
    def ready(self) -> bool:
        return self.waits == 0

    @property
    def sent_again(self) -> bool:
        """Whether the item belongs to a replay, or is a gate."""
        return self.gate or self.replay is not None


class Lanes:
    """The open items of one consumer and who waits for whom."""

    def __init__(self, ordering: Ordering) -> None:
        self._ordering: Ordering = ordering
        self._tails: dict[Hashable, Item] = {}  # the newest open item of a directory, a resource or an edge
        self._lifecycle: dict[UUID, Item] = {}  # the newest open lifecycle event of a resource
        self._edges: defaultdict[UUID, dict[Item, None]] = defaultdict(dict)  # open membership events that name a resource
        self._fresh: defaultdict[Side, dict[Item, None]] = defaultdict(dict)  # open items that came since the other side's gate
        self._of_directory: defaultdict[int, dict[Item, None]] = defaultdict(dict)  # all that is open of a directory
        self._gates: dict[Side, Item] = {}  # the newest closed gate that a side waits behind

    def admit(self, item: Item) -> None:
        """Take an item after all that it must not overtake. Afterwards `item.ready` says whether it may go at once."""
        blockers: dict[Item, None] = {}
        if self._ordering == "directory":
            self._follow(item, item.directory, blockers)
        elif item.mem is not None:
            self._admit_edge(item, item.mem, blockers)
        elif item.kind == DIRECTORY_DELETED.number:
            blockers.update(self._of_directory[item.directory])
        elif item.kind != DIRECTORY_CLOSED.number:
            self._admit_resource(item, blockers)
        if self._ordering == "directory" or item.kind != DIRECTORY_CLOSED.number:
            self._queue_behind(item, blockers)
        self._of_directory[item.directory][item] = None
        _link(item, blockers)

    def settle(self, item: Item) -> list[Item]:
        """Let an item go that was ready (delivered, skipped or parked). Gives those that may go now."""
        for key in self._keys(item):
            if self._tails.get(key) is item:
                del self._tails[key]
        if self._lifecycle.get(item.obj) is item:
            del self._lifecycle[item.obj]
        if item.mem is not None:
            for resource in (item.obj, item.mem):
                _forget(self._edges, resource, item)
        _forget(self._fresh, (item.obj, item.replay is not None), item)
        _forget(self._of_directory, item.directory, item)
        return self._let_go(item)

    def _let_go(self, item: Item) -> list[Item]:
        item.behind = []  # otherwise an item that waits for this one would keep all settled items before it in memory
        ready: list[Item] = []
        for dependant in item.dependants:
            dependant.waits -= 1
            if dependant.waits == 0:
                ready += self._opened(dependant) if dependant.gate else [dependant]
        return ready

    def _opened(self, gate: Item) -> list[Item]:
        side = (gate.obj, gate.replay is not None)
        if self._gates[side] is gate:
            del self._gates[side]
        return self._let_go(gate)

    def _queue_behind(self, item: Item, blockers: dict[Item, None]) -> None:
        """Let replayed and live items of one subject wait for each other: each side waits for the open items of the other side, through a gate."""
        side, other = (item.obj, item.replay is not None), (item.obj, item.replay is None)
        gate, fresh = self._gates.get(side), self._fresh.pop(other, {})
        if fresh:
            before = {} if gate is None else {gate: None}
            gate = Item(Position(0), item.directory, Seq(0), item.kind, item.obj, replay=item.replay, gate=True)
            _link(gate, {**before, **fresh})
            self._gates[side] = gate
        if gate is not None:
            blockers[gate] = None
        self._fresh[side][item] = None

    def _keys(self, item: Item) -> tuple[Hashable, ...]:
        if self._ordering == "directory":
            return (item.directory,)
        return (item.obj,) if item.mem is None else ((item.obj, item.mem),)

    def _follow(self, item: Item, key: Hashable, blockers: dict[Item, None]) -> None:
        tail = self._tails.get(key)
        if tail is not None:
            blockers[tail] = None
        self._tails[key] = item

    def _admit_edge(self, item: Item, member: UUID, blockers: dict[Item, None]) -> None:
        self._follow(item, (item.obj, member), blockers)
        for resource in (item.obj, member):
            lifecycle = self._lifecycle.get(resource)
            if lifecycle is not None:
                blockers[lifecycle] = None
            self._edges[resource][item] = None

    def _admit_resource(self, item: Item, blockers: dict[Item, None]) -> None:
        self._follow(item, item.obj, blockers)
        if item.kind in ENDS:
            blockers.update(self._edges.get(item.obj, {}))
        if item.kind in LIFECYCLE:
            self._lifecycle[item.obj] = item


def rebuilt(ordering: Ordering, under_way: Iterable[Item], waiting: Iterable[Item]) -> Lanes:
    """Build lanes anew: items under way first, the others in the order of the log.

    So something that comes back (a parked delivery, a replay) goes before newer ones of its subject that have not left yet.
    """
    lanes = Lanes(ordering)
    for group in (under_way, waiting):
        for item in sorted(group, key=lambda item: item.position):
            item.dependants = []
            lanes.admit(item)
    return lanes


def _link(item: Item, blockers: dict[Item, None]) -> None:
    item.waits = len(blockers)
    item.behind = list(blockers)
    for blocker in blockers:
        blocker.dependants.append(item)


def _forget(index: dict[Key, dict[Item, None]], key: Key, item: Item) -> None:
    items = index.get(key, {})
    items.pop(item, None)
    if not items:
        index.pop(key, None)
