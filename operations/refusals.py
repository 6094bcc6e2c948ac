"""Errors that refuse an operation. api/problems.py maps each class to a status. `code` is stable, `detail` is a sentence for people."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from ledger.events import TYPE_PATTERNS, type_mask

PLACES_MAX: Final = 10  # fields that an error names
PLACE_LENGTH_MAX: Final = 100  # characters of a field's name, because a name in a body can be as long as the body


class OperationError(Exception):
    """Base class of the errors below."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.detail, self.code = detail, code


class ForbiddenError(OperationError):
    """The role of the caller, or what its token reaches, does not allow it."""

    def __init__(self, detail: str, code: str = "forbidden") -> None:
        super().__init__(detail, code)


class NotFoundError(OperationError):
    """It does not exist, or the caller does not reach it; the answer is the same."""

    def __init__(self, detail: str, code: str = "not_found") -> None:
        super().__init__(detail, code)


class ConflictError(OperationError):
    """Its state does not allow this act."""


class UnmetError(OperationError):
    """A condition of the request is not met, so nothing was done."""


class InvalidError(OperationError):
    """The request is not understood, or its values are invalid."""

    def __init__(self, detail: str, code: str = "refused") -> None:
        super().__init__(detail, code)


class InvalidField(NamedTuple):
    """One field of a request that is invalid. `allowed`: the values or names that are allowed, if they can be listed."""

    field: str
    reason: str
    allowed: tuple[str, ...] = ()


class InvalidFieldsError(OperationError):
    """Fields of a request are invalid. The error never quotes what was sent, because that may be personal."""

    def __init__(self, fields: Sequence[InvalidField], code: str = "invalid_parameters", *, more: int = 0) -> None:
        """`more`: how many fields are invalid besides. A request can have 100 000, and to look at each would take seconds."""
        super().__init__(_sentence(fields, more), code)
        self.fields = [field._replace(field=_short(field.field)) for field in fields[:PLACES_MAX]]


def invalid(field: str, reason: str, allowed: Collection[str] = (), code: str = "invalid_parameters") -> InvalidFieldsError:
    """The error about one field."""
    return InvalidFieldsError([InvalidField(field, reason, tuple(allowed))], code)


def not_one_of(field: str, sent: object, allowed: Collection[str], code: str = "invalid_parameters") -> InvalidFieldsError:
    """The error about a value that is not among those that are allowed."""
    return invalid(field, f"is not one of {', '.join(allowed)}{did_you_mean(sent, allowed)}", allowed, code)


def mask_of(patterns: Sequence[str]) -> int:
    """The bits of the event types that `types` names. Raises InvalidFieldsError if a pattern matches none."""
    mask = type_mask(patterns)
    if mask is not None:
        return mask
    unknown = next((pattern for pattern in patterns if pattern not in TYPE_PATTERNS), "")
    reason = f"names an event type that does not exist{did_you_mean(unknown, TYPE_PATTERNS)}"
    raise invalid("types", reason, TYPE_PATTERNS, "invalid_types")


def unknown_directory(slug: str, reached: Collection[str]) -> InvalidError:
    """The error about `directories` with a slug that no directory has. `reached`: those that may be suggested to the caller."""
    return InvalidError(
        f"`directories` names an unknown directory{did_you_mean(slug, reached) or '.'} GET /v1/directories lists them."
    )


def did_you_mean(sent: object, allowed: Collection[str]) -> str:
    """A question for the nearest of the values that are allowed; empty if none is near."""
    near = get_close_matches(sent[:PLACE_LENGTH_MAX], allowed, 1) if isinstance(sent, str) else []
    return f"; did you mean `{near[0]}`?" if near else ""


def _sentence(wrong: Sequence[InvalidField], more: int) -> str:
    """All that is wrong, for people."""
    parts = [f"`{_short(field)}` {reason}" for field, reason, _ in wrong[:PLACES_MAX]]
    unnamed = max(0, len(wrong) - PLACES_MAX) + more
    said = ". ".join([*parts, *([f"and {unnamed} more"] if unnamed else [])]).replace("?. ", "? ")
    return said if said.endswith("?") else f"{said}."


def _short(name: str) -> str:
    name = (
        name[: PLACE_LENGTH_MAX + 1].encode(errors="replace").decode()
    )  # JSON can name half of a surrogate pair, which no answer can
    return name if len(name) <= PLACE_LENGTH_MAX else name[:PLACE_LENGTH_MAX] + "…"
