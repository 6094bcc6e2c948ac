"""Access through groups: exact where possible, and marked where not; dense graphs cost in proportion to their edges."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections import access as module
from projections.access import PATHS_MAX, Edge, access
from scim.errors import TooMany
from scim.work import Work

MUCH = 10**9
USER = UUID(int=10_000)


def group(n: int) -> UUID:
    return UUID(int=n)


def naive(edges: list[Edge]) -> dict[UUID, set[tuple[UUID, ...]]]:
    """Every path, found by trying all of them."""
    found: dict[UUID, set[tuple[UUID, ...]]] = {}
    ahead: list[tuple[UUID, ...]] = [(USER,)]
    while ahead:
        path = ahead.pop()
        for edge in edges:
            if edge.member == path[-1] and edge.group not in path:
                found.setdefault(edge.group, set()).add((*path[1:], edge.group))
                ahead.append((*path, edge.group))
    return found


_graphs = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(1, 50)), max_size=16, unique_by=lambda e: (e[0], e[1])
).map(lambda drawn: [Edge(USER if m == 6 else group(m), group(g), s) for m, g, s in drawn if m != g])


@given(_graphs)
def test_every_path_is_found_and_access_begins_with_the_youngest_edge_of_the_oldest_path(edges: list[Edge]):
    since = {(edge.member, edge.group): edge.since_seq for edge in edges}
    expected = naive(edges)
    found = {one.group: one for one in access(USER, edges, Work(MUCH))}
    assert {g: set(one.paths) for g, one in found.items()} == expected
    assert not any(one.capped for one in found.values())
    for g, paths in expected.items():
        assert found[g].since_seq == min(max(since[edge] for edge in pairwise((USER, *path))) for path in paths)
        assert found[g].direct is any(len(path) == 1 for path in paths)
    assert list(found) == sorted(found)


@given(_graphs)
def test_if_few_paths_are_allowed_the_shortest_are_shown_and_the_cap_is_reported(edges: list[Edge]):
    expected = naive(edges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATHS_MAX", 2)
        found = access(USER, edges, Work(MUCH))
    assert {one.group for one in found} == set(expected)
    for one in found:
        every = expected[one.group]
        assert set(one.paths) <= every
        assert min(map(len, one.paths)) == min(map(len, every))
        assert one.capped or set(one.paths) == every, "paths are missing, but the result does not say so"


def dense(n: int) -> list[Edge]:
    """Groups that all contain each other: far more paths than can be counted."""
    return [Edge(USER, group(0), 1), *(Edge(group(a), group(b), 2) for a in range(n) for b in range(n) if a != b)]


def test_groups_that_all_contain_each_other_cost_in_proportion_to_their_memberships():
    work = Work(MUCH)
    found = access(USER, dense(150), work)
    assert len(found) == 150
    assert all(one.capped for one in found)
    assert max(len(one.paths) for one in found) == PATHS_MAX
    small, large = Work(MUCH), Work(MUCH)
    access(USER, dense(40), small)
    access(USER, dense(80), large)
    assert MUCH - large.left < 6 * (MUCH - small.left), "four times the memberships"


def test_of_very_many_long_paths_the_shortest_of_each_group_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "STEPS_MAX", 20)
    found = access(USER, dense(30), Work(MUCH))
    assert len(found) == 30
    assert all(one.paths and one.capped for one in found if one.group != group(0))


def test_more_than_the_budget_is_too_many():
    with pytest.raises(TooMany):
        access(USER, dense(50), Work(1_000))
