"""The order that a receiver must see, written a second time and not taken from the code under test."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

LIFECYCLE = {"user.created", "user.deactivated", "user.reactivated", "user.deleted", "group.created", "group.deleted"}


def lanes_of(event: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lanes of an event: within each of them events must stay in order."""
    subject = event["subject"]["id"]
    if "member" not in event["data"]:
        return [("resource", subject)]
    member = event["data"]["member"]["id"]
    return [("edge", subject, member)]


class Lanes:
    """The order of the events that one receiver kept.

    A repetition keeps the place of the original, too: no newer event of its lane came in between. An exception is a batch that
    was kept without an answer, which is repeated as a whole.
    """

    def __init__(self, *, repeats_in_place: bool = True) -> None:
        self._repeats_in_place = repeats_in_place
        self._newest: dict[tuple[str, ...], int] = {}
        self.kept: Counter[str] = Counter()

    def keep(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            self.kept[event["id"]] += 1
            for lane in lanes_of(event):
                if self._repeats_in_place or self.kept[event["id"]] == 1:
                    newest = self._newest.get(lane, 0)
                    assert newest <= event["seq"], f"{event['id']} came after {newest} of its lane"
                    self._newest[lane] = event["seq"]


def needed_before(expected: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """For each membership event, all earlier lifecycle events of its user and group."""
    before: dict[str, list[str]] = {}
    so_far: defaultdict[str, list[str]] = defaultdict(list)
    for event in expected:
        if "member" in event["data"]:
            before[event["id"]] = [*so_far[event["subject"]["id"]], *so_far[event["data"]["member"]["id"]]]
        elif event["type"] in LIFECYCLE:
            so_far[event["subject"]["id"]].append(event["id"])
    return before
