"""A ledger inside the test process: the real parts on a real database, without HTTP."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from api.services import Services
from database.connections import connect
from database.faults import Fault, no_fault
from delivery.consumers import Allowed
from ledger.commands import Command, CreateGroup, CreateUser, DeleteUser, PatchGroup, PatchUser, as_members, needs_of
from ledger.cursor import BEGINNING, Cursor
from ledger.directories import Directory
from ledger.feed import Page, Selection
from ledger.key_epochs import found_or_adopt
from ledger.private_files import write_private
from ledger.root_keys.local import FileKeys
from ledger.sealing import Kek
from ledger.transaction import Outcome, Submission
from operations.consumers import Webhooks
from runtime.identifiers import uuid7
from runtime.wiring import now_us, open_services
from scim.casefolding import casefold
from scim.leniency import Leniency
from scim.patch import read_patch
from scim.profile import profile_of
from scim.schema import GROUP, USER
from tests.postgres.machine import administration

GENERIC = profile_of("generic@1").tolerances
CORE_USER = "urn:ietf:params:scim:schemas:core:2.0:User"
CORE_GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
NO_WEBHOOKS = Webhooks(Allowed(), 15.0)  # no private addresses are allowed


class Ledger:
    """Open services and a directory, with short methods for commands."""

    def __init__(self, services: Services, directory: Directory) -> None:
        self.services = services
        self.directory = directory

    def submit(self, command: Command, directory: Directory | None = None) -> "asyncio.Future[Outcome]":
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        where = directory or self.directory
        submission = Submission(where, command, needs_of(command), "sys", uuid7(), 0, waiter, leniency=where.leniency())
        return self.services.ledger.submit(submission)

    def create_user(self, name: str, directory: Directory | None = None, **attributes: Any) -> "asyncio.Future[Outcome]":
        document = {"schemas": [CORE_USER], "userName": name, **attributes}
        return self.submit(CreateUser(uuid4(), document, casefold(name)), directory)

    def create_group(
        self, name: str, members: tuple[UUID | str, ...] = (), directory: Directory | None = None
    ) -> "asyncio.Future[Outcome]":
        document = {"schemas": [CORE_GROUP], "displayName": name}
        return self.submit(CreateGroup(uuid4(), document, casefold(name), as_members(map(str, members))), directory)

    def patch_user(self, user: UUID, *operations: dict[str, Any]) -> "asyncio.Future[Outcome]":
        patch = read_patch(USER, {"schemas": [PATCH_OP], "Operations": list(operations)}, Leniency(GENERIC))
        return self.submit(PatchUser(user, patch))

    def patch_group(self, group: UUID, *operations: dict[str, Any]) -> "asyncio.Future[Outcome]":
        patch = read_patch(GROUP, {"schemas": [PATCH_OP], "Operations": list(operations)}, Leniency(GENERIC))
        return self.submit(PatchGroup(group, patch))

    def add_member(self, group: UUID, member: UUID) -> "asyncio.Future[Outcome]":
        return self.patch_group(group, {"op": "add", "path": "members", "value": [{"value": str(member)}]})

    def delete_user(self, user: UUID) -> "asyncio.Future[Outcome]":
        return self.submit(DeleteUser(user))

    async def page(self, after: Cursor | None = None, limit: int = 1000, **selection: Any) -> Page:
        connection, wanted = self.services.ledger.connection, Selection(**selection)
        return await self.services.ledger.feed.page(connection, wanted, after or Cursor(0, BEGINNING), limit)


async def note_kek(url: str, kek: Kek) -> None:
    """Begin the ledger with this key, as a service with a key file does. No effect if it has begun."""
    with tempfile.TemporaryDirectory() as place:
        file = FileKeys(Path(place) / "kek")
        write_private(file.path, kek.key(1).hex())
        async with await connect(url) as conn:
            await found_or_adopt(conn, [file])


def id_of(outcome: Outcome) -> UUID:
    assert outcome.document is not None
    return UUID(outcome.document["id"])


@asynccontextmanager
async def opened(
    url: str, *, serve_through: str | None = None, kek: Kek | None = None, webhooks: Webhooks = NO_WEBHOOKS,
    clock: Callable[[], int] = now_us, room: Callable[[], Fault | None] = no_fault,
) -> AsyncIterator[Ledger]:  # fmt: skip
    """Create directory `acme` in a fresh database and open the services on it (through the address `serve_through`, if given)."""
    kek = kek or Kek.of(os.urandom(32))
    await note_kek(url, kek)
    async with administration(url, kek) as acts:
        if await acts.directory("_system") is None:
            await acts.create_directory("_system")
            await acts.create_directory("acme")
        directory = await acts.directory("acme")
    assert directory is not None
    async with open_services(serve_through or url, kek, "http://ledger.test", webhooks, clock=clock, room=room) as services:
        yield Ledger(services, directory)
