"""Directories: their rows in memory, kept up to date, and the ledger's own row with the id of its key-encryption key."""

import json
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, LiteralString

from database.connections import Connection
from database.queries import load_queries
from ledger.clocks import microseconds
from ledger.events import ACTIVE, CLOSED, DELETED
from ledger.ids import DirectoryNumber, DirectoryUuid, Slug
from ledger.sealing import Kek, unwrap_key
from scim.extension import read_extension
from scim.leniency import Leniency
from scim.profile import Profile, ProfileError, RateLimit, UnknownProfileError, own_profile, profile_of
from scim.schema import GROUP, USER, ResourceType, with_extension
from scim.strictness import Strictness, strict_type

SQL = load_queries(__file__)
WAKE: Final = (SQL["wake_directories"], ())  # the statement that tells all processes to look at the directories again
SYSTEM: Final = Slug("_system")  # the ledger's own directory: tokens, consumers, replays
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PROFILE = "generic@1"


@dataclass(frozen=True, slots=True)
class Directory:
    """One IdP connection. `slug` is its public name, never reused; `profile` says how its IdP writes SCIM and which deviations are tolerated."""

    id: DirectoryNumber
    uuid: DirectoryUuid
    slug: Slug
    profile: Profile = field(repr=False)
    index_key: bytes = field(repr=False)
    created_at: int = 0  # µs since the epoch
    # registered extension schemas as stored: JSON pairs of resource type and Schema document
    schemas: str = field(default="[]", repr=False)
    user_type: ResourceType = field(default=USER, repr=False)
    group_type: ResourceType = field(default=GROUP, repr=False)
    state: str = ACTIVE  # as this process last saw it; the write transaction reads it again and decides by that
    since: int = 0  # when the state began, µs since the epoch; 0 if it was always `active`
    own_rate_limit: RateLimit | None = None  # the one that an operator set

    def typed(self, kind: ResourceType) -> ResourceType:
        """The resource type with the extensions of this directory."""
        return self.user_type if kind.name == USER.name else self.group_type

    @property
    def is_closed(self) -> bool:
        """Whether the state is closed or deleted. Neither is ever left."""
        return self.state in {CLOSED, DELETED}

    def leniency(self) -> Leniency:
        """The tolerances of its profile, and its strictness, for one request."""
        return Leniency(self.profile.tolerances, self.profile.strictness)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limit of its SCIM requests: the one that an operator set, else that of its profile; None: there is none."""
        return self.own_rate_limit or self.profile.file.rate_limit


def _directory(kek: Kek, row: tuple[Any, ...]) -> Directory:
    number, uuid, slug, profile, index_key, created_at, schemas, own, state, since, *limit = row
    opened = unwrap_key(kek, index_key, directory=uuid, obj=uuid)
    created, found = microseconds(created_at), _profile(slug, profile, own)
    types = types_of(schemas, found.strictness)
    return Directory(number, uuid, slug, found, opened, created, schemas, *types, state, since, _limit(*limit))


def _limit(per_second: int | None, burst: int | None) -> RateLimit | None:
    return None if per_second is None or burst is None else RateLimit(per_second=per_second, burst=burst)


@lru_cache(maxsize=1024)
def types_of(schemas: str, strictness: frozenset[Strictness] = frozenset()) -> tuple[ResourceType, ResourceType]:
    """User and Group with the registered extensions, as a profile reads them. Equal arguments give the same objects, which key caches."""
    types = {USER.name: USER, GROUP.name: GROUP}
    for name, document in json.loads(schemas):
        types[name] = with_extension(types[name], read_extension(document))
    return strict_type(types[USER.name], strictness), strict_type(types[GROUP.name], strictness)


def _profile(slug: Slug, profile: str, own: str | None) -> Profile:
    """The profile of a directory: from the stored document `own`, or one of the release."""
    try:
        return profile_of(profile) if own is None else own_profile(own)
    except (UnknownProfileError, ProfileError) as unknown:
        raise UnknownProfileError(
            f"Directory {slug} has the profile {profile}, which this release does not know. Start the release that set it."
        ) from unknown


async def next_number(conn: Connection) -> DirectoryNumber:
    """Reserve the number of a directory before its commit, because its first event carries it."""
    row = await (await conn.execute(SQL["next_directory_id"])).fetchone()
    assert row is not None
    return row[0]


def insertion(directory: Directory, wrapped: bytes) -> tuple[LiteralString, tuple[Any, ...]]:
    """The statement that stores a new directory with its wrapped index key."""
    return SQL["insert_directory"], (directory.id, directory.uuid, directory.slug, directory.profile.text, wrapped)


def _changing(directory: Directory) -> tuple[str, str, str, int, RateLimit | None]:
    """What of a directory can change."""
    return directory.profile.text, directory.schemas, directory.state, directory.since, directory.own_rate_limit


class Directories:
    """A cache of the directories by slug and by number. Profile, schemas, state and rate limit can change; `refresh` updates them."""

    def __init__(self, kek: Kek) -> None:
        self._kek = kek
        self._by_slug: dict[str, Directory] = {}
        self._by_id: dict[DirectoryNumber, Directory] = {}
        self.changes = 0  # counts the refreshes that found a change, for others who depend on the directories
        self._mark: str | None = None  # value of `profiles_mark` at the last refresh

    async def by_slug(self, conn: Connection, slug: str) -> Directory | None:
        """The directory of a slug, or None."""
        found = self._by_slug.get(slug)
        if found is None and (SLUG.fullmatch(slug) or slug == SYSTEM):  # PostgreSQL takes no NUL and no lone surrogate
            row = await (await conn.execute(SQL["directory_by_slug"], (slug,))).fetchone()
            found = self._remember(row) if row else None
        return found

    async def by_id(self, conn: Connection, number: DirectoryNumber) -> Directory:
        """The directory of a number. Raises KeyError if there is none."""
        if number not in self._by_id:
            await self.all(conn)
        return self._by_id[number]

    async def all(self, conn: Connection) -> list[Directory]:
        rows = await (await conn.execute(SQL["directories_all"])).fetchall()
        found = [self._remember(row) for row in rows]
        self._forget_others({directory.id: directory.uuid for directory in found})
        return found

    def _forget_others(self, there: dict[DirectoryNumber, DirectoryUuid]) -> None:
        """Forget directories that the database no longer has. After a restore their numbers may be given again."""
        for number, known in list(self._by_id.items()):
            if there.get(number) != known.uuid:
                del self._by_id[number]
                self._by_slug.pop(known.slug, None)

    def known(self, slug: str) -> Directory | None:
        """The directory of a slug, if this process has read it before."""
        return self._by_slug.get(slug)

    async def refresh(self, conn: Connection) -> None:
        """Read profiles, schemas and states that other processes changed. Running requests keep the Directory they have.

        A directory whose new profile this release does not know is forgotten by slug: the next request for it fails with
        UnknownProfileError, while readers of its log go on.
        """
        row = await (await conn.execute(SQL["profiles_mark"])).fetchone()
        assert row is not None
        if row[0] == self._mark:
            return
        rows = await (await conn.execute(SQL["profiles_all"])).fetchall()
        self._forget_others({number: uuid for number, *_, uuid in rows})
        for number, profile, schemas, own, state, since, per_second, burst, _ in rows:
            known, limit = self._by_id.get(number), _limit(per_second, burst)
            if known is None or _changing(known) == (profile, schemas, state, since, limit):
                continue
            try:
                found = _profile(known.slug, profile, own)
                user, group = types_of(schemas, found.strictness)
                changed = replace(
                    known,
                    profile=found,
                    schemas=schemas,
                    user_type=user,
                    group_type=group,
                    state=state,
                    since=since,
                    own_rate_limit=limit,
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
        self._mark = None  # the row may be older than the last refresh
        return directory
