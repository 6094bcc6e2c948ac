"""What changed between two documents, attribute by attribute."""

from typing import Any

import orjson

_UNREPORTED = frozenset({"schemas", "id"})


class _Absent:
    """The side of a change that has no value."""


_ABSENT: Any = _Absent()


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """The differences as `[{"path", "from", "to"}]`, sorted by path; a side that has no value has no key.

    Sub-attributes of singular complex attributes have paths of their own, extension attributes are `URN:attribute`,
    multi-valued attributes are reported whole.
    """
    found: list[dict[str, Any]] = []
    for name in before.keys() | after.keys():
        if name not in _UNREPORTED:
            _compare(name, before.get(name, _ABSENT), after.get(name, _ABSENT), found, levels=2 if ":" in name else 1)
    found.sort(key=_path)
    return found


def _path(change: dict[str, Any]) -> str:
    return change["path"]


def _compare(path: str, old: Any, new: Any, found: list[dict[str, Any]], levels: int) -> None:
    if same(old, new):
        return
    inside = _members(old), _members(new)
    if levels and inside[0] is not None and inside[1] is not None:
        _descend(path, inside[0], inside[1], found, levels)
        return
    change: dict[str, Any] = {"path": path}
    if old is not _ABSENT:
        change["from"] = old
    if new is not _ABSENT:
        change["to"] = new
    found.append(change)


def _members(side: Any) -> dict[str, Any] | None:
    """The members of a complex value; {} for an absent one, None for a value that is not complex."""
    if side is _ABSENT:
        return {}
    return side if isinstance(side, dict) else None


def _descend(path: str, old: dict[str, Any], new: dict[str, Any], found: list[dict[str, Any]], levels: int) -> None:
    separator = ":" if levels == 2 else "."
    for name in old.keys() | new.keys():
        _compare(f"{path}{separator}{name}", old.get(name, _ABSENT), new.get(name, _ABSENT), found, levels - 1)


def same(old: Any, new: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1 and 1 is not 1.0."""
    if old is new:
        return True  # most of a document, after a PATCH
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(same(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(same, old, new))
    return old == new


# ---- the order of values ---------------------------------------------------------------------------------------------------------


def in_order_of(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """`after`, but each list that has the same values as the one in `before` has them in the order of `before`.

    The values of an attribute have no order (RFC 7643 §2.4): a list sent in another order is no change and makes no event. Neither
    argument is changed.
    """
    kept: dict[str, Any] | None = None
    for name, new in after.items():
        kind = type(new)
        if kind is not dict and kind is not list:
            continue
        old = before.get(name)
        if old is not new and type(old) is kind and old != new:
            stored = _as_before(old, new)
            if stored is not new:
                kept = dict(after) if kept is None else kept
                kept[name] = stored
    return after if kept is None else kept


def _as_before(old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        return in_order_of(old, new)  # pyright: ignore[reportUnknownArgumentType]
    return old if same_values(old, new) else new


def same_values(old: Any, new: Any) -> bool:
    """JSON equality that ignores the order of lists."""
    return old is new or _canonical(old) == _canonical(new)


def _canonical(value: Any) -> bytes:
    raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if b"[" not in raw:
        return raw  # most values hold no list: one call
    if isinstance(value, list):
        return b"[" + b",".join(sorted(map(_canonical, value))) + b"]"
    if isinstance(value, dict):
        return b"{" + b",".join(sorted(orjson.dumps(name) + b":" + _canonical(inner) for name, inner in value.items())) + b"}"
    return raw
