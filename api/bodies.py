"""Request bodies: the size limit is applied while the bytes arrive, and a base class for the models of /v1.

The limits are in docs/operations.md, "Limits for strangers". An answer that is sent before the body was read to its end closes the
connection (runtime/protocol.py).
"""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, field_validator
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from scim.body import has_lone_surrogate

V1_BYTES_MAX: Final = 2**20  # of a request to /v1
STRANGER_BYTES_MAX: Final = 16 * 2**10  # of one that carries no valid token


class BodyTooLargeError(HTTPException):
    """413: the body is larger than it may be. A starlette exception: FastAPI lets no other through while it reads a body."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(413, f"The request is larger than {bytes_max} bytes. Send less at once.")


def announced(scope: Scope) -> int:
    """The size of the body in bytes that Content-Length announces; 0 where nothing does. The server has checked that it is a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def limited(receive: Receive, scope: Scope, bytes_max: int) -> Receive:
    """Give a `receive` that stops at a body beyond a size: before its first byte where Content-Length tells, else with the byte too many.

    It raises BodyTooLargeError then, and whenever it is called again.
    """
    left = bytes_max - announced(scope)
    size = 0

    async def receive_some() -> Message:
        nonlocal size
        if left < 0 or size > bytes_max:
            raise BodyTooLargeError(bytes_max)
        message = await receive()
        size += len(message.get("body", b""))
        if size > bytes_max:
            raise BodyTooLargeError(bytes_max)
        return message

    return receive_some


class TextError(ValueError):
    """Text that cannot be kept. The sentence quotes nothing of it, so that it may be told."""


class Body(BaseModel):
    """What every body of /v1 keeps to: no member but its own, and no text that PostgreSQL cannot keep."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _keepable(cls, value: Any) -> Any:
        """Refused here, where the field has a name: the writer would only see that some value was refused."""
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if "\0" in text:
                raise TextError("text has a NUL character here: remove it")
            if has_lone_surrogate(text):
                raise TextError("text has half of a surrogate pair here, which is no character: remove it")
        return value
