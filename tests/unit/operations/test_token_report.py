"""The governance report: each planted fault is found with since when and its remedy, and nothing else is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from ledger.bindings import TokenRow
from ledger.client_bindings import ClientRow
from ledger.events import TOKEN_ISSUED, TOKEN_REVOKED
from ledger.key_epochs import Epoch
from operations.token_report import KINDS, Evidence, findings_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BORN = NOW - timedelta(days=700)
DAY = timedelta(days=1)


def token(number: int = 1, **more: Any) -> TokenRow:
    """A sound token of an application that reads what it needs."""
    known = {
        "id": UUID(int=number), "hash": bytes([number]), "role": "consumer", "name": f"t{number}", "directories": ("acme",), "types": ("*",),
        "consumers": ("door",), "bodies": True, "created_by": "tok_1", "supersedes": None, "superseded_by": None,
        "expires_at": NOW + 300 * DAY, "created_at": NOW - 65 * DAY, "last_used_at": NOW - DAY, "facts": TOKEN_ISSUED.bit,
    }  # fmt: skip
    return TokenRow(**{**known, **more})


def webhook(name: str) -> Any:
    return SimpleNamespace(name=name, uuid=UUID(int=99))


def found(*tokens: TokenRow, **more: Any) -> list[tuple[str, str, str]]:
    evidence = Evidence(NOW, BORN, tokens, **more)
    return [(one["finding"], one["subject"]["name"], one["severity"]) for one in findings_of(evidence)]


def test_a_sound_deployment_has_no_finding() -> None:
    old, new = UUID(int=1), UUID(int=2)
    rotated = [
        token(1, role="scim", consumers=("*",), superseded_by=new, expires_at=NOW + DAY, created_at=NOW - 400 * DAY),
        token(2, role="scim", consumers=("*",), supersedes=old, created_at=NOW - DAY),
    ]
    ended = [token(3, expires_at=NOW - DAY), token(4, revoked_at=NOW - DAY, facts=TOKEN_ISSUED.bit | TOKEN_REVOKED.bit)]
    every = [token(5, role=role, directories=("*",), consumers=("*",)) for role in ("auditor", "operator", "admin")]
    assert found(*rotated, *ended, *every, token(6, created_at=NOW - DAY, last_used_at=None)) == []
    assert found(secrets=[(webhook("door"), NOW - 364 * DAY)]) == []


FAULTS = {
    "expires_soon": token(1, expires_at=NOW + 29 * DAY),
    "unused": token(2, last_used_at=NOW - 91 * DAY, created_at=NOW - 100 * DAY),
    "never_used": token(3, last_used_at=None, created_at=NOW - 8 * DAY),
    "not_rotated": token(4, created_at=NOW - 181 * DAY),
    "wide": token(5, directories=("*",), consumers=("*",)),
}


@pytest.mark.parametrize(("kind", "row"), FAULTS.items())
def test_one_fault_is_one_finding(kind: str, row: TokenRow) -> None:
    (one,) = findings_of(Evidence(NOW, BORN, [row, token(50)]))
    assert (one["finding"], one["subject"]) == (kind, {"kind": "token", "id": str(row.id), "name": row.name})
    assert str(row.id) in one["fix"]
    assert BORN < one["since"] <= NOW


def test_a_token_that_ends_within_a_week_is_more_than_a_token_that_ends_within_a_month() -> None:
    assert found(token(1, expires_at=NOW + 6 * DAY)) == [("expires_soon", "t1", "high")]
    assert found(token(1, expires_at=NOW + 8 * DAY)) == [("expires_soon", "t1", "medium")]


@pytest.mark.parametrize("successor", [None, UUID(int=7)])
@pytest.mark.parametrize("revoked", [None, NOW - 2 * DAY])
def test_a_token_that_ended_and_is_still_sent_is_found(successor: UUID | None, revoked: datetime | None) -> None:
    row = token(1, role="scim", expires_at=NOW - DAY, superseded_by=successor, revoked_at=revoked)
    (one,) = findings_of(Evidence(NOW, BORN, [row], refused={row.id: NOW}))
    assert (one["finding"], one["severity"], one["since"]) == ("expired_in_use", "high", revoked or NOW - DAY)
    assert str(successor or row.id) in one["fix"]


def test_a_second_token_of_an_idp_that_no_rotation_ends_is_found_and_the_newest_is_not() -> None:
    one, two = token(1, role="scim", created_at=NOW - 9 * DAY), token(2, role="scim", created_at=NOW - 3 * DAY)
    other = token(3, role="scim", directories=("other",))
    (two_live,) = findings_of(Evidence(NOW, BORN, [two, one, other]))
    assert (two_live["finding"], two_live["subject"]["name"], two_live["since"]) == ("two_live", "t1", two.created_at)
    assert found(one, replace(two, revoked_at=NOW)) == []


def test_the_tokens_of_the_first_start_have_a_month_to_be_replaced() -> None:
    first = token(1, directories=("*",), consumers=("*",), created_by="sys", created_at=NOW - 20 * DAY, last_used_at=None)
    born = first.created_at - timedelta(seconds=3)
    assert list(findings_of(Evidence(NOW, born, [first]))) == []
    later = list(findings_of(Evidence(NOW + 11 * DAY, born, [first])))
    assert [one["finding"] for one in later] == ["never_used", "wide"]
    assert [one["finding"] for one in findings_of(Evidence(NOW, BORN, [first]))] == ["never_used", "wide"]


def test_an_old_secret_of_a_webhook_is_found() -> None:
    (one,) = findings_of(Evidence(NOW, BORN, [], secrets=[(webhook("door"), NOW - 366 * DAY)]))
    assert (one["finding"], one["subject"]["kind"], one["since"]) == ("webhook_secret_old", "consumer", NOW - DAY)
    assert one["fix"] == "scim-ledger consumer rotate-secret door"


def test_seven_faults_are_seven_findings() -> None:
    ended = token(10, role="scim", expires_at=NOW - DAY)
    two = [token(11, role="scim", directories=("b",)), token(12, role="scim", directories=("b",))]
    kinds = [kind for kind, *_ in found(*FAULTS.values(), ended, *two, token(13), refused={ended.id: NOW})]
    assert sorted(kinds) == sorted([*FAULTS, "expired_in_use", "two_live"])
    assert set(kinds) < set(KINDS)


def test_the_secret_of_a_client_that_nobody_rotated_for_a_year() -> None:
    fresh = ClientRow(
        UUID(int=1), "acme", "okta", "secret", created_at=NOW - timedelta(days=400), rotated_at=NOW - timedelta(days=364),
        last_used_at=NOW,
    )  # fmt: skip
    old = replace(fresh, id=UUID(int=2), rotated_at=NOW - timedelta(days=365))
    never, signing = replace(fresh, id=UUID(int=3), rotated_at=None), replace(old, id=UUID(int=4), auth="jwt")
    revoked = replace(old, id=UUID(int=5), revoked_at=NOW)
    found = list(findings_of(Evidence(NOW, BORN, [], clients=[fresh, old, never, signing, revoked])))
    assert [(one["finding"], one["subject"]["id"], one["since"]) for one in found] == [
        ("client_secret_old", str(old.id), NOW),
        ("client_secret_old", str(never.id), NOW - timedelta(days=35)),
    ]
    assert found[0]["fix"] == f"scim-ledger client rotate {old.id}"
    assert found[0]["subject"]["kind"] == "client"


def test_a_client_that_nobody_uses_is_found_and_a_revoked_one_is_not() -> None:
    used = ClientRow(UUID(int=1), "acme", "okta", "jwt", created_at=NOW - 100 * DAY, last_used_at=NOW - 89 * DAY)
    idle = replace(used, id=UUID(int=2), last_used_at=NOW - 90 * DAY)
    never = replace(used, id=UUID(int=3), last_used_at=None)
    fresh = replace(never, id=UUID(int=4), created_at=NOW - 6 * DAY)
    revoked = replace(idle, id=UUID(int=5), revoked_at=NOW)
    told = list(findings_of(Evidence(NOW, BORN, [], clients=[used, idle, never, fresh, revoked])))
    assert [(one["finding"], one["subject"]["id"], one["since"]) for one in told] == [
        ("unused", str(idle.id), idle.last_used_at), ("never_used", str(never.id), never.created_at),
    ]  # fmt: skip
    assert {one["fix"] for one in told} == {f"scim-ledger client revoke {row.id}" for row in (idle, never)}


def epoch(number: int, active_at: datetime | None, wrapped: bytes | None = b"w") -> Epoch:
    return Epoch(number, bytes(8), "file", str(number), wrapped, BORN, active_at, None, None)


def test_an_old_key_epoch_and_one_that_could_be_destroyed_for_long_are_found() -> None:
    assert found(epochs=[epoch(1, NOW - 364 * DAY)]) == []
    (old,) = findings_of(Evidence(NOW, BORN, [], epochs=[epoch(1, None, None), epoch(2, NOW - 365 * DAY), epoch(3, None)]))
    assert (old["finding"], old["subject"]["id"], old["since"]) == ("key_old", "2", NOW)
    assert old["fix"] == "scim-ledger key rotate, then key rewrap"
    assert found(epochs=[epoch(1, NOW - 500 * DAY), epoch(2, NOW - 89 * DAY)]) == []
    (left,) = findings_of(Evidence(NOW, BORN, [], epochs=[epoch(1, NOW - 500 * DAY), epoch(2, NOW - 90 * DAY)]))
    assert (left["finding"], left["subject"]["id"], left["since"]) == ("key_old", "1", NOW)
    assert left["fix"] == "scim-ledger key rewrap, then key destroy 1"
