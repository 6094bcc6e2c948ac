"""What a profile forgives: deviations of identity providers from RFC 7643 and 7644, each a named switch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerances:
    """One switch per deviation, all off by default; each use is reported by its field name."""

    string_booleans: bool = False
    """`"True"` or `"False"`, in any case, where a boolean is due."""
    op_case: bool = False
    """`Add`, `Replace`, `Remove` instead of the lower-case names of RFC 7644 §3.5.2."""
    dotted_keys: bool = False
    """Keys that are paths (`name.givenName`, `URN:attribute`, the URN of the core schema), in a resource or in a PATCH value without a path."""
    manager_string: bool = False
    """A bare id where a complex attribute with a `value` is due."""
    bare_values: bool = False
    """A bare string instead of an object with a `value` in a multi-valued attribute, and one bare id as the members to add or remove."""
    single_for_multi: bool = False
    """One value where a list is due: an object, or a plain value where the list holds such."""
    remove_value_list: bool = False
    """A `remove` that names what to remove in its value instead of a filter."""
    replace_creates: bool = False
    """An `add` or `replace` under a value filter without a match, or of a part of an empty list, creates the value; never a member of a group."""
    id_in_value: bool = False
    """Read-only attributes echoed in a PATCH, and the resource's own id."""
    unknown_schema_uris: bool = False
    """URIs in `schemas` that no schema here has and no data belongs to."""
    empty_operations: bool = False
    """A PATCH with an empty list of operations."""
    missing_schemas: bool = False
    """A resource or PATCH without `schemas`."""
    numeric_booleans: bool = False
    """`1`, `0`, `"1"` or `"0"` where a boolean is due."""
    numeric_strings: bool = False
    """A whole number as `employeeNumber`, `costCenter`, `externalId`, `postalCode` or phone number, which are strings."""
    blank_objects: bool = False
    """An empty string where an object, a list or the id of a manager is due: it is absence."""
    empty_strings: bool = False
    """An empty string is absence, in every attribute."""
    wrapped_values: bool = False
    """A single value as a list with one object, `[{"value": "x"}]`, or as `{"value": "x"}`, in a PATCH also `["x"]`, where the bare one is due; any value under its own name once more, `{"emails": {"emails": […]}}`; never members."""
    old_schema_uris: bool = False
    """URIs of SCIM 1.0, 1.1 and of drafts (`urn:scim:schemas:core:1.0`) for those of SCIM 2.0, in `schemas`, names, paths and filters."""
    enterprise_names: bool = False
    """Attributes of the enterprise extension without its URN (`department`, path `manager`, filter `manager eq "…"`)."""
    path_spelling: bool = False
    """Paths as `/name/givenName`, `URN.attribute` (also as a key, in a filter and as `URN.attribute:value`) or with single quotes in a filter."""
    unquoted_values: bool = False
    """Text in the filter of a list without quotes or in single ones: `externalId eq jyoung`."""
    endpoint_case: bool = False
    """The endpoints `/Users` and `/Groups` in any case, in a Bulk request too."""


STRICT = Tolerances()
# Everything that cannot be mistaken for something else; a message without `schemas` can, and "" is a string like another.
GENERIC = Tolerances(
    string_booleans=True,
    op_case=True,
    dotted_keys=True,
    manager_string=True,
    bare_values=True,
    single_for_multi=True,
    remove_value_list=True,
    replace_creates=True,
    id_in_value=True,
    unknown_schema_uris=True,
    empty_operations=True,
    numeric_booleans=True,
    numeric_strings=True,
    blank_objects=True,
    wrapped_values=True,
    old_schema_uris=True,
    enterprise_names=True,
    path_spelling=True,
    endpoint_case=True,
)
