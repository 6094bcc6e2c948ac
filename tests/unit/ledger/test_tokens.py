"""Tokens as values: what they reach, how they are issued, rotated and revoked, and which stored row is valid."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from ledger.bindings import TokenRow, Told, differs, fault_of, seal_of, sealed
from ledger.events import TOKEN_ISSUED, TOKEN_REVOKED, TOKEN_ROTATED
from ledger.refused import StateError
from ledger.sealing import Kek
from ledger.token_use import network_of
from ledger.tokens import (
    ROLES,
    TOKEN_OVERLAP_S_MAX,
    Issuer,
    NewToken,
    Scope,
    Token,
    TokenRefusedError,
    believed,
    issue,
    issued_facts,
    revoke,
    rotate,
    shown,
    token_hash,
    warning_due,
    well_formed,
)

KEK, OTHER = Kek.of(bytes(range(32))), Kek.of(bytes(32))
NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
OLD, NEW = UUID(int=1), UUID(int=2)
_numbers = count()


def issuer(**changed: Any) -> Issuer:
    return replace(Issuer(KEK, lambda size: next(_numbers).to_bytes(size, "big"), NOW, "tok_admin"), **changed)


def made(role: str = "consumer", directories: tuple[str, ...] = ("*",), scope: Scope | None = None) -> NewToken:
    return issue(issuer(), OLD, role, "a name", directories, expires_at=NOW + timedelta(days=365), scope=scope)


def stored(**changed: Any) -> TokenRow:
    """A row as the look-up returns it, with its event."""
    return replace(made().row, **{"facts": TOKEN_ISSUED.bit, **changed})


def told(new: NewToken, **more: dict[str, Any]) -> Told:
    return Told(issued_facts(new.row), more.get("bound", {}), more.get("rotated", {}))


# -- issuing ------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_only_the_hash_of_a_token_is_stored(role: str) -> None:
    new = made(role, ("acme",))
    assert well_formed(new.text)
    assert new.text.startswith(f"sl_{role}_")
    assert new.row.hash == token_hash(new.text)
    secret = new.text.rpartition("_")[2]
    command = new.command()
    assert secret not in repr(command.statements)
    assert secret not in repr(command.drafts)
    assert not well_formed(new.text[:-1] + ("0" if new.text[-1] != "0" else "1")), (
        "a mistyped token is refused without the database"
    )


@pytest.mark.parametrize(
    ("role", "directories", "scope", "why"),
    [
        ("king", ("*",), None, "Choose one of"),
        ("scim", ("*",), None, "exactly one directory"),
        ("scim", ("a", "b"), None, "exactly one directory"),
        ("scim", ("_system",), None, "No token names _system"),
        ("operator", ("_system",), None, "No token names _system"),
        ("consumer", ("acme", "_system"), None, "No token names _system"),
        ("auditor", (), None, "reaches nothing"),
        ("auditor", ("*",), Scope(bodies=False), "narrow tokens of role consumer only"),
        ("consumer", ("*",), Scope(types=("user.*", "nonsense")), "does not exist"),
        ("consumer", ("*",), Scope(types=()), "reads nothing"),
    ],
)  # fmt: skip
def test_a_token_with_meaningless_scopes_is_not_issued(
    role: str, directories: tuple[str, ...], scope: Scope | None, why: str
) -> None:
    with pytest.raises(TokenRefusedError, match=why):
        made(role, directories, scope)


def test_an_operator_sees_no_bodies() -> None:
    assert not made("operator").token.bodies
    assert made("auditor").token.bodies


# -- reach --------------------------------------------------------------------


def token(role: str = "admin", directories: tuple[str, ...] = ("*",), **scope: Any) -> Token:
    return Token(
        OLD, role, "", directories, scope.get("types", ("*",)), scope.get("bodies", True), scope.get("consumers", ("*",))
    )


@pytest.mark.parametrize("role", ROLES)
def test_the_ledgers_own_directory_is_for_operators_and_admins_of_all(role: str) -> None:
    for directories in (("*",), ("acme",), ("_system",), ("acme", "_system")):
        held = token(role, directories)
        assert held.reaches_system == (role in {"operator", "admin"} and directories == ("*",))
        assert not held.reaches("_system"), "never by a list that is for directories of IdPs"


def test_a_token_must_reach_every_directory_of_a_list() -> None:
    assert token().reaches_all(("*", "acme", "_system"))
    assert token(directories=("acme", "other")).reaches_all(("acme",))
    for beyond in ("*", "third", "_system"):
        assert not token(directories=("acme", "other")).reaches_all(("acme", beyond))
    assert not token("auditor").reaches_all(("_system",))


def test_the_named_consumers_limit_which_places_a_token_moves() -> None:
    assert token("consumer").moves("any")
    assert token("consumer", consumers=("mine",)).moves("mine")
    assert not token("consumer", consumers=("mine",)).moves("other")
    assert not token("consumer", consumers=()).moves("any"), "without any: the feed alone"


@pytest.mark.parametrize(
    ("mine", "other", "covered"),
    [
        (token(), token("scim", ("acme",)), True),
        (token(directories=("acme",)), token("scim", ("acme",)), True),
        (token(directories=("acme",)), token("scim", ("other",)), False),
        (token(directories=("acme",)), token("auditor", ("*",)), False),
        (token("consumer", types=("user.*",)), token("consumer", types=("user.created",)), True),
        (token("consumer", types=("user.*",)), token("consumer", types=("*",)), False),
        (token("consumer", types=("user.*",)), token("consumer", types=("nonsense",)), False),
        (token("consumer", consumers=("a",)), token("consumer", consumers=("a", "b")), False),
        (token("consumer", consumers=("a",)), token("consumer", consumers=()), True),
        (token("consumer", bodies=False), token("consumer"), False),
    ],
)  # fmt: skip
def test_a_token_covers_what_is_within_its_own_scope(mine: Token, other: Token, covered: bool) -> None:
    assert mine.covers(other) is covered


# -- rotating and revoking ------------------------------------------------------


def test_a_successor_has_the_same_scopes_and_the_same_lifetime() -> None:
    old = stored(created_at=NOW - timedelta(days=100), expires_at=NOW + timedelta(days=265))
    old = sealed(KEK, old)
    new = rotate(issuer(), NEW, old, 3600)
    for name in ("role", "name", "directories", "types", "consumers", "bodies"):
        assert getattr(new.row, name) == getattr(old, name)
    assert (new.row.supersedes, new.row.expires_at, new.row.created_by) == (OLD, NOW + timedelta(days=365), "tok_admin")
    assert new.row.hash == token_hash(new.text) != old.hash
    assert new.ends is not None
    assert (new.ends.superseded_by, new.ends.expires_at) == (NEW, NOW + timedelta(hours=1))
    issued, rotated = new.command().drafts
    assert (issued.kind, issued.obj) == (TOKEN_ISSUED, NEW)
    assert (rotated.kind, rotated.obj) == (TOKEN_ROTATED, OLD)
    assert issued.body is not None
    assert issued.body.object["supersedes"] == str(OLD)


def test_an_overlap_never_extends_a_lifetime() -> None:
    old = sealed(KEK, stored(expires_at=NOW + timedelta(minutes=5)))
    new = rotate(issuer(), NEW, old, 86_400)
    assert new.ends is not None
    assert new.ends.expires_at == NOW + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("changed", "code", "why"),
    [
        ({"superseded_by": NEW}, "token_rotated", "rotated already"),
        ({"expires_at": NOW}, "token_expired", "is expired"),
        ({"revoked_at": NOW}, "token_revoked", "is revoked"),
        ({"facts": TOKEN_ISSUED.bit | TOKEN_REVOKED.bit}, "token_revoked", "is revoked"),
        ({"seal": bytes(32)}, "token_not_of_the_log", "does not agree with the log"),
    ],
)  # fmt: skip
def test_only_an_active_token_can_be_rotated(changed: dict[str, Any], code: str, why: str) -> None:
    with pytest.raises(StateError, match=why) as refused:
        rotate(issuer(), NEW, stored(**changed), 60)
    assert refused.value.code == code


@pytest.mark.parametrize("overlap", [-1, TOKEN_OVERLAP_S_MAX + 1])
def test_an_overlap_has_bounds(overlap: int) -> None:
    with pytest.raises(TokenRefusedError, match="overlap_seconds is 0 to"):
        rotate(issuer(), NEW, stored(), overlap)


def test_the_state_follows_from_the_row_the_events_and_the_clock() -> None:
    later = NOW + timedelta(days=400)
    assert [stored().state(at) for at in (NOW, later)] == ["active", "expired"]
    assert [stored(superseded_by=NEW).state(at) for at in (NOW, later)] == ["overlapping", "expired"]
    assert stored(revoked_at=NOW).state(later) == "revoked"
    assert shown(stored(supersedes=NEW), NOW)["supersedes"] == str(NEW)
    assert shown(stored(), NOW)["state"] == "active"


def test_the_log_says_once_that_a_token_is_revoked() -> None:
    facts = revoke(stored(), "left the company")
    assert facts is not None
    assert facts.drafts[0].body is not None
    assert facts.drafts[0].body.object["reason"] == "left the company"
    assert "left the company" not in repr(facts.statements), "a reason may name a person, so it is sealed"
    assert revoke(stored(facts=TOKEN_ISSUED.bit | TOKEN_REVOKED.bit)) is None


# -- which row is valid ----------------------------------------------------------

CHANGES: dict[str, Any] = {
    "id": NEW, "hash": bytes(32), "role": "admin", "name": "another", "directories": ("acme", "other"), "types": ("user.*",),
    "consumers": ("one",), "bodies": False, "created_by": "tok_other", "supersedes": NEW, "expires_at": NOW + timedelta(days=9_999),
}  # fmt: skip


def test_an_unchanged_row_is_valid() -> None:
    assert fault_of(KEK, stored()) is None
    assert believed(KEK, [stored()])[0].facts


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_that_was_edited_is_refused(name: str) -> None:
    new = made()
    row = replace(new.row, facts=TOKEN_ISSUED.bit)
    assert differs(KEK, row, told(new)) is None
    changed = replace(row, **{name: CHANGES[name]})
    assert fault_of(KEK, changed) is not None
    assert believed(KEK, [changed]) == []
    assert differs(KEK, changed, told(new)) is not None
    # Sealed again by somebody who has the key: the row still differs from the event in the log.
    assert differs(KEK, sealed(KEK, changed), told(new)) is not None


def test_a_seal_with_another_key_is_refused() -> None:
    assert fault_of(OTHER, stored()) is not None
    assert seal_of(OTHER, stored()) != seal_of(KEK, stored())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"facts": 0}, "no event token.issued"),
        ({"facts": TOKEN_ISSUED.bit | TOKEN_REVOKED.bit}, "token.revoked stands in the log"),
        ({"facts": TOKEN_ISSUED.bit | TOKEN_ROTATED.bit}, "differ on whether it was rotated"),
        ({"superseded_by": NEW}, "differ on whether it was rotated"),
        ({"seal": None}, "has no seal"),
    ],
)  # fmt: skip
def test_a_row_that_the_events_contradict_is_refused(changed: dict[str, Any], why: str) -> None:
    assert why in (fault_of(KEK, stored(**changed)) or "")


def test_the_row_from_before_a_rotation_is_refused() -> None:
    new = made()
    old = replace(new.row, facts=TOKEN_ISSUED.bit)
    after = rotate(issuer(), NEW, old, 60)
    assert after.ends is not None
    facts = TOKEN_ISSUED.bit | TOKEN_ROTATED.bit
    assert fault_of(KEK, replace(after.ends, facts=facts)) is None
    assert fault_of(KEK, replace(old, facts=facts)) is not None
    longer = replace(after.ends, facts=facts, expires_at=old.expires_at)
    assert fault_of(KEK, longer) is not None
    (_, rotated) = after.command().drafts
    assert rotated.body is not None
    log = told(new, rotated=rotated.body.object)
    assert differs(KEK, replace(after.ends, facts=facts), log) is None
    assert "expiry or its successor" in (differs(KEK, sealed(KEK, longer), log) or "")


def test_a_row_of_an_earlier_release_is_compared_by_its_rights() -> None:
    new = made()
    said = {name: value for name, value in issued_facts(new.row).items() if name not in {"seal", "consumers"}}
    row = replace(new.row, facts=TOKEN_ISSUED.bit, seal=None)
    assert differs(KEK, row, Told(said, {}, {})) is None
    assert differs(KEK, replace(row, role="admin"), Told(said, {}, {})) == "role is not what token.issued says"
    bound = {"seal": new.row.seal.hex() if new.row.seal else ""}
    assert "has no seal" in (differs(KEK, row, Told(said, bound, {})) or "")
    assert differs(KEK, replace(row, seal=new.row.seal), Told(said, bound, {})) is None


def test_a_revocation_without_its_event_is_reported() -> None:
    new = made()
    row = replace(new.row, facts=TOKEN_ISSUED.bit, revoked_at=NOW)
    assert "no event token.revoked" in (differs(KEK, row, told(new)) or "")
    assert "no event token.issued" in (differs(KEK, replace(row, facts=0, revoked_at=None), Told({}, {}, {})) or "")


DAY = 86_400


@pytest.mark.parametrize(
    ("left", "lifetime", "told", "due"),
    [
        (31 * DAY, 365 * DAY, None, None),
        (30 * DAY, 365 * DAY, None, 30),
        (30 * DAY, 365 * DAY, 30, None),
        (7 * DAY, 365 * DAY, 30, 7),
        (5 * DAY, 365 * DAY, None, 7),  # the service was away when the first warning was due: one is enough
        (1 * DAY, 365 * DAY, 7, 1),
        (60, 365 * DAY, 1, None),
        (5 * DAY, 5 * DAY, None, None),  # it never had a week
        (1 * DAY, 5 * DAY, None, 1),
        (60, 3_600, None, None),
    ],
)
def test_a_token_is_warned_of_once_for_each_term(left: float, lifetime: float, told: int | None, due: int | None) -> None:
    assert warning_due(left, lifetime, told) == due


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", None),
        ("/run/ledger.sock", None),
    ],
)
def test_of_an_address_only_its_network_is_kept(address: str, network: str | None) -> None:
    assert network_of(address) == network
