"""What changed between two documents, attribute by attribute."""

from typing import Any

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
    """The members of a complex value, none of an absent one; None for any other value."""
    if side is _ABSENT:
        return {}
    return side if isinstance(side, dict) else None


def _descend(path: str, old: dict[str, Any], new: dict[str, Any], found: list[dict[str, Any]], levels: int) -> None:
    separator = ":" if levels == 2 else "."
    for name in old.keys() | new.keys():
        _compare(f"{path}{separator}{name}", old.get(name, _ABSENT), new.get(name, _ABSENT), found, levels - 1)


def same(old: Any, new: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1 and 1 is not 1.0."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(same(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(same, old, new))
    return old == new
