"""Key epochs: which there are, and in which one the ledger seals. Making and destroying them is for the machine alone."""

from ledger.key_epochs import Epoch, epochs
from operations.admission import operation
from operations.caller import Caller
from operations.open_ledger import OpenLedger


@operation("keys.list")
async def list_all(ledger: OpenLedger, caller: Caller) -> list[Epoch]:
    """All key epochs, the first one first, the destroyed ones too."""
    await caller.admitted()
    async with ledger.connection() as conn:
        return await epochs(conn)
