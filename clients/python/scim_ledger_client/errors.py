"""Errors. Everything that the client raises on purpose is a LedgerError; `detail` says what to do."""

from collections.abc import Mapping
from typing import Any


class LedgerError(Exception):
    """The base of all errors of this package."""


class UnreachableError(LedgerError):
    """No answer after all attempts: the network, or a service that is down."""


class RefusedError(LedgerError):
    """The service refused a request (RFC 9457). `code` is stable, `detail` is for people; `problem` has the whole answer."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.problem = problem
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail", ""))
        self.request_id = problem.get("request_id")
        super().__init__(f"{status} {self.code}: {self.detail}")


class UnauthorizedError(RefusedError):
    """The token is missing, unknown, expired or revoked."""


class ForbiddenError(RefusedError):
    """The token may not do this, or does not reach the directory."""


class MissingError(RefusedError):
    """There is no such thing, or the token does not reach it."""


class PlaceMovedError(RefusedError):
    """A page was read before the consumer was moved or its filter changed. Nothing was acknowledged: pull again."""


class LostEndError(RefusedError):
    """The log is not the one that the cursor was read from: a backup was restored, or a standby promoted that lagged.

    Undo what came from events that are gone, then read on from a cursor before them, or begin with a snapshot.
    """


class IncompleteSnapshotError(LedgerError):
    """A snapshot ended before its last line. Forget what it had, and read it again."""


class SignatureError(LedgerError):
    """A request to a webhook is not from the ledger, or is an old one sent again. Answer 401 and do not read its body."""


_BY_STATUS: dict[int, type[RefusedError]] = {401: UnauthorizedError, 403: ForbiddenError, 404: MissingError}
_BY_CODE: dict[str, type[RefusedError]] = {
    "place_moved": PlaceMovedError,
    "cursor_ahead": LostEndError,
    "cursor_forked": LostEndError,
}


def refusal(status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> RefusedError:
    """The error for an answer. `retry_after_s`: what its header says."""
    kind = _BY_CODE.get(str(problem.get("code", "")), _BY_STATUS.get(status, RefusedError))
    return kind(status, problem, retry_after_s)
