"""Standard Webhooks (https://www.standardwebhooks.com): secrets, signatures, and the bodies that are signed. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def new_secret(random: Callable[[int], bytes]) -> str:
    """A signing secret as it is shown, once."""
    return PREFIX + base64.b64encode(random(SECRET_BYTES)).decode()


def signature(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: one `v1` entry per secret, so that a receiver may know the old or the new one."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_hmac(secret, signed)}" for secret in secrets)


def _hmac(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def body_of_one(topic: str, time: str, event: bytes) -> bytes:
    """`{"type", "timestamp", "data"}` of one event; `time` is its own, `event` its JSON."""
    return b"".join((b'{"type":"', topic.encode(), b'","timestamp":"', time.encode(), b'","data":', event, b"}"))


def body_of_batch(time: str, events: Sequence[bytes]) -> bytes:
    """The same of several events, in order; `time` is that of the last."""
    return b"".join((b'{"type":"batch","timestamp":"', time.encode(), b'","data":[', b",".join(events), b"]}"))


def batch_id(event_ids: Sequence[str]) -> str:
    """The webhook-id of a batch: the same whenever the same events are sent together, so that a repetition is recognised."""
    return "bat_" + hashlib.sha256("\n".join(event_ids).encode()).hexdigest()[:32]
