"""`doctor` reports everything in a status that needs attention."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from delivery.pace import NAMES
from delivery.reports import EXCEPTION_STATES as EXCEPTIONS
from delivery.standing import LIMITS, STATES
from ledger.events import ACTIVE, CLOSED, DELETED, PAUSED
from operations.journal import advice
from runtime.cli import doctor
from runtime.cli.doctor import of_consumer
from runtime.cli.verbs import VERBS

# Fields of a status that say that somebody is needed, and fields that only describe.
SAID = {"state", "blocked", "retrying", "waiting", "held", "parked", "limited_by", "lag_seconds", "blocked_on", "forked", "name"}
DESCRIBES = {
    "object", "mode", "ordering", "directories", "types", "batch_max", "url", "retry_schedule", "created_at", "acked_position",
    "position", "acked_events", "acked_events_capped",
    "head_position", "lag_events", "lag_events_capped", "oldest_unacked_at", "revocation_seconds",
}  # fmt: skip
STUCK = {"last_error": "http_503", "attempts": 3}
NOW = datetime(2026, 11, 30, tzinfo=UTC)
NONE_SHARED = {"values": 0, "resources": 0, "examples": []}
SOUND = {
    "users": 3, "users_without_external_id": 0, "same_external_id": NONE_SHARED, "same_display_name": NONE_SHARED, "unknown_members": 0,
    "resources_read": 3, "unknown_attributes": [], "user_names_without_email": 0,
}  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    well = {"name": "app", "state": "active", **dict.fromkeys(EXCEPTIONS.values(), 0), "limited_by": None, "lag_seconds": 0.0}
    return {**well, "blocked_on": None, "forked": None, **more}


def test_every_state_exception_and_limit_has_its_line() -> None:
    assert set(doctor.STATES) == set(STATES)
    assert set(doctor.EXCEPTIONS) == set(EXCEPTIONS.values()) <= SAID


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_does_not_end_by_itself_is_reported_with_what_to_do(state: str) -> None:
    said = of_consumer(status(state=state, blocked=state == "blocked", blocked_on=STUCK))
    assert bool(said) == (state not in {"active", "retrying"})
    assert all(f"scim-ledger {'blocked list' if state == 'blocked' else 'consumer resume'} app" in line for line in said)


@pytest.mark.parametrize("kind", EXCEPTIONS.values())
@pytest.mark.parametrize("state", STATES)
def test_deliveries_that_wait_for_an_operator_are_reported_in_every_state(kind: str, state: str) -> None:
    said = of_consumer(status(**{kind: 7, "state": state}))
    assert any(line.startswith("7 ") and "scim-ledger" in line for line in said) == (kind in {"blocked", "held", "parked"})


def test_what_this_service_refuses_is_not_put_down_to_the_receiver() -> None:
    stuck = {"last_error": "address_refused", "attempts": 3}
    (said,) = of_consumer(status(state="blocked", blocked=1, blocked_on=stuck))
    assert "This service refuses the address of its URL" in said
    assert "LEDGER_WEBHOOK_ALLOW" in said


@pytest.mark.parametrize("what", LIMITS)
def test_every_limit_of_a_consumer_that_is_behind_is_reported(what: str) -> None:
    """This includes a receiver that is down: earlier, `failures` was left out."""
    limit = {"what": what, "answer_ms": None, "events_per_second": None, "advice": "What helps: this (GET …/blocked)."}
    (said,) = of_consumer(status(state="retrying", retrying=1, limited_by=limit, lag_seconds=61.2, blocked_on=STUCK))
    assert said.startswith("61 s behind")
    assert "What helps: this (`scim-ledger blocked list`)." in said
    assert ("http_503" in said) == (what == "failures")


def test_a_lost_end_of_the_log_is_reported_and_each_cause_has_a_line() -> None:
    fork = {"gone_count": 3}
    assert "3 events" in of_consumer(status(forked=fork))[0]
    limit = {"what": "rate", "answer_ms": None, "events_per_second": None, "advice": "What helps: this."}
    every = status(state="blocked", blocked=1, held=1, parked=1, retrying=1, waiting=1, limited_by=limit, forked=fork)
    assert len(of_consumer(every)) == 5
    assert of_consumer(status()) == []


def test_no_two_limits_share_a_name() -> None:
    assert len(set(LIMITS)) == len(LIMITS) == len(NAMES) + 2


def _token(**more: Any) -> dict[str, Any]:
    return {
        "id": "old", "name": "t", "revoked_at": None, "expires_at": NOW + timedelta(days=300), "last_used_at": NOW, "created_at": NOW,
        "superseded_by": None, **more,
    }  # fmt: skip


HOUR = timedelta(hours=1)
REPLACED = "Token t was replaced by new, and works until 2026-11-30 20:00 UTC: enter the new one in the IdP."
STILL_USED = f"{REPLACED} Until now the IdP uses the old one, and will be refused then."


@pytest.mark.parametrize(
    ("left", "old_used", "new", "says"),
    [
        (20 * HOUR, None, {"last_used_at": None}, [REPLACED]),
        (20 * HOUR, -1 * HOUR, {"last_used_at": None}, [REPLACED]),
        (5 * HOUR, -1 * HOUR, {"last_used_at": None}, [STILL_USED]),
        (5 * HOUR, -30 * HOUR, {"last_used_at": None}, [REPLACED]),
        (5 * HOUR, -1 * HOUR, {"last_used_at": NOW - 2 * HOUR}, [STILL_USED]),
        (5 * HOUR, -2 * HOUR, {"last_used_at": NOW - HOUR}, []),
        (5 * HOUR, None, {"last_used_at": NOW - HOUR}, []),
        (5 * HOUR, None, {"revoked_at": NOW}, ["Token t works until 2026-11-30 20:00 UTC, and its successor new is revoked: issue one and enter it in the IdP."]),
        (-1 * HOUR, None, {"last_used_at": None}, ["Token t was never used: enter it in the IdP, or revoke it if nobody needs it."]),
    ],
)  # fmt: skip
def test_a_rotated_token_is_told_with_its_successor(
    left: timedelta, old_used: timedelta | None, new: dict[str, Any], says: list[str]
) -> None:
    """Before, the advice was to rotate it, which is refused."""
    ends = datetime(2026, 11, 30, 20, tzinfo=UTC)
    now, moved = ends - left, ends - left - NOW
    at = {name: value and value + moved for name, value in new.items()}
    old = _token(expires_at=ends, superseded_by="new", last_used_at=None if old_used is None else now + old_used)
    successor = _token(id="new", created_at=now - 25 * HOUR, expires_at=now + timedelta(days=300), **at)
    report = _report(tokens=[old, successor], last_request=now)
    assert advice(report, now) == says


def test_a_pause_is_told_first_and_since_when() -> None:
    surge = {"revocations_last_hour": 101, "per_hour": 100, "action": "alarm"}
    said = advice(_report(state=PAUSED, state_since=NOW, surge=surge), NOW)
    assert said[0].startswith("It is paused since 2026-11-30 00:00 UTC: changes of its IdP are answered 503")


@pytest.mark.parametrize(("last", "told"), [(None, False), (NOW - HOUR, False), (NOW + HOUR, True)])
def test_an_idp_that_goes_on_after_the_closing_is_told(last: datetime | None, *, told: bool) -> None:
    said = advice(_report(state=CLOSED, state_since=NOW, last_request=last), NOW)
    assert [line.startswith("The IdP still sends requests (the last 2026-11-30 01:00 UTC)") for line in said] == [True] * told


class _Service:
    def __init__(self, ready: dict[str, Any]) -> None:
        self.ready = ready

    def ask(self, verb: str) -> dict[str, Any]:
        assert verb in VERBS
        return self.ready


def test_settings_that_weaken_the_service_are_reported() -> None:
    warnings = [{"reason": "fsync_off", "says": "fsync is off."}]
    rows = doctor._service(_Service({"status": "ready", "warnings": warnings}))  # pyright: ignore[reportArgumentType]
    assert rows == [{"about": "service", "name": "fsync_off", "advice": "fsync is off."}]
    assert doctor._service(_Service({"status": "ready"})) == []  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("state", "action", "lost"), list(product([ACTIVE, PAUSED, CLOSED, DELETED], ["alarm", "hold"], [100, 101]))
)
def test_a_directory_with_a_surge_or_a_pause_is_reported_and_a_closed_one_is_not(state: str, action: str, lost: int) -> None:
    until = datetime(2027, 11, 30, tzinfo=UTC)
    token = _token(expires_at=until)
    surge = {"revocations_last_hour": lost, "per_hour": 100, "action": action}
    report = {
        "directory": "acme", "clock": "running", "state": state, "state_since": NOW, "surge": surge, "retry_storms": [], "operations": [], "hours": 24, "since": None,
        "last_request": NOW, "spikes": [], "mistakes": [], "cycle_minutes": None, "quality": SOUND, "tokens": [token], "clients": [],
    }  # fmt: skip
    said = advice(report, NOW)
    ended = state in {CLOSED, DELETED}
    assert any("lost access" in line for line in said) == (lost > 100 and not ended)
    assert any("surge release" in line for line in said) == (lost > 100 and not ended and action == "hold")
    assert any("It is paused" in line for line in said) == (state == PAUSED)
    assert len(said) == ((lost > 100) + (state == PAUSED)) * (not ended)


def _report(**more: Any) -> Any:
    return {
        "directory": "acme", "clock": "exact", "state": ACTIVE, "state_since": None, "surge": {"revocations_last_hour": 0, "per_hour": 100, "action": "alarm"},
        "retry_storms": [], "operations": [], "hours": 24, "since": None, "last_request": NOW, "last_change": None, "spikes": [],
        "tokens": [_token()], "clients": [], "mistakes": [], "cycle_minutes": None, "quality": SOUND, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("last", "changed", "cycle", "says"),
    [
        (timedelta(hours=23), None, None, None),
        (timedelta(hours=25), None, None, "Silence since 2026-11-28 23:00 UTC: is"),
        (timedelta(minutes=119), None, 40, None),
        (timedelta(minutes=121), None, 40, "about every 40 minutes"),
        (timedelta(hours=25), None, 1_440, None),
        (None, timedelta(days=40), None, "Silence since 2026-10-21"),
        (None, None, 40, "No request has arrived yet"),
    ],
)
def test_silence_is_measured_by_the_cycle_of_the_idp(
    last: timedelta | None, changed: timedelta | None, cycle: int | None, says: str | None
) -> None:
    report = _report(last_request=last and NOW - last, last_change=changed and NOW - changed, cycle_minutes=cycle)
    said = advice(report, NOW)
    assert len(said) == (says is not None)
    assert says is None or says in said[0]


SHARED = {"values": 1, "resources": 2, "examples": []}


@pytest.mark.parametrize(
    ("more", "expected", "says"),
    [
        ({"same_display_name": SHARED}, False, "2 groups share a displayName"),
        ({"same_external_id": SHARED}, False, "2 users share an externalId"),
        ({"unknown_members": 4}, False, "4 requests about groups were refused"),
        ({"users_without_external_id": 1}, False, "1 of 3 users have no externalId"),
        ({"users_without_external_id": 3}, False, None),
        ({"users_without_external_id": 3}, True, "3 of 3 users have no externalId"),
        ({"unknown_attributes": [{"resource_type": "User", "attribute": "departement", "resources": 2}]}, False, "no schema has: departement."),
        ({"user_names_without_email": 5}, True, "5 of the newest users have a userName that is no e-mail address"),
        ({"user_names_without_email": None}, True, None),
    ],
)  # fmt: skip
def test_what_users_and_groups_say_of_the_mapping_is_advised(more: dict[str, Any], expected: bool, says: str | None) -> None:
    said = advice(_report(quality={**SOUND, **more}), NOW, expects_external_id=expected)
    assert len(said) == (says is not None)
    assert says is None or says in said[0]


@pytest.mark.parametrize(
    ("ago_min", "last_request_ago_min", "told"), [(59, 1, True), (61, 1, False), (61, 62, True), (600, None, True)]
)
def test_a_mistake_is_told_until_it_is_mended(ago_min: int, last_request_ago_min: int | None, *, told: bool) -> None:
    """Otherwise the health would not become well for a day after somebody has corrected the URL."""
    mistake = {
        "mistake": "no_v2", "token": None, "count": 7, "last": NOW - timedelta(minutes=ago_min), "meaning": "No v2.", "fix": "Correct it.",
    }  # fmt: skip
    last = None if last_request_ago_min is None else NOW - timedelta(minutes=last_request_ago_min)
    said = advice(_report(mistakes=[mistake], last_request=last), NOW)
    assert [line.partition(" (7")[0] for line in said] == ["No v2."] * told
