"""Request bodies: the size limit is applied while the bytes arrive, and a base class for the models of /v1.

The limits are in docs/operations.md, "Limits for strangers". An answer that is sent before the body was read to its end closes the
connection (runtime/protocol.py).
"""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, field_validator
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from api.field_reasons import TextError
from scim.body import has_lone_surrogate

V1_BYTES_MAX: Final = 2**20  # bytes of a body to /v1
STRANGER_BYTES_MAX: Final = 16 * 2**10  # bytes of a body without a valid token


class BodyTooLargeError(HTTPException):
    """413: the body is too large. A starlette exception, because FastAPI passes on no other while it reads a body."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(413, f"The request is larger than {bytes_max} bytes. Send less at once.")


def announced(scope: Scope) -> int:
    """The value of Content-Length; 0 without it. The server has checked that it is a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def limited(receive: Receive, scope: Scope, bytes_max: int) -> Receive:
    """A `receive` that raises BodyTooLargeError for a body above a size: before its first byte if Content-Length says so, else at the limit.

    Each further call raises it again.
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


class Body(BaseModel):
    """The base of all bodies of /v1: no unknown members, and no text that PostgreSQL cannot store."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _keepable(cls, value: Any) -> Any:
        """Raises TextError here, where the field is known. The writer would only see that PostgreSQL refused a value."""
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if "\0" in text:
                raise TextError("has a NUL character: remove it")
            if has_lone_surrogate(text):
                raise TextError("has half of a surrogate pair, which is no character: remove it")
        return value
