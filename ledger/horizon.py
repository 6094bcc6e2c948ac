"""How far an erasure reaches: what can no longer be read by anyone, and what still can, where and until when. Pure.

The commit deletes the rows. What PostgreSQL keeps of deleted rows (dead rows in its files, WAL, backups, replicas) is ciphertext with a
wrapped key: it is readable only with a key-encryption key that may have wrapped it, and ends when these epochs are destroyed.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Literal, NamedTuple, TypedDict

from ledger.event_data import FromOne, Instant

NOT_ALLOWED = "not_allowed"  # the server does not let the owner of the schema do it


class DatabaseHorizon(TypedDict):
    """The files of the database. `deleted`: the rows are deleted, their space is not free yet. `vacuumed`: it is."""

    state: Literal["deleted", "vacuumed", "not_allowed"]
    at: Instant | None
    says: str


class WalHorizon(TypedDict):
    """The write-ahead log. `switched`: the segment with the deleted rows is closed, and is recycled or archived by the server."""

    state: Literal["open", "switched", "not_allowed"]
    at: Instant | None
    says: str


class BackupHorizon(TypedDict):
    """Backups and replicas from before. `readable`: with the root key. `epochs`: those to destroy until they are `unreadable`."""

    state: Literal["readable", "unreadable"]
    epochs: list[FromOne]
    says: str


class Horizon(TypedDict):
    """How far the erasure reaches, now."""

    database: DatabaseHorizon
    wal: WalHorizon
    backups: BackupHorizon


class Swept(NamedTuple):
    """What was done on the server after an erasure, and whether the server refused one of both."""

    vacuumed_at: datetime | None = None
    wal_switched_at: datetime | None = None
    refused: str | None = None  # words of NOT_VACUUMED, NOT_SWITCHED


NOT_VACUUMED, NOT_SWITCHED = "vacuum", "wal"


def horizon(erased_in: int, current: int, destroyed: Collection[int], swept: Swept) -> Horizon:
    """The horizon of an erasure whose commit was made in epoch `erased_in`. `current`: the epoch of new keys; `destroyed`: epochs."""
    refused = (swept.refused or "").split(",")
    left = [epoch for epoch in range(1, erased_in + 1) if epoch not in destroyed]
    return {
        "database": _database(swept.vacuumed_at, NOT_VACUUMED in refused),
        "wal": _wal(swept.wal_switched_at, NOT_SWITCHED in refused),
        "backups": _backups(left, current),
    }


def _database(at: datetime | None, refused: bool) -> DatabaseHorizon:
    if at is not None:
        return {
            "state": "vacuumed",
            "at": at,
            "says": "The rows are deleted, and the space that they had is free to be overwritten.",
        }
    if refused:
        says = (
            "The rows are deleted. The service may not vacuum this database: its autovacuum frees their space, or run as the owner: "
            "vacuum ledger.bodies, ledger.subject_keys;"
        )
        return {"state": "not_allowed", "at": None, "says": says}
    return {"state": "deleted", "at": None, "says": "The rows are deleted; their space is being freed."}


def _wal(at: datetime | None, refused: bool) -> WalHorizon:
    if at is not None:
        says = "The segment that has the deleted rows is closed. It ends with the server's recycling, and where WAL is archived with the archive."
        return {"state": "switched", "at": at, "says": says}
    if refused:
        says = (
            "The service may not close the WAL segment: it ends when the server has filled it. As a superuser: select pg_switch_wal(); "
            "or allow it: grant execute on function pg_switch_wal() to the login of LEDGER_MIGRATE_URL."
        )
        return {"state": "not_allowed", "at": None, "says": says}
    return {"state": "open", "at": None, "says": "The segment that has the deleted rows is still written to."}


def _backups(left: list[int], current: int) -> BackupHorizon:
    if not left:
        return {"state": "unreadable", "epochs": [], "says": "Every key that could have opened a copy from before is destroyed."}
    named = ", ".join(str(epoch) for epoch in left)
    rotate = "`scim-ledger key rotate`, `scim-ledger key rewrap`, then " if current in left else ""
    says = (
        f"A backup, replica or WAL file from before stays readable with the root key until epoch {named} is destroyed: "
        f"{rotate}{', '.join(f'`scim-ledger key destroy {epoch}`' for epoch in left)}. A restored service erases again before it answers."
    )
    return {"state": "readable", "epochs": left, "says": says}
