"""Directories as the write side knows them, and the key-encryption key of the ledger."""

import json
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.events import ACTIVE, CLOSED, DELETED
from ledger.sealing import Kek, unwrap_key
from scim.extension import read_extension
from scim.leniency import Leniency
from scim.profile import Profile, ProfileError, UnknownProfileError, own_profile, profile_of
from scim.schema import GROUP, USER, ResourceType, with_extension

SQL = load_queries(__file__)
SYSTEM = "_system"  # the ledger's own directory: tokens, consumers, replays
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PROFILE = "generic@1"


@dataclass(frozen=True, slots=True)
class Directory:
    """One IdP connection. `slug` is its public name, never reused; `profile` says what its IdP sends and is forgiven."""

    id: int
    uuid: UUID
    slug: str
    profile: Profile = field(repr=False)
    index_key: bytes = field(repr=False)
    created_at: int = 0  # µs since the epoch
    schemas: str = field(default="[]", repr=False)  # registered extensions, as stored: [resource type, Schema document]
    user_type: ResourceType = field(default=USER, repr=False)
    group_type: ResourceType = field(default=GROUP, repr=False)
    state: str = ACTIVE  # as this process last saw it: what may write is decided in the transaction, by what stands there
    since: int = 0  # when it became so, µs since the epoch; 0 where it always was

    def typed(self, kind: ResourceType) -> ResourceType:
        """The resource type with the extensions of this directory."""
        return self.user_type if kind.name == USER.name else self.group_type

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and perhaps cleaned up since. That is for ever."""
        return self.state in {CLOSED, DELETED}

    def leniency(self) -> Leniency:
        """What its profile forgives one request."""
        return Leniency(self.profile.tolerances)


def _directory(kek: Kek, row: tuple[Any, ...]) -> Directory:
    number, uuid, slug, profile, index_key, created_at, schemas, own, state, since = row
    opened = unwrap_key(kek, index_key, directory=uuid, obj=uuid)
    created = int(created_at.timestamp() * 1_000_000)
    return Directory(number, uuid, slug, _profile(slug, profile, own), opened, created, schemas, *types_of(schemas), state, since)


@lru_cache(maxsize=1024)
def types_of(schemas: str) -> tuple[ResourceType, ResourceType]:
    """User and Group with registered extensions; the same objects for the same text, because caches go by them."""
    types = {USER.name: USER, GROUP.name: GROUP}
    for name, document in json.loads(schemas):
        types[name] = with_extension(types[name], read_extension(document))
    return types[USER.name], types[GROUP.name]


def _profile(slug: str, profile: str, own: str | None) -> Profile:
    """The profile of a directory: the document of an operator's own, or else one of the release."""
    try:
        return profile_of(profile) if own is None else own_profile(own)
    except (UnknownProfileError, ProfileError) as unknown:
        raise UnknownProfileError(
            f"Directory {slug} has the profile {profile}, which this release does not know. Start the release that set it."
        ) from unknown


class Directories:
    """The directories by slug and by number, read once each: immutable but for what `refresh` follows: profile, schemas, state."""

    def __init__(self, kek: Kek) -> None:
        self._kek = kek
        self._by_slug: dict[str, Directory] = {}
        self._by_id: dict[int, Directory] = {}
        self.changes = 0  # how often a look found that something may have changed: whoever looked, all can see it
        self._mark: str | None = None  # of all that may change, when it was last read

    async def by_slug(self, conn: Connection, slug: str) -> Directory | None:
        """Give a directory, or None where the ledger has none of that name."""
        found = self._by_slug.get(slug)
        if found is None and (SLUG.fullmatch(slug) or slug == SYSTEM):  # PostgreSQL takes no NUL and no lone surrogate
            row = await (await conn.execute(SQL["directory_by_slug"], (slug,))).fetchone()
            found = self._remember(row) if row else None
        return found

    async def by_id(self, conn: Connection, number: int) -> Directory:
        """Raises KeyError for a number the ledger never gave."""
        if number not in self._by_id:
            await self.all(conn)
        return self._by_id[number]

    async def all(self, conn: Connection) -> list[Directory]:
        rows = await (await conn.execute(SQL["directories_all"])).fetchall()
        found = [self._remember(row) for row in rows]
        self._forget_others({directory.id: directory.uuid for directory in found})
        return found

    def _forget_others(self, there: dict[int, UUID]) -> None:
        """A ledger that was restored to an earlier state lacks those that were made since, and may give their numbers again."""
        for number, known in list(self._by_id.items()):
            if there.get(number) != known.uuid:
                del self._by_id[number]
                self._by_slug.pop(known.slug, None)

    def known(self, slug: str) -> Directory | None:
        """The same without asking the database."""
        return self._by_slug.get(slug)

    async def refresh(self, conn: Connection) -> None:
        """Follow changes of profiles, schemas and states made elsewhere; requests that have begun keep the directory they were given.

        A directory whose new profile is not known here is forgotten by name: whoever asks for it is told, while readers of
        its log go on.
        """
        row = await (await conn.execute(SQL["profiles_mark"])).fetchone()
        assert row is not None
        if row[0] == self._mark:
            return
        rows = await (await conn.execute(SQL["profiles_all"])).fetchall()
        self._forget_others({row[0]: row[6] for row in rows})
        for number, profile, schemas, own, state, since, _ in rows:
            known = self._by_id.get(number)
            if known is None or (known.profile.text, known.schemas, known.state, known.since) == (profile, schemas, state, since):
                continue
            try:
                user, group = types_of(schemas)
                changed = replace(
                    known,
                    profile=_profile(known.slug, profile, own),
                    schemas=schemas,
                    user_type=user,
                    group_type=group,
                    state=state,
                    since=since,
                )
            except UnknownProfileError:
                self._by_slug.pop(known.slug, None)
            else:
                self._by_slug[known.slug] = self._by_id[number] = changed
        self._mark = row[0]
        self.changes += 1

    def _remember(self, row: tuple[Any, ...]) -> Directory:
        directory = _directory(self._kek, row)
        self._by_slug[directory.slug] = self._by_id[directory.id] = directory
        self._mark = None  # the row may be older than the last look at the profiles
        return directory
