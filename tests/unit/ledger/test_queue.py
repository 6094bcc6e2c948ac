"""The queue's rules, held against a plain statement of them: fair, bounded, never two conflicting commands at once."""

import asyncio
from typing import cast
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from ledger import queue
from ledger.commands import Needs, RecordFacts
from ledger.directories import Directory
from ledger.queue import BATCH_MAX, QUEUED_BYTES_MAX, QUEUED_MAX, RECENT_BATCHES, SHARE_MAX, FairQueue
from ledger.transaction import Outcome, Submission
from scim.profile import profile_of

NO_WAITER = cast("asyncio.Future[Outcome]", None)  # the queue never looks at it

keys = st.frozensets(st.sampled_from("abcd"), max_size=2)
needs = st.tuples(keys, keys, st.sampled_from([False, False, False, True])).map(
    lambda drawn: Needs(reads=drawn[0], writes=drawn[1], whole=drawn[2])
)
arrivals = st.lists(st.tuples(st.integers(1, 4), needs), max_size=40)


def submission(directory: int, needs: Needs | None = None, weight: int = 1_000) -> Submission:
    number = UUID(int=directory)
    where = Directory(directory, number, f"d{directory}", profile_of("generic"), b"")
    return Submission(where, RecordFacts(()), needs or Needs(), "sys", number, 0, NO_WAITER, weight=weight)


def conflict(one: Submission, other: Submission) -> bool:
    """One writes what the other reads or writes."""
    a, b = one.needs, other.needs
    return bool(a.writes & (b.reads | b.writes) or b.writes & a.reads)


def filled(drawn: list[tuple[int, Needs]]) -> tuple[FairQueue, dict[int, list[Submission]]]:
    line, waiting = FairQueue(), dict[int, list[Submission]]()
    for directory, needed in drawn:
        item = submission(directory, needed)
        assert line.put(item)
        waiting.setdefault(directory, []).append(item)
    return line, waiting


def check_taken(waiting: list[Submission], taken: list[Submission]) -> None:
    """Hold what one directory gave against the rules, then take it out of `waiting`."""
    places = [waiting.index(item) for item in taken]
    assert places == sorted(places), "in the order they came"
    for place in places:
        earlier = waiting[:place]
        assert not any(conflict(item, waiting[place]) for item in earlier), "never beside or past one it conflicts with"
        if waiting[place].needs.whole:
            assert earlier == [], "a whole one only when its turn has come"
            assert len(taken) == 1, "and alone"
        else:
            assert not any(item.needs.whole for item in earlier), "nothing overtakes a whole one"
    for item in taken:
        waiting.remove(item)


@given(arrivals, st.sets(st.integers(1, 4)))
@example([(1, Needs()), (1, Needs(whole=True))], set())
def test_what_is_taken_keeps_the_rules(drawn: list[tuple[int, Needs]], busy: set[int]) -> None:
    """Sharing a batch means being decided on one state: two commands that touch the same thing must not."""
    line, waiting = filled(drawn)
    batch, alone = line.take(busy)
    assert all(item.needs.whole for item in alone)
    assert not any(item.needs.whole for item in batch)
    for directory, items in waiting.items():
        taken = [item for item in [*batch, *alone] if item.directory.id == directory]
        assert bool(taken) is (directory not in busy), "the head of an open line always goes"
        check_taken(items, taken)


@given(arrivals)
def test_everything_is_taken_once(drawn: list[tuple[int, Needs]]) -> None:
    """Nothing is lost, nothing twice, nothing waits for ever, and the count ends at nought."""
    line, waiting = filled(drawn)
    count = len(drawn)
    assert len(line) == count
    while len(line):
        batch, alone = line.take(set())
        assert batch or alone
        for directory, items in waiting.items():
            check_taken(items, [item for item in [*batch, *alone] if item.directory.id == directory])
        count -= len(batch) + len(alone)
        assert len(line) == count
    assert not any(waiting.values())


@given(arrivals)
def test_putting_back_restores_the_line(drawn: list[tuple[int, Needs]]) -> None:
    """Another process held the directory: its commands come again, in the same order, before later ones."""
    line, _ = filled(drawn)
    batch, alone = line.take(set())
    line.put_back([*batch, *alone])
    assert len(line) == len(drawn)
    again = line.take(set())
    assert {id(item) for item in [*again[0], *again[1]]} == {id(item) for item in [*batch, *alone]}


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_a_storm_in_one_directory_leaves_the_others_their_share(sizes: list[int]) -> None:
    """An IdP that loads 100 000 users does not delay the one leaver of another company."""
    line = FairQueue()
    for directory, size in enumerate(sizes, start=1):
        for _ in range(size):
            assert line.put(submission(directory))
    batch, _ = line.take(set())
    share = BATCH_MAX if len(sizes) == 1 else min(SHARE_MAX, BATCH_MAX // len(sizes))
    for directory, size in enumerate(sizes, start=1):
        assert sum(item.directory.id == directory for item in batch) == min(size, share)


def test_a_storm_has_short_batches_while_others_write() -> None:
    """Whoever comes during a batch waits for its end: a storm may not make that long for a directory that writes now and then."""

    def stormed() -> int:
        while line.put(submission(1)):
            pass
        return sum(item.directory.id == 1 for item in line.take(set())[0])

    line = FairQueue()
    assert stormed() == BATCH_MAX, "alone it is as fast as it can be"
    assert line.put(submission(2))
    assert [stormed() for _ in range(RECENT_BATCHES)] == [SHARE_MAX] * RECENT_BATCHES, (
        "also in the batches between two of the other's"
    )
    assert stormed() == BATCH_MAX, "the other has gone"


def test_more_directories_than_a_batch_holds_take_turns() -> None:
    """Nobody starves: what one batch had no room for begins the next."""
    line, directories = FairQueue(), range(1, 2 * BATCH_MAX + 1)
    for directory in directories:
        assert line.put(submission(directory))
        assert line.put(submission(directory))
    turns = [[item.directory.id for item in line.take(set())[0]] for _ in range(4)]
    assert turns == [[*directories[:BATCH_MAX]], [*directories[BATCH_MAX:]]] * 2


def test_a_full_line_refuses_and_the_others_do_not() -> None:
    """Full becomes 429 with Retry-After, for that directory alone."""
    line = FairQueue()
    assert all(line.put(submission(1)) for _ in range(QUEUED_MAX))
    assert not line.put(submission(1))
    assert line.put(submission(2))
    assert len(line.take(set())[0]) == SHARE_MAX + 1
    assert line.put(submission(1))


def test_a_line_is_bounded_in_bytes_but_takes_one_request_of_any_size() -> None:
    """A few giant requests fill the memory as many small ones do; yet the largest allowed one must get through."""
    line = FairQueue()
    assert line.put(submission(1, weight=QUEUED_BYTES_MAX + 1))
    assert not line.put(submission(1, weight=1))
    line.take(set())
    assert line.put(submission(1, weight=QUEUED_BYTES_MAX - 1))
    assert line.put(submission(1, weight=1))
    assert not line.put(submission(1, weight=1))


def test_a_batch_looks_only_so_far_past_what_must_wait() -> None:
    """A thousand commands on one user cost one look each batch, not the whole line."""
    line, same = FairQueue(), Needs(writes=frozenset({"a"}))
    assert queue.SCAN_MAX >= BATCH_MAX
    for _ in range(QUEUED_MAX):
        assert line.put(submission(1, same))
    assert len(line.take(set())[0]) == 1
    assert len(line) == QUEUED_MAX - 1
