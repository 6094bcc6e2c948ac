"""The fix of a refusal for the admin of the identity provider: which setting there to change."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Case:
    """A kind of refusal. The first case that matches status, scimType and wording has the fix; groups of the wording stand in it."""

    fix: str
    status: int
    scim_type: str | None = None
    detail: str = ""

    def fix_for(self, status: int, scim_type: str | None, detail: str) -> str | None:
        if self.status != status or self.scim_type not in {None, scim_type}:
            return None
        found = re.search(self.detail, detail)
        return None if found is None else self.fix.format(*found.groups())


_UNKNOWN_MEMBER: Final = r"^members: no user or group"
_EXTERNAL_ID: Final = r"^members: no user or group .* externalIds? of (?:a user|users) of this directory\.$"
RATE_LIMITED: Final = "The IdP sends more requests than the limit of this directory"  # how the sentence of that refusal begins
_CASES: Final = (
    _Case(
        "User {} has this userName already. Let the IdP match on userName before it creates, or rename or delete that user in the IdP.",
        409,
        "uniqueness",
        r"^userName: user ([0-9a-f-]{36}) ",
    ),
    _Case(
        "Another user has this userName already. Let the IdP match on userName before it creates, or rename or delete the "
        "other user in the IdP.",
        409,
        "uniqueness",
    ),
    _Case("The IdP names members by externalId: choose a profile that understands it (`unknown_member`, such as generic-externalid), or "
          "let the IdP send the id that this service gave.", 400, "invalidValue", _EXTERNAL_ID),
    _Case("The group was pushed before this member: assign the user to the app first, then push the group again.",
          400, "invalidValue", _UNKNOWN_MEMBER),
    _Case("Two users have this key: name members by the id that this service gave, or make the key unique in the IdP.",
          400, "invalidValue", r"^members: \d+ users"),
    _Case("A group is nested in itself: take it out of its own members in the IdP.", 400, "invalidValue", "member of itself"),
    _Case("A member came without its id: in the IdP the user has probably not been provisioned yet. Provision it, then push the "
          "group again.", 400, "invalidValue", r"^members\[\d+\]\.value is required"),
    _Case("The userName has a space at its beginning or end: correct it at its source, or trim it in the IdP's mapping.",
          400, "invalidValue", "white space"),
    _Case("The attribute has no value for this user: fill it in the IdP, or map it to one that is always filled.",
          400, "invalidValue", "is required"),
    _Case("The IdP removes a required attribute: map the attribute to a constant or leave it out, and deactivate with `active` false.",
          400, "mutability", "cannot be removed"),
    _Case("Two values are primary: mark one only as primary in the IdP's mapping.", 400, "invalidValue", "primary"),
    _Case("The mapping sends a value of another type: change the type of the attribute, or its expression, in the IdP's mapping; or "
          "choose the profile of this IdP, which may forgive it.", 400, "invalidValue"),
    _Case("The template names no schema of SCIM 2.0: put the URN of the detail into `schemas`, or choose the profile of this IdP.",
          400, "invalidSyntax", "schemas"),
    _Case("The mapping sends an attribute or schema that this directory does not have: take it out of the mapping, register an extension "
          "schema for it, or choose a profile that keeps unknown attributes.", 400, "invalidSyntax", "is not defined here"),
    _Case("The IdP sends PATCH operations without a path, which this profile refuses: choose the profile of this IdP.",
          400, "invalidSyntax", r"\] has no path"),
    _Case("The body is not what SCIM expects: check the IdP's JSON template, and that it is set to SCIM 2.0.", 400, "invalidSyntax"),
    _Case("The mapping names an unknown attribute: correct its target attribute, or register an extension schema for it.",
          400, "invalidPath"),
    _Case("The IdP replaces a member that this group does not have: let it add the member, or push the group again.",
          400, "noTarget", r"^members"),
    _Case("The mapping changes one value of a list that has no such value: choose a profile with `replace_creates`, or let the IdP "
          "send the whole list.", 400, "noTarget"),
    _Case("The mapping writes an attribute that only this service writes: take it out of the mapping, or map it on creation only.",
          400, "mutability"),
    _Case("The mapping selects a value by a filter that cannot be read, or by a sub-attribute that the value does not have: correct its target attribute.",
          400, "invalidFilter", r"^(Operations\[|members)"),
    _Case("The IdP's matching filter cannot be read: match on userName, externalId or id with `eq`.", 400, "invalidFilter"),
    _Case("The request asks for too much: let the IdP match on userName, externalId or id, or send changes in smaller parts.",
          400, "tooMany"),
    _Case("Start the import in the IdP again from its first page.", 400, "invalidCursor"),
    _Case("The IdP asks for empty pages: set its page size to a number from 1 on.", 400, "invalidCount", r"^count:"),
    _Case("Start the import in the IdP again from its first page.", 400, "invalidCount"),
    _Case("The token was revoked or has expired: issue one and put it into the IdP.", 401),
    _Case("The token belongs to another directory, or has another role than scim: put the token of this directory into the IdP.", 403),
    _Case("The address is wrong: the base URL in the IdP ends in /scim/DIRECTORY/v2.", 404, None, "no such endpoint|SCIM lives"),
    _Case("The bulk request is about other kinds of resources: let the IdP provision users and groups only.", 404, None, "path must be"),
    _Case("The IdP uses the id of a resource that no longer exists. Let it match again (restart its provisioning, or unassign and assign the user).", 404),
    _Case("The IdP uses a method that this endpoint does not support: check that it is set to SCIM 2.0.", 405),
    _Case("The IdP asks for another format: let it accept application/scim+json.", 406),
    _Case("Two systems write the same resource: let only one IdP provision it.", 412),
    _Case("The request is too large: let the IdP push the members of a group in smaller parts, by PATCH.", 413),
    _Case("The IdP sends another format: let it send application/scim+json.", 415),
    _Case("Nothing to do: the IdP repeats the request. If it lasts, lower the IdP's rate of requests, or raise the limit: "
          "scim-ledger directory rate-limit set.", 429, None, f"^{RATE_LIMITED}"),
    _Case("Nothing to do: the IdP repeats the request. If it lasts, lower the IdP's rate of requests.", 429),
    _Case("The IdP uses a feature that this service does not offer: switch it off in the IdP, or ignore this; nothing is lost.", 501),
    _Case("Nothing to do in the IdP: it repeats the request. If it lasts, see the service's log.", 503),
)  # fmt: skip
_OTHERWISE: Final = "The cause is not in the IdP: give the request id to the operator of this service."


def fix_of(status: int, scim_type: str | None, detail: str | None) -> str | None:
    """The fix of a refusal, in words for the IdP's admin; None for a request that was not refused."""
    if status < 400:
        return None
    fixes = (case.fix_for(status, scim_type, detail or "") for case in _CASES)
    return next((fix for fix in fixes if fix is not None), _OTHERWISE)


def is_unknown_member(detail: str) -> bool:
    """Whether the sentence of a refusal says that a member of a group does not exist, mostly because the group came before its users."""
    return re.search(_UNKNOWN_MEMBER, detail) is not None and re.search(_EXTERNAL_ID, detail) is None
