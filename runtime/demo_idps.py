"""The two identity providers of the demo: how Okta and Entra ID write users and groups, request by request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from runtime.demo_service import Client, Reply

USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@dataclass(frozen=True, slots=True)
class Person:
    """A person in the IdP's directory, before provisioning."""

    given: str
    family: str
    tag: str  # makes userNames unique to this run

    @property
    def user_name(self) -> str:
        return f"{self.given}.{self.family}.{self.tag}@example.com".lower()

    @property
    def name(self) -> str:
        return f"{self.given} {self.family}"


def patch(client: Client, path: str, *operations: dict[str, Any]) -> Reply:
    return client.scim("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})


def _look_up(client: Client, person: Person) -> None:
    """Both IdPs first ask whether the user exists."""
    wanted = quote(f'userName eq "{person.user_name}"')
    client.scim("GET", f"/Users?filter={wanted}&startIndex=1&count=100")


class Okta:
    """Path-less replaces, PUT of whole resources, group push as one remove per member that left and one add."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create_user(self, person: Person) -> str:
        _look_up(self._client, person)
        return self._client.scim("POST", "/Users", self._document(person)).body["id"]

    def _document(self, person: Person) -> dict[str, Any]:
        return {
            "schemas": [USER], "userName": person.user_name, "name": {"givenName": person.given, "familyName": person.family},
            "emails": [{"primary": True, "value": person.user_name, "type": "work"}], "displayName": person.name, "locale": "en-US",
            "externalId": f"00u{person.tag}{person.given.lower()}{person.family.lower()}", "groups": [], "active": True,
        }  # fmt: skip

    def update_user(self, user: str, person: Person, title: str) -> Reply:
        """Send the whole user by PUT."""
        return self._client.scim("PUT", f"/Users/{user}", {**self._document(person), "id": user, "title": title})

    def deactivate_user(self, user: str) -> Reply:
        return patch(self._client, f"/Users/{user}", {"op": "replace", "value": {"active": False}})

    def create_group(self, name: str, members: Sequence[str]) -> str:
        made = self._client.scim("POST", "/Groups", {"schemas": [GROUP], "displayName": name, "members": []})
        group = made.body["id"]
        patch(self._client, f"/Groups/{group}", {"op": "replace", "value": {"id": group, "displayName": name}})
        self.push_group(group, add=members)
        return group

    def push_group(self, group: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Reply:
        removals = [{"op": "remove", "path": f'members[value eq "{member}"]'} for member in remove]
        added = {"op": "add", "path": "members", "value": [{"value": member} for member in add]}
        return patch(self._client, f"/Groups/{group}", *removals, *([added] if add else []))

    def replace_group(self, group: str, name: str, members: Sequence[str]) -> Reply:
        document = {"schemas": [GROUP], "id": group, "displayName": name, "members": [{"value": member} for member in members]}
        return self._client.scim("PUT", f"/Groups/{group}", document)


class Entra:
    """Operations in capitals, booleans as strings, and the members to remove as a list of values."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create_user(self, person: Person) -> str:
        _look_up(self._client, person)
        document = {
            "schemas": [USER, ENTERPRISE], "externalId": f"{person.given}{person.family}", "userName": person.user_name,
            "active": True, "displayName": person.name, "emails": [{"primary": True, "type": "work", "value": person.user_name}],
            "meta": {"resourceType": "User"}, "name": {"formatted": person.name, "givenName": person.given, "familyName": person.family},
            ENTERPRISE: {"department": "Field"},
        }  # fmt: skip
        return self._client.scim("POST", "/Users", document).body["id"]

    def update_user(self, user: str, title: str, department: str) -> Reply:
        return patch(
            self._client, f"/Users/{user}", {"op": "Replace", "path": "title", "value": title},
            {"op": "Replace", "path": f"{ENTERPRISE}:department", "value": department},
        )  # fmt: skip

    def deactivate_user(self, user: str) -> Reply:
        return patch(self._client, f"/Users/{user}", {"op": "Replace", "path": "active", "value": "False"})

    def create_group(self, name: str, members: Sequence[str]) -> str:
        made = self._client.scim("POST", "/Groups", {"schemas": [GROUP], "displayName": name, "meta": {"resourceType": "Group"}})
        for member in members:
            self.add_member(made.body["id"], member)
        return made.body["id"]

    def add_member(self, group: str, member: str) -> Reply:
        return patch(self._client, f"/Groups/{group}", {"op": "Add", "path": "members", "value": [{"value": member}]})

    def remove_member(self, group: str, member: str) -> Reply:
        return patch(self._client, f"/Groups/{group}", {"op": "Remove", "path": "members", "value": [{"value": member}]})
