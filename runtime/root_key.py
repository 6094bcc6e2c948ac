"""The ledger's keys for this process, opened with the root key that the settings name. Only here it is known where that is."""

from collections.abc import Sequence

import psycopg

from database.connections import Connection, connect
from ledger.key_epochs import found_or_adopt, ledger_row, load_kek
from ledger.root_keys.opening import root_keys
from ledger.root_keys.provider import RootKeyError, RootKeys
from ledger.sealing import Kek
from runtime.bootstrap import StartError
from runtime.settings import Settings, environment


def providers_of(settings: Settings) -> Sequence[RootKeys]:
    """The providers of root keys. Raises StartError for a setting that names none."""
    try:
        return root_keys(settings.root_key_place, environment())
    except RootKeyError as wrong:
        raise StartError(str(wrong)) from wrong


async def ensure_kek(conn: Connection, settings: Settings) -> Kek:
    """The ledger's keys. They are made only if the ledger has none yet. Raises StartError."""
    providers = providers_of(settings)
    try:
        await found_or_adopt(conn, providers)
        return await load_kek(conn, providers)
    except RootKeyError as refused:
        raise StartError(str(refused)) from refused


async def read_kek(url: str, settings: Settings) -> Kek:
    """The keys of a ledger that has been started before. Raises StartError."""
    async with await connect(url) as conn:
        try:
            if await ledger_row(conn) is not None:
                return await ensure_kek(conn, settings)  # this command may be the first process after a migration
        except psycopg.errors.UndefinedTable:
            pass
    raise StartError("This database has no ledger of this release yet. Run `scim-ledger serve` once.")
