"""The attribute map of a profile: from the resource of an IdP, by SCIM paths, to the user of events, which is the same for every IdP."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import orjson

from scim.errors import InvalidPath
from scim.filters import Filter, look_up, matches, unknown
from scim.paths import Path, parse_path
from scim.schema import USER
from scim.urns import split_urn

ValueReader: TypeAlias = Callable[[Mapping[str, Any]], Any]
_NO_VALUES: Mapping[str, Any] = MappingProxyType({})


def read_path(text: str) -> Path:
    """A path of a user. In an extension it may name an attribute that its schema does not have, which is stored as sent. Raises ScimError."""
    try:
        path = parse_path(text, USER)
        if path.ambiguity is not None and path.ambiguity.by_form != "colon":
            # A profile is read without any resource that could decide where the URN ends.
            raise InvalidPath("The path has a dot where its URN may end: write it as urn:…:attribute.")
        return path
    except InvalidPath:
        urn, rest = split_urn(text, USER)
        if urn is None or urn.casefold() not in USER.extensions or "[" in rest:
            raise
        name, dot, sub = rest.partition(".")
        return Path(USER.extensions[urn.casefold()].urn, unknown(name), sub=unknown(sub) if dot else None, known=False)


def values_at(path: Path, document: Mapping[str, Any]) -> list[Any]:
    """The values at a path. A complex value gives its `value`, or itself where it has none; null and "" are absence."""
    whole = None if path.known or path.filter is not None else look_up(document, path.text)
    if isinstance(whole, dict):
        return [whole]  # an extension: its URN looks like a shorter URN and an attribute
    holder: Any = document if path.urn is None else _get(document, path.urn, path)
    if path.attribute is None:
        return [holder] if holder else []
    held = _get(holder, path.attribute.name, path) if isinstance(holder, dict) else None
    if held is None:
        return []
    items: list[Any] = held if isinstance(held, list) else [held]
    if path.filter is not None:
        selection = path.filter
        items = [item for item in items if isinstance(item, dict) and matches(selection, item)]
    name = path.sub.name if path.sub is not None else None
    values = [_value(item, name, path) for item in items]
    return [value for value in values if value is not None and value != ""]


def _get(holder: Mapping[str, Any], name: str, path: Path) -> Any:
    # A name that a schema has is stored in its spelling: where it is absent, no other case of it is looked for.
    return holder.get(name) if path.known else look_up(holder, name)


def _value(item: Any, sub: str | None, path: Path) -> Any:
    if not isinstance(item, dict):
        return item if sub is None else None
    value = _get(item, sub or "value", path)
    return item if value is None and sub is None else value


def _reader(path: Path) -> ValueReader:
    """The function that reads the first value at a path. Each user event reads every path, so that most, of one to three names, are quick."""
    attribute, urn, sub = path.attribute, path.urn, path.sub
    if attribute is not None and attribute.multi_valued and path.known and urn is None and sub is not None:
        return _reader_of_list(attribute.name, path.filter, sub.name)
    if attribute is None or attribute.multi_valued or path.filter is not None or not path.known:
        return lambda document: next(iter(values_at(path, document)), None)
    if sub is None and attribute.type == "complex":
        return lambda document: next(iter(values_at(path, document)), None)
    first, *others = [step for step in (urn, attribute.name, sub.name if sub is not None else None) if step is not None]
    if not others:
        return lambda document: document.get(first)
    if len(others) == 1:
        (second,) = others
        return lambda document: (document.get(first) or _NO_VALUES).get(second)
    second, third = others
    return lambda document: ((document.get(first) or _NO_VALUES).get(second) or _NO_VALUES).get(third)


def _reader_of_list(name: str, selection: Filter | None, sub: str) -> ValueReader:
    """The same for a sub-attribute of a list, such as `emails[primary eq true].value`."""

    def read(document: Mapping[str, Any]) -> Any:
        held = document.get(name)
        for item in held if isinstance(held, list) else ():
            if isinstance(item, dict) and (selection is None or matches(selection, item)):
                value = item.get(sub)
                if value is not None and value != "":
                    return value
        return None

    return read


def _first(readers: Sequence[ValueReader], document: Mapping[str, Any]) -> Any:
    for read in readers:
        value = read(document)
        if value is not None and value != "":
            return value
    return None


def _plain(texts: Sequence[str]) -> str | None:
    """The name of the top-level attribute that is read where the one path is that name: no function is called for it."""
    path = read_path(texts[0]) if len(texts) == 1 else None
    if path is None or path.attribute is None or path.text != path.attribute.name or not path.known:
        return None
    return None if path.attribute.multi_valued or path.attribute.type == "complex" else path.attribute.name


def _readers(texts: Sequence[str]) -> tuple[ValueReader, ...]:
    return tuple(_reader(read_path(text)) for text in texts)


class UserMap:
    """The attribute map of a profile, its paths resolved once."""

    def __init__(
        self, paths: Mapping[str, Sequence[str]], custom: Mapping[str, Sequence[str]], *, extensions: bool, json_roles: bool
    ) -> None:
        self._roles = tuple(map(read_path, paths["roles"]))
        self._single = tuple((name, _plain(texts), _readers(texts)) for name, texts in paths.items() if name != "roles")
        self._custom = tuple((name, _readers(texts)) for name, texts in custom.items())
        self._extensions = extensions
        self._json_roles = json_roles

    def of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The mapped user; what is absent is left out."""
        user: dict[str, Any] = {}
        for name, plain, readers in self._single:
            value = _first(readers, document) if plain is None else document.get(plain)
            if value is not None and value != "":
                user[name] = value
        roles = self._roles_of(document)
        if roles:
            user["roles"] = roles
        custom = self._custom_of(document)
        if custom:
            user["custom"] = custom
        return user

    def _roles_of(self, document: Mapping[str, Any]) -> list[str]:
        for path in self._roles:
            found = dict.fromkeys(role for value in values_at(path, document) if (role := self._role(value)) is not None)
            if found:
                return list(found)
        return []

    def _role(self, value: Any) -> str | None:
        if self._json_roles and isinstance(value, str) and value.startswith("{"):
            try:
                inner = orjson.loads(value)
            except orjson.JSONDecodeError:
                return value
            value = inner.get("value")
        return value if isinstance(value, str) else None

    def _custom_of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        custom: dict[str, Any] = {}
        if self._extensions:
            custom = {k: v for k, v in document.items() if ":" in k and k.casefold() not in USER.extensions}
        for name, readers in self._custom:
            value = _first(readers, document)
            if value is not None:
                custom[name] = value
        return custom
