"""Every column that holds something sealed with a key-encryption key: what a rotation must move into its epoch.

A column that is missing here would be unreadable once its epoch is destroyed: tests/postgres/test_sealed_columns.py holds this list
against the schema.
"""

from typing import Final, LiteralString, NamedTuple

from ledger.sealing import NoteKind

_CONSUMER: Final = "(select c.uuid from ledger.consumers c where c.id = t.consumer)"


class SealedNotes(NamedTuple):
    """A column with notes of one kind. `owner`: an SQL expression of the row `t` for the uuid that they were sealed for."""

    table: LiteralString
    column: LiteralString
    kind: NoteKind
    owner: LiteralString


class WrappedKeys(NamedTuple):
    """A column with wrapped keys. `directory`, `obj`: SQL expressions of the row `t` for the uuids that they were wrapped for."""

    table: LiteralString
    column: LiteralString
    directory: LiteralString
    obj: LiteralString


WRAPPED: Final = (
    WrappedKeys("directories", "index_key", "t.uuid", "t.uuid"),
    WrappedKeys(
        "domain_keys", "wrapped", "(select l.id from ledger.ledger l)",
        "encode(substring(sha256(t.domain) for 16), 'hex')::uuid",
    ),
    WrappedKeys("subject_keys", "wrapped", "(select d.uuid from ledger.directories d where d.id = t.directory)", "t.obj"),
)  # fmt: skip
NOTES: Final = (
    SealedNotes("clients", "last_used_place", "use", "t.id"),
    SealedNotes("consumers", "sealed_url", "url", "t.uuid"),
    SealedNotes("consumers", "secret", "secret", "t.uuid"),
    SealedNotes("consumers", "secret_before", "secret", "t.uuid"),
    SealedNotes("consumer_epochs", "sealed_reason", "sought", _CONSUMER),
    SealedNotes("consumer_forks", "sealed_reason", "fork", _CONSUMER),
    SealedNotes("erasures", "sealed_reason", "erasure", "t.id"),
    SealedNotes("holds", "sealed_matter", "matter", "t.id"),
    SealedNotes("idempotent_requests", "answer", "reply", "encode(substring(sha256(uuid_send(t.owner) || t.key) for 16), 'hex')::uuid"),
    SealedNotes("open_deliveries", "answer", "answer", _CONSUMER),
    SealedNotes("open_deliveries", "sealed_reason", "parked", _CONSUMER),
    SealedNotes("replays", "sealed_name", "replay_name", "t.id"),
    SealedNotes("replays", "sealed_reason", "replay_reason", "t.id"),
    SealedNotes("requests", "detail", "refusal", "t.request_id"),
    SealedNotes("requests", "shape", "filter", "t.request_id"),
    SealedNotes("skips", "sealed_reason", "skipped", _CONSUMER),
    SealedNotes("tokens", "last_used_place", "use", "t.id"),
)  # fmt: skip
