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
    """Keys that are paths (`name.givenName`, `URN:attribute`, `emails[type eq "work"].value`) in a value without a path."""
    manager_string: bool = False
    """A bare id where a complex attribute with a `value` is due."""
    bare_values: bool = False
    """A bare string instead of an object with a `value` in a multi-valued attribute."""
    single_for_multi: bool = False
    """One value where a list is due."""
    remove_value_list: bool = False
    """A `remove` that names what to remove in its value instead of a filter."""
    replace_creates: bool = False
    """An `add` or `replace` under a value filter without a match creates the value the filter describes."""
    id_in_value: bool = False
    """Read-only attributes echoed in a PATCH, and the resource's own id."""
    unknown_schema_uris: bool = False
    """URIs in `schemas` that no schema here has and no data belongs to."""
    empty_operations: bool = False
    """A PATCH with an empty list of operations."""
    missing_schemas: bool = False
    """A resource or PATCH without `schemas`."""


STRICT = Tolerances()
# Everything that cannot be mistaken for something else; a message without `schemas` can.
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
)
