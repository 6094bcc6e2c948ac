"""Checks requests to a webhook (Standard Webhooks), and reads what they deliver. Pure; docs/consumers.md, "Push"."""

import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scim_ledger_client.errors import SignatureError
from scim_ledger_client.events import Event

TOLERANCE_S: Final = 300.0  # how old a message may be, or how far the clocks may be apart


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request. `events` is empty for a ping.

    `replay`: the id of the run that sends them again; check it before your list of known ids. `previous_seq`: with directory order the seq
    that was delivered before; if you lack it, answer 409 with `{"expected_previous_seq": …}`.
    """

    id: str
    events: list[Event]
    attempt: int
    replay: str | None
    previous_seq: int | None


class Webhook:
    """A receiver with its secret, or with the old and the new one while they are rotated."""

    def __init__(self, *secrets: str, tolerance_s: float = TOLERANCE_S) -> None:
        """Raises ValueError for no secret, or one that is not `whsec_` and base64."""
        if not secrets:
            raise ValueError("A webhook needs its secret: whsec_… from the answer to its creation.")
        self._keys = [_key(secret) for secret in secrets]
        self._tolerance_s = tolerance_s

    def receive(self, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Delivery:
        """Check a request and read it. `now`: seconds since 1970. Raises SignatureError; then nothing of the body may be believed."""
        fields = {name.lower(): value for name, value in headers.items()}
        self._check(fields, body, time.time() if now is None else now)
        message = json.loads(body)
        data = [] if message["type"] == "ping" else message["data"]
        previous = fields.get("ledger-previous-seq")
        return Delivery(
            fields["webhook-id"], data if isinstance(data, list) else [data], int(fields.get("ledger-attempt", 1)),
            fields.get("ledger-replay"), None if previous is None else int(previous),
        )  # fmt: skip

    def _check(self, fields: Mapping[str, str], body: bytes, now: float) -> None:
        identifier, stamp = fields.get("webhook-id", ""), fields.get("webhook-timestamp", "")
        if not (identifier and stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
            raise SignatureError("The request has no webhook-id or no webhook-timestamp in seconds.")
        if abs(now - int(stamp)) > self._tolerance_s:
            raise SignatureError(
                "The request is too old, or the clocks disagree: compare this machine's clock with the ledger's."
            )
        signed = f"{identifier}.{stamp}.".encode() + body
        ours = [b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in self._keys]
        if not _any_equal(ours, fields.get("webhook-signature", "")):
            raise SignatureError("No signature fits: the secret is another one, or the body was changed on its way.")


def _any_equal(ours: Sequence[bytes], header: str) -> bool:
    """Whether one signature of the header is ours. Each is compared in constant time, so an answer's time tells nothing about the right one."""
    theirs = [part.removeprefix("v1,").encode() for part in header.split() if part.startswith("v1,")]
    return any(hmac.compare_digest(one, other) for one in ours for other in theirs)


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        raise ValueError("A secret begins with whsec_.")
    return b64decode(secret.removeprefix("whsec_"), validate=True)
