"""Filters: the whole grammar of RFC 7644 §3.4.2.2, one evaluator, and what can be narrowed without it."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from scim.body import has_lone_surrogate
from scim.errors import InvalidFilter
from scim.schema import GROUP, USER, Attribute, ResourceType, is_of_scim
from scim.urns import Name, core_urns, readings, split_urn, type_in, with_colon
from scim.work import Work

TEXT_BYTES_MAX = 8192
REMEMBERED_CHARACTERS_MAX = 512  # of a filter that is read once for many requests: what is remembered stays small
LONG_TEXT = 256  # characters; comparing more is work of its own
DEPTH_MAX = 32
UNKNOWN_TYPE = "any"

AtomKind: TypeAlias = Literal["id", "userName", "externalId", "displayName", "emails.value", "members.value"]


def fold(text: str) -> str:
    """The form in which case-insensitive values are compared and kept as keys: NFC, then casefold."""
    return text.lower() if text.isascii() else _composed(text).casefold()


# Combining marks, with those few characters that are none and stand for several. All lie below; a test looks at every character.
MARKS: Final = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.combining(c)) + "\u0f73\u0f75\u0f81"
MARKS_TOGETHER: Final = (
    32  # behind each other that are put in order; no language has more than a few (UAX #15 "Stream-Safe Text Format")
)
_MARKS: Final = frozenset(MARKS)
_RUN: Final = re.compile(f"[{MARKS}]{{{MARKS_TOGETHER}}}")


def _composed(text: str) -> str:
    """NFC, in pieces where marks follow each other without end: to put n of them in order takes n² steps that nothing interrupts.

    A run that is longer than two pieces has a whole one behind some multiple of its length: the rest of the text is not looked at.
    """
    places = range(MARKS_TOGETHER, len(text) + 1, MARKS_TOGETHER)
    cuts = [end for end in places if text[end - 1] in _MARKS and _RUN.match(text, end - MARKS_TOGETHER)]
    if not cuts:
        return unicodedata.normalize("NFC", text)
    return "".join(unicodedata.normalize("NFC", text[start:end]) for start, end in pairwise([0, *cuts, len(text)]))


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute that a filter names: extension URN (or None), attribute and perhaps sub-attribute.

    `of` is the type of resource whose attribute it is, where a filter for several types says so by a core URN. `other` is what
    the name means in a document that has the extension whose URN ends at its dot.
    """

    urn: str | None
    attribute: Attribute
    sub: Attribute | None
    of: str | None = None
    other: "Reference | None" = None

    @property
    def leaf(self) -> Attribute:
        return self.sub or self.attribute

    @property
    def dotted(self) -> str:
        name = self.attribute.name if self.sub is None else f"{self.attribute.name}.{self.sub.name}"
        return name if self.urn is None else f"{self.urn}:{name}"

    def meant(self, document: Mapping[str, Any]) -> "Reference":
        """The reading of the name that the document decides, where it has two."""
        assert self.urn is not None
        assert self.other is not None
        assert self.other.urn is not None
        own, other = look_up(document, self.urn), look_up(document, self.other.urn)
        has_own = isinstance(own, dict) and look_up(own, self.attribute.name) is not None  # pyright: ignore[reportUnknownArgumentType]
        return self.other if isinstance(other, dict) and not has_own else self

    def values(self, document: Mapping[str, Any], work: Work | None = None) -> list[Any]:
        """Every assigned value the reference has in the document. Raises as Work.spend does."""
        if self.other is not None:
            return replace(self.meant(document), other=None).values(document, work)
        if self.of is not None and document.get("meta", {}).get("resourceType") != self.of:
            return []
        holder: Any = document
        if self.urn is not None:
            holder = look_up(document, self.urn)
            if not isinstance(holder, dict):
                # The last part of an unknown URN reads like an attribute: it may be an extension as a whole.
                return _flat(look_up(document, self.dotted)) if self.attribute.type == UNKNOWN_TYPE else []
        found = _found(holder, self.attribute.name, work)
        if self.sub is None:
            return found
        name = self.sub.name
        return [value for item in found if isinstance(item, dict) for value in _found(item, name, work)]


def _found(holder: Mapping[str, Any], name: str, work: Work | None) -> list[Any]:
    """The values under `name`. A name that is missing, or written in another case, is looked for among all."""
    found = _flat(look_up(holder, name))
    if work is not None:
        work.spend(1 + len(found) + len(holder) // 8)
    return found


def look_up(holder: Mapping[str, Any], name: str) -> Any:
    """The value under `name`; attributes without a schema are stored as sent, so their case may differ."""
    value = holder.get(name)
    if value is not None or name in holder:
        return value
    folded = name.casefold()
    return next((held for key, held in holder.items() if key.casefold() == folded), None)


def _flat(value: Any) -> list[Any]:
    if value is None or value == {}:
        return []
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class Compare:
    """`attribute operator value`; `operand` is the value in the form it is compared in."""

    reference: Reference
    operator: str
    value: Any
    operand: Any

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        values = self.reference.values(document, work)
        if self.value is None:
            return (not values) == (self.operator == "eq")
        if not values:
            return self.operator == "ne"
        return any(_test(self, value, work) for value in values)


@dataclass(frozen=True, slots=True)
class Present:
    """`attribute pr`: the attribute has a value."""

    reference: Reference

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(value != "" for value in self.reference.values(document, work))


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple["Filter", ...]

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return all(term.holds(document, work) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple["Filter", ...]

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(term.holds(document, work) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Not:
    term: "Filter"

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return not self.term.holds(document, work)


@dataclass(frozen=True, slots=True)
class ValuePath:
    """`attribute[filter]`: one and the same value of the attribute satisfies the filter."""

    reference: Reference
    inner: "Filter"

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(self.inner.holds(as_value(value), work) for value in self.reference.values(document, work))


def as_value(item: Any) -> Mapping[str, Any]:
    """One of several values as a filter in brackets sees it: a plain one is the `value` of itself (RFC 7643 §2.4)."""
    return item if isinstance(item, dict) else {"value": item}


Filter: TypeAlias = Compare | Present | And | Or | Not | ValuePath


def matches(f: Filter, document: Mapping[str, Any], work: Work | None = None) -> bool:
    """Whether the document satisfies the filter: the one evaluator.

    With `work` every value that a term looks at is counted. Raises as Work.spend does.
    """
    return f.holds(document, work)


# ---- comparing -------------------------------------------------------------------------------------------------------------------

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12})\d*)?([Zz]|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_PICO = 10**12


@lru_cache(maxsize=4096)
def instant(text: str) -> int | None:
    """An xsd:dateTime (RFC 7643 §2.3.5) as picoseconds since the epoch, UTC where no offset is given; None if it is none."""
    read = _INSTANT.fullmatch(text)
    if read is None:
        return None
    year, month, day, hour, minute, second = map(int, read.group(1, 2, 3, 4, 5, 6))
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - _offset(read[8])
    return seconds * _PICO + int((read[7] or "").ljust(12, "0"))


def _offset(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -seconds if zone[0] == "-" else seconds


_ORDER: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "eq": lambda held, asked: held == asked,
        "ne": lambda held, asked: held != asked,
        "co": lambda held, asked: asked in held,
        "sw": lambda held, asked: held.startswith(asked),
        "ew": lambda held, asked: held.endswith(asked),
        "gt": lambda held, asked: held > asked,
        "ge": lambda held, asked: held >= asked,
        "lt": lambda held, asked: held < asked,
        "le": lambda held, asked: held <= asked,
    }
)
_TEXTUAL = frozenset({"co", "sw", "ew"})
_ORDERING = frozenset({"gt", "ge", "lt", "le"})
_NUMBER_TYPES = frozenset({"integer", "decimal"})


def _test(node: Compare, held: Any, work: Work | None) -> bool:
    operand = node.operand
    if work is not None and isinstance(held, str) and len(held) > LONG_TEXT:
        work.spend(len(held) // (LONG_TEXT if held.isascii() else LONG_TEXT // 4))
    compared = _comparable(node.reference.leaf, node.operator, held)
    if compared is None or type(compared) is not type(operand):
        numbers = isinstance(compared, int | float) and isinstance(operand, int | float)
        if not numbers or isinstance(compared, bool) or isinstance(operand, bool):
            return node.operator == "ne"
    return _ORDER[node.operator](compared, operand)


def _comparable(attribute: Attribute, operator: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if attribute.type == "dateTime" and operator not in _TEXTUAL:
        return instant(value)
    return value if attribute.case_exact else fold(value)


# ---- reading ---------------------------------------------------------------------------------------------------------------------


class Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"""[ \t\r\n\f]*(?:
      (?P<mark>[()\[\]])
    | (?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")
    | (?P<sub>\.[A-Za-z$][-\w$]*)
    | (?P<word>[A-Za-z$][-\w$.:/%+~]*)
    | (?P<number>-?\d[\d.eE+-]*)
    )""",
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z$][-\w$]{0,63}", re.ASCII)
_WORDS: Mapping[str, Any] = MappingProxyType({"true": True, "false": False, "null": None})


def tokens(text: str) -> list[Token]:
    """The tokens of a filter or path, ended by one of kind "end"; InvalidFilter where none can be read."""
    found: list[Token] = []
    at, end = 0, len(text.rstrip(" \t\r\n\f"))
    while at < end:
        read = _TOKEN.match(text, at)
        if read is None:
            at = end - len(text[at:end].lstrip(" \t\r\n\f"))
            raise InvalidFilter(f"The filter cannot be read at character {at + 1}.")
        kind = read.lastgroup or ""
        found.append(Token(kind, read[kind], read.start(kind)))
        at = read.end()
    found.append(Token("end", "", end))
    return found


Resolve: TypeAlias = Callable[[Token], Reference]


class Reader:
    """A recursive-descent reader over the tokens of one filter or path."""

    def __init__(self, text: str, resolve: Resolve) -> None:
        self.tokens = tokens(text)
        self.place = 0
        self.resolve = resolve
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    def take(self, mark: str) -> bool:
        """Step over the mark if it stands here."""
        if self.token.kind == "mark" and self.token.text == mark:
            self.place += 1
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            raise InvalidFilter(f"The filter needs {mark} at character {self.token.at + 1}.")

    def keyword(self, word: str) -> bool:
        """Step over the keyword if it stands here."""
        if self.token.kind == "word" and self.token.text.lower() == word:
            self.place += 1
            return True
        return False

    def filter(self) -> Filter:
        """One filter with its `or` terms."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise InvalidFilter(f"The filter nests more than {DEPTH_MAX} levels at character {self.token.at + 1}.")
        terms = [self._conjunction()]
        while self.keyword("or"):
            terms.append(self._conjunction())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def end(self) -> None:
        """Nothing may follow."""
        if self.token.kind != "end":
            raise InvalidFilter(f"The filter should end or continue with and/or at character {self.token.at + 1}.")

    def _conjunction(self) -> Filter:
        terms = [self._term()]
        while self.keyword("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self) -> Filter:
        following = self.tokens[min(self.place + 1, len(self.tokens) - 1)]
        if following.text == "(" and self.keyword("not"):
            self.expect("(")
            return Not(self._grouped())
        if self.take("("):
            return self._grouped()
        return self._expression()

    def _grouped(self) -> Filter:
        inner = self.filter()
        self.expect(")")
        return inner

    def _expression(self) -> Filter:
        name = self.token
        if name.kind != "word":
            raise InvalidFilter(f"The filter needs an attribute name at character {name.at + 1}.")
        self.place += 1
        reference = self.resolve(name)
        if self.take("["):
            return self._value_path(reference, name)
        return self._comparison(reference, name)

    def _value_path(self, reference: Reference, name: Token) -> Filter:
        inner = self.selection(reference, name)
        # emails[type eq "work"].value eq "x", also without ".value", is not in the RFC's grammar; it can only mean one thing.
        if self.token.kind == "sub":
            sub = Token("word", self.token.text[1:], self.token.at + 1)
            self.place += 1
        elif self.token.kind == "word" and self.token.text.lower() in _ORDER:
            sub = Token("word", "value", self.token.at)
        else:
            return ValuePath(reference, inner)
        return ValuePath(reference, And((inner, self._comparison(_sub_resolver(reference.attribute)(sub), sub))))

    def selection(self, reference: Reference, name: Token) -> Filter:
        """The filter between brackets, up to and with the closing one, over the values of `reference`."""
        attribute = reference.attribute
        if reference.sub is not None or not (attribute.multi_valued or attribute.type in ("complex", UNKNOWN_TYPE)):
            raise InvalidFilter(f"The attribute before [ at character {name.at + 1} has no sub-attributes to select by.")
        outer, self.resolve = self.resolve, _sub_resolver(reference.attribute)
        inner = self.filter()
        self.resolve = outer
        self.expect("]")
        return inner

    def _comparison(self, reference: Reference, name: Token) -> Filter:
        if self.keyword("pr"):
            return Present(reference)
        operator = self.token.text.lower()
        if self.token.kind != "word" or operator not in _ORDER:
            raise InvalidFilter(
                f"The filter needs an operator (eq, ne, co, sw, ew, gt, ge, lt, le, pr) at character {self.token.at + 1}."
            )
        self.place += 1
        value = self._literal()
        # null asks whether there is a value at all, which a complex attribute has as a whole.
        return comparison(reference if value is None else _valued(reference, name), operator, value, name)

    def _literal(self) -> Any:
        token = self.token
        self.place += token.kind != "end"
        if token.kind == "string":
            return _text(token)
        if token.kind == "number":
            return _number(token)
        if token.kind == "word" and token.text.lower() in _WORDS:
            return _WORDS[token.text.lower()]
        raise InvalidFilter(
            f"The filter needs a value at character {token.at + 1}: text in double quotes, a number, true, false or null."
        )


def _text(token: Token) -> str:
    text = json.loads(token.text)
    if has_lone_surrogate(text):
        raise InvalidFilter(f"The text at character {token.at + 1} holds half of a surrogate pair.")
    return text


def _number(token: Token) -> int | float:
    read = _NUMBER.fullmatch(token.text)
    if read is None or len(token.text) > 30:
        raise InvalidFilter(f"The number at character {token.at + 1} cannot be read.")
    if read[1] is None and read[2] is None:
        return int(token.text)
    return float(token.text)


def _valued(reference: Reference, name: Token) -> Reference:
    """A complex attribute is compared by its `value` sub-attribute (RFC 7644 §3.4.2.2)."""
    if reference.leaf.type != "complex":
        return reference
    value = reference.attribute.sub_attributes.get("value")
    if value is None:
        raise InvalidFilter(f"The attribute at character {name.at + 1} has sub-attributes: name one of them after a dot.")
    return replace(reference, sub=value)


def comparison(reference: Reference, operator: str, value: Any, name: Token) -> Compare:
    """The comparison with its value in comparable form; InvalidFilter where the types do not allow it."""
    attribute = reference.leaf
    if value is None:
        if operator not in ("eq", "ne"):
            raise InvalidFilter(f"null at the attribute at character {name.at + 1} can be compared with eq and ne only.")
        return Compare(reference, operator, None, None)
    if attribute.type in ("boolean", "binary") and operator not in ("eq", "ne"):
        raise InvalidFilter(f"The attribute at character {name.at + 1} is of type {attribute.type}: use eq, ne or pr.")
    if attribute.type in _NUMBER_TYPES and operator in _TEXTUAL:
        raise InvalidFilter(f"The attribute at character {name.at + 1} is a number: {operator} needs text.")
    operand = _operand(attribute, operator, value)
    if operand is None:
        raise InvalidFilter(f"The value compared with the attribute at character {name.at + 1} must be of type {attribute.type}.")
    return Compare(reference, operator, value, operand)


def _operand(attribute: Attribute, operator: str, value: Any) -> Any:
    if attribute.type == "boolean":
        # Entra writes primary eq "True".
        return (
            {"true": True, "false": False}.get(value.lower())
            if isinstance(value, str)
            else value
            if isinstance(value, bool)
            else None
        )
    if attribute.type in _NUMBER_TYPES:
        return None if isinstance(value, bool | str) else value
    if attribute.type == UNKNOWN_TYPE and not isinstance(value, str):
        return None if operator in _TEXTUAL or (isinstance(value, bool) and operator in _ORDERING) else value
    return _comparable(attribute, operator, value) if isinstance(value, str) else None


# ---- names -----------------------------------------------------------------------------------------------------------------------


def unknown(name: str) -> Attribute:
    """An attribute no schema here describes."""
    return Attribute(name, UNKNOWN_TYPE)


def shown(name: str) -> str:
    """The name for an error text, or nothing where it does not look like one."""
    return f' "{name}"' if _NAME.fullmatch(name) else ""


def _no_attribute(name: str, at: int) -> InvalidFilter:
    return InvalidFilter(
        f"The filter names an attribute{shown(name)} at character {at + 1} that this resource type does not have."
    )


def _resolver(rt: ResourceType) -> Resolve:
    def resolve(token: Token) -> Reference:
        whole = rt.extensions.get(token.text.casefold())
        if whole is not None:
            return Reference(None, Attribute(whole.urn, "complex", sub_attributes=whole.attributes), None)
        if token.text.casefold() in core_urns(rt):
            raise InvalidFilter(f"The filter needs an attribute after the URN at character {token.at + 1}.")
        urn, rest = split_urn(token.text, rt)
        if urn is None:
            found = _resolve_in(rt.attributes, None, rest, token)
            return found if rt.name or rest == token.text else replace(found, of=type_in(token.text))
        if is_of_scim(token.text):
            raise InvalidFilter(
                f"The URN at character {token.at + 1} is one of SCIM itself that this resource type does not have."
            )
        extension = rt.extensions.get(urn.casefold())
        if extension is not None:
            return _resolve_in(extension.attributes, extension.urn, rest, token)
        if with_colon(rt, token.text) is not None:
            raise InvalidFilter(f"The URN at character {token.at + 1} has a dot before the attribute: write a colon.")
        return _without_schema(urn, rest, token)

    return resolve


def _without_schema(urn: str, rest: str, token: Token) -> Reference:
    found = readings(urn, rest)
    if found is None:
        name, dot, sub = rest.partition(".")
        return Reference(urn, unknown(name), unknown(sub) if dot else None)
    if not found.all:
        raise InvalidFilter(
            f"The URN at character {token.at + 1} has dots after it that name no attribute: write urn:…:attribute."
        )
    first, *others = map(_referred, found.all)
    return replace(first, other=others[0]) if others else first


def _referred(name: Name) -> Reference:
    return Reference(name.urn, unknown(name.attribute), None if name.sub is None else unknown(name.sub))


def _resolve_in(table: Mapping[str, Attribute], urn: str | None, text: str, token: Token) -> Reference:
    name, dot, sub_name = text.partition(".")
    attribute = table.get(name.casefold())
    if attribute is None or attribute.returned == "never":
        raise _no_attribute(name, token.at)
    if not dot:
        return Reference(urn, attribute, None)
    sub = attribute.sub_attributes.get(sub_name.casefold())
    if sub is None or sub.returned == "never":
        raise _no_attribute(sub_name, token.at)
    return Reference(urn, attribute, sub)


def _sub_resolver(attribute: Attribute) -> Resolve:
    def resolve(token: Token) -> Reference:
        if attribute.type == UNKNOWN_TYPE:
            return Reference(None, unknown(token.text), None)
        if attribute.type != "complex" and token.text.casefold() == "value":
            return Reference(None, replace(attribute, name="value", multi_valued=False), None)
        return _resolve_in(attribute.sub_attributes, None, token.text, token)

    return resolve


@lru_cache(maxsize=1024)
def either(user: ResourceType, group: ResourceType) -> ResourceType:
    """For queries over all resource types (RFC 7644 §3.4.2.1): an attribute the other type has is one without a value."""
    extensions = {**group.extensions, **user.extensions}
    return ResourceType("", "", user.schema, {**group.attributes, **user.attributes}, extensions)


_ANY = either(USER, GROUP)


def parse_filter(text: str, rt: ResourceType | None) -> Filter:
    """The filter in `text` for a resource type, or for all of them (None).

    Raises InvalidFilter, naming the character, for what RFC 7644 §3.4.2.2 does not allow, for attributes the type does not have
    (a filter that is not understood must never be taken for one that matches), for the password, and beyond
    8 KiB or 32 levels.
    """
    return (_parse_remembered if len(text) <= REMEMBERED_CHARACTERS_MAX else _parse)(text, rt)


def _parse(text: str, rt: ResourceType | None) -> Filter:
    if len(text) > TEXT_BYTES_MAX or len(text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        raise InvalidFilter(f"The filter is longer than {TEXT_BYTES_MAX} bytes: narrow it or split it.")
    if has_lone_surrogate(text):
        raise InvalidFilter("The filter holds half of a surrogate pair.")
    reader = Reader(text, _resolver(rt or _ANY))
    read = reader.filter()
    reader.end()
    return read


_parse_remembered = lru_cache(maxsize=1024)(_parse)


# ---- narrowing -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Atom:
    """An equality that an index can answer; `value` is folded where the attribute ignores case."""

    kind: AtomKind
    value: str


_ATOMS: Mapping[str, AtomKind] = MappingProxyType(
    {
        "id": "id",
        "userName": "userName",
        "externalId": "externalId",
        "displayName": "displayName",
        "emails.value": "emails.value",
        "members.value": "members.value",
    }
)


def cover(f: Filter) -> frozenset[Atom] | None:
    """Equalities of which every matching document satisfies at least one; None when there is no such set."""
    return _cover(f, "")


def _cover(f: Filter, prefix: str) -> frozenset[Atom] | None:
    if isinstance(f, Compare):
        return _equality(f, prefix)
    if isinstance(f, ValuePath):
        return _cover(f.inner, f"{f.reference.dotted}.")
    if isinstance(f, And):
        covers = [found for found in (_cover(term, prefix) for term in f.terms) if found is not None]
        return min(covers, key=len, default=None)
    if isinstance(f, Or):
        return _union([_cover(term, prefix) for term in f.terms])
    return None


def _equality(f: Compare, prefix: str) -> frozenset[Atom] | None:
    kind = _ATOMS.get(prefix + f.reference.dotted)
    if kind is None or f.operator != "eq" or f.value is None:
        return None
    return frozenset({Atom(kind, f.operand)})


def _union(covers: list[frozenset[Atom] | None]) -> frozenset[Atom] | None:
    found: set[Atom] = set()
    for one in covers:
        if one is None:
            return None
        found |= one
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a match must satisfy at least: `active`, and instants in microseconds since the epoch, inclusive."""

    active: bool | None = None
    created_min: int | None = None
    created_max: int | None = None
    modified_min: int | None = None
    modified_max: int | None = None


def bounds(f: Filter) -> Bounds:
    """The bounds that the top-level conjunction implies; they never exclude a match."""
    active: bool | None = None
    windows: dict[str, tuple[int | None, int | None]] = {"meta.created": (None, None), "meta.lastModified": (None, None)}
    for term in _conjuncts(f):
        name = term.reference.dotted
        if name == "active" and term.operator == "eq" and term.value is not None:
            active = term.operand
        elif name in windows and term.value is not None:
            windows[name] = _narrowed(windows[name], term)
    return Bounds(active, *windows["meta.created"], *windows["meta.lastModified"])


def _conjuncts(f: Filter) -> Iterator[Compare]:
    if isinstance(f, And):
        for term in f.terms:
            yield from _conjuncts(term)
    elif isinstance(f, Compare):
        yield f


_MICRO = 10**6


def _narrowed(window: tuple[int | None, int | None], term: Compare) -> tuple[int | None, int | None]:
    low, high = window
    if term.operator in ("gt", "ge", "eq"):
        floor = term.operand // _MICRO
        low = floor if low is None else max(low, floor)
    if term.operator in ("lt", "le", "eq"):
        ceiling = -(-term.operand // _MICRO)
        high = ceiling if high is None else min(high, ceiling)
    return low, high
