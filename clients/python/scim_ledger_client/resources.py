"""Directories, and their current users and groups: what the ids in events stand for."""

from collections.abc import Iterator
from typing import Any, Final, Literal, TypedDict
from urllib.parse import quote

from scim_ledger_client.connection import Connection, given
from scim_ledger_client.snapshot import SnapshotGroup, SnapshotUser

PAGE: Final = 500


class Directory(TypedDict):
    """The connection of one IdP. `scim_base_url`: the address that is entered in the IdP."""

    object: Literal["directory"]
    slug: str
    id: str
    profile: str
    state: str
    scim_base_url: str
    created_at: str


class User(SnapshotUser):
    """A user as of now."""

    created_at: str


class Group(SnapshotGroup):
    """A group as of now."""

    created_at: str


def path_of(directory: str, kind: str, resource: str = "") -> str:
    """The path of the users or groups of a directory, or of one of them."""
    return f"/v1/directories/{quote(directory, safe='')}/{kind}" + (f"/{quote(resource, safe='')}" if resource else "")


def rows_of(connection: Connection, path: str, **wanted: str | None) -> Iterator[Any]:
    """The rows of a list, page after page."""
    after, more = None, True
    while more:
        page = connection.get(path, given(**wanted, after=after, limit=PAGE))
        yield from page["data"]
        after, more = page["list_metadata"]["after"], page["has_more"]
