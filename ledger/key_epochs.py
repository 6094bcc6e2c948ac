"""The key-encryption keys of a ledger: read with their root keys at the start, made at the first start, followed while the service runs.

A rotation must never make a key that a running process cannot open. So each process shows with two advisory locks of its listening
session which epoch it does not know yet, and in which one it seals; `scim-ledger key` (runtime/key_rotation.py) waits for them.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import structlog

from database.arrays import byteas
from database.connections import Connection, connect
from database.deadlines import ANSWER, ROOT_KEY
from database.queries import load_queries
from ledger.ids import DirectoryUuid
from ledger.rewrapping import sealed_up_to
from ledger.root_keys.local import FileKeys
from ledger.root_keys.provider import RootKeyError, RootKeyLostError, RootKeys
from ledger.sealing import BASE, KEY_SIZE, NONCE_SIZE, Kek, key_id, unwrap_key, wrap_key

SQL: Final = load_queries(__file__)
Provider = Literal["file", "env", "pkcs11", "aws-kms", "vault"]
EpochState = Literal["announced", "current", "earlier", "destroyed"]
_PLACE: Final = b"scim-ledger/kek/v1\0"
_log = structlog.get_logger("ledger.key_epochs")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A row of key_epochs."""

    number: int
    key_id: bytes
    provider: Provider
    root: str
    wrapped: bytes | None  # None: no longer stored; destroyed once its root key is too
    made_at: datetime
    active_at: datetime | None
    rewrapped_at: datetime | None
    destroyed_at: datetime | None

    @property
    def is_destroyed(self) -> bool:
        """Whether key and root key are gone. The service may write `destroyed_at`, but only the owner forgets the key: both count."""
        return self.wrapped is None and self.destroyed_at is not None

    def state(self, current: int) -> EpochState:
        """What the epoch is for, if the ledger seals in `current`."""
        if self.is_destroyed:
            return "destroyed"
        if self.active_at is None:
            return "announced"
        return "current" if self.number == current else "earlier"


async def found_or_adopt(conn: Connection, providers: Sequence[RootKeys]) -> None:
    """Make the first epoch of a new ledger, or of one from before key epochs. No effect if there is one. Raises RootKeyError.

    Without its root key a ledger that has keys is refused: new ones would make every stored body unreadable.
    """
    row = await ledger_row(conn)
    if row is None:
        await _begin(conn, providers[0])
    elif not await epochs(conn):
        await _adopt(conn, providers, *row)


async def epochs(conn: Connection) -> list[Epoch]:
    """All epochs of the ledger, in order."""
    return [_epoch(row) for row in await (await conn.cursor(binary=True).execute(SQL["epochs"])).fetchall()]


async def load_kek(conn: Connection, providers: Sequence[RootKeys]) -> Kek:
    """Open every epoch that is not destroyed. Raises RootKeyError.

    A restored backup has epochs that were destroyed after it: they are left out if nothing in it is sealed in them.
    """
    ledger, found = await ledger_id(conn), await epochs(conn)
    keys: dict[int, bytes] = {}
    for epoch in (epoch for epoch in found if epoch.wrapped is not None):
        try:
            keys[epoch.number] = await open_epoch(providers, ledger, epoch)
        except RootKeyLostError:
            if epoch.number >= current_of(found) or await sealed_up_to(conn, epoch.number):
                raise
            _log.warning("key_epoch_left_out", epoch=epoch.number, says="its root key is gone, and nothing is sealed in it")
    return Kek(keys, current_of(found), await _domain_keys(conn, ledger, Kek(keys, max(keys), {})))


def kek_at(url: str, providers: Sequence[RootKeys]) -> Kek:
    """The same, for a caller without an event loop of its own, or within one. Raises RootKeyError and psycopg.Error."""

    async def load() -> Kek:
        async with await connect(url) as conn:
            return await load_kek(conn, providers)

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, load()).result()


def current_of(found: Sequence[Epoch]) -> int:
    """The epoch that seals: the newest that all processes have."""
    return max(epoch.number for epoch in found if epoch.active_at is not None)


async def ledger_id(conn: Connection) -> UUID:
    """The id of the ledger, to which its keys are bound."""
    row = await ledger_row(conn)
    assert row is not None, "made at the first start"
    number, _ = row
    return number


def place_of(ledger: UUID, epoch: int) -> bytes:
    """What is authenticated with a wrapped KEK, so that it opens only as this epoch of this ledger."""
    return _PLACE + ledger.bytes + epoch.to_bytes(4, "big")


async def asked(ask: Callable[[], Any]) -> Any:
    """Ask a provider in a thread, with a deadline: another machine may be silent. Raises RootKeyError."""
    try:
        async with asyncio.timeout(ROOT_KEY.seconds):
            return await asyncio.to_thread(ask)
    except TimeoutError:
        raise RootKeyError(f"The provider of the root key did not answer within {ROOT_KEY.seconds:g} s.") from None


async def _begin(conn: Connection, provider: RootKeys) -> None:
    """Make the keys of a new ledger. A key file that is there is taken, so that several hosts can begin with one."""
    if isinstance(provider, FileKeys):  # processes of the release before have the file alone: there the KEK is the root key
        name = "1" if provider.path.exists() else await asked(lambda: provider.create(()))
        key = provider.key(name)
    else:
        name, key = await asked(lambda: provider.create(())), secrets.token_bytes(KEY_SIZE)
    await _found(conn, provider, uuid4(), name, key)


async def _adopt(conn: Connection, providers: Sequence[RootKeys], ledger: UUID, stored: bytes) -> None:
    """Make epoch 1 of the key of a ledger from before key epochs: the key in its file becomes the root key too."""
    file = next((provider for provider in providers if isinstance(provider, FileKeys)), None)
    if file is None:
        raise RootKeyLostError(
            "This ledger was sealed with a key file. Name it too, behind the provider that you move to: LEDGER_ROOT_KEY='vault:… file:PATH'."
        )
    key = file.key("1")
    if key_id(key) != stored:
        raise RootKeyLostError(
            f"The key in {file.path} has id {key_id(key).hex()}, but the database was written with key {stored.hex()}. "
            "Point LEDGER_KEK_FILE at the right file."
        )
    await _found(conn, file, ledger, "1", key)


async def _found(conn: Connection, provider: RootKeys, ledger: UUID, name: str, key: bytes) -> None:
    """Store epoch 1, and the keys of MACs, which must not depend on it alone."""
    wrapped = await asked(lambda: provider.wrap(name, key, place_of(ledger, 1)))
    kek = Kek.of(key)
    domain_keys = {**kek.first_domain_keys(), BASE: secrets.token_bytes(KEY_SIZE)}
    sealed = [
        wrap_key(kek, content, directory=DirectoryUuid(ledger), obj=domain_place(domain), nonce=secrets.token_bytes(NONCE_SIZE))
        for domain, content in domain_keys.items()
    ]
    async with conn.transaction():
        await conn.execute(SQL["insert_ledger"], (ledger, key_id(key)))
        if await ledger_id(conn) != ledger:  # another process began this ledger at the same moment
            return
        await conn.execute(SQL["insert_domain_keys"], (byteas(list(domain_keys)), byteas(sealed)))
        await conn.execute(SQL["insert_epoch"], (1, key_id(key), provider.kind, name, wrapped, True))


def domain_place(domain: bytes) -> UUID:
    """What stands for the resource where a key of MACs is wrapped."""
    return UUID(bytes=sha256(domain).digest()[:16])


async def _domain_keys(conn: Connection, ledger: UUID, kek: Kek) -> dict[bytes, bytes]:
    rows = await (await conn.cursor(binary=True).execute(SQL["domain_keys"])).fetchall()
    return {
        domain: unwrap_key(kek, wrapped, directory=DirectoryUuid(ledger), obj=domain_place(domain)) for domain, wrapped in rows
    }


async def ledger_row(conn: Connection) -> tuple[UUID, bytes] | None:
    """The id of the ledger, and the id of its first KEK; None before the first start."""
    row = await (await conn.execute(SQL["ledger"])).fetchone()
    if row is None:
        return None
    number, key = row
    return number, bytes(key)


def _epoch(row: tuple[Any, ...]) -> Epoch:
    number, key, provider, root, wrapped, *times = row
    return Epoch(number, bytes(key), provider, root, None if wrapped is None else bytes(wrapped), *times)


async def open_epoch(providers: Sequence[RootKeys], ledger: UUID, epoch: Epoch) -> bytes:
    """The KEK of an epoch, from its provider, which is asked in a thread. Raises RootKeyError."""
    return await asked(lambda: key_of(providers, ledger, epoch))


def key_of(providers: Sequence[RootKeys], ledger: UUID, epoch: Epoch) -> bytes:
    """The KEK of an epoch, from its provider. Raises RootKeyError."""
    wrapped = epoch.wrapped
    assert wrapped is not None
    key = provider_of(providers, epoch).unwrap(epoch.root, wrapped, place_of(ledger, epoch.number))
    if key_id(key) != epoch.key_id:
        raise RootKeyLostError(f"The root key of key epoch {epoch.number} opens another key than {epoch.key_id.hex()}.")
    return key


def provider_of(providers: Sequence[RootKeys], epoch: Epoch) -> RootKeys:
    """The provider that has the root key of an epoch. Raises RootKeyLostError if LEDGER_ROOT_KEY does not name it."""
    found = next((provider for provider in providers if provider.kind == epoch.provider), None)
    if found is None:
        raise RootKeyLostError(
            f"Key epoch {epoch.number} was sealed with a root key of `{epoch.provider}` ({epoch.root}), which LEDGER_ROOT_KEY does not name. Add it "
            "there, behind a space."
        )
    return found


class KeyFollower:
    """Keeps the keys of a process current while it runs. Used on its listening connection, whose session holds the locks."""

    def __init__(self, kek: Kek, providers: Sequence[RootKeys]) -> None:
        self._kek, self._providers = kek, providers
        self._unknown: int | None = None  # the lock that says which epoch this process does not know
        self._seals: dict[int, float] = {}  # the locks of epochs in which it seals or sealed just now, and since when not

    async def attend(self, conn: Connection) -> None:
        """Begin on a new connection, which holds no locks yet."""
        self._unknown, self._seals = None, {}
        await self.refresh(conn)

    async def refresh(self, conn: Connection) -> None:
        """Take in what was made, became current or was destroyed. Raises psycopg.Error."""
        await self._show(conn)
        await self._take_in(conn, await epochs(conn))
        while await self._show(conn):  # what was read before a lock may have changed since
            await self._take_in(conn, await epochs(conn))
        await self._let_go(conn)

    async def _show(self, conn: Connection) -> bool:
        """Take the locks of what this process knows; whether one of them was new."""
        unknown, current, new = self._kek.epochs[-1] + 1, self._kek.current, False
        if self._unknown != unknown:
            await conn.execute(SQL["knows_up_to"], (unknown,))
            if self._unknown is not None:
                await conn.execute(SQL["knows_more"], (self._unknown,))
            self._unknown, new = unknown, True
        if current not in self._seals:
            await conn.execute(SQL["seals_in"], (current,))
            new = True
        self._seals = {epoch: self._seals.get(epoch, 0) or time.monotonic() for epoch in {*self._seals, current}} | {current: 0}
        return new

    async def _take_in(self, conn: Connection, found: Sequence[Epoch]) -> None:
        for epoch in found:
            if epoch.wrapped is None:
                self._kek.forget(epoch.number)
            elif epoch.number not in self._kek.epochs:
                await self._learn(conn, epoch)
        known = [epoch for epoch in found if epoch.number in self._kek.epochs]
        if known:
            self._kek.current = current_of(known)

    async def _learn(self, conn: Connection, epoch: Epoch) -> None:
        """Load a new epoch. While its provider is away, this process goes on with what it has, and the rotation waits for it."""
        try:
            self._kek.learn(epoch.number, await open_epoch(self._providers, await ledger_id(conn), epoch))
            _log.info("key_epoch_loaded", epoch=epoch.number)
        except RootKeyError as refused:
            _log.error("key_epoch_not_loaded", epoch=epoch.number, problem=str(refused))

    async def _let_go(self, conn: Connection) -> None:
        """Give back the locks of earlier epochs, once what was begun in them has ended."""
        for epoch, since in list(self._seals.items()):
            if since and time.monotonic() - since >= ANSWER.seconds:
                await conn.execute(SQL["sealed_in"], (epoch,))
                del self._seals[epoch]
