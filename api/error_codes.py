"""The codes of errors outside SCIM, and what each means: the one list, for docs/events.md and for the page at /docs/errors."""

import re
from collections.abc import Iterable
from html import escape
from typing import Final, NamedTuple

ERRORS_PAGE: Final = "/docs/errors"


class ErrorCode(NamedTuple):
    """`meaning` is Markdown; its links are relative to docs/."""

    status: int
    code: str
    meaning: str


CODES: Final = (
    ErrorCode(400, "invalid_place", "`start`, `to` or `from` is no place in the log, or an instant in the future; the detail lists the valid forms"),
    ErrorCode(400, "invalid_cursor", "the place (`after`, `through`, `to`) is no event id and no cursor of this ledger for this form of the feed"),
    ErrorCode(400, "invalid_types", "`types` names no event type"),
    ErrorCode(400, "invalid_subject", "`subject` is not an id"),
    ErrorCode(400, "invalid_parameters", "parameters or fields of the body that are unknown, missing, repeated or have another value than is allowed; `errors` names them"),
    ErrorCode(400, "invalid_idempotency_key", "`Idempotency-Key` is 1 to 255 printable characters of ASCII"),
    ErrorCode(400, "invalid_as_of", "audit: a bare date, the future, before the directory was created, beyond the last event"),
    ErrorCode(400, "refused", "an act that cannot be done, and other errors without a code of their own"),
    ErrorCode(400, "malformed_request", "the bytes are no valid HTTP/1.1 request, or an ambiguous one"),
    ErrorCode(400, "body_framing", "chunks that are far too small, or too many bytes of framing"),
    ErrorCode(400, "pipelining", "too many pipelined requests"),
    ErrorCode(401, "unauthorized", "no token, or one that is unknown, expired or revoked"),
    ErrorCode(403, "forbidden", "the token may not do this, or there is no such directory; the answer is the same"),
    ErrorCode(404, "not_found", "there is no such route, or nothing of that name or id that the token reaches"),
    ErrorCode(405, "method_not_allowed", "the route does not take this method; `Allow` lists those that it takes"),
    ErrorCode(408, "head_timeout", "the head of the request was not complete in time ([limits](operations.md#limits-for-strangers))"),
    ErrorCode(408, "body_timeout", "the body came too slowly"),
    ErrorCode(409, "overtaken", "other requests changed the same thing at the same moment, five times in a row. Nothing was changed; send the request again"),
    ErrorCode(409, "place_moved", "the page was read before the consumer was moved or its filter changed. Nothing was acknowledged; `position` is its place ([what to do](consumers.md#pull))"),
    ErrorCode(409, "consumer_paused", "an operator paused it"),
    ErrorCode(409, "not_forked", "no event that the consumer was sent is missing in the log, or the fork is closed already"),
    ErrorCode(409, "not_a_pull_consumer", "its events are pushed"),
    ErrorCode(409, "not_a_webhook", "only webhooks have a secret, and can be pinged and sent replays"),
    ErrorCode(409, "mode_fixed", "the `mode` of a consumer cannot be changed; create another one"),
    ErrorCode(409, "consumer_deleted", "another request has deleted the consumer"),
    ErrorCode(409, "name_taken", "a directory, consumer, extension schema or profile has that name already, perhaps one that the token does not reach"),
    ErrorCode(409, "directory_closed", "the directory is closed for ever, and cannot be changed"),
    ErrorCode(409, "clock_not_behind", "the clock is not more than 60 seconds behind the directory's last event, so there is nothing to accept"),
    ErrorCode(409, "legal_hold", "a legal hold keeps the user or group from being erased; the detail names it"),
    ErrorCode(409, "subject_erased", "the user or group was erased, so it cannot be held"),
    ErrorCode(409, "older_release", "a process of an older release serves this database, and would go on showing what is to be erased"),
    ErrorCode(409, "token_rotated", "the token has a successor (`superseded_by`); rotate that one"),
    ErrorCode(409, "token_expired", "an expired token cannot be rotated; issue a new one"),
    ErrorCode(409, "token_revoked", "a revoked token cannot be rotated; issue a new one"),
    ErrorCode(409, "token_not_of_the_log", "the stored token does not agree with the log; see `scim-ledger replay verify`"),
    ErrorCode(409, "client_revoked", "a revoked OAuth 2.0 client cannot be rotated; make a new one"),
    ErrorCode(409, "client_without_secret", "the OAuth 2.0 client signs with its own keys; it has no secret to rotate"),
    ErrorCode(409, "client_not_of_the_log", "the stored OAuth 2.0 client does not agree with the log; see `scim-ledger replay verify`"),
    ErrorCode(409, "token_in_use", "the token was used within `unused_for_seconds`: ending it would cut somebody off"),
    ErrorCode(409, "superseded", 'a later event took back what this delivery grants; skip it, or retry it with `"superseded": "include"`'),
    ErrorCode(409, "replay_ended", "the run was finished or cancelled; start another one"),
    ErrorCode(409, "idempotency_in_progress", "a request with this `Idempotency-Key` is running; send it again in a moment"),
    ErrorCode(409, "idempotency_key_reused", "the key was used with another request"),
    ErrorCode(409, "idempotency_answer_lost", "the request was carried out, but ended without an answer; look at the current state"),
    ErrorCode(409, "cursor_ahead", "the ledger ends before the cursor; `cursor` and `head` are in the answer ([what to do](operations.md#cursor_ahead-and-cursor_forked))"),
    ErrorCode(409, "cursor_forked", "another event stands at the cursor now ([what to do](operations.md#cursor_ahead-and-cursor_forked))"),
    ErrorCode(412, "consumer_exists", "`If-None-Match: *`, and there is a consumer of that name"),
    ErrorCode(412, "consumer_missing", "`If-Match: *`, and there is no consumer of that name"),
    ErrorCode(413, "too_large", "the body is larger than it may be"),
    ErrorCode(414, "address_too_long", "the address is longer than 16 KiB; a long filter goes as POST to `/.search`"),
    ErrorCode(429, "too_many_requests", "the directory has too many changes waiting, or failed authentications from this address are slowed; wait for `Retry-After`"),
    ErrorCode(431, "headers_too_large", "request line and headers are larger than 32 KiB, or more than 128 headers"),
    ErrorCode(500, "internal_error", "a defect; the service's log has it with the request id"),
    ErrorCode(503, "database_unavailable", "the database does not answer, or cannot take the change now; send the request again after `Retry-After`"),
    ErrorCode(503, "too_many_connections", "the process has as many connections as `LEDGER_CONNECTIONS` allows; try again after `Retry-After`"),
    ErrorCode(505, "http_version", "send HTTP/1.1"),
)  # fmt: skip
_LINK: Final = re.compile(r"\s*\(?\[([^]]+)\]\([^)]*\)\)?")
_WORD: Final = re.compile(r"`([^`]+)`")


def type_of(code: str) -> str:
    """The problem type (RFC 9457 §3.1.1): the section of the page, as a reference with the full path."""
    return f"{ERRORS_PAGE}#{code}"


def page(codes: Iterable[ErrorCode] = CODES) -> str:
    """The page with a section for each code. Plain HTML, readable without a style sheet."""
    sections = "".join(
        f'<section id="{code}"><h2>{code}</h2><p>HTTP {status}: {_html(meaning)}.</p></section>\n'
        for status, code, meaning in codes
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark"><title>Error codes of the provisioning ledger</title></head>\n'
        f"<body><main><h1>Error codes</h1>\n{sections}</main></body></html>\n"
    )


def _html(meaning: str) -> str:
    return _WORD.sub(r"<code>\1</code>", escape(_LINK.sub("", meaning)))
