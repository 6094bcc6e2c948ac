"""Which groups a user reaches, and by which paths. Pure.

The number of paths can be exponential in the number of memberships. So which groups are reached, and since when, is computed exactly
in O(n log n) of the memberships, but only the shortest PATHS_MAX paths of each group are listed.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from ledger.ids import Seq
from scim.work import Work

PATHS_MAX: Final = 100  # paths of one group
STEPS_MAX: Final = 200_000  # length of all paths of an answer together, without the shortest of each group: 8 MiB of ids

START: Final = 0  # the number of the user
Numbers: TypeAlias = tuple[int, ...]


class Edge(NamedTuple):
    """`member` is directly in `group` since `since_seq`."""

    member: UUID
    group: UUID
    since_seq: Seq


@dataclass(frozen=True, slots=True)
class Access:
    """A group that the user reaches. Each path leads from a direct group up to this one. `capped`: there may be more paths."""

    group: UUID
    paths: tuple[tuple[UUID, ...], ...]
    since_seq: Seq
    capped: bool

    @property
    def direct(self) -> bool:
        return any(len(path) == 1 for path in self.paths)


def access(user: UUID, edges: Iterable[Edge], work: Work) -> list[Access]:
    """The groups that the user reaches, by id. Raises as Work.spend does."""
    numbers = {user: START}  # small numbers instead of ids, because comparing ids would take most of the time
    above: dict[int, list[tuple[int, Seq]]] = defaultdict(list)
    for member, group, since_seq in edges:
        work.spend(1)
        below = numbers.setdefault(member, len(numbers))
        above[below].append((numbers.setdefault(group, len(numbers)), since_seq))
    ids = list(numbers)
    since = _since(above, work)
    paths, full = _paths({member: [group for group, _ in held] for member, held in above.items()}, work)
    capped = _reached(full, above)
    found = (
        Access(ids[group], tuple(sorted(tuple(ids[n] for n in path) for path in held)), since[group], group in capped)
        for group, held in paths.items()
    )
    return sorted(found, key=lambda one: one.group.bytes)


def _since(above: Mapping[int, Sequence[tuple[int, Seq]]], work: Work) -> dict[int, Seq]:
    """The seq since which each group is reached: the maximum seq on each path, then the minimum over all paths."""
    since: dict[int, Seq] = {}
    ahead = [(Seq(0), START)]
    while ahead:
        seq, reached = heappop(ahead)
        if reached in since:
            continue
        since[reached] = seq
        work.spend(1 + len(above.get(reached, ())))
        for group, from_seq in above.get(reached, ()):
            if group not in since:
                heappush(ahead, (max(seq, from_seq), group))
    return since


def _paths(above: dict[int, list[int]], work: Work) -> tuple[dict[int, list[Numbers]], set[int]]:
    """The shortest paths of each group, and the groups of which a path was left out.

    Breadth first. Once a path to a group was left out, its edges are removed from `above`, so each edge is visited at most
    PATHS_MAX + 1 times. `above` is modified.
    """
    paths: dict[int, list[Numbers]] = {}
    full: set[int] = set()
    steps = STEPS_MAX
    ahead: deque[Numbers] = deque([(START,)])
    while ahead:
        path = ahead.popleft()
        groups = above.get(path[-1], [])
        work.spend(1 + len(groups))
        for group in groups:
            if group in path:
                continue
            found = paths.setdefault(group, [])
            if found and (len(found) >= PATHS_MAX or steps < len(path)):
                full.add(group)
                continue
            steps -= len(path) if found else 0
            work.spend(len(path))
            longer = (*path, group)
            found.append(longer[1:])
            ahead.append(longer)
        if not full.isdisjoint(groups):
            above[path[-1]] = [group for group in groups if group not in full]
    return paths, full


def _reached(begin: Iterable[int], above: Mapping[int, Sequence[tuple[int, Seq]]]) -> set[int]:
    """These groups and all above them: paths through a left-out path are missing there too."""
    reached = set(begin)
    ahead = list(reached)
    while ahead:
        for group, _ in above.get(ahead.pop(), ()):
            if group not in reached:
                reached.add(group)
                ahead.append(group)
    return reached
