"""The groups of users: direct ones first, each in the order of the events, also with circles; and the same number of steps each
time.
"""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.user_groups import Above, GroupOf, Name, as_it_is, gathered
from scim.errors import TooMany
from scim.work import Work

MUCH = 10**9
USERS, GROUPS = 3, 5
Edge = tuple[int, int]  # (member, group); a member below USERS is a user, others are groups


def packed(n: int) -> bytes:
    return n.to_bytes(16, "big")


def group(n: int, *, direct: bool = True) -> GroupOf:
    return GroupOf(str(UUID(int=n)), f"name {n}", direct)


_edges = st.lists(
    st.tuples(st.integers(0, USERS + GROUPS - 1), st.integers(USERS, USERS + GROUPS - 1)), max_size=14, unique=True
).flatmap(st.permutations)


def naive(user: int, edges: list[Edge]) -> list[GroupOf]:
    """Breadth-first search; the seq of an edge is its index in the list."""
    direct = [g for m, g in edges if m == user]
    ahead = list(direct)
    for n in ahead:
        ahead += [g for m, g in edges if m == n and g not in ahead]
    return [group(n, direct=place < len(direct)) for place, n in enumerate(ahead)]


def above(edges: list[Edge], users: int = USERS) -> Above:
    """What the database says of these edges."""
    over = {m: [packed(g) for member, g in edges if member == m] for m in range(USERS + GROUPS)}
    parents = {packed(m): groups for m, groups in over.items() if m >= USERS and groups}
    return Above([b"".join(over[user]) for user in range(users)], [packed(n) for n in range(USERS, USERS + GROUPS)], parents)


NAMED = {packed(n): Name(group(n), 0) for n in range(USERS, USERS + GROUPS)}


@given(_edges)
def test_each_user_gets_the_groups_above_it(edges: list[Edge]) -> None:
    assert gathered(above(edges), NAMED, as_it_is, Work(MUCH)) == [naive(user, edges) for user in range(USERS)]


@given(_edges)
def test_users_in_the_same_groups_share_a_list_and_lists_share_groups(edges: list[Edge]) -> None:
    lists = gathered(above(edges), NAMED, as_it_is)
    direct = [tuple(g.id for g in each if g.direct) for each in lists]
    for a in range(USERS):
        for b in range(USERS):
            assert direct[a] != direct[b] or lists[a] is lists[b]
    for shown in (True, False):
        each = {id(g): g.id for groups in lists for g in groups if g.direct is shown}
        assert len(each) == len(set(each.values()))


@given(_edges, st.sets(st.integers(USERS, USERS + GROUPS - 1)))
def test_a_group_without_a_name_is_ignored(edges: list[Edge], nameless: set[int]) -> None:
    """Its key was erased, or it was deleted between two queries."""
    named = {packed(n): Name(group(n), 0) for n in range(USERS, USERS + GROUPS) if n not in nameless}
    left = [(m, g) for m, g in edges if m not in nameless and g not in nameless]
    assert gathered(above(edges), named, as_it_is) == [naive(user, left) for user in range(USERS)]


def test_dense_graphs_spend_steps_in_proportion_to_their_edges() -> None:
    edges: list[Edge] = [(0, USERS), *((USERS + a, USERS + b) for a in range(GROUPS) for b in range(GROUPS) if a != b)]
    found = above(edges, users=1)
    assert found.edges == len(edges)
    spent = Work(MUCH)
    gathered(found, NAMED, as_it_is, spent)
    cost = MUCH - spent.left
    assert cost > len(edges)
    gathered(found, NAMED, as_it_is, Work(cost))
    with pytest.raises(TooMany):
        gathered(found, NAMED, as_it_is, Work(cost - 1))
