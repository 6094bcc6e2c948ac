"""Operations with the rights of the machine itself, as short calls on a ledger without a writer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from ledger.commands import RecordFacts
from ledger.directories import SYSTEM, Directory
from ledger.sealing import Kek
from ledger.tokens import Issuer, Scope, database_clock
from operations import admin_commands, directories, profiles, tokens
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from runtime.bootstrap import machine
from runtime.wiring import open_alone
from scim.profile import Profile


class Machine:
    """Each call is a request of its own."""

    def __init__(self, ledger: OpenLedger) -> None:
        self.ledger = ledger

    @property
    def caller(self) -> Caller:
        return machine()

    async def directory(self, slug: str) -> Directory | None:
        async with self.ledger.connection() as conn:
            return await self.ledger.directories.by_slug(conn, slug)

    async def directories(self) -> list[Directory]:
        return await directories.list_all(self.ledger, self.caller)

    async def create_directory(self, slug: str, profile: str = "generic@1") -> Directory:
        if slug == SYSTEM:
            await directories.found(self.ledger, self.caller)
            found = await self.directory(slug)
            assert found is not None
            return found
        return await directories.create(self.ledger, self.caller, slug, profile)

    async def set_profile(self, slug: str, profile: str | Profile) -> Directory:
        await profiles.set_profile(self.ledger, self.caller, slug, profile, weight=1_000)
        found = [directory for directory in await self.directories() if directory.slug == slug]
        return found[0]

    async def issue_token(
        self, role: str, name: str, reach: tuple[str, ...], expires_at: datetime, scope: Scope | None = None
    ) -> str:
        days = (expires_at - datetime.now(expires_at.tzinfo)).days + 1
        return (await tokens.issue(self.ledger, self.caller, role, name, reach, scope, days=days)).text

    async def revoke_token(self, token: UUID) -> None:
        await tokens.revoke(self.ledger, self.caller, str(token), None)

    async def bind_tokens(self) -> int:
        return await tokens.bind(self.ledger, self.caller)

    async def issuer(self, actor: str) -> Issuer:
        async with self.ledger.connection() as conn:
            return Issuer(self.ledger.kek, self.ledger.entropy, await database_clock(conn), actor)

    async def record(self, facts: RecordFacts) -> None:
        await admin_commands.record(self.ledger, self.caller, facts)


@asynccontextmanager
async def administration(url: str, kek: Kek) -> AsyncIterator[Machine]:
    async with open_alone(url, kek) as ledger:
        yield Machine(ledger)
