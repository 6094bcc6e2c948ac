"""How many SCIM requests a directory may send: show, set, and leave it to the profile again."""

from ledger.directories import Directory
from ledger.rate_limits import rate_limit_facts
from operations.admin_commands import record_in
from operations.admission import on_directory, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from scim.profile import RateLimit


@on_directory("rate_limits.show")
async def show(_ledger: OpenLedger, _caller: Caller, directory: Directory) -> Directory:
    """The directory, which knows its limit."""
    return directory


@on_directory("rate_limits.set")
async def set_rate_limit(ledger: OpenLedger, caller: Caller, directory: Directory, limit: RateLimit) -> Directory:
    """Set the limit of a directory, in all processes. Raises StateError for a closed directory."""
    return await _record_limit(ledger, caller, directory, limit)


@on_directory("rate_limits.reset")
async def reset(ledger: OpenLedger, caller: Caller, directory: Directory) -> Directory:
    """Leave the limit to the directory's profile again. Raises StateError for a closed directory."""
    return await _record_limit(ledger, caller, directory, None)


async def _record_limit(ledger: OpenLedger, caller: Caller, directory: Directory, limit: RateLimit | None) -> Directory:
    facts = rate_limit_facts(directory, limit)
    if facts is not None:
        await record_in(ledger, caller, directory, facts)
    return await reached_directory(ledger, caller, directory.slug)
