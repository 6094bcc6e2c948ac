"""The surge brake: show and set a directory's limit, release held deliveries."""

from dataclasses import dataclass

from delivery.surge_control import lately_in, limited, limits, released
from delivery.surge_policy import Action, Limit
from ledger.directories import Directory
from ledger.feed import Selection
from ledger.ids import Seq
from operations.admin_commands import record
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger


@dataclass(frozen=True, slots=True)
class Surge:
    """The limit of a directory, and the revocations of the last hour."""

    directory: str
    limit: Limit
    lately: int


async def _surge_of(ledger: OpenLedger, directory: Directory) -> Surge:
    async with ledger.connection() as conn:
        limit = (await limits(conn)).get(directory.id, Limit())
        return Surge(directory.slug, limit, await lately_in(conn, directory, limit))


@on_directory("surges.show")
async def show(ledger: OpenLedger, _caller: Caller, directory: Directory) -> Surge:
    """The limit of a directory, and its revocations in the last hour."""
    return await _surge_of(ledger, directory)


@on_directory("surges.set")
async def set_limit(ledger: OpenLedger, caller: Caller, directory: Directory, per_hour: int, action: Action) -> Surge:
    """Set the limit of revocations an hour, and the action above it."""
    await record(ledger, caller, limited(ledger.new_id(), directory, per_hour, action))
    return await _surge_of(ledger, directory)


@on_directory("surges.release")
async def release(ledger: OpenLedger, caller: Caller, directory: Directory, reason: str) -> Surge:
    """Release what is held now. Later revocations count from zero against the limit."""
    async with ledger.connection() as conn:
        head = await ledger.feed.head(conn, Selection(directory=directory))
        limit = (await limits(conn)).get(directory.id, Limit())
    await record(ledger, caller, released(ledger.new_id(), directory, Seq(head), limit, reason))
    return await _surge_of(ledger, directory)
