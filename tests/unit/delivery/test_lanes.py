"""Which events must wait for which (docs/consumers.md, "Order"), compared with the rules written a second time, pair by pair,
without any index.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.lanes import Item, Lanes, Ordering, rebuilt
from ledger import events as e

USERS = [UUID(int=n) for n in (1, 2, 3)]
GROUPS = [UUID(int=n) for n in (11, 12)]
RUN = UUID(int=99)
LIFECYCLE = {"created", "deactivated", "reactivated", "deleted", "erased"}
ENDS = {"deleted", "erased"}
TOPICS = {kind.number: kind.topic.split(".")[1] for kind in e.EVENT_TYPES}
USER_KINDS = [k for k in e.EVENT_TYPES if k.topic.startswith("user.")]
GROUP_KINDS = [k for k in e.EVENT_TYPES if k.topic.startswith("group.") and not k.membership]
EDGE_KINDS = [k for k in e.EVENT_TYPES if k.membership]
ORDERINGS: tuple[Ordering, ...] = ("subject", "directory")

kinds_and_names = st.one_of(
    st.tuples(st.sampled_from(USER_KINDS), st.sampled_from(USERS), st.none()),
    st.tuples(st.sampled_from(GROUP_KINDS), st.sampled_from(GROUPS), st.none()),
    st.tuples(st.sampled_from(EDGE_KINDS), st.sampled_from(GROUPS), st.sampled_from([*USERS, GROUPS[1]])),
)
replays = st.sampled_from([None, None, RUN])
steps = st.lists(st.tuples(kinds_and_names, replays, st.sampled_from([1, 2])), max_size=30)
DIRECTORIES = [UUID(int=n) for n in (21, 22)]
DIRECTORY_KINDS = [e.DIRECTORY_PROFILE_CHANGED, e.DIRECTORY_CLOSED, e.DIRECTORY_DELETED]
of_directories = st.tuples(st.sampled_from(DIRECTORY_KINDS), st.sampled_from(DIRECTORIES), st.none())
steps_and_ends = st.lists(
    st.tuples(st.one_of(kinds_and_names, kinds_and_names, of_directories), replays, st.sampled_from([1, 2])), max_size=30
)
choices = st.lists(st.integers(0, 1_000), max_size=60)


def items_of(drawn: Iterable[Any]) -> list[Item]:
    return [
        Item(position, directory, position, kind.number, obj, mem, replay=replay)
        for position, ((kind, obj, mem), replay, directory) in enumerate(drawn, 1)
    ]


class Auditor:
    """The rules, pair by pair: every open item is compared with every earlier one."""

    def __init__(self, ordering: Ordering) -> None:
        self.ordering = ordering
        self.open: list[Item] = []

    def must_wait(self, later: Item, earlier: Item) -> bool:
        if self.ordering == "subject" and later.kind == e.DIRECTORY_CLOSED.number:
            return False  # it ends all access: no stuck item may hold it back
        if self.ordering == "subject" and later.kind == e.DIRECTORY_DELETED.number and earlier.directory == later.directory:
            return True  # it comes last
        if self.ordering == "subject" and earlier.kind == e.DIRECTORY_CLOSED.number:
            return False
        if earlier.obj == later.obj and (earlier.replay is None) != (later.replay is None):
            return True  # replayed and live events of a subject are never interleaved
        if self.ordering == "directory":
            return earlier.directory == later.directory
        if later.mem is not None:
            same_edge = (earlier.obj, earlier.mem) == (later.obj, later.mem)
            unfinished = earlier.mem is None and TOPICS[earlier.kind] in LIFECYCLE and earlier.obj in {later.obj, later.mem}
            return same_edge or unfinished
        if later.kind == e.DIRECTORY_DELETED.number:
            return False
        if earlier.mem is None:
            return earlier.obj == later.obj and earlier.kind != e.DIRECTORY_DELETED.number
        return TOPICS[later.kind] in ENDS and later.obj in {earlier.obj, earlier.mem}

    def waited_for(self, item: Item) -> list[Item]:
        return [earlier for earlier in self.open[: self.open.index(item)] if self.must_wait(item, earlier)]

    def ready(self) -> list[Item]:
        return [item for item in self.open if not self.waited_for(item)]


class Consumer:
    """The lanes and the auditor side by side; after every step all open items are compared."""

    def __init__(self, ordering: Ordering) -> None:
        self.lanes, self.auditor = Lanes(ordering), Auditor(ordering)
        self.sent: list[Item] = []

    def admit(self, item: Item) -> None:
        self.lanes.admit(item)
        self.auditor.open.append(item)
        self.compare()

    def settle(self, item: Item) -> None:
        before = self.auditor.ready()
        freed = self.lanes.settle(item)
        self.auditor.open.remove(item)
        self.sent.append(item)
        assert set(freed) == set(self.auditor.ready()) - set(before), "settle names exactly those that may go now"
        assert len(freed) == len(set(freed))
        self.compare()

    def rebuild(self, under_way: list[Item]) -> None:
        self.lanes = rebuilt(self.lanes._ordering, under_way, [i for i in self.auditor.open if i not in under_way])
        self.auditor.open.sort(key=lambda item: (item not in under_way, item.position))
        self.compare()

    def compare(self) -> None:
        ready = self.auditor.ready()
        assert [item.position for item in self.auditor.open if item.ready] == [item.position for item in ready]


def drained(consumer: Consumer, choices: list[int], poison: frozenset[Item] = frozenset()) -> None:
    """Settle items that may be sent, in the order that `choices` picks, until only poison items and those that wait for them are
    left.
    """
    at = 0
    while going := [item for item in consumer.auditor.open if item.ready and item not in poison]:
        consumer.settle(going[(choices[at % len(choices)] if choices else 0) % len(going)])
        at += 1


def ran(ordering: Ordering, drawn: Any, choices: list[int], poison: frozenset[int] = frozenset()) -> tuple[Consumer, list[Item]]:
    """Admit a history, settling items in between, then settle all that can be settled."""
    consumer, items = Consumer(ordering), items_of(drawn)
    stuck = frozenset(item for item in items if item.position in poison)
    for item, choice in zip(items, [*choices, *([0] * len(items))], strict=False):
        consumer.admit(item)
        going = [i for i in consumer.auditor.open if i.ready and i not in stuck]
        if choice % 3 == 0 and going:
            consumer.settle(going[choice % len(going)])
    drained(consumer, choices, stuck)
    return consumer, items


@pytest.mark.parametrize("ordering", ORDERINGS)
@given(drawn=steps_and_ends, choices=choices)
def test_an_item_is_ready_exactly_when_the_rules_say_so(ordering: Ordering, drawn: Any, choices: list[int]) -> None:
    """Both directions: no item is sent too early, and none waits without need. The comparison runs at every step."""
    consumer, items = ran(ordering, drawn, choices)
    assert sorted(consumer.sent, key=lambda i: i.position) == items, "each goes once, none is left"


@given(drawn=steps, choices=choices)
def test_the_items_of_each_resource_and_each_edge_keep_the_order_of_the_log(drawn: Any, choices: list[int]) -> None:
    consumer, _ = ran("subject", drawn, choices)
    streams: dict[tuple[UUID, UUID | None], list[int]] = {}
    for item in consumer.sent:
        streams.setdefault((item.obj, item.mem), []).append(item.position)
    for positions in streams.values():
        assert positions == sorted(positions)


@given(drawn=steps, choices=choices)
def test_a_membership_never_overtakes_an_open_lifecycle_event_of_its_user_or_group(drawn: Any, choices: list[int]) -> None:
    sent = [item.position for item in ran("subject", drawn, choices)[0].sent]
    items = items_of(drawn)
    for member in (item for item in items if item.mem is not None):
        for life in items[: member.position - 1]:
            if life.mem is None and TOPICS[life.kind] in LIFECYCLE and life.obj in {member.obj, member.mem}:
                assert sent.index(life.position) < sent.index(member.position)


@given(drawn=steps, choices=choices)
def test_the_end_of_a_resource_waits_for_its_open_edges(drawn: Any, choices: list[int]) -> None:
    """A receiver that has removed a user must not get a membership event of that user afterwards."""
    sent = [item.position for item in ran("subject", drawn, choices)[0].sent]
    items = items_of(drawn)
    for end in (item for item in items if item.mem is None and TOPICS[item.kind] in ENDS):
        for edge in items[: end.position - 1]:
            if edge.mem is not None and end.obj in {edge.obj, edge.mem}:
                assert sent.index(edge.position) < sent.index(end.position)


@pytest.mark.parametrize("ordering", ORDERINGS)
@given(drawn=steps_and_ends, choices=choices, poison=st.frozensets(st.integers(1, 30), min_size=1, max_size=3))
def test_a_poison_item_holds_back_exactly_what_depends_on_it(
    ordering: Ordering, drawn: Any, choices: list[int], poison: frozenset[int]
) -> None:
    """Waiting is transitive, and nothing else waits: the items that are left are the transitive closure, in whatever order the
    others were settled.
    """
    consumer, items = ran(ordering, drawn, choices, poison)
    left = {item.position for item in consumer.auditor.open}
    expected: set[int] = set()
    for item in items:
        earlier = [i for i in items[: item.position - 1] if i.position in expected]
        if item.position in poison or any(consumer.auditor.must_wait(item, i) for i in earlier):
            expected.add(item.position)
    assert left == expected


@given(drawn=steps, choices=choices)
def test_a_directory_in_order_has_one_delivery_at_a_time(drawn: Any, choices: list[int]) -> None:
    live = [(what, None, directory) for what, _, directory in drawn]
    consumer = Consumer("directory")
    for item in items_of(live):
        consumer.admit(item)
    while ready := [item for item in consumer.auditor.open if item.ready]:
        assert len(ready) == len({item.directory for item in consumer.auditor.open})
        consumer.settle(ready[(choices or [0])[0] % len(ready)])
    for directory in (1, 2):
        positions = [item.position for item in consumer.sent if item.directory == directory]
        assert positions == sorted(positions)


def _hurried(item: Item) -> set[Item]:
    """The replayed items that an item waits for, also those behind gates."""
    found, waiting = set[Item](), [b for b in item.behind if b.sent_again]
    while waiting:
        named = waiting.pop()
        waiting += [b for b in named.behind if b.sent_again]
        found |= set() if named.gate else {named}
    return found


@pytest.mark.parametrize("ordering", ORDERINGS)
@given(drawn=steps)
def test_replayed_and_live_items_of_a_subject_are_never_under_way_together(ordering: Ordering, drawn: Any) -> None:
    """Whichever of the two was begun first is finished first, so a receiver never sees them interleaved."""
    consumer = Consumer(ordering)
    for item in items_of(drawn):
        consumer.admit(item)
        sides = {(item.obj, item.replay is None) for item in consumer.auditor.open if item.ready}
        assert not any((obj, not live) in sides for obj, live in sides)
        behind = [i for i in consumer.auditor.open if i.replay is not None and i.obj == item.obj]
        if item.replay is None:
            assert _hurried(item) >= set(behind), "what it waits for is named, so that it can be hurried"


@pytest.mark.parametrize("ordering", ORDERINGS)
@given(drawn=steps, back=st.frozensets(st.integers(1, 30)), picks=st.frozensets(st.integers(0, 29)), choices=choices)
def test_rebuilt_lanes_have_the_items_under_way_first_and_then_the_order_of_the_log(
    ordering: Ordering, drawn: Any, back: frozenset[int], picks: frozenset[int], choices: list[int]
) -> None:
    """The items of `back` are admitted again while later ones are under way: they wait for those, and go before items that were
    not sent.
    """
    items = items_of(drawn)
    consumer = Consumer(ordering)
    for item in items:
        if item.position not in back:
            consumer.admit(item)
    ready = consumer.auditor.ready()
    under_way = [item for n, item in enumerate(ready) if n in picks]
    consumer.auditor.open += [item for item in items if item.position in back]
    consumer.rebuild(under_way)
    assert [i.position for i in consumer.auditor.open] == [
        *sorted(i.position for i in under_way), *sorted(i.position for i in items if i not in under_way),
    ]  # fmt: skip
    drained(consumer, choices)
    assert len(consumer.sent) == len(items)


def _item(position: int, kind: e.EventType, obj: UUID, mem: UUID | None = None, replay: UUID | None = None) -> Item:
    return Item(position, 1, position, kind.number, obj, mem, replay=replay)


def test_members_of_a_group_whose_event_fails_cost_memory_in_proportion_to_their_number() -> None:
    """A backlog of 100 000 behind one event is kept with one link each, not with one for each pair."""
    lanes = Lanes("subject")
    items = [_item(1, e.GROUP_CREATED, GROUPS[0])]
    items += [_item(n, e.MEMBER_ADDED, GROUPS[0], UUID(int=n)) for n in range(1_000, 4_000)]
    items.append(_item(4_000, e.GROUP_DELETED, GROUPS[0]))
    for item in items:
        lanes.admit(item)
    assert sum(len(item.dependants) for item in items) <= 3 * len(items)
    assert [item for item in items if item.ready] == items[:1]
    assert lanes.settle(items[0]) == items[1:-1]


def test_live_events_beside_a_replay_of_their_group_cost_memory_in_proportion_to_their_number() -> None:
    """A thousand users join while a hundred thousand memberships of the group are replayed: there must be no link for each pair."""
    lanes = Lanes("subject")
    items = [_item(n, e.MEMBER_ADDED, GROUPS[0], UUID(int=n), RUN if (n // 500) % 2 else None) for n in range(1_000, 5_000)]
    for item in items:
        lanes.admit(item)
    links = list[Item]()
    for item in items:
        links += item.dependants
    assert len(links) <= 2 * len(items)
    sent, ready = 0, [item for item in items if item.ready]
    while ready:
        sent += 1
        ready += lanes.settle(ready.pop())
    assert sent == len(items)


def test_lanes_keep_nothing_of_settled_items() -> None:
    """They live as long as their process, so what they keep would grow for ever."""
    lanes = Lanes("subject")
    items = [
        _item(1, e.GROUP_CREATED, GROUPS[0]), _item(2, e.MEMBER_ADDED, GROUPS[0], USERS[0]),
        _item(3, e.USER_UPDATED, USERS[0], replay=RUN), _item(4, e.GROUP_DELETED, GROUPS[0]),
    ]  # fmt: skip
    for item in items:
        lanes.admit(item)
    for item in items:
        lanes.settle(item)
    assert not any((lanes._tails, lanes._lifecycle, lanes._edges, lanes._fresh, lanes._gates, lanes._of_directory))


def test_the_closing_of_a_directory_overtakes_stuck_items_and_its_last_event_comes_last() -> None:
    lanes = Lanes("subject")
    here = DIRECTORIES[0]
    stuck = [_item(1, e.DIRECTORY_PROFILE_CHANGED, here), _item(2, e.USER_CREATED, USERS[0])]
    replayed = _item(3, e.DIRECTORY_PROFILE_CHANGED, here, replay=RUN)
    closed = _item(4, e.DIRECTORY_CLOSED, here)
    cleaned = [_item(5, e.MEMBER_REMOVED, GROUPS[0], USERS[1]), _item(6, e.USER_DELETED, USERS[1])]
    last, elsewhere = _item(7, e.DIRECTORY_DELETED, here), Item(8, 2, 8, e.USER_CREATED.number, USERS[2])
    for item in (*stuck, replayed, closed, *cleaned, last, elsewhere):
        lanes.admit(item)
    assert closed.ready
    assert cleaned[0].ready, "a receiver that refuses the closing must still get each removal"
    assert elsewhere.ready
    assert not last.ready
    for item in (closed, cleaned[0], cleaned[1], stuck[0], replayed):
        assert lanes.settle(item) == {cleaned[0]: [cleaned[1]], stuck[0]: [replayed]}.get(item, [])
    assert lanes.settle(stuck[1]) == [last]
