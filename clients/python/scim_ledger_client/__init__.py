"""Reads the events of a SCIM provisioning ledger. Begin with `Ledger`; receivers of webhooks begin with `Webhook`."""

from scim_ledger_client.consumer import Consumer
from scim_ledger_client.errors import (
    ForbiddenError,
    IncompleteSnapshotError,
    LedgerError,
    LostEndError,
    MissingError,
    PlaceMovedError,
    RefusedError,
    SignatureError,
    UnauthorizedError,
    UnreachableError,
)
from scim_ledger_client.events import Event
from scim_ledger_client.ledger import Ledger, Streamed
from scim_ledger_client.pages import Page
from scim_ledger_client.resources import Directory, Group, User
from scim_ledger_client.retries import Retries
from scim_ledger_client.snapshot import Snapshot, SnapshotLine
from scim_ledger_client.webhooks import Delivery, Webhook

__all__ = [
    "Consumer",
    "Delivery",
    "Directory",
    "Event",
    "ForbiddenError",
    "Group",
    "IncompleteSnapshotError",
    "Ledger",
    "LedgerError",
    "LostEndError",
    "MissingError",
    "Page",
    "PlaceMovedError",
    "RefusedError",
    "Retries",
    "SignatureError",
    "Snapshot",
    "SnapshotLine",
    "Streamed",
    "UnauthorizedError",
    "UnreachableError",
    "User",
    "Webhook",
]
