"""Names in membership events on request, `expand=member,group` (docs/events.md, "Names in membership events").

They are the names as of the event: the same event reads the same whenever it is read, a leaver has a name, and so does a group that
was renamed since.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.directories import Directory
from ledger.events import GROUP, USER
from ledger.feed import Page, Selection
from ledger.ids import DirectoryNumber
from ledger.rendering import Event
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import not_one_of
from operations.resources import sees
from projections.names import Names, Then, names_then

EXPANDABLE: Final = ("member", "group")
FIRST_BYTES_MAX: Final = 256 * 2**20  # of the resources of one membership
_WITHHELD: Final = {"withheld": True}


@dataclass(frozen=True, slots=True)
class Expansion:
    """Which parts of membership events get names, and of which types of resources the reader may see the attributes."""

    parts: frozenset[str]
    types: frozenset[str]


def expansion_of(caller: Caller, asked: str | None) -> Expansion | None:
    """What a reader asks for, in words separated by commas; None if nothing. Raises InvalidFieldsError for another word."""
    if asked is None:
        return None
    parts = frozenset(asked.split(","))
    for part in parts - set(EXPANDABLE):
        raise not_one_of("expand", part, EXPANDABLE)
    return Expansion(parts, frozenset(ot for ot in (USER, GROUP) if sees(caller, ot)))


def _every(_event: Event) -> bool:
    return True


async def expanded_page(ledger: OpenLedger, expansion: Expansion | None, selection: Selection, page: Page) -> Page:
    """The page with names, cut where their budget is spent."""
    if expansion is None:
        return page
    events = await expanded(ledger, expansion, page.events)
    return ledger.feed.cut(replace(page, events=[*events, *page.events[len(events) :]]), selection, len(events))


async def expanded(
    ledger: OpenLedger, expansion: Expansion, events: Sequence[Event], taken: Callable[[Event], bool] = _every
) -> list[Event]:
    """The events; those of memberships that are `taken` as copies with names. Fewer, but at least one, if the names are large."""
    edges = {
        event.position: _Edge.of(event, expansion) for event in events if event.mem is not None and event.data and taken(event)
    }
    if not edges:
        return list(events)
    async with ledger.connection() as conn:
        directories = {directory.id: directory for directory in await ledger.directories.all(conn)}
    asked = [then for edge in edges.values() for then in edge.asked(directories)]
    names = await names_then(ledger.connection, ledger.kek, asked) if asked else []
    first = next(iter(edges.values()))
    if len(names) < len(first.shown):  # the first membership is there whatever its size
        names = await names_then(ledger.connection, ledger.kek, asked[: len(first.shown)], budget=FIRST_BYTES_MAX)
    found, left = list[Event](), deque(names)
    for event in events:
        edge = edges.get(event.position)
        if edge is not None and len(left) < len(edge.shown):
            break
        found.append(event if edge is None else edge.with_names(expansion, {part: left.popleft() for part in edge.shown}))
    return found


@dataclass(frozen=True, slots=True)
class _Edge:
    """A membership event, its data, and the parts whose names the reader asks for and may see."""

    event: Event
    data: dict[str, Any]
    shown: tuple[str, ...]

    @classmethod
    def of(cls, event: Event, expansion: Expansion) -> "_Edge":
        data: dict[str, Any] = orjson.loads(event.data)
        types = {"group": GROUP, "member": data["member"]["type"]}
        return cls(event, data, tuple(part for part in EXPANDABLE if part in expansion.parts and types[part] in expansion.types))

    def asked(self, directories: Mapping[DirectoryNumber, Directory]) -> list[Then]:
        return [Then(directories[self.event.directory], UUID(self.data[part]["id"]), self.event.seq) for part in self.shown]

    def with_names(self, expansion: Expansion, names: dict[str, Names]) -> Event:
        """A copy: others may read the same event without names."""
        more = {part: self.data[part] | names.get(part, _WITHHELD) for part in expansion.parts}
        return replace(self.event, data=orjson.dumps(self.data | more))
