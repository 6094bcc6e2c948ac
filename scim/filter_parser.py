"""From text to a filter: the lexer and the recursive-descent parser of the grammar of RFC 7644 §3.4.2.2."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from scim.body import has_lone_surrogate
from scim.errors import InvalidFilter
from scim.filters import (
    OPERATORS,
    TEXTUAL,
    UNKNOWN_TYPE,
    And,
    Compare,
    Filter,
    Not,
    Or,
    Present,
    Reference,
    ValuePath,
    comparable,
    unknown,
)
from scim.schema import GROUP, USER, Attribute, ResourceType, is_scim_urn
from scim.urns import SplitName, core_urns, readings, split_urn, type_in, with_colon

TEXT_BYTES_MAX = 8192
REMEMBERED_CHARACTERS_MAX = 512  # of a filter that is read once for many requests: what is remembered stays small
DEPTH_MAX = 32
_ORDERING = frozenset({"gt", "ge", "lt", "le"})
_NUMBER_TYPES = frozenset({"integer", "decimal"})


class Lexeme(NamedTuple):
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
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z$][-\w$]{0,63}", re.ASCII)
_WORDS: Mapping[str, Any] = MappingProxyType({"true": True, "false": False, "null": None})


def lexemes(text: str) -> list[Lexeme]:
    """The lexemes of a filter or path; the last one is of kind "end". Raises InvalidFilter, naming the character, for any other text."""
    found: list[Lexeme] = []
    at, end = 0, len(text.rstrip(" \t\r\n\f"))
    while at < end:
        read = _TOKEN.match(text, at)
        if read is None:
            at = end - len(text[at:end].lstrip(" \t\r\n\f"))
            raise InvalidFilter(f"The filter cannot be read at character {at + 1}.")
        kind = read.lastgroup or ""
        found.append(Lexeme(kind, read[kind], read.start(kind)))
        at = read.end()
    found.append(Lexeme("end", "", end))
    return found


Resolve: TypeAlias = Callable[[Lexeme], Reference]


class Reader:
    """A recursive-descent reader over the lexemes of one filter or path."""

    def __init__(self, text: str, resolve: Resolve) -> None:
        self.lexemes = lexemes(text)
        self.place = 0
        self.resolve = resolve
        self.depth = 0

    @property
    def lexeme(self) -> Lexeme:
        return self.lexemes[self.place]

    def take(self, mark: str) -> bool:
        """Whether the next lexeme is this mark; if so, go on after it."""
        if self.lexeme.kind == "mark" and self.lexeme.text == mark:
            self.place += 1
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            raise InvalidFilter(f"The filter needs {mark} at character {self.lexeme.at + 1}.")

    def keyword(self, word: str) -> bool:
        """Whether the next lexeme is this keyword; if so, go on after it."""
        if self.lexeme.kind == "word" and self.lexeme.text.lower() == word:
            self.place += 1
            return True
        return False

    def filter(self) -> Filter:
        """One filter with its `or` terms."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise InvalidFilter(f"The filter nests more than {DEPTH_MAX} levels at character {self.lexeme.at + 1}.")
        terms = [self._conjunction()]
        while self.keyword("or"):
            terms.append(self._conjunction())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def end(self) -> None:
        """Raises InvalidFilter unless the text ends here."""
        if self.lexeme.kind != "end":
            raise InvalidFilter(f"The filter should end or continue with and/or at character {self.lexeme.at + 1}.")

    def _conjunction(self) -> Filter:
        terms = [self._term()]
        while self.keyword("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self) -> Filter:
        following = self.lexemes[min(self.place + 1, len(self.lexemes) - 1)]
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
        name = self.lexeme
        if name.kind != "word":
            raise InvalidFilter(f"The filter needs an attribute name at character {name.at + 1}.")
        self.place += 1
        reference = self.resolve(name)
        if self.take("["):
            return self._value_path(reference, name)
        return self._comparison(reference, name)

    def _value_path(self, reference: Reference, name: Lexeme) -> Filter:
        inner = self.selection(reference, name)
        # emails[type eq "work"].value eq "x", also without ".value", is not in the RFC's grammar; it can only mean one thing.
        if self.lexeme.kind == "sub":
            sub = Lexeme("word", self.lexeme.text[1:], self.lexeme.at + 1)
            self.place += 1
        elif self.lexeme.kind == "word" and self.lexeme.text.lower() in OPERATORS:
            sub = Lexeme("word", "value", self.lexeme.at)
        else:
            return ValuePath(reference, inner)
        return ValuePath(reference, And((inner, self._comparison(_sub_resolver(reference.attribute)(sub), sub))))

    def selection(self, reference: Reference, name: Lexeme) -> Filter:
        """The filter on one value of `reference`, after the opening bracket, up to and with the closing one."""
        attribute = reference.attribute
        if reference.sub is not None or not (attribute.multi_valued or attribute.type in ("complex", UNKNOWN_TYPE)):
            raise InvalidFilter(f"The attribute before [ at character {name.at + 1} has no sub-attributes to select by.")
        outer, self.resolve = self.resolve, _sub_resolver(reference.attribute)
        inner = self.filter()
        self.resolve = outer
        self.expect("]")
        return inner

    def _comparison(self, reference: Reference, name: Lexeme) -> Filter:
        if self.keyword("pr"):
            return Present(reference)
        operator = self.lexeme.text.lower()
        if self.lexeme.kind != "word" or operator not in OPERATORS:
            raise InvalidFilter(
                f"The filter needs an operator (eq, ne, co, sw, ew, gt, ge, lt, le, pr) at character {self.lexeme.at + 1}."
            )
        self.place += 1
        value = self._literal()
        # null asks whether there is a value at all, which a complex attribute has as a whole.
        return comparison(reference if value is None else _valued(reference, name), operator, value, name)

    def _literal(self) -> Any:
        lexeme = self.lexeme
        self.place += lexeme.kind != "end"
        if lexeme.kind == "string":
            return _text(lexeme)
        if lexeme.kind == "number":
            return _number(lexeme)
        if lexeme.kind == "word" and lexeme.text.lower() in _WORDS:
            return _WORDS[lexeme.text.lower()]
        raise InvalidFilter(
            f"The filter needs a value at character {lexeme.at + 1}: text in double quotes, a number, true, false or null."
        )


def _text(lexeme: Lexeme) -> str:
    text = json.loads(lexeme.text)
    if has_lone_surrogate(text):
        raise InvalidFilter(f"The text at character {lexeme.at + 1} holds half of a surrogate pair.")
    return text


def _number(lexeme: Lexeme) -> int | float:
    read = _NUMBER.fullmatch(lexeme.text)
    if read is None or len(lexeme.text) > 30:
        raise InvalidFilter(f"The number at character {lexeme.at + 1} cannot be read.")
    if read[1] is None and read[2] is None:
        return int(lexeme.text)
    return float(lexeme.text)


def _valued(reference: Reference, name: Lexeme) -> Reference:
    """A complex attribute is compared by its `value` sub-attribute (RFC 7644 §3.4.2.2)."""
    if reference.leaf.type != "complex":
        return reference
    value = reference.attribute.sub_attributes.get("value")
    if value is None:
        raise InvalidFilter(f"The attribute at character {name.at + 1} has sub-attributes: name one of them after a dot.")
    return replace(reference, sub=value)


def comparison(reference: Reference, operator: str, value: Any, name: Lexeme) -> Compare:
    """The comparison with its value in comparable form; InvalidFilter where the types do not allow it."""
    attribute = reference.leaf
    if value is None:
        if operator not in ("eq", "ne"):
            raise InvalidFilter(f"The attribute at character {name.at + 1} can be compared with null by eq and ne only.")
        return Compare(reference, operator, None, None)
    if attribute.type in ("boolean", "binary") and operator not in ("eq", "ne"):
        raise InvalidFilter(f"The attribute at character {name.at + 1} is of type {attribute.type}: use eq, ne or pr.")
    if attribute.type in _NUMBER_TYPES and operator in TEXTUAL:
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
        return None if operator in TEXTUAL or (isinstance(value, bool) and operator in _ORDERING) else value
    return comparable(attribute, operator, value) if isinstance(value, str) else None


def shown(name: str) -> str:
    """The name in quotes for the text of an error; "" for what does not look like a name, because an error repeats no value."""
    return f' "{name}"' if _ATTRIBUTE_NAME.fullmatch(name) else ""


def _no_attribute(name: str, at: int) -> InvalidFilter:
    return InvalidFilter(
        f"The filter names an attribute{shown(name)} at character {at + 1} that this resource type does not have."
    )


def _resolver(rt: ResourceType) -> Resolve:
    def resolve(lexeme: Lexeme) -> Reference:
        whole = rt.extensions.get(lexeme.text.casefold())
        if whole is not None:
            return Reference(None, Attribute(whole.urn, "complex", sub_attributes=whole.attributes), None)
        if lexeme.text.casefold() in core_urns(rt):
            raise InvalidFilter(f"The filter needs an attribute after the URN at character {lexeme.at + 1}.")
        urn, rest = split_urn(lexeme.text, rt)
        if urn is None:
            found = _resolve_in(rt.attributes, None, rest, lexeme)
            return found if rt.name or rest == lexeme.text else replace(found, resource_type=type_in(lexeme.text))
        if is_scim_urn(lexeme.text):
            raise InvalidFilter(
                f"The URN at character {lexeme.at + 1} is one of SCIM itself that this resource type does not have."
            )
        extension = rt.extensions.get(urn.casefold())
        if extension is not None:
            return _resolve_in(extension.attributes, extension.urn, rest, lexeme)
        if with_colon(rt, lexeme.text) is not None:
            raise InvalidFilter(f"The URN at character {lexeme.at + 1} has a dot before the attribute: write a colon.")
        return _without_schema(urn, rest, lexeme)

    return resolve


def _without_schema(urn: str, rest: str, lexeme: Lexeme) -> Reference:
    found = readings(urn, rest)
    if found is None:
        name, dot, sub = rest.partition(".")
        return Reference(urn, unknown(name), unknown(sub) if dot else None)
    if not found.all:
        raise InvalidFilter(
            f"The URN at character {lexeme.at + 1} has dots after it that name no attribute: write urn:…:attribute."
        )
    first, *others = map(_referred, found.all)
    return replace(first, alternative=others[0]) if others else first


def _referred(name: SplitName) -> Reference:
    return Reference(name.urn, unknown(name.attribute), None if name.sub is None else unknown(name.sub))


def _resolve_in(table: Mapping[str, Attribute], urn: str | None, text: str, lexeme: Lexeme) -> Reference:
    name, dot, sub_name = text.partition(".")
    attribute = table.get(name.casefold())
    if attribute is None or attribute.returned == "never":
        raise _no_attribute(name, lexeme.at)
    if not dot:
        return Reference(urn, attribute, None)
    sub = attribute.sub_attributes.get(sub_name.casefold())
    if sub is None or sub.returned == "never":
        raise _no_attribute(sub_name, lexeme.at)
    return Reference(urn, attribute, sub)


def _sub_resolver(attribute: Attribute) -> Resolve:
    def resolve(lexeme: Lexeme) -> Reference:
        if attribute.type == UNKNOWN_TYPE:
            return Reference(None, unknown(lexeme.text), None)
        if attribute.type != "complex" and lexeme.text.casefold() == "value":
            return Reference(None, replace(attribute, name="value", multi_valued=False), None)
        return _resolve_in(attribute.sub_attributes, None, lexeme.text, lexeme)

    return resolve


@lru_cache(maxsize=1024)
def either(user: ResourceType, group: ResourceType) -> ResourceType:
    """The resource type for queries over users and groups (RFC 7644 §3.4.2.1): it has the attributes of both."""
    extensions = {**group.extensions, **user.extensions}
    return ResourceType("", "", user.schema, {**group.attributes, **user.attributes}, extensions)


_ANY = either(USER, GROUP)


def parse_filter(text: str, rt: ResourceType | None) -> Filter:
    """The filter in `text` for a resource type, or for all of them (None).

    Raises InvalidFilter, naming the character, for what RFC 7644 §3.4.2.2 does not allow, for the password, for an attribute that the
    type does not have (a filter that is not understood must select nobody, not everybody), and beyond 8 KiB or 32 levels.
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


def forget_filters() -> None:
    """Forget the parsed filters: their values may name somebody who was erased."""
    _parse_remembered.cache_clear()
