"""PATCH (RFC 7644 §3.5.2): reading the operations.

Reading resolves every path, checks every value against the schema and spreads values without a path over their attributes;
applying (`scim/apply.py`) is then only structure. Operations on group members become edge operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from scim.errors import InvalidFilter, InvalidPath, InvalidSyntax, InvalidValue, Mutability, NoTarget, TooMany
from scim.filters import unknown
from scim.leniency import Leniency, Tolerance
from scim.member_operations import MISSING, EdgeOperation, Op, element, read_edges
from scim.normalise import (
    as_list,
    check_single,
    check_some,
    check_unknown,
    check_value,
    is_blank,
    is_empty_string,
    listed_schemas,
    nested_once,
    refuse_own_name,
    unnested,
    unwrapped,
)
from scim.paths import Path, in_table, parse_path, refuse_of_scim
from scim.respelling import renamed, respelled
from scim.schema import Attribute, Extension, ResourceType
from scim.urns import is_after_known_urn, split_urn

PATCH_URN = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_OPS: Mapping[str, Op] = {"add": "add", "remove": "remove", "replace": "replace"}


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One change of one attribute; `index` is the place of the operation in the request."""

    op: Op
    path: Path
    value: Any
    index: int


@dataclass(frozen=True, slots=True)
class Patch:
    """A read PATCH: what changes the document, and what changes a group's members, each in order."""

    operations: tuple[Operation, ...]
    edges: tuple[EdgeOperation, ...]


OPERATIONS_MAX: Final = 10_000  # of one PATCH: reading a path under a filter takes 0.2 ms, and IdPs send a handful


def read_patch(rt: ResourceType, document: dict[str, Any], leniency: Leniency) -> Patch:
    """The operations of a PatchOp message, resolved and checked as far as the schema alone can tell.

    Raises InvalidSyntax for the message, InvalidPath, InvalidFilter, InvalidValue, Mutability and NoTarget for an operation.
    """
    message = {key.casefold(): value for key, value in document.items()}
    if message.get("schemas") or not leniency.allows(Tolerance.MISSING_SCHEMAS):
        listed_schemas(message.get("schemas"), PATCH_URN, leniency)
    reader = _PatchReader(rt, leniency)
    for index, item in enumerate(_operations(message.get("operations"), leniency)):
        reader.read(index, item)
    return Patch(tuple(reader.operations), tuple(reader.edges))


def _operations(listed: Any, leniency: Leniency) -> list[Any]:
    if isinstance(listed, dict):
        listed = as_list(listed, "Operations", leniency)
    if not isinstance(listed, list):
        raise InvalidSyntax("Operations is missing: send a list of operations.")
    if not listed and not leniency.allows(Tolerance.EMPTY_OPERATIONS):
        raise InvalidSyntax("Operations is empty: send at least one operation.")
    if len(listed) > OPERATIONS_MAX:
        raise TooMany(f"Operations: send at most {OPERATIONS_MAX} in one request; many members belong into the value of one.")
    return listed


class _PatchReader:
    """Collects the operations of one message."""

    def __init__(self, rt: ResourceType, leniency: Leniency) -> None:
        self.rt = rt
        self.leniency = leniency
        self.operations: list[Operation] = []
        self.edges: list[EdgeOperation] = []

    def read(self, index: int, item: Any) -> None:
        if not isinstance(item, dict):
            raise InvalidSyntax(f"Operations[{index}] must be an object.")
        fields = {key.casefold(): value for key, value in item.items()}
        op = self._op(index, fields.get("op"))
        value = fields.get("value", MISSING)
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
        today = renamed(self.rt, name) if ":" in name else name
        return today if today != name and self.leniency.allows(Tolerance.OLD_SCHEMA_URIS) else name

    def _is_resource(self, name: str) -> bool:
        """Whether it is the URN of the core schema: what is under it are the resource's own attributes."""
        return name.casefold() == self.rt.schema.casefold() and self.leniency.allows(Tolerance.DOTTED_KEYS)

    def _op(self, index: int, op: Any) -> Op:
        if not isinstance(op, str) or op.lower() not in _OPS:
            raise InvalidSyntax(f"The op of Operations[{index}] must be add, remove or replace.")
        if op not in _OPS and not self.leniency.allows(Tolerance.OP_CASE):
            raise InvalidSyntax(f"The op of Operations[{index}] must be written in lower case.")
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
        spelling = respelled(self.rt, text, self.leniency)
        if spelling is None:
            return None
        try:
            path = parse_path(spelling[0], self.rt)
        except (InvalidPath, InvalidFilter):
            return None
        self.leniency.note(spelling[1])
        return path

    def _spread(self, op: Op, value: Any, index: int) -> None:
        """A value without a path is a partial resource: one operation per attribute."""
        value = unwrapped(value, self.leniency)
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
        if isinstance(value, dict) and self._is_unknown_urn(key):
            check_unknown(key, value)
            refuse_of_scim(key, self.rt)
            return self._of_unknown_urn(key)
        path = self._path(key, index)
        if not any(mark in key for mark in ".:["):
            return path
        if not self.leniency.allows(Tolerance.DOTTED_KEYS):
            raise InvalidPath(
                f"Operations[{index}]: a name in the value is a path: send it as the path of an operation of its own."
            )
        return path

    def _is_unknown_urn(self, key: str) -> bool:
        own = key.casefold() == self.rt.schema.casefold()
        if ":" not in key or own or is_after_known_urn(self.rt, key):
            return False
        return split_urn(key, self.rt)[0] not in _urns(self.rt)

    def _of_unknown_urn(self, key: str) -> Path:
        """The key of an extension kept as sent; a resource may have any name with a colon, also one that is no path."""
        whole = Path(key, None, known=False)
        try:
            path = parse_path(key, self.rt)
        except (InvalidPath, InvalidFilter):
            return whole
        if path.doubt is not None:
            return path
        is_path = path.attribute is not None and self.leniency.would_allow(Tolerance.DOTTED_KEYS)
        return replace(path, whole=True) if is_path else whole

    def _one(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        attribute = path.attribute
        if attribute is None:
            self._extension(op, path, value, index, echo=echo)
        elif attribute.mutability == "readOnly" or (path.sub is not None and path.sub.mutability == "readOnly"):
            self._read_only(op, path, value, index, echo=echo)
        elif attribute.name == "schemas":
            self._schemas(op, value)
        elif self.rt.name == "Group" and path.urn is None and attribute.name == "members":
            self.edges.extend(read_edges(op, path, value, self.leniency))
        elif op == "remove":
            self._remove(path, value, index)
        else:
            self._write(op, path, value, index)

    def _schemas(self, op: Op, value: Any) -> None:
        """`schemas` follows from the data; stating it changes nothing, taking it away cannot be honoured."""
        if op == "remove":
            raise Mutability("schemas follows from the attributes present: remove those of the extension instead.")
        check_value(self.rt.attributes["schemas"], value, "schemas", self.leniency)

    def _read_only(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        refusal = Mutability(f"Operations[{index}]: {path.text} is read-only: leave it out.")
        if op == "remove" or not self.leniency.would_allow(Tolerance.ID_IN_VALUE):
            raise refusal
        if path.text == "id":
            self.operations.append(Operation(op, path, value, index))
        elif not echo and path.attribute is not self.rt.attributes.get("members"):
            raise refusal
        else:
            self.leniency.note(Tolerance.ID_IN_VALUE)

    def _extension(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        urn = path.urn or ""
        value = unnested(urn, unwrapped(value, self.leniency), self.leniency)
        if op == "remove" and value in (MISSING, None):
            self.operations.append(Operation("remove", path, None, index))
            return
        if op == "replace" and (value is None or is_blank(value, self.leniency)):
            self.operations.append(Operation("remove", path, None, index))
            return
        if not isinstance(value, dict) or (op == "remove" and not value):
            raise InvalidValue(f"Operations[{index}]: the value of an extension must be an object with its attributes.")
        if op == "remove":
            self._forgive_value_of_remove(index)
        refuse_own_name(urn, value)
        # `schemas` inside an extension's value says what the URN says already.
        value = {key: inner for key, inner in value.items() if key.casefold() != "schemas"}
        extension = self.rt.extensions.get(urn.casefold()) if path.known else None
        # An attribute that is not named is left as it is (RFC 7644 §3.5.2.3): an empty object changes nothing.
        for key, inner in value.items():
            self._one(op, self._member_path(extension, path, key, inner, index), inner, index, echo=echo)

    def _member_path(self, extension: Extension | None, path: Path, key: str, value: Any, index: int) -> Path:
        if extension is None:
            check_unknown(key, value)
            return Path(path.urn, unknown(key), known=False)
        try:
            return in_table(extension.attributes, extension.urn, key)
        except InvalidPath as error:
            raise InvalidPath(f"Operations[{index}]: {error.detail}") from None

    def _remove(self, path: Path, value: Any, index: int) -> None:
        parts = self._parts(path, value)
        if parts and self.leniency.allows(Tolerance.REMOVE_VALUE_LIST):
            for sub in parts:
                self._remove(replace(path, sub=sub), MISSING, index)
            return
        _refuse_unassigning(path)
        if value is not MISSING and value is not None:
            value = self._selected(path, value, index)
        self._keep(Operation("remove", path, None if value is MISSING else value, index))

    def _forgive_value_of_remove(self, index: int) -> None:
        if not self.leniency.allows(Tolerance.REMOVE_VALUE_LIST):
            raise InvalidValue(f"Operations[{index}]: remove has no value: select what to remove by a filter in the path.")

    def _parts(self, path: Path, value: Any) -> list[Attribute]:
        """The parts of a single complex value that a removal names; none where it names the whole, by its id or by nothing else."""
        attribute = path.attribute
        if attribute is None or attribute.multi_valued or attribute.type != "complex" or path.sub is not None:
            return []
        value = unwrapped(value, self.leniency)
        if not isinstance(value, dict):
            return []
        subs = [_sub_of(path, name) for name in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if any(sub.name in ("value", "$ref") for sub in subs):
            return []
        return [sub for sub in subs if sub.mutability != "readOnly"]

    def _selected(self, path: Path, value: Any, index: int) -> list[Any] | None:
        """The values a `remove` lists instead of a filter; each is matched by what it names."""
        attribute = path.attribute
        self._forgive_value_of_remove(index)
        if attribute is None or (path.sub is not None and path.doubt is None) or path.filter is not None:
            return None
        if not attribute.multi_valued and attribute.type != "any":
            if attribute.type == "complex" and value in ([], {}):
                raise self._says_nothing(path, index)
            return None
        items = value if isinstance(value, list) else [value]
        checked = [check_single(attribute, item, f"{path.text}[{n}]", self.leniency) for n, item in enumerate(items)]
        if items and all(item is None for item in checked):
            raise self._says_nothing(path, index)
        return checked

    def _says_nothing(self, path: Path, index: int) -> InvalidValue:
        """What is neither a value nor the absence of one: removing for it would be a guess, doing nothing would be silence."""
        return InvalidValue(
            f"Operations[{index}]: the value for {path.text} is empty, which names nothing. Send null, or leave it out."
        )

    def _write(self, op: Op, path: Path, value: Any, index: int) -> None:
        if value is MISSING:
            raise InvalidValue(f"Operations[{index}]: {op} needs a value for {path.text}.")
        attribute = path.sub or path.attribute
        assert attribute is not None
        value = self._alone(attribute, value)
        if isinstance(value, dict):
            value = nested_once(attribute, value, self.leniency)
        if path.filter is not None and path.sub is None and value != []:
            value = element(value, path, self.leniency)
        if value == "" and self._is_absence(path, attribute):
            value = None
        if (value is None or isinstance(value, (list, dict))) and self._is_nothing(op, path, attribute, value, index):
            self._unassign(op, path, index)
        elif attribute.type == "any":
            self._keep(Operation(op, path, check_any(op, attribute.name, value, self.leniency), index))
        elif (path.filter is not None and path.sub is None) or (attribute.type == "complex" and not attribute.multi_valued):
            self._keep(Operation(op, path, self._merge(op, attribute, value, path), index))
        else:
            checked = check_value(attribute, value, path.text, self.leniency)
            if checked is None:
                self._unassign(op, path, index)  # a list of blanks only has no values, as in PUT
            else:
                self._keep(Operation(op, path, checked, index))

    def _is_nothing(self, op: Op, path: Path, attribute: Attribute, value: Any, index: int) -> bool:
        """Whether the value says that there is none (RFC 7643 §2.5); InvalidValue for one that is empty and says not even that."""
        if value is None:
            return True
        selecting = path.filter is not None and path.sub is None
        if attribute.type == "any" and not selecting:
            return self._is_nothing_unknown(op, path, value, index)
        if value == [] and not selecting and not attribute.multi_valued:
            raise self._says_nothing(path, index)
        if value == {} and op == "replace" and not selecting and attribute.multi_valued:
            raise self._says_nothing(path, index)
        return value == []

    def _is_nothing_unknown(self, op: Op, path: Path, value: Any, index: int) -> bool:
        """The same without a schema: what `replace` by an empty object or list does is decided by what is stored."""
        if op == "add":
            return adds_nothing(value, self.leniency)
        if value in ([], {}) and path.sub is not None:
            raise self._says_nothing(path, index)
        return False

    def _unassign(self, op: Op, path: Path, index: int) -> None:
        """What no value does: `replace` by it removes, `add` of it adds nothing and takes nothing."""
        if op == "replace":
            _refuse_unassigning(path)
            self._keep(Operation("remove", path, None, index))

    def _alone(self, attribute: Attribute, value: Any) -> Any:
        """The scalar of a list with one, where a single one is due: SCIM-SDK's client sends all values of a PATCH in lists."""
        if attribute.multi_valued or attribute.type in ("complex", "any"):
            return value
        if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list | dict):
            return value
        return value[0] if self.leniency.allows(Tolerance.WRAPPED_VALUES) else value

    def _merge(self, op: Op, attribute: Attribute, value: Any, path: Path) -> dict[str, Any]:
        """The members of a complex value, None for those to be unassigned: an `add` takes none away."""
        value = unwrapped(value, self.leniency)
        check = check_some if attribute.type == "complex" else check_single
        checked: Any = check(attribute, value, path.text, self.leniency)
        checked = {} if checked is None else checked
        if not isinstance(value, dict) or op == "add":
            return checked
        for key, inner in value.items():
            sub = attribute.sub_attributes.get(key.casefold())
            name = sub.name if sub is not None else key
            # What was sent and is not among what was kept is unassigned: null, [], and "" where it is absence.
            if inner in (None, [], "") and name not in checked and (sub is None or sub.mutability != "readOnly"):
                _refuse_unassigning(Path(path.urn, path.attribute, path.filter, sub or unknown(name)))
                checked[name] = None
        return checked

    def _is_absence(self, path: Path, attribute: Attribute) -> bool:
        """Whether an empty string means no value: where the profile says so, or where nothing else is possible."""
        of_manager = (
            path.sub is not None and path.sub.name == "value" and path.attribute is not None and not path.attribute.multi_valued
        )
        if of_manager or attribute.type == "complex" or attribute.multi_valued:
            return is_blank("", self.leniency)
        return is_empty_string("", self.leniency)

    def _keep(self, operation: Operation) -> None:
        named = (operation.path.attribute, operation.path.sub)
        if not any(attribute is not None and attribute.returned == "never" for attribute in named):
            self.operations.append(operation)


def adds_nothing(value: Any, leniency: Leniency) -> bool:
    """Whether an `add` of the value to an attribute without a schema has nothing to add."""
    items = value if isinstance(value, list) else [value]
    return all(item in (None, [], {}) for item in items) or (
        isinstance(value, list) and all(item in (None, [], {}) or is_blank(item, leniency) for item in value)  # pyright: ignore[reportUnknownVariableType]
    )


def check_any(op: Op, name: str, value: Any, leniency: Leniency) -> Any:
    """A value for an attribute without a schema. The parts of an object without a value are None for `replace`, left out for `add`.

    Raises InvalidSyntax for names that are none.
    """
    check_unknown(name, value)
    if not isinstance(value, dict):
        return value
    parts: dict[str, Any] = value
    gone = {key for key, inner in parts.items() if inner is None or is_empty_string(inner, leniency)}
    if op == "replace":
        return parts | dict.fromkeys(gone) if gone else parts
    return {key: inner for key, inner in parts.items() if key not in gone and inner not in ([], {})}


def _urns(rt: ResourceType) -> set[str | None]:
    return {None, *(extension.urn for extension in rt.extensions.values())}


def _sub_of(path: Path, name: str) -> Attribute:
    assert path.attribute is not None
    return path.attribute.sub_attributes.get(name.casefold()) or unknown(name)


def _refuse_unassigning(path: Path) -> None:
    """Raises Mutability for what is required (RFC 7644 §3.5.2.2); what an extension requires depends on what else it holds."""
    attribute = path.sub or path.attribute
    if attribute is None or not attribute.required or (path.urn is not None and path.sub is None):
        return
    if attribute.name == "active":
        # An absent flag reads as active: it must never bring a leaver back.
        raise Mutability("active cannot be removed: replace it with true or false.")
    raise Mutability(f"{path.text} is required and cannot be removed: replace it with another value.")
