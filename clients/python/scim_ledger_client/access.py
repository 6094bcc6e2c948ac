"""Folds events into effective access: who is in which group now, of those who may use it. Pure.

docs/consumers.md, "From events to access", has the same table in prose.
"""

from collections.abc import Iterable
from typing import TypeAlias

from scim_ledger_client.events import Event
from scim_ledger_client.snapshot import SnapshotLine

Edge: TypeAlias = tuple[str, str, str]  # directory, group, member


def apply(access: set[Edge], event: Event) -> None:
    """Keep `access` in step with an event. Applying it twice changes nothing.

    A leaver, and a group that ends, come with one membership event for each edge; a closed directory ends all at once.
    """
    if event["type"] == "directory.closed":
        access -= {edge for edge in access if edge[0] == event["directory"]}
    elif event["type"] == "group.member_added" or event["type"] == "group.member_access_restored":
        if event["data"]["effective"]:
            access.add((event["directory"], event["data"]["group"]["id"], event["data"]["member"]["id"]))
    elif event["type"] == "group.member_removed" or event["type"] == "group.member_access_revoked":
        access.discard((event["directory"], event["data"]["group"]["id"], event["data"]["member"]["id"]))


def access_of(directory: str, lines: Iterable[SnapshotLine]) -> set[Edge]:
    """The access that a snapshot of a directory shows, to apply later events to."""
    memberships = (line for line in lines if line["object"] == "membership")
    return {(directory, line["group"]["id"], line["member"]["id"]) for line in memberships if line["effective"]}
