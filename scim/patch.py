"""PATCH (RFC 7644 §3.5.2): reading the operations.

Reading resolves each path, checks each value against the schema, and turns an operation without a path into one per attribute, so that
applying (`scim/apply.py`) only changes the structure of the document. What is about the members of a group becomes member operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from scim.errors import InvalidFilter, InvalidPath, InvalidSyntax, InvalidValue, Mutability, NoTarget, TooMany, UnknownAttribute
from scim.filters import unknown
from scim.leniency import Leniency, Tolerance
from scim.member_operations import MISSING, MemberOperation, Op, read_member_operations, single_object
from scim.normalise import (
    as_list,
    check_partial,
    check_single,
    check_unknown,
    check_value,
    is_blank,
    is_empty_string,
    listed_schemas,
    refuse_own_name,
    unnested,
    unnested_value,
    unwrapped,
)
from scim.paths import Path, parse_path, path_in, refuse_scim_urn
from scim.respelling import respelt_path, with_current_urn
from scim.schema import Attribute, Extension, ResourceType
from scim.strictness import Strictness, undefined
from scim.urns import is_after_known_urn, split_urn

PATCH_URN = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_OPS: Mapping[str, Op] = {"add": "add", "remove": "remove", "replace": "replace"}


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One change of one attribute; `index` counts the operations of the request from 0."""

    op: Op
    path: Path
    value: Any
    index: int


@dataclass(frozen=True, slots=True)
class Patch:
    """A PATCH as it was read: the operations on the document and those on a group's members, each in the order of the request."""

    operations: tuple[Operation, ...]
    member_operations: tuple[MemberOperation, ...]


PATCH_OPERATIONS_MAX: Final = 10_000  # of one PATCH: reading a path under a filter takes 0.2 ms, and IdPs send a handful


def read_patch(rt: ResourceType, document: dict[str, Any], leniency: Leniency) -> Patch:
    """The operations of a PatchOp message, resolved and checked as far as that needs no stored document.

    Raises InvalidSyntax for the message, InvalidPath, InvalidFilter, InvalidValue, Mutability and NoTarget for an operation.
    """
    message = {key.casefold(): value for key, value in document.items()}
    if message.get("schemas") or not leniency.allows(Tolerance.MISSING_SCHEMAS):
        listed_schemas(message.get("schemas"), PATCH_URN, leniency)
    reader = _PatchReader(rt, leniency)
    for index, item in enumerate(_operations(message.get("operations"), leniency)):
        reader.read(index, item)
    return Patch(tuple(reader.operations), tuple(reader.member_operations))


def _operations(listed: Any, leniency: Leniency) -> list[Any]:
    if isinstance(listed, dict):
        listed = as_list(listed, "Operations", leniency)
    if not isinstance(listed, list):
        raise InvalidSyntax("Operations is missing: send a list of operations.")
    if not listed and not leniency.allows(Tolerance.EMPTY_OPERATIONS):
        raise InvalidSyntax("Operations is empty: send at least one operation.")
    if len(listed) > PATCH_OPERATIONS_MAX:
        raise TooMany(
            f"Operations: send at most {PATCH_OPERATIONS_MAX} in one request; put many members into the value of one operation."
        )
    return listed


class _PatchReader:
    """Reads the operations of one message, and collects what they come to."""

    def __init__(self, rt: ResourceType, leniency: Leniency) -> None:
        self.rt = rt
        self.leniency = leniency
        self.operations: list[Operation] = []
        self.member_operations: list[MemberOperation] = []

    def read(self, index: int, item: Any) -> None:
        if not isinstance(item, dict):
            raise InvalidSyntax(f"Operations[{index}] must be an object.")
        fields = {key.casefold(): value for key, value in item.items()}
        op = self._op(index, fields.get("op"))
        value = fields.get("value", MISSING)
        path = fields.get("path")
        if path is not None and not isinstance(path, str):
            raise InvalidPath(f"The path of Operations[{index}] must be a string.")
        if not path and self.leniency.demands(Strictness.PATH_REQUIRED):
            raise InvalidSyntax(f"Operations[{index}] has no path: send one operation with a path for each attribute.")
        path = self._with_current_urn(path) if path else None
        if path and (op == "remove" or not self._is_core_schema(path)):
            self._read_resolved(op, self._path(path, index), value, index, echo=False)
        elif op == "remove":
            raise NoTarget(f"Operations[{index}] removes without a path: name what to remove.")
        else:
            self._read_without_path(op, value, index)

    def _with_current_urn(self, name: str) -> str:
        """A key or path with the older URN at its beginning replaced by the current one, where the profile forgives it."""
        current = with_current_urn(self.rt, name) if ":" in name else name
        return current if current != name and self.leniency.allows(Tolerance.OLD_SCHEMA_URIS) else name

    def _is_core_schema(self, name: str) -> bool:
        """Whether a name is the URN of the core schema, under which the resource's own attributes stand, and the profile forgives it."""
        return name.casefold() == self.rt.schema.casefold() and self.leniency.allows(Tolerance.DOTTED_KEYS)

    def _op(self, index: int, op: Any) -> Op:
        if not isinstance(op, str) or op.lower() not in _OPS:
            raise InvalidSyntax(f"The op of Operations[{index}] must be add, remove or replace.")
        if op not in _OPS and not self.leniency.allows(Tolerance.OP_CASE):
            raise InvalidSyntax(f"The op of Operations[{index}] must be written in lower case.")
        return _OPS[op.lower()]

    def _path(self, text: str, index: int) -> Path:
        self._refuse_undefined_urn(text, index)
        try:
            path = parse_path(text, self.rt)
        except (InvalidPath, InvalidFilter) as error:
            path = self._respelled(text)
            if path is None:
                raise self._refusal(error, index) from None
        if path.filter is not None and path.sub is None and self.leniency.demands(Strictness.SUB_ATTRIBUTE_TARGETS):
            _refuse_whole_value(path, index)
        return path

    def _refuse_undefined_urn(self, text: str, index: int) -> None:
        if ":" not in text or not self.leniency.demands(Strictness.KNOWN_ATTRIBUTES):
            return
        name = text.partition("[")[0]
        known = {self.rt.schema.casefold(), *self.rt.extensions}
        urn = split_urn(name, self.rt)[0]
        if name.casefold() not in known and urn is not None and urn.casefold() not in known:
            raise undefined(f"Operations[{index}]: the schema URI in the path")

    def _refusal(self, error: InvalidPath | InvalidFilter, index: int) -> InvalidPath | InvalidFilter | InvalidSyntax:
        """The error for a path that cannot be read, with the number of its operation."""
        text = f"Operations[{index}]: {error.detail}"
        if isinstance(error, UnknownAttribute) and self.leniency.demands(Strictness.KNOWN_ATTRIBUTES):
            return InvalidSyntax(text)
        return type(error)(text)

    def _respelled(self, text: str) -> Path | None:
        """The path that the text stands for in another spelling; None where it is none, or the profile does not forgive it."""
        spelling = respelt_path(self.rt, text, self.leniency)
        if spelling is None:
            return None
        try:
            path = parse_path(spelling[0], self.rt)
        except (InvalidPath, InvalidFilter):
            return None
        self.leniency.note(spelling[1])
        return path

    def _read_without_path(self, op: Op, value: Any, index: int) -> None:
        """Read an operation without a path: its value is a part of a resource, and comes to one operation for each attribute in it."""
        value = unwrapped(value, self.leniency)
        if not isinstance(value, dict):
            raise InvalidValue(f"Operations[{index}] has no path: its value must be an object with attributes.")
        for name, inner in value.items():
            key = self._with_current_urn(name)
            if self._is_core_schema(key):
                self._read_without_path(op, inner, index)
                continue
            path = self._path_of_key(key, inner, index)
            if path.attribute is None or path.attribute.name != "schemas":
                self._read_resolved(op, path, inner, index, echo=True)

    def _path_of_key(self, key: str, value: Any, index: int) -> Path:
        """The path that a key in a value without a path stands for."""
        attribute = self.rt.attributes.get(key.casefold())
        if attribute is not None:
            return Path(None, attribute)
        extension = self.rt.extensions.get(key.casefold())
        if extension is not None:
            return Path(extension.urn, None)
        if isinstance(value, dict) and self._is_schemaless_urn(key):
            check_unknown(key, value)
            refuse_scim_urn(key, self.rt)
            return self._path_of_schemaless_urn(key)
        path = self._path(key, index)
        if not any(mark in key for mark in ".:["):
            return path
        if not self.leniency.allows(Tolerance.DOTTED_KEYS):
            raise InvalidPath(
                f"Operations[{index}]: a name in the value is a path: send it as the path of an operation of its own."
            )
        return path

    def _is_schemaless_urn(self, key: str) -> bool:
        """Whether a key is a URN, or begins with one, that has no schema here."""
        own = key.casefold() == self.rt.schema.casefold()
        if ":" not in key or own or is_after_known_urn(self.rt, key):
            return False
        return split_urn(key, self.rt)[0] not in _extension_urns(self.rt)

    def _path_of_schemaless_urn(self, key: str) -> Path:
        """The path of such a key. It may be the URN of an extension, or a URN and an attribute: what is stored decides when it is applied.

        A resource may have any name with a colon: one that cannot be parsed as a path is the URN of an extension.
        """
        whole = Path(key, None, known=False)
        try:
            path = parse_path(key, self.rt)
        except (InvalidPath, InvalidFilter):
            return whole
        if path.ambiguity is not None:
            return path
        is_path = path.attribute is not None and self.leniency.would_allow(Tolerance.DOTTED_KEYS)
        return replace(path, whole=True) if is_path else whole

    def _read_resolved(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        """Read an operation by what its path names. `echo`: it stood in a value without a path, where IdPs repeat what they were sent."""
        attribute = path.attribute
        if attribute is None:
            self._read_extension(op, path, value, index, echo=echo)
        elif attribute.mutability == "readOnly" or (path.sub is not None and path.sub.mutability == "readOnly"):
            self._read_of_read_only(op, path, value, index, echo=echo)
        elif attribute.name == "schemas":
            self._read_schemas(op, value)
        elif self.rt.name == "Group" and path.urn is None and attribute.name == "members":
            self.member_operations.extend(read_member_operations(op, path, value, self.leniency))
        elif op == "remove":
            self._read_removal(path, value, index)
        else:
            self._read_writing(op, path, value, index)

    def _read_schemas(self, op: Op, value: Any) -> None:
        """Read an operation on `schemas`, which follows from the data: to send it changes nothing, to remove it is refused."""
        if op == "remove":
            raise Mutability("schemas follows from the attributes present: remove those of the extension instead.")
        check_value(self.rt.attributes["schemas"], value, "schemas", self.leniency)

    def _read_of_read_only(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        """Read an operation on a read-only attribute: Mutability, unless the profile forgives that it is repeated.

        The id is kept as an operation: only the stored document shows whether it is that of the resource.
        """
        refusal = Mutability(f"Operations[{index}]: {path.text} is read-only: leave it out.")
        if op == "remove" or not self.leniency.would_allow(Tolerance.ID_IN_VALUE):
            raise refusal
        if path.text == "id":
            self.operations.append(Operation(op, path, value, index))
        elif not echo and path.attribute is not self.rt.attributes.get("members"):
            raise refusal
        else:
            self.leniency.note(Tolerance.ID_IN_VALUE)

    def _read_extension(self, op: Op, path: Path, value: Any, index: int, *, echo: bool) -> None:
        """Read an operation on an extension as a whole: one for each attribute in its value, or the removal of all."""
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
            self._check_removal_by_value(index)
        refuse_own_name(urn, value)
        # IdPs repeat `schemas` inside the value of an extension; the URN says the same.
        value = {key: inner for key, inner in value.items() if key.casefold() != "schemas"}
        extension = self.rt.extensions.get(urn.casefold()) if path.known else None
        # An attribute that the value does not name stays (RFC 7644 §3.5.2.3), so an empty object changes nothing.
        for key, inner in value.items():
            self._read_resolved(op, self._path_in_extension(extension, path, key, inner, index), inner, index, echo=echo)

    def _path_in_extension(self, extension: Extension | None, path: Path, key: str, value: Any, index: int) -> Path:
        if extension is None:
            check_unknown(key, value)
            return Path(path.urn, unknown(key), known=False)
        try:
            return path_in(extension.attributes, extension.urn, key)
        except InvalidPath as error:
            raise self._refusal(error, index) from None

    def _read_removal(self, path: Path, value: Any, index: int) -> None:
        parts = self._parts_removed(path, value)
        if parts and self.leniency.allows(Tolerance.REMOVE_VALUE_LIST):
            for sub in parts:
                self._read_removal(replace(path, sub=sub), MISSING, index)
            return
        _refuse_unassigning(path)
        if value is not MISSING and value is not None:
            value = self._values_removed(path, value, index)
        self._keep(Operation("remove", path, None if value is MISSING else value, index))

    def _check_removal_by_value(self, index: int) -> None:
        """Raises InvalidValue for a `remove` with a value, unless the profile forgives it."""
        if not self.leniency.allows(Tolerance.REMOVE_VALUE_LIST):
            raise InvalidValue(f"Operations[{index}]: remove has no value: select what to remove by a filter in the path.")

    def _parts_removed(self, path: Path, value: Any) -> list[Attribute]:
        """The sub-attributes that the value of a `remove` names, where the attribute is complex and has one value.

        None where the `remove` is for the whole attribute: it has no value, or one with the id (`value` or `$ref`).
        """
        attribute = path.attribute
        if attribute is None or attribute.multi_valued or attribute.type != "complex" or path.sub is not None:
            return []
        value = unwrapped(value, self.leniency)
        if not isinstance(value, dict):
            return []
        subs = [_sub_attribute(path, name) for name in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if any(sub.name in ("value", "$ref") for sub in subs):
            return []
        return [sub for sub in subs if sub.mutability != "readOnly"]

    def _values_removed(self, path: Path, value: Any, index: int) -> list[Any] | None:
        """The values that a `remove` lists instead of a filter: each removes the stored values that have what it names."""
        attribute = path.attribute
        self._check_removal_by_value(index)
        if attribute is None or (path.sub is not None and path.ambiguity is None) or path.filter is not None:
            return None
        if not attribute.multi_valued and attribute.type != "any":
            if attribute.type == "complex" and value in ([], {}):
                raise self._empty_value(path, index)
            return None
        items = value if isinstance(value, list) else [value]
        checked = [check_single(attribute, item, f"{path.text}[{n}]", self.leniency) for n, item in enumerate(items)]
        if items and all(item is None for item in checked):
            raise self._empty_value(path, index)
        return checked

    def _empty_value(self, path: Path, index: int) -> InvalidValue:
        """The error for an empty object or list where it is neither a value nor the absence of one.

        To remove something for it would be a guess; to do nothing would answer 200 to a request that had no effect.
        """
        return InvalidValue(
            f"Operations[{index}]: the value for {path.text} is empty, which names nothing. Send null, or leave it out."
        )

    def _read_writing(self, op: Op, path: Path, value: Any, index: int) -> None:
        """Read an `add` or `replace`: its value in normal form, or what it does where the value says that there is none."""
        if value is MISSING:
            raise InvalidValue(f"Operations[{index}]: {op} needs a value for {path.text}.")
        attribute = path.sub or path.attribute
        assert attribute is not None
        value = self._scalar(attribute, value)
        if isinstance(value, dict):
            value = unnested_value(attribute, value, self.leniency)
        if path.filter is not None and path.sub is None and value != []:
            value = single_object(value, path, self.leniency)
        if value == "" and self._is_absent(path, attribute):
            value = None
        if (value is None or isinstance(value, (list, dict))) and self._is_unassigned(op, path, attribute, value, index):
            self._unassign(op, path, index)
        elif attribute.type == "any":
            self._keep(Operation(op, path, check_schemaless(op, attribute.name, value, self.leniency), index))
        elif (path.filter is not None and path.sub is None) or (attribute.type == "complex" and not attribute.multi_valued):
            self._keep(Operation(op, path, self._checked_parts(op, attribute, value, path), index))
        else:
            checked = check_value(attribute, value, path.text, self.leniency)
            if checked is None:
                self._unassign(op, path, index)  # a list of nothing but empty values is no list, as in PUT
            else:
                self._keep(Operation(op, path, checked, index))

    def _is_unassigned(self, op: Op, path: Path, attribute: Attribute, value: Any, index: int) -> bool:
        """Whether the value unassigns the attribute (RFC 7643 §2.5). Raises InvalidValue for an empty one that does not say even that."""
        if value is None:
            return True
        selecting = path.filter is not None and path.sub is None
        if attribute.type == "any" and not selecting:
            return self._is_unassigned_schemaless(op, path, value, index)
        if value == [] and not selecting and not attribute.multi_valued:
            raise self._empty_value(path, index)
        if value == {} and op == "replace" and not selecting and attribute.multi_valued:
            raise self._empty_value(path, index)
        return value == []

    def _is_unassigned_schemaless(self, op: Op, path: Path, value: Any, index: int) -> bool:
        """The same for an attribute without a schema. What `replace` by an empty object or list does depends on what is stored."""
        if op == "add":
            return adds_nothing(value, self.leniency)
        if value in ([], {}) and path.sub is not None:
            raise self._empty_value(path, index)
        return False

    def _unassign(self, op: Op, path: Path, index: int) -> None:
        """Read an operation whose value unassigns: `replace` removes the attribute, `add` changes nothing."""
        if op == "replace":
            _refuse_unassigning(path)
            self._keep(Operation("remove", path, None, index))

    def _scalar(self, attribute: Attribute, value: Any) -> Any:
        """The value, for an attribute with one simple value also out of a list of one: SCIM-SDK's client sends every value in a list."""
        if attribute.multi_valued or attribute.type in ("complex", "any"):
            return value
        if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list | dict):
            return value
        return value[0] if self.leniency.allows(Tolerance.WRAPPED_VALUES) else value

    def _checked_parts(self, op: Op, attribute: Attribute, value: Any, path: Path) -> dict[str, Any]:
        """The sub-attributes of a complex value in normal form, None for those that `replace` unassigns; `add` unassigns none."""
        value = unwrapped(value, self.leniency)
        check = check_partial if attribute.type == "complex" else check_single
        checked: Any = check(attribute, value, path.text, self.leniency)
        checked = {} if checked is None else checked
        if not isinstance(value, dict) or op == "add":
            return checked
        for key, inner in value.items():
            sub = attribute.sub_attributes.get(key.casefold())
            name = sub.name if sub is not None else key
            # null and [] unassign, and "" where the profile takes it for absence: then the check kept no value for the name.
            if inner in (None, [], "") and name not in checked and (sub is None or sub.mutability != "readOnly"):
                _refuse_unassigning(Path(path.urn, path.attribute, path.filter, sub or unknown(name)))
                checked[name] = None
        return checked

    def _is_absent(self, path: Path, attribute: Attribute) -> bool:
        """Whether an empty string is absence here: in any attribute if the profile says so, or where a string can be no value."""
        of_manager = (
            path.sub is not None and path.sub.name == "value" and path.attribute is not None and not path.attribute.multi_valued
        )
        if of_manager or attribute.type == "complex" or attribute.multi_valued:
            return is_blank("", self.leniency)
        return is_empty_string("", self.leniency)

    def _keep(self, operation: Operation) -> None:
        """Collect an operation, unless it is on what is never returned (a password), which is not stored either."""
        named = (operation.path.attribute, operation.path.sub)
        if not any(attribute is not None and attribute.returned == "never" for attribute in named):
            self.operations.append(operation)


def _refuse_whole_value(path: Path, index: int) -> None:
    """Raises InvalidPath for a path that ends in a filter, but for that of a member, which can only be there or not."""
    if path.text != "members[…]":
        raise InvalidPath(f"Operations[{index}]: {path.text} needs a sub-attribute after the filter, such as {path.text}.value.")


def adds_nothing(value: Any, leniency: Leniency) -> bool:
    """Whether the value adds nothing to an attribute without a schema: it is empty, or a list of empty values."""
    items = value if isinstance(value, list) else [value]
    return all(item in (None, [], {}) for item in items) or (
        isinstance(value, list) and all(item in (None, [], {}) or is_blank(item, leniency) for item in value)  # pyright: ignore[reportUnknownVariableType]
    )


def check_schemaless(op: Op, name: str, value: Any, leniency: Leniency) -> Any:
    """The value that an operation gives to an attribute without a schema, as it was sent.

    Of an object the parts that are absent (null, or "" where the profile says so) become None for `replace`, which removes them, and are
    left out for `add`. Raises InvalidSyntax for a name that cannot be that of an attribute.
    """
    check_unknown(name, value)
    if not isinstance(value, dict):
        return value
    parts: dict[str, Any] = value
    gone = {key for key, inner in parts.items() if inner is None or is_empty_string(inner, leniency)}
    if op == "replace":
        return parts | dict.fromkeys(gone) if gone else parts
    return {key: inner for key, inner in parts.items() if key not in gone and inner not in ([], {})}


def _extension_urns(rt: ResourceType) -> set[str | None]:
    return {None, *(extension.urn for extension in rt.extensions.values())}


def _sub_attribute(path: Path, name: str) -> Attribute:
    assert path.attribute is not None
    return path.attribute.sub_attributes.get(name.casefold()) or unknown(name)


def _refuse_unassigning(path: Path) -> None:
    """Raises Mutability for a required attribute (RFC 7644 §3.5.2.2).

    Not for an attribute of an extension: it is required only as long as the extension has other data, which the stored document shows.
    """
    attribute = path.sub or path.attribute
    if attribute is None or not attribute.required or (path.urn is not None and path.sub is None):
        return
    if attribute.name == "active":
        # An absent flag reads as active: it must never bring a leaver back.
        raise Mutability("active cannot be removed: replace it with true or false.")
    raise Mutability(f"{path.text} is required and cannot be removed: replace it with another value.")
