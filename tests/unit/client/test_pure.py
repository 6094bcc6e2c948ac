"""The pure modules of the client: waits between attempts, lines of streams, signatures, and the fold of events into access."""

import random
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scim_ledger_client import SignatureError, Webhook
from scim_ledger_client.access import Edge, access_of, apply
from scim_ledger_client.errors import LostEndError, MissingError, PlaceMovedError, RefusedError, UnauthorizedError, refusal
from scim_ledger_client.events import Event
from scim_ledger_client.retries import Retries, retry_after_s
from scim_ledger_client.sse import Message, MessageDecoder

from delivery.signing import new_secret, signature

NOW = 1_700_000_000
SECRETS = [new_secret(random.Random(n).randbytes) for n in range(3)]
BODY = b'{"type":"user.created","timestamp":"2026-11-24T02:15:59.356220Z","data":{"object":"event","id":"evt_acme_2_8af96f0f"}}'


def headers(*secrets: str, body: bytes = BODY, stamp: int = NOW, **more: str) -> dict[str, str]:
    return {
        "Webhook-Id": "evt_acme_2_8af96f0f", "Webhook-Timestamp": str(stamp), "Webhook-Signature": signature(secrets, "evt_acme_2_8af96f0f", stamp, body),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }  # fmt: skip


# -- retries ----------------------------------------------------------------


@given(st.integers(1, 100), st.floats(0, 1), st.none() | st.floats(0, 400))
def test_waits_grow_respect_the_service_and_end(failures: int, chance: float, asked: float | None) -> None:
    retries = Retries(attempts=5, first_s=1.0, longest_s=4.0)
    seconds = retries.wait_s(failures, asked, chance)
    if failures >= 5 or (asked or 0) > 300:
        assert seconds is None
    else:
        assert seconds is not None
        assert (asked or 0) <= seconds <= max(asked or 0, 4.0, 2.0 ** (failures - 1))
        assert seconds >= min(2.0 ** (failures - 1), 4.0) / 2


def test_retry_after_is_a_number_or_a_date_and_everything_else_is_ignored() -> None:
    now = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Mon, 30 Nov 2026 12:00:30 GMT", now) == 30.0
    assert retry_after_s("Mon, 30 Nov 2026 11:00:00 GMT", now) == 0.0
    assert retry_after_s("Mon, 30 Nov 2026 12:00:30 -0000", now) == 30.0
    assert [retry_after_s(text, now) for text in (None, "", "soon", "-1", "1.5", "\u0661")] == [None] * 6


# -- Server-Sent Events -----------------------------------------------------

LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(LINE, LINE.filter(bool), st.lists(LINE, min_size=1))))
def test_messages_are_read_as_they_were_written(messages: list[tuple[str, str, list[str]]]) -> None:
    decoder, found, wanted = MessageDecoder(), list[Message](), list[Message]()
    for last, event, data in messages:
        block = [f"id: {last}", f"event: {event}", *(f"data: {line}" for line in data), ": a comment", ""]
        found += filter(None, map(decoder.take, block))
        wanted.append(Message(last, event, "\n".join(data)))
    assert found == wanted


def test_the_parts_of_the_standard_that_servers_use_seldom() -> None:
    decoder = MessageDecoder()
    lines = ["retry: 2500", "retry: soon", "id: 1", "data", "", "event: dropped", "", "id: a\0b", "data:x", ""]
    assert list(filter(None, map(decoder.take, lines))) == [Message("1", "message", ""), Message("1", "message", "x")]
    assert decoder.retry_s == 2.5


# -- webhooks ---------------------------------------------------------------


def test_a_signed_request_is_read() -> None:
    found = Webhook(SECRETS[0]).receive(
        headers(SECRETS[0], ledger_attempt="3", ledger_replay="run", ledger_previous_seq="7"), BODY, now=NOW
    )
    assert (found.id, found.attempt, found.replay, found.previous_seq) == ("evt_acme_2_8af96f0f", 3, "run", 7)
    assert [event["id"] for event in found.events] == ["evt_acme_2_8af96f0f"]
    batch = b'{"type":"batch","timestamp":"t","data":[{"id":"a"},{"id":"b"}]}'
    assert len(Webhook(SECRETS[0]).receive(headers(SECRETS[0], body=batch), batch, now=NOW).events) == 2
    ping = b'{"type":"ping","timestamp":"t","data":{"consumer":"hook"}}'
    assert Webhook(SECRETS[0]).receive(headers(SECRETS[0], body=ping), ping, now=NOW).events == []


@pytest.mark.parametrize("known", [SECRETS[:1], SECRETS[1:2], SECRETS[:2], SECRETS[1::-1]])
def test_during_a_rotation_the_old_and_the_new_secret_fit_on_both_sides(known: list[str]) -> None:
    assert Webhook(*known).receive(headers(*SECRETS[:2]), BODY, now=NOW).events
    with pytest.raises(SignatureError, match="No signature fits"):
        Webhook(*known).receive(headers(SECRETS[2]), BODY, now=NOW)


@example(b"{}", "Webhook-Timestamp", "soon")
@given(st.binary(), st.sampled_from(["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"]), st.text(max_size=60))
def test_whatever_was_changed_is_refused(body: bytes, field: str, value: str) -> None:
    hook, good = Webhook(SECRETS[0]), headers(SECRETS[0])
    if body != BODY:
        with pytest.raises(SignatureError):
            hook.receive(good, body, now=NOW)
    if value != good[field] and value.removeprefix("0" * 30).strip() != good[field]:
        with pytest.raises(SignatureError):
            hook.receive({**good, field: value}, BODY, now=NOW)
    for missing in ("Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"):
        with pytest.raises(SignatureError):
            hook.receive({name: text for name, text in good.items() if name != missing}, BODY, now=NOW)


def test_an_old_message_is_refused_in_both_directions_of_the_clock() -> None:
    hook = Webhook(SECRETS[0])
    for stamp in (NOW - 300, NOW + 300):
        assert hook.receive(headers(SECRETS[0], stamp=stamp), BODY, now=NOW)
    for stamp in (NOW - 301, NOW + 301):
        with pytest.raises(SignatureError, match="clock"):
            hook.receive(headers(SECRETS[0], stamp=stamp), BODY, now=NOW)


def test_what_is_no_secret_is_refused_when_the_receiver_starts() -> None:
    for secrets in ([], ["secret"], ["whsec_%%%"], [SECRETS[0], ""]):
        with pytest.raises(ValueError):
            Webhook(*secrets)
    assert Webhook("whsec_" + b64encode(b"k" * 32).decode())


# -- access -----------------------------------------------------------------

D, G, M = st.sampled_from("ab"), st.sampled_from("gh"), st.sampled_from("mn")
CHANGES = ["group.member_added", "group.member_access_restored", "group.member_removed", "group.member_access_revoked"]
MEMBERSHIP = st.builds(
    lambda kind, directory, group, member, effective: {
        "type": kind, "directory": directory, "data": {"group": {"id": group}, "member": {"type": "User", "id": member}, "effective": effective},
    },
    st.sampled_from(CHANGES), D, G, M, st.booleans(),
)  # fmt: skip
CLOSED = st.builds(lambda directory: {"type": "directory.closed", "directory": directory, "data": {"withheld": True}}, D)
OTHER = st.builds(lambda directory: {"type": "user.renamed", "directory": directory, "data": {}}, D)


def begins(event: dict[str, Any], edge: Edge) -> bool | None:
    """What one event says of one edge, in the words of docs/consumers.md: True begins, False ends, None nothing."""
    if event["type"] == "directory.closed":
        return False if event["directory"] == edge[0] else None
    if event["type"] not in CHANGES or (event["directory"], event["data"]["group"]["id"], event["data"]["member"]["id"]) != edge:
        return None
    if event["type"] in CHANGES[:2]:
        return True if event["data"]["effective"] else None
    return False


def membership(kind: str, member: str, *, effective: bool = True) -> dict[str, Any]:
    return {
        "type": kind,
        "directory": "a",
        "data": {"group": {"id": "g"}, "member": {"type": "User", "id": member}, "effective": effective},
    }


@given(st.lists(MEMBERSHIP | CLOSED | OTHER))
@example(
    [
        membership(CHANGES[0], "m"),
        membership(CHANGES[0], "n", effective=False),
        membership(CHANGES[3], "m"),
        membership(CHANGES[1], "m"),
    ]
)
@example(
    [
        membership(CHANGES[0], "m"),
        {"type": "directory.closed", "directory": "a", "data": {}},
        {"type": "user.renamed", "directory": "a", "data": {}},
    ]
)
def test_access_is_what_the_last_event_about_an_edge_says(events: list[dict[str, Any]]) -> None:
    access = set[Edge]()
    for event in events:
        for _ in range(2):  # each comes twice
            apply(access, cast("Event", event))
    edges = {(d, g, m) for d in "ab" for g in "gh" for m in "mn"}
    assert access == {
        edge for edge in edges if next((s for s in (begins(e, edge) for e in reversed(events)) if s is not None), False)
    }


def test_the_access_of_a_snapshot_is_that_of_its_effective_memberships() -> None:
    lines: list[Any] = [{"object": "user", "id": "m"}, {"object": "group", "id": "g"}]
    lines += [
        {"object": "membership", "group": {"id": "g"}, "member": {"type": "User", "id": m}, "effective": m == "m"} for m in "mn"
    ]
    assert access_of("a", lines) == {("a", "g", "m")}


# -- errors -----------------------------------------------------------------


def test_the_class_of_an_error_follows_its_code_and_then_its_status() -> None:
    kinds = {
        (409, "place_moved"): PlaceMovedError,
        (409, "cursor_ahead"): LostEndError,
        (401, "unauthorized"): UnauthorizedError,
        (404, ""): MissingError,
        (409, "refused"): RefusedError,
    }
    for (status, code), kind in kinds.items():
        error = refusal(status, {"code": code, "detail": "what to do", "request_id": "r"})
        assert type(error) is kind
        assert (error.status, error.code, error.detail, error.request_id) == (status, code, "what to do", "r")
        assert "what to do" in str(error)
