"""Errors of the SCIM protocol (RFC 7644 §3.12), one class per `scimType` or status."""

# ruff: noqa: N818  (the classes are named after the scimTypes of RFC 7644 table 9)

from collections.abc import Sequence
from typing import Any, ClassVar

ERROR_URN = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimError(Exception):
    """The request cannot be served. Status 500, no scimType."""

    status: ClassVar[int] = 500
    scim_type: ClassVar[str | None] = None
    default: ClassVar[str] = "The request cannot be served."

    def __init__(self, detail: str | None = None) -> None:
        self.detail = self.default if detail is None else detail
        super().__init__(self.detail)

    def document(self) -> dict[str, Any]:
        """The error body of RFC 7644 §3.12; `status` is a string there."""
        body: dict[str, Any] = {"schemas": [ERROR_URN], "status": str(self.status), "detail": self.detail}
        if self.scim_type is not None:
            body["scimType"] = self.scim_type
        return body


class InvalidFilter(ScimError):
    """400 invalidFilter: the filter cannot be read or compares what cannot be compared."""

    status = 400
    scim_type = "invalidFilter"
    default = "The filter cannot be read."


class TooMany(ScimError):
    """400 tooMany: the request asks for more than the server will work through."""

    status = 400
    scim_type = "tooMany"
    default = "The filter matches too many resources. Narrow it, for example by userName or externalId."


class Uniqueness(ScimError):
    """409 uniqueness: another resource holds a value that must be unique."""

    status = 409
    scim_type = "uniqueness"
    default = "Another resource already has this value. Choose another one or update that resource."


class Mutability(ScimError):
    """400 mutability: the attribute cannot be changed by a client."""

    status = 400
    scim_type = "mutability"
    default = "The attribute is read-only. Leave it out of the request."


class InvalidSyntax(ScimError):
    """400 invalidSyntax: the body is not the JSON or the message that is expected."""

    status = 400
    scim_type = "invalidSyntax"
    default = "The request body cannot be read."


class InvalidPath(ScimError):
    """400 invalidPath: the path of a PATCH operation cannot be read or names no attribute."""

    status = 400
    scim_type = "invalidPath"
    default = "The path names no attribute of this resource type."


class UnknownAttribute(InvalidPath):
    """400 invalidPath: the path names an attribute that no schema of the resource type has."""


class NoTarget(ScimError):
    """400 noTarget: the path of a PATCH operation selects nothing."""

    status = 400
    scim_type = "noTarget"
    default = "The path selects no value of this resource."


class InvalidValue(ScimError):
    """400 invalidValue: a required value is missing or a value has the wrong type."""

    status = 400
    scim_type = "invalidValue"
    default = "A value is missing or has the wrong type."


class UnknownMembers(InvalidValue):
    """400 invalidValue: members of a group that nobody has. `members`: the first of them, as they were sent."""

    def __init__(self, detail: str, members: Sequence[str]) -> None:
        super().__init__(detail)
        self.members = members


class InvalidCursor(ScimError):
    """400 invalidCursor (RFC 9865): the cursor was not given here, or for another query."""

    status = 400
    scim_type = "invalidCursor"
    default = "The cursor is not one that was given here. Start again with an empty cursor."


class InvalidCount(ScimError):
    """400 invalidCount (RFC 9865): the page size is no number from 1 on, or not that of the first page."""

    status = 400
    scim_type = "invalidCount"
    default = "With a cursor, send the same count as for the first page."


class NotFound(ScimError):
    """404: the resource or endpoint does not exist."""

    status = 404
    default = "There is no such resource."


class PreconditionFailed(ScimError):
    """412: the resource changed since the version named in If-Match."""

    status = 412
    default = "The resource has changed since it was read. Read it again and repeat the change."


class PayloadTooLarge(ScimError):
    """413: the request body is larger than the server accepts."""

    status = 413
    default = "The request body is too large. Send fewer values at once."


class Unauthorized(ScimError):
    """401: the request carries no valid token."""

    status = 401
    default = "A valid bearer token is needed. Check the token in the provisioning settings."


class Forbidden(ScimError):
    """403: the token does not allow this request."""

    status = 403
    default = "This token does not allow the request."


class MethodNotAllowed(ScimError):
    """405: the endpoint does not know this method; `allowed` are those that it knows."""

    status = 405
    default = "This method cannot be used here."

    def __init__(self, detail: str | None = None, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.allowed = allowed


class UnsupportedMediaType(ScimError):
    """415: the body is not sent as JSON."""

    status = 415
    default = "Send the body as application/scim+json or application/json."


class NotImplementedHere(ScimError):
    """501: the operation is part of SCIM, and this server does not offer it."""

    status = 501
    default = "This server does not offer the operation."


class _RetryLater(ScimError):
    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooManyRequests(_RetryLater):
    """429: the directory has too many writes waiting; `retry_after` in seconds."""

    status = 429
    default = "Too many requests are waiting. Repeat this one a little later."


class Unavailable(_RetryLater):
    """503: the server cannot tell or store the result now; `retry_after` in seconds."""

    status = 503
    default = "The service is not available at the moment. Repeat the request a little later."
