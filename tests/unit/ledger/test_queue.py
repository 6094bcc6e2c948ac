"""The rules of the queue, compared with a plain statement of them: it is fair, bounded, and never gives out two conflicting
commands at once.
"""

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

NO_WAITER = cast("asyncio.Future[Outcome]", None)  # the queue never uses it

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
    """Whether one writes something that the other reads or writes."""
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
    """Check the commands taken from one directory against the rules, then remove them from `waiting`."""
    places = [waiting.index(item) for item in taken]
    assert places == sorted(places), "in the order they came"
    for place in places:
        earlier = waiting[:place]
        assert not any(conflict(item, waiting[place]) for item in earlier), "never beside or past one it conflicts with"
        if waiting[place].needs.whole:
            assert earlier == [], "a command that runs alone is taken only in its turn"
            assert len(taken) == 1, "a command that runs alone shares its batch with none"
        else:
            assert not any(item.needs.whole for item in earlier), "no command overtakes one that runs alone"
    for item in taken:
        waiting.remove(item)


@given(arrivals, st.sets(st.integers(1, 4)))
@example([(1, Needs()), (1, Needs(whole=True))], set())
def test_the_commands_that_are_taken_together_keep_the_rules(drawn: list[tuple[int, Needs]], busy: set[int]) -> None:
    """The commands of a batch are decided on one state, so two commands that touch the same thing must not share it."""
    line, waiting = filled(drawn)
    batch, alone = line.take(busy)
    assert all(item.needs.whole for item in alone)
    assert not any(item.needs.whole for item in batch)
    for directory, items in waiting.items():
        taken = [item for item in [*batch, *alone] if item.directory.id == directory]
        assert bool(taken) is (directory not in busy), "the head of an open line always goes"
        check_taken(items, taken)


@given(arrivals)
def test_each_command_is_taken_once(drawn: list[tuple[int, Needs]]) -> None:
    """No command is lost or taken twice, none waits for ever, and the count of bytes returns to zero."""
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
def test_commands_that_are_put_back_keep_their_order(drawn: list[tuple[int, Needs]]) -> None:
    """Another process held the directory: its commands are taken again, in the same order, before later ones."""
    line, _ = filled(drawn)
    batch, alone = line.take(set())
    line.put_back([*batch, *alone])
    assert len(line) == len(drawn)
    again = line.take(set())
    assert {id(item) for item in [*again[0], *again[1]]} == {id(item) for item in [*batch, *alone]}


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_a_storm_in_one_directory_leaves_the_others_their_share(sizes: list[int]) -> None:
    """An IdP that loads 100 000 users must not delay the single leaver of another company."""
    line = FairQueue()
    for directory, size in enumerate(sizes, start=1):
        for _ in range(size):
            assert line.put(submission(directory))
    batch, _ = line.take(set())
    share = BATCH_MAX if len(sizes) == 1 else min(SHARE_MAX, BATCH_MAX // len(sizes))
    for directory, size in enumerate(sizes, start=1):
        assert sum(item.directory.id == directory for item in batch) == min(size, share)


def test_a_storm_has_short_batches_while_others_write() -> None:
    """A command that arrives during a batch waits for its end, so a storm must not make batches long for a directory that writes
    now and then.
    """

    def stormed() -> int:
        while line.put(submission(1)):
            pass
        return sum(item.directory.id == 1 for item in line.take(set())[0])

    line = FairQueue()
    assert stormed() == BATCH_MAX, "a directory that writes alone gets full batches"
    assert line.put(submission(2))
    assert [stormed() for _ in range(RECENT_BATCHES)] == [SHARE_MAX] * RECENT_BATCHES, (
        "also in the batches between two of the other's"
    )
    assert stormed() == BATCH_MAX, "the other has gone"


def test_more_directories_than_a_batch_holds_take_turns() -> None:
    """No directory starves: the next batch begins with those that had no room in the last one."""
    line, directories = FairQueue(), range(1, 2 * BATCH_MAX + 1)
    for directory in directories:
        assert line.put(submission(directory))
        assert line.put(submission(directory))
    turns = [[item.directory.id for item in line.take(set())[0]] for _ in range(4)]
    assert turns == [[*directories[:BATCH_MAX]], [*directories[BATCH_MAX:]]] * 2


def test_a_full_queue_refuses_commands_of_its_directory_only() -> None:
    """A full queue leads to 429 with Retry-After, for that directory alone."""
    line = FairQueue()
    assert all(line.put(submission(1)) for _ in range(QUEUED_MAX))
    assert not line.put(submission(1))
    assert line.put(submission(2))
    assert len(line.take(set())[0]) == SHARE_MAX + 1
    assert line.put(submission(1))


def test_a_queue_is_bounded_in_bytes_but_accepts_one_request_of_any_size() -> None:
    """A few giant requests fill the memory as many small ones do, but the largest allowed request must be accepted."""
    line = FairQueue()
    assert line.put(submission(1, weight=QUEUED_BYTES_MAX + 1))
    assert not line.put(submission(1, weight=1))
    line.take(set())
    assert line.put(submission(1, weight=QUEUED_BYTES_MAX - 1))
    assert line.put(submission(1, weight=1))
    assert not line.put(submission(1, weight=1))


def test_a_batch_looks_only_a_limited_number_of_places_past_waiting_commands() -> None:
    """With a thousand commands on one user, each batch looks at a few of them, not at the whole queue."""
    line, same = FairQueue(), Needs(writes=frozenset({"a"}))
    assert queue.SCAN_MAX >= BATCH_MAX
    for _ in range(QUEUED_MAX):
        assert line.put(submission(1, same))
    assert len(line.take(set())[0]) == 1
    assert len(line) == QUEUED_MAX - 1
