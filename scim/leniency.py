"""What profiles forgive: deviations of identity providers from RFC 7643 and 7644, each a named tolerance.

To add one: an entry of Tolerance, the code of its rule, which asks `leniency.allows(Tolerance.NAME)`, and the profiles that switch
it on. The JSON Schema of profiles, the pages of docs/idp, the journal and the health of a directory read the rest from its entry.
"""

from enum import StrEnum
from typing import Final, Literal, Self, TypeAlias

from scim.strictness import Strictness


class Tolerance(StrEnum):
    """One deviation. `forgives` is what docs/idp says of it, `sentence` what the admin of an IdP that relies on it is told."""

    forgives: str
    sentence: str

    def __new__(cls, name: str, forgives: str, sentence: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.forgives = forgives
        member.sentence = sentence
        return member

    STRING_BOOLEANS = (
        "string_booleans",
        '`"True"` or `"False"`, in any letter case, in place of a boolean.',
        'This IdP sends booleans such as active as strings ("True", "False").',
    )
    OP_CASE = (
        "op_case",
        "`Add`, `Replace`, `Remove` instead of the lower-case names of RFC 7644 §3.5.2.",
        "This IdP writes the operations of a PATCH in capitals (Replace).",
    )
    DOTTED_KEYS = (
        "dotted_keys",
        "Keys that are paths (`name.givenName`, `URN:attribute`, the URN of the core schema), in a resource or in a PATCH value without a path.",
        "This IdP sends flat keys such as name.givenName instead of nested objects.",
    )
    MANAGER_STRING = (
        "manager_string",
        "A bare id in place of a complex attribute with a `value`.",
        "This IdP sends the manager as a bare id.",
    )
    BARE_VALUES = (
        "bare_values",
        "A bare string instead of an object with a `value` in a multi-valued attribute, and one bare id as the members to add or remove.",
        "This IdP sends bare strings in place of a list of objects.",
    )
    SINGLE_FOR_MULTI = (
        "single_for_multi",
        "One value in place of a list: an object, or a plain value if the list has plain values.",
        "This IdP sends one value in place of a list.",
    )
    REMOVE_VALUE_LIST = (
        "remove_value_list",
        "A `remove` that names the values to remove in its `value` instead of a filter.",
        "This IdP names the values to remove in the value of an operation, not in its path.",
    )
    REPLACE_CREATES = (
        "replace_creates",
        "An `add` or `replace` with a value filter that matches nothing, or of a sub-attribute of an empty list, creates the value. It never creates a member of a group.",
        "This IdP changes a value that does not exist yet and expects that it is created.",
    )
    ID_IN_VALUE = (
        "id_in_value",
        "Read-only attributes echoed in a PATCH, and the resource's own id.",
        "This IdP repeats the id and other read-only attributes in a PATCH.",
    )
    UNKNOWN_SCHEMA_URIS = (
        "unknown_schema_uris",
        "URIs in `schemas` that are no schema of the directory and have no data in the resource.",
        "This IdP lists schemas that are unknown to the directory and have no data in the resource.",
    )
    EMPTY_OPERATIONS = (
        "empty_operations",
        "A PATCH with an empty list of operations.",
        "This IdP sends a PATCH without operations.",
    )
    MISSING_SCHEMAS = (
        "missing_schemas",
        "A resource or PATCH without `schemas`.",
        "This IdP leaves out the schemas.",
    )
    NUMERIC_BOOLEANS = (
        "numeric_booleans",
        '`1`, `0`, `"1"` or `"0"` in place of a boolean.',
        "This IdP sends booleans as 1 and 0.",
    )
    NUMERIC_STRINGS = (
        "numeric_strings",
        "A whole number as `employeeNumber`, `costCenter`, `externalId`, `postalCode` or phone number, which are strings.",
        "This IdP sends numbers in place of strings, for example as employeeNumber.",
    )
    BLANK_OBJECTS = (
        "blank_objects",
        "An empty string in place of an object, a list or the id of a manager: it counts as absent.",
        "This IdP sends an empty string for an object, a list or a manager that does not exist.",
    )
    EMPTY_STRINGS = (
        "empty_strings",
        "An empty string, in every attribute: it counts as absent.",
        "This IdP sends an empty string for attributes that a user does not have.",
    )
    WRAPPED_VALUES = (
        "wrapped_values",
        'A list with one object, `[{"value": "x"}]`, or the object `{"value": "x"}`, in a PATCH also `["x"]`, in place of a single plain value; any value that is nested under its own name once more, `{"emails": {"emails": […]}}`; but never members.',
        "This IdP wraps single values in a list or an object.",
    )
    OLD_SCHEMA_URIS = (
        "old_schema_uris",
        "URIs of SCIM 1.0, 1.1 and of drafts (`urn:scim:schemas:core:1.0`) in place of those of SCIM 2.0, in `schemas`, names, paths and filters.",
        "This IdP lists the schemas of SCIM 1.",
    )
    ENTERPRISE_NAMES = (
        "enterprise_names",
        'Attributes of the enterprise extension without its URN (`department`, path `manager`, filter `manager eq "…"`).',
        "This IdP names attributes of the enterprise extension without its URN.",
    )
    PATH_SPELLING = (
        "path_spelling",
        "Paths written as `/name/givenName` or as `URN.attribute` (also as a key, in a filter and as `URN.attribute:value`), and paths with single quotes in their filter.",
        "This IdP writes paths in another way than the RFC (slashes, a dot after a URN, single quotes).",
    )
    UNQUOTED_VALUES = (
        "unquoted_values",
        "Text without quotes, or in single quotes, in the filter of a list: `externalId eq jyoung`.",
        "This IdP sends text in filters without double quotes.",
    )
    ENDPOINT_CASE = (
        "endpoint_case",
        "The endpoints `/Users` and `/Groups` in any letter case, in a Bulk request too.",
        "This IdP writes the endpoints in another letter case (/users).",
    )
    UNKNOWN_MEMBER = (
        "unknown_member",
        "A group member that is named by another key of a user, not by the id that this service gave.",
        "This IdP names group members by another key, not by the id that this service gave.",
    )


# A profile lists its tolerances, but for this one: it says under `unknown_member` which other key it means.
LISTED: Final = tuple(tolerance for tolerance in Tolerance if tolerance is not Tolerance.UNKNOWN_MEMBER)
# No tolerance, but noted with a request as they are: it made or changed an object by which the IdP tests its connection.
TEST_OBJECT: Final = "test_object"
Note: TypeAlias = Tolerance | Literal["test_object"]


class Leniency:
    """The tolerances that one request may rely on, those that it did rely on, and how strictly it is read; made anew for each request."""

    __slots__ = ("allowed", "strict", "used")

    def __init__(self, allowed: frozenset[Tolerance] = frozenset(), strict: frozenset[Strictness] = frozenset()) -> None:
        self.allowed = allowed
        self.strict = strict
        self.used: set[Note] = set()

    def demands(self, strictness: Strictness) -> bool:
        """Whether the profile has this strictness."""
        return strictness in self.strict

    def allows(self, tolerance: Tolerance) -> bool:
        """Whether it is forgiven; if so, the request is noted to rely on it. Ask last, when all else about the deviation is certain."""
        if tolerance not in self.allowed:
            return False
        self.used.add(tolerance)
        return True

    def would_allow(self, tolerance: Tolerance) -> bool:
        """Whether it is forgiven, where only what comes later shows that the request relies on it: `note` says so then."""
        return tolerance in self.allowed

    def note(self, *notes: Note) -> None:
        """The request relies on these."""
        self.used.update(notes)


def sentence_of(noted: str) -> str:
    """What an IdP does that relies on a tolerance, also on one that only another release knows."""
    known = Tolerance.__members__.get(noted.upper())
    return f"This IdP relies on {noted}." if known is None else known.sentence
