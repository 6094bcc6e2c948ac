"""Every refusal has a fix: advice for the admin of the IdP."""

from uuid import UUID

import pytest

from scim import errors
from scim.errors import ScimError
from scim.remedies import fix_of, is_unknown_member

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ScimError) and kind is not ScimError
]


NOBODY = 'members: no user or group of this directory has the id "x". Create it first, or leave it out.'


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.__name__.startswith("_")])
def test_each_kind_of_refusal_has_a_fix(kind: type[ScimError]) -> None:
    if kind.scim_type in {"invalidVers", "sensitive"}:
        return  # this code never raises it
    fix = fix_of(kind.status, kind.scim_type, kind.default)
    assert fix is not None
    assert "operator of this service" not in fix


@pytest.mark.parametrize(
    ("status", "scim_type", "detail", "fix"),
    [
        (409, "uniqueness", "userName: another user…", "match on userName"),
        (
            409,
            "uniqueness",
            f"userName: user {UUID(int=7)} of this directory already has this userName (compared ignoring case).",
            f"User {UUID(int=7)} has this userName already.",
        ),
        (400, "invalidValue", f"{NOBODY} It is the externalId of a user of this directory.", "such as generic-externalid"),
        (400, "invalidValue", f"{NOBODY} Among them are externalIds of users of this directory.", "such as generic-externalid"),
        (400, "invalidValue", 'members: no user or group of this directory has the id "x".', "assign the user to the app first"),
        (400, "invalidValue", "members: 2 users of this directory have this externalId.", "make the key unique"),
        (400, "invalidValue", "members: a group cannot be a member of itself.", "nested in itself"),
        (400, "noTarget", "members: the filter of the path selects no member of this group.", "let it add the member"),
        (400, "invalidValue", "members[0].value is required: send the id of the member.", "not been provisioned yet"),
        (400, "invalidValue", "userName is required: send it", "fill it in the IdP"),
        (400, "mutability", "active cannot be removed: replace it", "deactivate with `active` false"),
        (400, "invalidValue", "emails has more than one primary value", "one only as primary"),
        (400, "invalidValue", "title must be a string.", "another type"),
        (400, "invalidSyntax", "schemas must list urn:…", "names no schema of SCIM 2.0"),
        (400, "invalidSyntax", "Operations is missing", "JSON template"),
        (400, "invalidFilter", "The filter needs a value", "match on userName"),
        (400, "invalidFilter", "Operations[0]: The filter needs a value", "target attribute"),
        (400, "invalidFilter", "members: select them by value", "target attribute"),
        (400, "invalidCount", "count: with a cursor, send at least 1.", "page size"),
        (400, "invalidCount", "With a cursor, send the same count as for the first page.", "from its first page"),
        (404, None, "Operations[3].path must be /Users or /Groups", "other kinds of resources"),
        (400, None, None, "operator of this service"),
        (404, None, "There is no such endpoint.", "base URL"),
        (404, None, "There is no user with this id", "match again"),
        (500, None, None, "operator of this service"),
    ],
)
def test_the_fix_depends_on_the_case(status: int, scim_type: str | None, detail: str | None, fix: str) -> None:
    assert fix in (fix_of(status, scim_type, detail) or "")


def test_an_accepted_request_has_no_fix() -> None:
    assert fix_of(201, None, None) is None


def test_a_group_before_its_users_is_told_apart_from_other_refusals_of_members() -> None:
    assert is_unknown_member('members: no user or group of this directory has the id "x".')
    assert not is_unknown_member(f"{NOBODY} It is the externalId of a user of this directory.")
    assert not is_unknown_member("members: 2 users of this directory have this userName. Name the member by its id.")
