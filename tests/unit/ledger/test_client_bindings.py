"""A client's row is believed only as the service wrote it and the log tells it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ledger.client_bindings import (
    AccessRow,
    ClientRow,
    access_fault,
    access_row,
    client_differs,
    client_fault,
    client_row,
    sealed_access,
    sealed_client,
)
from ledger.events import CLIENT_CREATED, CLIENT_REVOKED
from ledger.sealing import Kek

KEK, OTHER = Kek.of(bytes(range(32))), Kek.of(bytes(32))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
ROW = sealed_client(
    KEK,
    ClientRow(
        UUID(int=7), "acme", "okta", "secret", b"s" * 32, b"f" * 32, NOW + timedelta(hours=1), created_by="sys", rotations=1, created_at=NOW,
        facts=CLIENT_CREATED.bit, rotated=1,
    ),
)  # fmt: skip
SEAL = (ROW.seal or b"").hex()
ACCESS = sealed_access(KEK, AccessRow(UUID(int=8), b"h" * 32, ROW, NOW))


def test_a_row_as_the_service_wrote_it_is_sound() -> None:
    assert client_fault(KEK, ROW) is None
    assert client_differs(KEK, ROW, ["before", SEAL]) is None
    assert access_fault(KEK, ACCESS) is None
    assert ROW.client_id == "cli_00000000000000000000000000000007"
    columns = tuple(getattr(ROW, name) for name in ROW.__slots__)
    assert client_row(columns) == ROW
    assert access_row((ACCESS.id, ACCESS.hash, ACCESS.expires_at, ACCESS.seal, *columns)) == ACCESS


@pytest.mark.parametrize(
    "changed",
    [
        {"directory": "other"}, {"name": "x"}, {"auth": "jwt"}, {"secret": b"x" * 32}, {"former": None}, {"former_until": NOW + timedelta(days=9)},
        {"jwks": "{}"}, {"jwks_uri": "https://x.example"}, {"created_by": None}, {"rotations": 0}, {"rotated": 2}, {"facts": 0}, {"seal": None}, {"seal": b"x"},
        {"facts": CLIENT_CREATED.bit | CLIENT_REVOKED.bit}, {"id": UUID(int=9)},
    ],
)  # fmt: skip
def test_any_other_row_is_refused_and_so_are_its_access_tokens(changed: dict[str, object]) -> None:
    row = replace(ROW, **changed)  # pyright: ignore[reportArgumentType]
    assert client_fault(KEK, row) is not None
    assert client_differs(KEK, row, [SEAL]) is not None
    assert access_fault(KEK, replace(ACCESS, client=row)) is not None


def test_last_use_is_not_sealed_and_another_key_seals_nothing() -> None:
    assert client_fault(KEK, replace(ROW, last_used_at=NOW)) is None
    assert client_fault(OTHER, ROW) is not None
    assert access_fault(OTHER, ACCESS) is not None


@pytest.mark.parametrize(
    "changed", [{"id": UUID(int=1)}, {"hash": b"x" * 32}, {"expires_at": NOW + timedelta(days=1)}, {"seal": b""}]
)
def test_an_access_token_that_was_changed_is_refused(changed: dict[str, object]) -> None:
    assert access_fault(KEK, replace(ACCESS, **changed)) is not None  # pyright: ignore[reportArgumentType]


def test_a_revocation_and_a_seal_that_the_log_does_not_have_are_found() -> None:
    assert client_differs(KEK, replace(ROW, revoked_at=NOW), [SEAL]) is not None
    assert client_differs(KEK, ROW, [SEAL, "later"]) is not None
    assert client_differs(KEK, ROW, []) is not None
    ended = replace(ROW, revoked_at=NOW, facts=ROW.facts | CLIENT_REVOKED.bit)
    assert client_differs(KEK, ended, [SEAL]) is None


def test_states() -> None:
    assert ROW.state(NOW) == "overlapping"
    assert ROW.state(NOW + timedelta(hours=1)) == "active"
    assert replace(ROW, former_until=None).state(NOW) == "active"
    assert replace(ROW, revoked_at=NOW).state(NOW) == replace(ROW, facts=CLIENT_REVOKED.bit).state(NOW) == "revoked"
