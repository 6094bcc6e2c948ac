"""Administrative acts: directories and tokens. Each is one commit, with its event beside the row it makes."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from database.connections import Connection
from database.queries import load_queries
from ledger.commands import RecordFacts, needs_of
from ledger.directories import PROFILE, SLUG, SYSTEM, Directories, Directory
from ledger.events import DIRECTORY, DIRECTORY_CREATED, DIRECTORY_PROFILE_CHANGED, OPERATOR, Body, Draft
from ledger.sealing import KEY_SIZE, NONCE_SIZE, Kek, wrap_key
from ledger.tokens import Issuer, Scope, TokenRefusedError, database_clock, find, find_all, issue, revoke, shown, unbound
from ledger.transaction import Report, Submission, Transaction
from scim.errors import ScimError
from scim.extension import TYPES_BY_NAME, read_extension
from scim.profile import Profile, ProfileError, UnknownProfileError, is_shipped, own_profile, profile_of, shipped

SQL = load_queries(__file__)


class RefusedError(Exception):
    """The act cannot be done; the text says why."""


async def profiles(conn: Connection) -> dict[str, Profile]:
    """Every profile there is by `name@version`: those of the release, then the operator's own as they were stored."""
    found = {text: profile_of(text) for text in shipped()}
    for name, document in await (await conn.execute(SQL["profiles_own"])).fetchall():
        try:
            found[name] = own_profile(document)
        except ProfileError:
            continue  # stored by a newer release: nobody can choose it here
    return found


async def known_profile(conn: Connection, text: str) -> Profile:
    """The profile `name@version`, or the newest of `name`. Raises RefusedError for one that is neither shipped nor stored."""
    try:
        return profile_of(text)
    except UnknownProfileError as unknown:
        found = await profiles(conn)
        versions = [profile for profile in found.values() if text in {profile.file.name, profile.text}]
        if not versions:
            raise RefusedError(f"There is no profile {text} here. There are {', '.join(found)}.") from unknown
        return max(versions, key=lambda profile: profile.file.version)


async def profile_facts(conn: Connection, directory: Directory, profile: Profile) -> RecordFacts | None:
    """The act of giving a directory a profile, with its event; None where it has it. An own one is stored with it.

    Raises RefusedError for a document under a name that is the release's, or that stands for another document already:
    events name the profile they were made under, so a name means one thing for ever.
    """
    own = await _to_store(conn, profile)
    if directory.profile == profile.text:
        return None
    change = {"path": "profile", "from": directory.profile, "to": profile.text}
    facts = Body({"id": str(directory.uuid), "slug": directory.slug, "profile": profile.text}, [change], directory.slug)
    draft = Draft(DIRECTORY_PROFILE_CHANGED, directory.uuid, DIRECTORY, cause=OPERATOR, body=facts)
    update = (SQL["set_profile"], (directory.id, profile.text))
    return RecordFacts((draft,), (*own, update, (SQL["wake_directories"], ())))


async def _to_store(conn: Connection, profile: Profile) -> tuple[Any, ...]:
    known = (await profiles(conn)).get(profile.text)
    if known is None and not is_shipped(profile.file.name):
        return ((SQL["insert_profile"], (profile.text, profile.file.model_dump_json())),)
    if known is None or known.file != profile.file:
        raise RefusedError(
            f"{profile.text} would stand for two profiles. Give yours {'a name' if is_shipped(profile.file.name) else 'a version'} of its own."
        )
    return ()


def registered(directory: Directory) -> list[dict[str, Any]]:
    """The extension schemas of a directory, in the order they were registered."""
    return [{"resource_type": name, "schema": document} for name, document in json.loads(directory.schemas)]


def schema_facts(directory: Directory, resource_type: str, document: dict[str, Any]) -> RecordFacts | None:
    """The act of registering an extension schema, with its event; None where it stands already. Raises RefusedError."""
    if resource_type not in TYPES_BY_NAME:
        raise RefusedError(f"The resource type is one of {', '.join(TYPES_BY_NAME)}.")
    try:
        extension = read_extension(document)
    except ScimError as wrong:
        raise RefusedError(wrong.detail) from wrong
    for known in registered(directory):
        if known == {"resource_type": resource_type, "schema": document}:
            return None
        if known["schema"]["id"].casefold() == extension.urn.casefold():
            raise RefusedError(
                "There is a schema with this id already, and data may refer to it. Register another one under a new id."
            )
    change = {"path": "schemas", "to": extension.urn}
    body = Body({"id": str(directory.uuid), "slug": directory.slug, "profile": directory.profile}, [change], directory.slug)
    draft = Draft(DIRECTORY_PROFILE_CHANGED, directory.uuid, DIRECTORY, cause=OPERATOR, body=body)
    insert = (SQL["insert_schema"], (directory.id, resource_type, extension.urn.casefold(), json.dumps(document)))
    return RecordFacts((draft,), (insert, (SQL["wake_directories"], ())))


class Administration:
    """Acts on one connection of its own; used at first start, by the CLI and by the admin API."""

    def __init__(
        self,
        conn: Connection,
        kek: Kek,
        directories: Directories,
        transaction: Transaction,
        random: Callable[[int], bytes],
        new_id: Callable[[], UUID],
        new_request_id: Callable[[], UUID],
    ) -> None:
        self._conn = conn
        self._kek = kek
        self._directories = directories
        self._transaction = transaction
        self._random = random
        self._new_id = new_id
        self._new_request_id = new_request_id

    async def directory(self, slug: str) -> Directory | None:
        return await self._directories.by_slug(self._conn, slug)

    async def directories(self) -> list[Directory]:
        return await self._directories.all(self._conn)

    async def create_directory(self, slug: str, *, profile: str = PROFILE, actor: str = "sys") -> Directory:
        """Make a directory and its first event. Raises RefusedError for a slug that is taken or malformed, or an unknown profile."""
        if slug != SYSTEM and not SLUG.fullmatch(slug):
            raise RefusedError("A directory's name is 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit.")
        if await self.directory(slug) is not None:
            raise RefusedError(f"There is a directory {slug} already. Names are never reused.")
        speaks = await known_profile(self._conn, profile)
        row = await (await self._conn.execute(SQL["next_directory_id"])).fetchone()
        assert row is not None
        uuid, entropy = self._new_id(), self._random(KEY_SIZE + NONCE_SIZE)
        index_key = entropy[:KEY_SIZE]
        wrapped = wrap_key(self._kek, index_key, directory=uuid, obj=uuid, nonce=entropy[KEY_SIZE:])
        directory = Directory(row[0], uuid, slug, speaks.text, index_key, speaks=speaks)
        facts = Body({"id": str(uuid), "slug": slug, "profile": speaks.text}, [], slug)
        draft = Draft(DIRECTORY_CREATED, uuid, DIRECTORY, cause=OPERATOR, body=facts)
        insert = (SQL["insert_directory"], (row[0], uuid, slug, speaks.text, wrapped))
        await self._record(directory, RecordFacts((draft,), (insert,)), actor)
        return directory

    async def set_profile(self, slug: str, profile: str | Profile, *, actor: str = "sys") -> Directory:
        """Change how a directory's IdP is understood, from the next request on; nothing stored changes.

        The event itself carries the profile that it ends. A Profile is one of the operator's own, and is stored.
        Raises RefusedError for an unknown directory or profile.
        """
        speaks = await known_profile(self._conn, profile) if isinstance(profile, str) else profile
        await self._directories.refresh(self._conn)
        directory = await self.directory(slug)
        if directory is None or slug == SYSTEM:
            raise RefusedError(
                f"There is no directory {slug} whose profile could be set. `scim-ledger directory list` shows them."
            )
        facts = await profile_facts(self._conn, directory, speaks)
        if facts is None:
            return directory
        await self._record(directory, facts, actor)
        await self._directories.refresh(self._conn)
        changed = await self.directory(slug)
        assert changed is not None
        return changed

    async def profiles(self) -> dict[str, Profile]:
        """Every profile that a directory can be given."""
        return await profiles(self._conn)

    async def add_schema(
        self, slug: str, resource_type: str, document: dict[str, Any], *, actor: str = "sys"
    ) -> list[dict[str, Any]]:
        """Register an extension schema and give all of the directory. Raises RefusedError."""
        await self._directories.refresh(self._conn)
        directory = await self.directory(slug)
        if directory is None or slug == SYSTEM:
            raise RefusedError(f"There is no directory {slug}. `scim-ledger directory list` shows them.")
        facts = schema_facts(directory, resource_type, document)
        if facts is not None:
            await self._record(directory, facts, actor)
        return await self.schemas(slug)

    async def schemas(self, slug: str) -> list[dict[str, Any]]:
        """The extension schemas registered for a directory. Raises RefusedError."""
        await self._directories.refresh(self._conn)
        directory = await self.directory(slug)
        if directory is None:
            raise RefusedError(f"There is no directory {slug}. `scim-ledger directory list` shows them.")
        return registered(directory)

    async def issue_token(
        self,
        role: str,
        name: str,
        directories: tuple[str, ...],
        expires_at: datetime,
        *,
        scope: Scope | None = None,
        actor: str = "sys",
    ) -> str:
        """Issue a token and give its text, which is not stored. Raises RefusedError for an unknown role, directory or event type."""
        for slug in directories:
            if slug != "*" and await self.directory(slug) is None:
                raise RefusedError(f"There is no directory {slug}.")
        try:
            made = issue(await self.issuer(actor), self._new_id(), role, name, directories, expires_at=expires_at, scope=scope)
        except TokenRefusedError as wrong:
            raise RefusedError(str(wrong)) from wrong
        await self._record(await self._system(), made.command(), actor)
        return made.text

    async def issuer(self, actor: str) -> Issuer:
        """What issuing and rotating a token takes from outside."""
        return Issuer(self._kek, self._random, await database_clock(self._conn), actor)

    async def revoke_token(self, token: UUID, *, actor: str = "sys") -> None:
        """Revoke a token from the next request on. Raises RefusedError where there is none of that id."""
        found = await find(self._conn, token)
        if found is None:
            raise RefusedError("There is no token with this id. `scim-ledger token list` shows them.")
        facts = revoke(found)
        if facts is not None:
            await self._record(await self._system(), facts, actor)

    async def bind_tokens(self) -> int:
        """Give the tokens of earlier releases their seal, where the log bears their rows out; how many that were. At every start."""
        system = await self._system()
        facts = await unbound(self._conn, self._kek, system)
        if facts is None:
            return 0
        try:
            await self._record(system, facts, "sys")
        except psycopg.IntegrityError:  # refused by the trigger: another process that starts has bound them just now
            return 0
        return len(facts.drafts)

    async def tokens(self) -> list[dict[str, Any]]:
        """All tokens with their scopes and dates, without secrets."""
        now = await database_clock(self._conn)
        return [shown(row, now) for row in await find_all(self._conn)]

    async def _system(self) -> Directory:
        system = await self.directory(SYSTEM)
        assert system is not None, "made at first start"
        return system

    async def _record(self, directory: Directory, command: RecordFacts, actor: str) -> None:
        await record_facts(self._conn, self._transaction, directory, command, actor, self._new_request_id())

    async def record(self, command: RecordFacts, *, actor: str = "sys") -> None:
        """Carry out an act that was decided elsewhere, with its event in the ledger's own directory."""
        await self._record(await self._system(), command, actor)


async def record_facts(
    conn: Connection, transaction: Transaction, directory: Directory, command: RecordFacts, actor: str, request: UUID
) -> None:
    """One administrative act in a transaction of its own. Raises what refuses it."""
    waiter = asyncio.get_running_loop().create_future()
    submission = Submission(directory, command, needs_of(command), actor, request, 0, waiter)
    report = Report()
    try:
        await transaction.run(conn, [submission], report, wait_for_locks=True)
    except psycopg.Error:
        await conn.rollback()  # the connection goes on being used
        raise
    for _, result in report.settled:
        if isinstance(result, Exception):
            raise result
