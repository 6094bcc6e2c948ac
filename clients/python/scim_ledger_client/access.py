"""Folds events into effective access: who is in which group now, of those who may use it. Pure.

docs/consumers.md, "From events to access", has the same table in prose.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from scim_ledger_client.events import Event
from scim_ledger_client.snapshot import SnapshotLine

Edge: TypeAlias = tuple[str, str, str]  # directory, group, member


class AccessChange(NamedTuple):
    """What an event does to access. Without a group and a member it ends all access of the directory."""

    begins: bool
    directory: str
    group: str | None
    member: str | None


def access_change(event: Event) -> AccessChange | None:
    """What an event does to access; None for the events that do nothing to it.

    A leaver, and a group that ends, come with one membership event for each edge; a closed directory ends all at once.
    """
    directory = event["directory"]
    if event["type"] == "directory.closed":
        return AccessChange(False, directory, None, None)
    if event["type"] == "group.member_added" or event["type"] == "group.member_access_restored":
        begins = AccessChange(True, directory, event["data"]["group"]["id"], event["data"]["member"]["id"])
        return begins if event["data"]["effective"] else None
    if event["type"] == "group.member_removed" or event["type"] == "group.member_access_revoked":
        return AccessChange(False, directory, event["data"]["group"]["id"], event["data"]["member"]["id"])
    return None


def apply(access: set[Edge], event: Event) -> None:
    """Keep `access` in step with an event. Applying it twice changes nothing."""
    change = access_change(event)
    if change is None:
        return
    begins, directory, group, member = change
    if group is None or member is None:
        access -= {edge for edge in access if edge[0] == directory}
    elif begins:
        access.add((directory, group, member))
    else:
        access.discard((directory, group, member))


def access_of(directory: str, lines: Iterable[SnapshotLine]) -> set[Edge]:
    """The access that a snapshot of a directory shows, to apply later events to."""
    memberships = (line for line in lines if line["object"] == "membership")
    return {(directory, line["group"]["id"], line["member"]["id"]) for line in memberships if line["effective"]}
