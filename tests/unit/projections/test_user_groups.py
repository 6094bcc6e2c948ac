"""The groups of users: direct ones first, each in the order of the events, also with circles; and the same number of steps each
time.
"""

from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import DirectoryNumber, Seq
from projections.user_groups import GroupOf, Holding, gathered
from scim.errors import TooMany
from scim.work import Work

MUCH = 10**9
USERS, GROUPS = 3, 5
DIRECTORY = DirectoryNumber(1)
Edge = tuple[int, int]  # (member, group); a member below USERS is a user, others are groups


def group(n: int) -> UUID:
    return UUID(int=n)


_edges = st.lists(
    st.tuples(st.integers(0, USERS + GROUPS - 1), st.integers(USERS, USERS + GROUPS - 1)), max_size=14, unique=True
).flatmap(st.permutations)


def naive(user: int, edges: list[Edge]) -> list[GroupOf]:
    """Breadth-first search; the seq of an edge is its index in the list."""
    direct = [g for m, g in edges if m == user]
    ahead = list(direct)
    for n in ahead:
        ahead += [g for m, g in edges if m == n and g not in ahead]
    return [GroupOf(group(n), f"name {n}", place < len(direct)) for place, n in enumerate(ahead)]


def holding(n: int, edges: list[Edge]) -> Holding:
    users = [(m + 1, Seq(seq)) for seq, (m, g) in enumerate(edges) if g == n and m < USERS]
    groups = [(group(m), Seq(seq)) for seq, (m, g) in enumerate(edges) if g == n and m >= USERS]
    return Holding(
        DIRECTORY,
        group(n),
        Seq(n),
        b"",
        b"",
        [m for m, _ in users],
        [s for _, s in users],
        [m for m, _ in groups],
        [s for _, s in groups],
    )


def reached(edges: list[Edge]) -> list[int]:
    return sorted({found.id.int for user in range(USERS) for found in naive(user, edges)})


@given(_edges, st.randoms())
def test_each_user_gets_the_groups_above_it(edges: list[Edge], dice: Random) -> None:
    found = [holding(n, [edge for edge in edges if edge[0] < USERS or edge[0] in reached(edges)]) for n in reached(edges)]
    dice.shuffle(found)
    lists = gathered(found, [f"name {held.group.int}" for held in found], USERS, Work(MUCH))
    assert lists == [naive(user, edges) for user in range(USERS)]


@given(_edges)
def test_users_in_the_same_groups_share_a_list_and_lists_share_groups(edges: list[Edge]) -> None:
    found = [holding(n, edges) for n in reached(edges)]
    lists = gathered(found, [f"name {held.group.int}" for held in found], USERS)
    direct = [tuple(g.id for g in each if g.direct) for each in lists]
    for a in range(USERS):
        for b in range(USERS):
            assert direct[a] != direct[b] or lists[a] is lists[b]
    for shown in (True, False):
        each = {id(g): g.id for groups in lists for g in groups if g.direct is shown}
        assert len(each) == len(set(each.values()))


def test_a_member_group_that_was_deleted_is_ignored() -> None:
    """It was deleted between two queries: its own memberships are still in the result of the first one."""
    held = Holding(DIRECTORY, group(5), Seq(1), b"", b"", [1], [Seq(3)], [group(4)], [Seq(2)])
    assert gathered([held], ["five"], 1) == [[GroupOf(group(5), "five", True)]]


def test_dense_graphs_spend_steps_in_proportion_to_their_edges() -> None:
    edges: list[Edge] = [(0, USERS), *((USERS + a, USERS + b) for a in range(GROUPS) for b in range(GROUPS) if a != b)]
    found = [holding(n, edges) for n in range(USERS, USERS + GROUPS)]
    names = [""] * GROUPS
    spent = Work(MUCH)
    gathered(found, names, 1, spent)
    cost = MUCH - spent.left
    assert cost > len(edges)
    gathered(found, names, 1, Work(cost))
    with pytest.raises(TooMany):
        gathered(found, names, 1, Work(cost - 1))
