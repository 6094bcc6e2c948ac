"""PATCH (RFC 7644 §3.5.2): reading the operations, and applying them to a document.

Reading resolves every path, checks every value against the schema and spreads values without a path over their attributes;
applying is then only structure. Operations on group members never meet a document: they become edge operations.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from scim.errors import InvalidFilter, InvalidPath, InvalidSyntax, InvalidValue, Mutability, NoTarget, TooMany
from scim.extension import check_immutable
from scim.filters import And, Compare, Filter, Not, Or, Reader, Reference, Token, look_up, matches, shown, split_urn, unknown
from scim.misnomers import is_after_urn, renamed, respelled
from scim.normalise import (
    Used,
    as_list,
    check_members,
    check_primary,
    check_required,
    check_single,
    check_some,
    check_unknown,
    check_value,
    is_blank,
    is_empty_string,
    listed_schemas,
    schemas_of,
    unwrapped,
)
from scim.schema import Attribute, Extension, ResourceType, is_of_scim
from scim.tolerances import Tolerances

PATCH_URN = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
PATH_CHARACTERS_MAX = 8192
VALUES_VISITED_MAX = 250_000  # by all operations of one patch together: a second of work

Op: TypeAlias = Literal["add", "remove", "replace"]
EdgeKind: TypeAlias = Literal["add", "remove", "clear", "remove_where", "require"]
_OPS: Mapping[str, Op] = {"add": "add", "remove": "remove", "replace": "replace"}
_MISSING: Any = object()


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A resolved path: `attribute` is None for a whole extension, `urn` None for the core schema."""

    urn: str | None
    attribute: Attribute | None
    filter: Filter | None = None
    sub: Attribute | None = None
    known: bool = True

    @property
    def text(self) -> str:
        """The path in schema spelling, without the filter's values."""
        name = "" if self.attribute is None else self.attribute.name
        if self.urn is not None:
            name = f"{self.urn}:{name}" if name else self.urn
        name += "" if self.filter is None else "[…]"
        return name if self.sub is None else f"{name}.{self.sub.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One change of one attribute; `index` is the place of the operation in the request."""

    op: Op
    path: Path
    value: Any
    index: int


@dataclass(frozen=True, slots=True)
class EdgeOperation:
    """One change of a group's members, as `(id, type or None)`; `filter` is over one member's object.

    `require` changes nothing: one of the members must be in the group at that point (noTarget otherwise).
    """

    kind: EdgeKind
    members: tuple[tuple[str, str | None], ...] = ()
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """A read PATCH: what changes the document, and what changes a group's members, each in order."""

    operations: tuple[Operation, ...]
    edges: tuple[EdgeOperation, ...]


# ---- paths -----------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)
def parse_path(text: str, rt: ResourceType) -> Path:
    """The path in `text`: attr, attr.sub, attr[filter], attr[filter].sub, each perhaps after a URN, or an extension's URN.

    Raises InvalidPath for what cannot be read and for attributes the resource type does not have, InvalidFilter for the filter.
    """
    if len(text) > PATH_CHARACTERS_MAX:
        raise InvalidPath(f"The path is longer than {PATH_CHARACTERS_MAX} characters.")
    extension = rt.extensions.get(text.casefold())
    if extension is not None:
        return Path(extension.urn, None)
    if text.casefold() == rt.schema.casefold():
        raise InvalidPath("The path is the URN of the resource's own schema: name an attribute after it.")
    found: list[Path] = []

    def resolve(token: Token) -> Reference:
        found.append(_named(token.text, rt))
        attribute = found[0].attribute
        if attribute is None:
            raise InvalidPath("The path must name an attribute of the extension before a filter.")
        return Reference(found[0].urn, attribute, found[0].sub)

    if "[" not in text:
        return _named(text.strip(), rt)
    return _selecting(Reader(text, resolve), found)


def _selecting(reader: Reader, found: list[Path]) -> Path:
    name = reader.token
    reader.place += 1
    reference = reader.resolve(name)
    path = found[0]
    if not reader.take("["):
        raise InvalidPath(f"The path needs [ at character {reader.token.at + 1}.")
    inner = reader.selection(reference, name)
    sub: Attribute | None = None
    if reader.token.kind == "sub":
        sub = _sub(reference.attribute, reader.token.text[1:])
        reader.place += 1
    if reader.token.kind != "end":
        raise InvalidPath(f"The path should end at character {reader.token.at + 1}.")
    return Path(path.urn, path.attribute, inner, sub, path.known)


def _named(text: str, rt: ResourceType) -> Path:
    urn, rest = split_urn(text, rt)
    if urn is None:
        return _in_table(rt.attributes, None, rest)
    extension = rt.extensions.get(urn.casefold())
    if extension is not None:
        return _in_table(extension.attributes, extension.urn, rest)
    return _unknown_extension(text, urn, rest, rt)


def _unknown_extension(text: str, urn: str, rest: str, rt: ResourceType) -> Path:
    check_unknown(text, None)
    _refuse_of_scim(text, rt)
    if is_after_urn(rt, text):
        raise InvalidPath("The path has a dot after the URN of a schema: write it as urn:…:attribute.")
    if not urn.casefold().startswith("urn:") or not rest:
        raise InvalidPath("The path names no extension: write it as urn:…:attribute.")
    version = urn.rpartition(":")[2]
    # By convention a schema URN ends in its version and a name (…:2.0:User); then nothing is left for an attribute.
    if version.replace(".", "").isdigit() and "." in version:
        return Path(text, None, known=False)
    name, dot, sub = rest.partition(".")
    return Path(urn, unknown(name), sub=unknown(sub) if dot else None, known=False)


def _refuse_of_scim(text: str, rt: ResourceType) -> None:
    if is_of_scim(text):
        # Kept as an extension, an `active` in it would be acknowledged and have no effect.
        raise InvalidPath(f"The path has a URN of SCIM itself that is not {rt.schema}: name the attribute alone.")


def _in_table(table: Mapping[str, Attribute], urn: str | None, text: str) -> Path:
    name, dot, sub = text.partition(".")
    attribute = table.get(name.casefold())
    if attribute is None:
        raise InvalidPath(f"The path names an attribute{shown(name)} that this resource type does not have.")
    return Path(urn, attribute, sub=_sub(attribute, sub) if dot else None)


def _sub(attribute: Attribute, name: str) -> Attribute:
    if attribute.type == "any":
        return unknown(name)
    sub = attribute.sub_attributes.get(name.casefold())
    if sub is None:
        raise InvalidPath(f"{attribute.name} has no sub-attribute{shown(name)}.")
    return sub


# ---- reading ---------------------------------------------------------------------------------------------------------------------


def read_patch(rt: ResourceType, document: dict[str, Any], tolerances: Tolerances, used: Used) -> Patch:
    """The operations of a PatchOp message, resolved and checked as far as the schema alone can tell.

    Raises InvalidSyntax for the message, InvalidPath, InvalidFilter, InvalidValue, Mutability and NoTarget for an operation.
    """
    message = {key.casefold(): value for key, value in document.items()}
    if message.get("schemas") or not tolerances.missing_schemas:
        listed_schemas(message.get("schemas"), PATCH_URN, tolerances, used)
    else:
        used.add("missing_schemas")
    reader = _PatchReader(rt, tolerances, used)
    for index, item in enumerate(_operations(message.get("operations"), tolerances, used)):
        reader.read(index, item)
    return Patch(tuple(reader.operations), tuple(reader.edges))


def _operations(listed: Any, tolerances: Tolerances, used: Used) -> list[Any]:
    if isinstance(listed, dict):
        listed = as_list(listed, "Operations", tolerances, used)
    if not isinstance(listed, list):
        raise InvalidSyntax("Operations is missing: send a list of operations.")
    if not listed:
        if not tolerances.empty_operations:
            raise InvalidSyntax("Operations is empty: send at least one operation.")
        used.add("empty_operations")
    return listed


class _PatchReader:
    """Collects the operations of one message."""

    def __init__(self, rt: ResourceType, tolerances: Tolerances, used: Used) -> None:
        self.rt = rt
        self.tolerances = tolerances
        self.used = used
        self.operations: list[Operation] = []
        self.edges: list[EdgeOperation] = []

    def read(self, index: int, item: Any) -> None:
        if not isinstance(item, dict):
            raise InvalidSyntax(f"Operations[{index}] must be an object.")
        fields = {key.casefold(): value for key, value in item.items()}
        op = self._op(index, fields.get("op"))
        value = fields.get("value", _MISSING)
        path = fields.get("path")
        if path is not None and not isinstance(path, str):
            raise InvalidPath(f"The path of Operations[{index}] must be a string.")
        path = self._of_today(path) if path else None
        if path and (op == "remove" or not self._is_resource(path)):
            self._one(op, self._path(path, index), value, index, echo=False)
        elif op == "remove":
            raise NoTarget(f"Operations[{index}] removes without a path: name what to remove.")
        else:
            self._spread(op, value, index)

    def _of_today(self, name: str) -> str:
        """A key or path with the URN of today, where the profile forgives older ones."""
        today = renamed(self.rt, name) if ":" in name and self.tolerances.old_schema_uris else name
        if today != name:
            self.used.add("old_schema_uris")
        return today

    def _is_resource(self, name: str) -> bool:
        """Whether it is the URN of the core schema: what is under it are the resource's own attributes."""
        if name.casefold() != self.rt.schema.casefold() or not self.tolerances.dotted_keys:
            return False
        self.used.add("dotted_keys")
        return True

    def _op(self, index: int, op: Any) -> Op:
        if not isinstance(op, str) or op.lower() not in _OPS:
            raise InvalidSyntax(f"The op of Operations[{index}] must be add, remove or replace.")
        if op not in _OPS:
            if not self.tolerances.op_case:
                raise InvalidSyntax(f"The op of Operations[{index}] must be written in lower case.")
            self.used.add("op_case")
        return _OPS[op.lower()]

    def _path(self, text: str, index: int) -> Path:
        try:
            return parse_path(text, self.rt)
        except (InvalidPath, InvalidFilter) as error:
            path = self._respelled(text)
            if path is None:
                raise type(error)(f"Operations[{index}]: {error.detail}") from None
            return path

    def _respelled(self, text: str) -> Path | None:
        """The path that another spelling means, where the profile forgives it."""
        spelling = respelled(self.rt, text, self.tolerances)
        if spelling is None:
            return None
        try:
            path = parse_path(spelling[0], self.rt)
        except (InvalidPath, InvalidFilter):
            return None
        self.used.add(spelling[1])
        return path

    def _spread(self, op: Op, value: Any, index: int) -> None:
        """A value without a path is a partial resource: one operation per attribute."""
        value = unwrapped(value, self.tolerances, self.used)
        if not isinstance(value, dict):
            raise InvalidValue(f"Operations[{index}] has no path: its value must be an object with attributes.")
        for name, inner in value.items():
            key = self._of_today(name)
            if self._is_resource(key):
                self._spread(op, inner, index)
                continue
            path = self._key(key, inner, index)
            if path.attribute is None or path.attribute.name != "schemas":
                self._one(op, path, inner, index, echo=True)

    def _key(self, key: str, value: Any, index: int) -> Path:
        attribute = self.rt.attributes.get(key.casefold())
        if attribute is not None:
            return Path(None, attribute)
        extension = self.rt.extensions.get(key.casefold())
        if extension is not None:
            return Path(extension.urn, None)
        own = key.casefold() == self.rt.schema.casefold()
        if ":" in key and isinstance(value, dict) and not own and split_urn(key, self.rt)[0] not in _urns(self.rt):
            check_unknown(key, value)
            _refuse_of_scim(key, self.rt)
            return Path(key, None, known=False)
        path = self._path(key, index)
        if not any(mark in key for mark in ".:["):
            return path
        if not self.tolerances.dotted_keys:
            raise InvalidPath(
                f"Operations[{index}]: a name in the value is a path: send it as the path of an operation of its own."
            )
        self.used.add("dotted_keys")
        return path

    def _one(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        attribute = path.attribute
        if attribute is None:
            self._extension(op, path, value, index, echo=echo)
        elif attribute.mutability == "readOnly" or (path.sub is not None and path.sub.mutability == "readOnly"):
            self._read_only(op, path, value, index, echo=echo)
        elif attribute.name == "schemas":
            self._schemas(op, value)
        elif self.rt.name == "Group" and path.urn is None and attribute.name == "members":
            self.edges.extend(_edges(op, path, value, self.tolerances, self.used))
        elif op == "remove":
            self._remove(path, value, index)
        else:
            self._write(op, path, value, index)

    def _schemas(self, op: Op, value: Any) -> None:
        """`schemas` follows from the data; stating it changes nothing, taking it away cannot be honoured."""
        if op == "remove":
            raise Mutability("schemas follows from the attributes present: remove those of the extension instead.")
        check_value(self.rt.attributes["schemas"], value, "schemas", self.tolerances, self.used)

    def _read_only(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        refusal = Mutability(f"Operations[{index}]: {path.text} is read-only: leave it out.")
        if op == "remove" or not self.tolerances.id_in_value:
            raise refusal
        if path.text == "id":
            self.operations.append(Operation(op, path, value, index))
        elif not echo and _name(path) != "members":
            raise refusal
        else:
            self.used.add("id_in_value")

    def _extension(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        value = unwrapped(value, self.tolerances, self.used)
        if value == [] or is_blank(value, self.tolerances, self.used):
            value = None
        if op == "remove" or (op == "replace" and value in (None, {})):
            self.operations.append(Operation("remove", path, None, index))
            return
        if not isinstance(value, dict):
            raise InvalidValue(f"Operations[{index}]: the value of an extension must be an object with its attributes.")
        # `schemas` inside an extension's value says what the URN says already.
        value = {key: inner for key, inner in value.items() if key.casefold() != "schemas"}
        extension = self.rt.extensions.get((path.urn or "").casefold()) if path.known else None
        for key, inner in value.items():
            self._one(op, self._member_path(extension, path, key, inner, index), inner, index, echo=echo)

    def _member_path(self, extension: Extension | None, path: Path, key: str, value: Any, index: int) -> Path:
        if extension is None:
            check_unknown(key, value)
            return Path(path.urn, unknown(key), known=False)
        try:
            return _in_table(extension.attributes, extension.urn, key)
        except InvalidPath as error:
            raise InvalidPath(f"Operations[{index}]: {error.detail}") from None

    def _remove(self, path: Path, value: Any, index: int) -> None:
        _refuse_unassigning(path)
        if value is not _MISSING and value is not None:
            value = self._selected(path, value, index)
        self._keep(Operation("remove", path, None if value is _MISSING else value, index))

    def _selected(self, path: Path, value: Any, index: int) -> list[Any] | None:
        """The values a `remove` lists instead of a filter; each is matched by what it names."""
        attribute = path.attribute
        if not self.tolerances.remove_value_list:
            raise InvalidValue(f"Operations[{index}]: remove has no value: select what to remove by a filter in the path.")
        self.used.add("remove_value_list")
        if attribute is None or path.sub is not None or path.filter is not None:
            return None
        if not attribute.multi_valued and attribute.type != "any":
            return None
        items = value if isinstance(value, list) else [value]
        return [check_single(attribute, item, f"{path.text}[{n}]", self.tolerances, self.used) for n, item in enumerate(items)]

    def _write(self, op: Op, path: Path, value: Any, index: int) -> None:
        if value is _MISSING:
            raise InvalidValue(f"Operations[{index}]: {op} needs a value for {path.text}.")
        attribute = path.sub or path.attribute
        assert attribute is not None
        value = self._alone(attribute, value)
        if value == "" and self._is_absence(path, attribute):
            value = None
        if value in (None, []) or (value == {} and op == "replace"):
            _refuse_unassigning(path)
            if op == "replace" or not attribute.multi_valued:
                self._keep(Operation("remove", path, None, index))
            return
        if path.filter is not None and path.sub is None:
            value = self._merge(attribute, _element(value, path, self.tolerances, self.used), path)
        elif attribute.type == "complex" and not attribute.multi_valued:
            value = self._merge(attribute, value, path)
        else:
            value = check_value(attribute, value, path.text, self.tolerances, self.used)
        self._keep(Operation(op, path, value, index))

    def _alone(self, attribute: Attribute, value: Any) -> Any:
        """The scalar of a list with one, where a single one is due: SCIM-SDK's client sends all values of a PATCH in lists."""
        if attribute.multi_valued or attribute.type in ("complex", "any") or not self.tolerances.wrapped_values:
            return value
        if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list | dict):
            return value
        self.used.add("wrapped_values")
        return value[0]

    def _merge(self, attribute: Attribute, value: Any, path: Path) -> dict[str, Any]:
        """The members of a complex value, None for those to be unassigned."""
        value = unwrapped(value, self.tolerances, self.used)
        check = check_some if attribute.type == "complex" else check_single
        checked = check(attribute, value, path.text, self.tolerances, self.used) or {}
        if not isinstance(value, dict):
            return checked
        for key, inner in value.items():
            sub = attribute.sub_attributes.get(key.casefold())
            name = sub.name if sub is not None else key
            # What was sent and is not among what was kept is unassigned: null, [], {}, and "" where it is absence.
            if inner in (None, [], {}, "") and name not in checked and (sub is None or sub.mutability != "readOnly"):
                _refuse_unassigning(Path(path.urn, path.attribute, path.filter, sub or unknown(name)))
                checked[name] = None
        return checked

    def _is_absence(self, path: Path, attribute: Attribute) -> bool:
        """Whether an empty string means no value: where the profile says so, or where nothing else is possible."""
        of_manager = (
            path.sub is not None and path.sub.name == "value" and path.attribute is not None and not path.attribute.multi_valued
        )
        if of_manager or attribute.type == "complex" or attribute.multi_valued:
            return is_blank("", self.tolerances, self.used)
        return is_empty_string("", self.tolerances, self.used)

    def _keep(self, operation: Operation) -> None:
        named = (operation.path.attribute, operation.path.sub)
        if not any(attribute is not None and attribute.returned == "never" for attribute in named):
            self.operations.append(operation)


def _urns(rt: ResourceType) -> set[str | None]:
    return {None, *(extension.urn for extension in rt.extensions.values())}


def _refuse_unassigning(path: Path) -> None:
    """Raises Mutability for what is required (RFC 7644 §3.5.2.2); what an extension requires depends on what else it holds."""
    attribute = path.sub or path.attribute
    if attribute is None or not attribute.required or (path.urn is not None and path.sub is None):
        return
    if attribute.name == "active":
        # An absent flag reads as active: it must never bring a leaver back.
        raise Mutability("active cannot be removed: replace it with true or false.")
    raise Mutability(f"{path.text} is required and cannot be removed: replace it with another value.")


def _element(value: Any, path: Path, tolerances: Tolerances, used: Used) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not tolerances.single_for_multi:
        raise InvalidValue(f"{path.text} selects single values: send one object.")
    used.add("single_for_multi")
    return value[0]


# ---- members ---------------------------------------------------------------------------------------------------------------------


def _edges(op: Op, path: Path, value: Any, tolerances: Tolerances, used: Used) -> Iterator[EdgeOperation]:
    if path.sub is not None:
        raise Mutability("The sub-attributes of a member cannot be changed: remove the member and add another.")
    if path.filter is not None:
        yield from _selected_edges(op, path, path.filter, value, tolerances, used)
    elif op == "remove":
        yield _removal(value, tolerances, used)
    else:
        if value is _MISSING:
            raise InvalidValue(f"{op} needs a value for members.")
        if op == "replace":
            yield EdgeOperation("clear")
        if value not in (None, [], {}):
            yield EdgeOperation("add", _pairs(value, tolerances, used))


def _pairs(value: Any, tolerances: Tolerances, used: Used) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, str) and value and tolerances.bare_values:
        # Microsoft's test suite adds one member as a bare id (AzureAD/SCIMReferenceCode issue 24).
        used.add("bare_values")
        value = [{"value": value}]
    items = as_list(value, "members", tolerances, used)
    return tuple((member["value"], member.get("type")) for member in check_members(items, tolerances, used))


def _removal(value: Any, tolerances: Tolerances, used: Used) -> EdgeOperation:
    if value is _MISSING or value is None:
        return EdgeOperation("clear")
    if not tolerances.remove_value_list:
        raise InvalidValue('remove has no value: select the member in the path, as members[value eq "…"].')
    used.add("remove_value_list")
    # An empty list names nobody: it must not empty the group.
    return EdgeOperation("remove", _pairs(value, tolerances, used))


def _selected_edges(
    op: Op, path: Path, selection: Filter, value: Any, tolerances: Tolerances, used: Used
) -> Iterator[EdgeOperation]:
    ids = _member_ids(selection)
    if ids is None and not _leaves(selection) <= {"value", "type"}:
        # It would select nobody, and the access that was to be taken away would stay.
        raise InvalidFilter("members: select them by value or type, nothing else is kept of them.")
    if op == "remove":
        if ids is None:
            yield EdgeOperation("remove_where", filter=selection)
        else:
            yield EdgeOperation("remove", tuple((member, None) for member in ids))
        return
    if ids is None:
        raise InvalidPath(f'{op} can select a member by its id only, as members[value eq "…"].')
    if value is _MISSING:
        raise InvalidValue(f"{op} needs a value for {path.text}.")
    selected = tuple((member, None) for member in ids)
    value = None if value in ([], {}) else _element(value, path, tolerances, used)
    if op == "add":
        yield EdgeOperation("add", _agreeing(selected, value, tolerances, used))
        return
    # RFC 7644 §3.5.2.3. Also where values that are missing may be created: nobody gets access by a filter that missed.
    yield EdgeOperation("require", selected)
    yield EdgeOperation("remove", selected)
    if value is not None:
        yield EdgeOperation("add", _pairs(value, tolerances, used))


def _agreeing(
    selected: tuple[tuple[str, str | None], ...], value: Any, tolerances: Tolerances, used: Used
) -> tuple[tuple[str, str | None], ...]:
    """The members to add under a filter: those of the value, or those of the filter where the value names nobody."""
    if value is None or (isinstance(value, dict) and "value" not in {key.casefold() for key in value}):
        return selected
    named = _pairs(value, tolerances, used)
    if not {member for member, _ in named} <= {member for member, _ in selected}:
        raise InvalidValue("members: the value names another member than the filter of its path. Name the same in both.")
    return named


def _member_ids(selection: Filter) -> tuple[str, ...] | None:
    """The ids, where the filter is `value eq` an id or `$ref eq` a link to one, or several of these joined by `or`."""
    terms = selection.terms if isinstance(selection, Or) else (selection,)
    ids: list[str] = []
    for term in terms:
        if not isinstance(term, Compare) or term.operator != "eq" or term.value is None:
            return None
        name = term.reference.leaf.name
        if name not in ("value", "$ref"):
            return None
        ids.append(term.value if name == "value" else term.value.rpartition("/")[2])
    return tuple(ids)


def _leaves(selection: Filter) -> set[str]:
    """The names of the sub-attributes that a filter within brackets asks for."""
    if isinstance(selection, And | Or):
        return set[str]().union(*map(_leaves, selection.terms))
    if isinstance(selection, Not):
        return _leaves(selection.term)
    return {selection.reference.leaf.name}


# ---- applying --------------------------------------------------------------------------------------------------------------------


def changed_names(patch: Patch) -> frozenset[tuple[str, str]]:
    """The casefolded URN and name of each attribute of an extension that the patch may change."""
    paths = (operation.path for operation in patch.operations)
    return frozenset((p.urn.casefold(), p.attribute.name.casefold()) for p in paths if p.urn and p.attribute)


def _name(path: Path) -> str:
    assert path.attribute is not None
    return path.attribute.name


def apply_patch(rt: ResourceType, before: dict[str, Any], patch: Patch, tolerances: Tolerances, used: Used) -> dict[str, Any]:
    """The document after all operations, as a new one; `before` is never changed, also when an operation fails.

    Raises NoTarget where a filter selects nothing to add to or replace, Mutability for the id and for immutable attributes,
    InvalidValue where a required attribute would be missing or two values primary, TooMany where many operations change long lists.
    """
    after = dict(before)
    visited = 0
    for operation in patch.operations:
        visited += _visits(after, operation)
        if visited > VALUES_VISITED_MAX:
            raise TooMany(
                f"Operations[{operation.index}]: too many changes of long lists or large extensions in one request. Send several requests."
            )
        _apply(after, operation, tolerances, used)
    check_required(rt, after, before)
    check_immutable(rt, before, after)
    after["schemas"] = schemas_of(rt, after)
    return after


def _visits(after: Mapping[str, Any], operation: Operation) -> int:
    """How many values of a list the operation goes through; each is compared with all that a filter or a removal by value names."""
    path = operation.path
    holder: Mapping[str, Any] = after
    if path.urn is not None:
        holder = after.get(path.urn if path.known else _stored_name(after, path.urn)) or {}
    names = (len(after) + len(holder)) // 16  # they are gone through too, but quickly
    held = look_up(holder, path.attribute.name) if path.attribute is not None else None
    if not isinstance(held, list):
        return names
    removed = operation.value if operation.op == "remove" and isinstance(operation.value, list) else ()
    compared = max(1, len(removed)) if path.filter is None else _terms(path.filter)  # pyright: ignore[reportUnknownArgumentType]
    return names + len(held) * compared  # pyright: ignore[reportUnknownArgumentType]


def _terms(selection: Filter) -> int:
    """How many comparisons a filter makes at most."""
    if isinstance(selection, And | Or):
        return sum(map(_terms, selection.terms))
    return _terms(selection.term) if isinstance(selection, Not) else 1


def _apply(after: dict[str, Any], operation: Operation, tolerances: Tolerances, used: Used) -> None:
    path = operation.path
    attribute = path.attribute
    if path.urn is None:
        assert attribute is not None
        if attribute.name == "id":
            _own_id(after, operation, used)
        else:
            _change(after, attribute.name, operation, tolerances, used)
        return
    urn = path.urn if path.known else _stored_name(after, path.urn)
    if attribute is None:
        after.pop(urn, None)
        return
    whole = None if path.known or path.filter is not None else _stored_name(after, path.text)
    if whole is not None and isinstance(after.get(whole), dict):
        _change_whole(after, whole, operation, tolerances, used)
        return
    inner = dict(after.get(urn) or {})
    _change(inner, attribute.name if path.known else _stored_name(inner, attribute.name), operation, tolerances, used)
    _assign(after, urn, inner)


def _change_whole(after: dict[str, Any], urn: str, operation: Operation, tolerances: Tolerances, used: Used) -> None:
    """Change an extension kept as sent, whose URN reads like that of another one and an attribute."""
    if operation.op == "remove" and operation.value is None:
        del after[urn]
        return
    if operation.op == "remove" or not isinstance(operation.value, dict):
        raise InvalidValue(f"Operations[{operation.index}]: the path names an extension: send an object with its attributes.")
    inner = dict(after[urn])
    for name, value in operation.value.items():
        op: Op = "remove" if value in (None, [], {}) else operation.op
        path = Path(urn, unknown(name), known=False)
        _change(
            inner,
            _stored_name(inner, name),
            Operation(op, path, None if op == "remove" else value, operation.index),
            tolerances,
            used,
        )
    _assign(after, urn, inner)


def _stored_name(holder: Mapping[str, Any], name: str) -> str:
    folded = name.casefold()
    return name if name in holder else next((key for key in holder if key.casefold() == folded), name)


def _own_id(after: dict[str, Any], operation: Operation, used: Used) -> None:
    if operation.value != after.get("id"):
        raise Mutability(f"Operations[{operation.index}]: id is read-only: leave it out.")
    used.add("id_in_value")


def _assign(holder: dict[str, Any], name: str, value: Any) -> None:
    if value in (None, [], {}):
        holder.pop(name, None)
    else:
        holder[name] = value


def _change(holder: dict[str, Any], name: str, operation: Operation, tolerances: Tolerances, used: Used) -> None:
    """Change the attribute `name` of `holder`, which is already a copy."""
    path, old = operation.path, holder.get(name)
    attribute = path.attribute
    assert attribute is not None
    if path.filter is not None:
        new = _change_selected(old, operation, tolerances, used)
    elif path.sub is not None:
        new = _change_sub(old, operation, path.sub, tolerances, used)
    elif operation.op == "remove":
        new = _without(attribute, old, operation.value)
    elif attribute.multi_valued or _joins(attribute, old, operation):
        new = _extend(attribute, old, operation)
    elif attribute.type == "complex":
        new = _merged(old or {}, operation.value)
    else:
        new = _added(old, operation.value) if attribute.type == "any" and operation.op == "add" else operation.value
    if attribute.mutability == "immutable" and old is not None and new != old:
        raise Mutability(f"Operations[{operation.index}]: {path.text} cannot be changed once it is set.")
    _assign(holder, name, new)


def _joins(attribute: Attribute, old: Any, operation: Operation) -> bool:
    """Whether an attribute without a schema is added to: what holds a list has several values (RFC 7644 §3.5.2.1)."""
    return attribute.type == "any" and operation.op == "add" and isinstance(old, list)


def _added(old: Any, value: Any) -> Any:
    """The same for what holds an object: it has sub-attributes, and those that are not given stay."""
    return _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value


def _merged(old: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The complex value with the given sub-attributes replaced, those given as None removed."""
    # Sub-attributes without a schema are stored as sent; names that differ in case only are the same (RFC 7643 §2.1).
    value = {_stored_name(old, name): inner for name, inner in value.items()}
    new = {**old, **value}
    if "$ref" in old and "$ref" not in value and new.get("value") != old.get("value"):
        # The link belongs to the value that has just been replaced.
        del new["$ref"]
    return {key: inner for key, inner in new.items() if inner is not None}


def _change_sub(old: Any, operation: Operation, sub: Attribute, tolerances: Tolerances, used: Used) -> Any:
    value = {sub.name: None if operation.op == "remove" else operation.value}
    if isinstance(old, list) and all(isinstance(item, dict) for item in old):
        return _settled([_merged(item, value) for item in old], range(len(old)), operation)
    if old is not None and not isinstance(old, dict):
        raise NoTarget(f"Operations[{operation.index}]: the stored value of the attribute has no sub-attributes.")
    if operation.path.attribute is not None and operation.path.attribute.multi_valued:
        if operation.op == "remove":
            return None
        if not tolerances.replace_creates:
            raise NoTarget(f"Operations[{operation.index}]: {operation.path.text} has no value to change: add one to the list.")
        used.add("replace_creates")
        return [value]
    return _merged(old or {}, value)


def _without(attribute: Attribute, old: Any, selected: list[Any] | None) -> Any:
    if selected is None or not isinstance(old, list):
        return None
    return [item for item in old if not any(_named_by(attribute, item, wanted) for wanted in selected)]


def _named_by(attribute: Attribute, item: Any, wanted: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(wanted, dict):
        return _equal(attribute, item, wanted)
    names = ("value",) if "value" in wanted else tuple(wanted)
    return all(_equal(attribute.sub_attributes.get(name.casefold()), look_up(item, name), wanted[name]) for name in names)


def _equal(sub: Attribute | None, held: Any, wanted: Any) -> bool:
    if sub is not None and sub.type != "any" and not sub.case_exact and isinstance(held, str) and isinstance(wanted, str):
        return held.casefold() == wanted.casefold()
    return held == wanted


def _extend(attribute: Attribute, old: Any, operation: Operation) -> list[Any]:
    """Add to or replace a list; a value that is there already is not added again."""
    given: list[Any] = operation.value if isinstance(operation.value, list) else [operation.value]
    new: list[Any] = list(old) if operation.op == "add" and isinstance(old, list) else []
    fresh: list[int] = []
    places: dict[Hashable, int] = {}
    for n, held in enumerate(new):
        places.setdefault(_identity(held), n)
    for item in given:
        place = places.setdefault(_identity(item), len(new))
        if place == len(new):
            fresh.append(len(new))
            new.append(item)
        elif isinstance(item, dict) and "primary" in item and operation.op == "add":
            fresh.append(place)
            new[place] = {**new[place], "primary": item["primary"]}
        elif operation.op == "replace":
            new.append(item)
    return _settled(new, fresh, operation) if attribute.type == "complex" else new


def _identity(value: Any) -> Hashable:
    """Equal for values that are the same; whether one is primary makes no other value of it."""
    return _frozen(_unflagged(value) if isinstance(value, dict) else value)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _frozen(inner)) for key, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _unflagged(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != "primary"}


def _change_selected(old: Any, operation: Operation, tolerances: Tolerances, used: Used) -> Any:
    path = operation.path
    assert path.filter is not None
    items: list[Any] = old if isinstance(old, list) else [] if old is None else [old]
    chosen = [n for n, item in enumerate(items) if matches(path.filter, item if isinstance(item, dict) else {"value": item})]
    if operation.op == "remove" and path.sub is None:
        return _listed_again(old, [item for n, item in enumerate(items) if n not in chosen])
    if operation.op == "remove" and not chosen:
        return old
    value = operation.value if path.sub is None else {path.sub.name: None if operation.op == "remove" else operation.value}
    new = list(items)
    if not chosen:
        new.append(_described(operation, tolerances, used))
        chosen = [len(items)]
    created = new[len(items) :]
    for n in chosen:
        new[n] = _altered(new[n], value, operation)
    if created and not matches(path.filter, new[-1]):
        # What is created is what the filter asks for; a value that contradicts it was meant for another one.
        raise _selects_nothing(operation)
    return _listed_again(old, _settled(new, chosen, operation))


def _altered(item: Any, value: Any, operation: Operation) -> Any:
    if isinstance(item, dict) and isinstance(value, dict):
        return _merged(item, value)
    if operation.path.sub is not None:
        raise NoTarget(f"Operations[{operation.index}]: a selected value of the attribute has no sub-attributes.")
    return value


def _listed_again(old: Any, items: list[Any]) -> Any:
    """A singular complex attribute was treated as a list of one."""
    return items if not isinstance(old, dict) else items[0] if items else None


def _described(operation: Operation, tolerances: Tolerances, used: Used) -> dict[str, Any]:
    """The value that a filter of `eq` joined by `and` describes; NoTarget for any other filter."""
    path = operation.path
    assert path.filter is not None
    members = _equalities(path.filter)
    multi_valued = path.attribute is not None and path.attribute.multi_valued
    if members is None or not tolerances.replace_creates or not multi_valued:
        raise _selects_nothing(operation)
    used.add("replace_creates")
    return members


def _selects_nothing(operation: Operation) -> NoTarget:
    return NoTarget(f"Operations[{operation.index}]: the filter of {operation.path.text} selects no value of this resource.")


def _equalities(selection: Filter) -> dict[str, Any] | None:
    members: dict[str, Any] = {}
    for term in selection.terms if isinstance(selection, And) else (selection,):
        if not isinstance(term, Compare) or term.operator != "eq" or term.value is None:
            return None
        leaf = term.reference.leaf
        if leaf.mutability == "readOnly":
            return None
        members[leaf.name] = term.operand if leaf.type == "boolean" else term.value
    return members


def _settled(items: list[Any], fresh: Any, operation: Operation) -> list[Any]:
    """Values that became empty go; a newly set primary turns the others off (RFC 7644 §3.5.2)."""
    primary = {n for n in fresh if isinstance(items[n], dict) and items[n].get("primary") is True}
    if primary:
        check_primary([items[n] for n in primary], operation.path.text)
        for n, item in enumerate(items):
            if n not in primary and isinstance(item, dict) and item.get("primary") is True:
                items[n] = {**item, "primary": False}
    return [item for item in items if item not in ({}, None)]
