"""Why a value is not accepted, in words that follow its name ("is missing"), from the errors of pydantic.

No reason quotes what was sent, because that may be personal; a suggestion is one of the values that are allowed.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from operations.refusals import did_you_mean

_A_TIME: Final = "is not a time with its zone, such as 2026-10-01T00:00:00Z"
_PLUS: Final = "; in an address a + is a space: write Z, or %2B"


class TextError(ValueError):
    """A text that cannot be stored. Its sentence does not quote the text, so it can be shown."""


def reason_of(
    error: Mapping[str, Any], field: FieldInfo | None, names: Collection[str], body: object
) -> tuple[str, tuple[str, ...]]:
    """What is wrong, and what is allowed."""
    kind, context = str(error["type"]), error.get("ctx", {})
    wrong = context.get("error")
    if isinstance(wrong, TextError):
        return str(wrong), ()
    if kind == "extra_forbidden":
        return unknown(str(error["loc"][-1]), names, "field")
    if kind == "literal_error":
        allowed = _values(field)
        return f"is not one of {', '.join(allowed)}{did_you_mean(error.get('input'), allowed)}", allowed
    if isinstance(error.get("input"), bytes):
        return "is not JSON: send it with Content-Type: application/json", ()
    if kind == "json_invalid":
        return _no_json(int(error["loc"][-1]), body), ()
    if kind.startswith(("datetime", "timezone", "date")):
        return _A_TIME + (_PLUS if " " in str(error.get("input")).strip() else ""), ()
    return _plain_reason(kind, _bounds(field) if len(error["loc"]) <= 2 else {}), ()  # of a list's item nothing is known


def _plain_reason(kind: str, rule: Mapping[str, int]) -> str:
    """What is wrong, by the type of pydantic's error (docs.pydantic.dev/latest/errors/validation_errors)."""
    match kind:
        case "missing":
            return "is missing"
        case _ if kind.startswith("bool"):
            return "is not true or false"
        case _ if kind.startswith(("int", "float", "greater_than", "less_than")):
            return "is not a number" + _between(rule.get("ge"), rule.get("le"))
        case "string_type" | "string_too_short" | "string_too_long":
            return "is not text" + (_between(rule.get("min_length"), rule.get("max_length"), " characters") if rule else "")
        case "too_long" | "too_short":
            return "is not a list" + _between(rule.get("min_length"), rule.get("max_length"), " items")
        case _ if kind.startswith(("list", "tuple")):
            return "is not a list"
        case _ if kind.startswith(("dict", "model")):
            return "is not an object"
        case _ if kind.startswith("uuid"):
            return "is not an id (a UUID)"
        case _:
            return "is not valid"


def _bounds(field: FieldInfo | None) -> dict[str, int]:
    """The bounds that a field declares (`ge`, `le`, `min_length`, `max_length` of pydantic's Field)."""
    rules = field.metadata if field else ()
    names = ("ge", "le", "min_length", "max_length")
    return {name: value for rule in rules for name in names if (value := getattr(rule, name, None)) is not None}


def _between(least: int | None, most: int | None, unit: str = "") -> str:
    if most is None:
        return f" of {least}{unit} or more" if least is not None else ""
    if least is None:
        return f" of at most {most}{unit}"
    return f" of {least} to {most}{unit}" if unit else f" from {least} to {most}"


def _values(field: FieldInfo | None) -> tuple[str, ...]:
    """The values of a field that is a Literal, also if it may be left out or be a list."""
    return tuple(_literals(field.annotation)) if field else ()


def _literals(annotation: Any) -> Iterable[str]:
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        elif get_origin(argument) is not None:
            yield from _literals(argument)


def unknown(name: str, known: Collection[str], what: str) -> tuple[str, tuple[str, ...]]:
    """What is wrong with a name that nothing has, and the names that there are."""
    if not known:
        return f"is not a {what} of this request, which takes none", ()
    return f"is not a {what} of this request{did_you_mean(name, known)}", tuple(sorted(known))


def _no_json(character: int, body: object) -> str:
    if isinstance(body, str) and character >= len(body.rstrip()):
        return f"is not JSON: it ends at character {character}" if body.strip() else "is empty; send a JSON object"
    return f"is not JSON, from character {character} on"
