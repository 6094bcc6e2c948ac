"""What an id in an event stands for: the current users and groups of a directory, for every kind of caller."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
SEE = ("admin", "auditor", "consumer", "consumer of users")  # the callers that see the attributes of users
STRUCTURE = ("operator", "consumer without bodies")


@dataclass(frozen=True)
class Resolving:
    """A directory with users and groups, another one with a user and a group, and a token of each kind."""

    base: str
    slug: str
    tokens: dict[str, str]
    users: tuple[str, ...]  # ada, bob, carla, and one who was deactivated
    groups: tuple[str, ...]
    gone: str  # a user who was deleted
    elsewhere: dict[str, str]  # the user and the group of the other directory

    def ask(self, who: str, path: str, **query: str | int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who != "nobody" else {}
        return httpx.get(
            f"{self.base}/v1/directories/{self.slug}/{path}", params=query, headers=headers, trust_env=False, timeout=60
        )

    def rows(self, who: str, path: str, **query: str | int) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        while True:
            answer = self.ask(who, path, **query)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            rows += page["data"]
            if not page["has_more"]:
                assert page["list_metadata"]["after"] is None
                return rows
            query["after"] = page["list_metadata"]["after"]


@pytest.fixture(scope="session")
def resolving(service: Service) -> Resolving:
    slugs = [f"{name}-{uuid4().hex[:8]}" for name in ("resolving", "elsewhere")]
    with service.client("admin") as admin:

        def issue(role: str, directory: str, **narrowed: Any) -> str:
            body = {"role": role, "name": role, "directories": [directory], **narrowed}
            return admin.post(f"{service.base}/v1/tokens", json=body).json()["token"]

        made: list[dict[str, Any]] = []
        for slug in slugs:
            assert admin.post(f"{service.base}/v1/directories", json={"slug": slug}).status_code == 201
            with httpx.Client(headers={"Authorization": f"Bearer {issue('scim', slug)}"}, trust_env=False, timeout=60) as idp:
                made.append(filled(idp, f"{service.base}/scim/{slug}/v2"))
        here, elsewhere = slugs
        tokens = {role: issue(role, here) for role in ("scim", "admin", "auditor", "operator", "consumer")}
        tokens["consumer without bodies"] = issue("consumer", here, bodies=False)
        tokens["consumer of users"] = issue("consumer", here, types=["user.*"])
        tokens["consumer of groups"] = issue("consumer", here, types=["group.*"])
        tokens["consumer of leavers"] = issue("consumer", here, types=["user.deactivated"])
        tokens["consumer elsewhere"] = issue("consumer", elsewhere)
        tokens["admin of all"] = service.first_run["tokens"]["admin"]
    own, other = made
    return Resolving(
        service.base, here, tokens, tuple(own["users"]), tuple(own["groups"]), own["gone"], {"user": other["users"][0], "group": other["groups"][0]}
    )  # fmt: skip


def filled(idp: httpx.Client, scim: str) -> dict[str, Any]:
    def make(path: str, **body: Any) -> str:
        answer = idp.post(f"{scim}/{path}", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def person(name: str, external: str) -> str:
        return make("Users", schemas=[USER], userName=f"{name}@resolving.example", externalId=external, displayName=name.title())

    users = [person("ada", "e-1"), person("bob", "e-2"), person("carla", "e-2"), person("dora", "e-4")]
    gone = person("gone", "e-5")
    groups = [
        make("Groups", schemas=[GROUP], displayName=name, externalId=external, members=[{"value": users[0]}])
        for name, external in (("Admins", "g-1"), ("Staff", "g-2"), ("Staff", "g-3"))
    ]
    off = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "active", "value": False}],
    }
    assert idp.patch(f"{scim}/Users/{users[3]}", json=off).status_code == 200
    assert idp.delete(f"{scim}/Users/{gone}").status_code == 204
    return {"users": users, "groups": groups, "gone": gone}


@pytest.mark.parametrize("who", SEE)
def test_who_may_see_attributes_sees_users_as_the_snapshot_has_them(resolving: Resolving, who: str) -> None:
    lines = [json.loads(line) for line in resolving.ask("consumer", "snapshot").text.splitlines()]
    rows = resolving.rows(who, "users", limit=3)
    assert [row["id"] for row in rows] == sorted(resolving.users)
    for row in rows:
        line = next(line for line in lines if line["object"] == "user" and line["id"] == row["id"])
        assert {name: value for name, value in row.items() if name != "created_at"} == line
        assert row == resolving.ask(who, f"users/{row['id']}").json()
    assert {row["id"]: row["active"] for row in rows}[resolving.users[3]] is False


@pytest.mark.parametrize("who", ["admin", "consumer", "consumer of groups"])
def test_groups_likewise(resolving: Resolving, who: str) -> None:
    lines = [json.loads(line) for line in resolving.ask("consumer", "snapshot").text.splitlines()]
    rows = resolving.rows(who, "groups", limit=1)
    assert [row["id"] for row in rows] == sorted(resolving.groups)
    for row in rows:
        assert {name: value for name, value in row.items() if name != "created_at"} in lines
        assert row == resolving.ask(who, f"groups/{row['id']}").json()


@pytest.mark.parametrize("who", STRUCTURE)
def test_others_see_structure_and_nothing_else(resolving: Resolving, who: str) -> None:
    for path, ids in (("users", resolving.users), ("groups", resolving.groups)):
        rows = resolving.rows(who, path, limit=2)
        assert [row["id"] for row in rows] == sorted(ids)
        assert all(row["data"] == {"withheld": True} for row in rows)
        assert resolving.ask(who, f"{path}/{ids[0]}").json()["data"] == {"withheld": True}
        assert "resolving.example" not in json.dumps(rows)


@pytest.mark.parametrize("who", STRUCTURE)
@pytest.mark.parametrize(
    ("path", "field", "there"), [("users", "user_name", "ada@resolving.example"), ("users", "external_id", "e-1"), ("groups", "display_name", "Admins"), ("groups", "external_id", "g-1")]
)  # fmt: skip
def test_what_is_withheld_is_not_found_by_a_search_either(
    resolving: Resolving, who: str, path: str, field: str, there: str
) -> None:
    """Whether a search finds something would tell the attribute."""
    found, missing = (resolving.ask(who, path, **{field: value}) for value in (there, "nobody has this"))
    assert found.status_code == 403
    assert alike(found) == alike(missing)
    assert "cannot search" in found.json()["detail"]


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("users", {"user_name": "ada@resolving.example"}, [0]), ("users", {"user_name": "ADA@Resolving.Example"}, [0]), ("users", {"user_name": "ada"}, []),
        ("users", {"external_id": "e-2"}, [1, 2]), ("users", {"external_id": "E-2"}, []), ("users", {"external_id": "e-2", "user_name": "bob@resolving.example"}, [1]),
        ("users", {"external_id": "e-1", "user_name": "bob@resolving.example"}, []), ("users", {"user_name": "gone@resolving.example"}, []),
        ("groups", {"display_name": "staff"}, [1, 2]), ("groups", {"external_id": "g-3"}, [2]), ("groups", {"external_id": "g-1", "display_name": "Staff"}, []),
    ],
)  # fmt: skip
def test_a_search_by_the_words_of_the_idp(resolving: Resolving, path: str, query: dict[str, str | int], found: list[int]) -> None:
    ids = resolving.users if path == "users" else resolving.groups
    for limit in (1, 100):
        rows = resolving.rows("consumer", path, **query, limit=limit)
        assert [row["id"] for row in rows] == sorted(ids[n] for n in found)


@pytest.mark.parametrize("kind", ["user", "group"])
@pytest.mark.parametrize("who", ["admin", "admin of all", "consumer", "operator", "auditor", "consumer without bodies"])
def test_an_id_of_another_directory_is_answered_like_one_that_nothing_has(resolving: Resolving, who: str, kind: str) -> None:
    other_kind = resolving.groups[0] if kind == "user" else resolving.users[0]
    ids = [str(uuid4()), resolving.elsewhere[kind], other_kind, "ada", *([resolving.gone] if kind == "user" else [])]
    answers = [resolving.ask(who, f"{kind}s/{number}") for number in ids]
    assert {answer.status_code for answer in answers} == {404}
    assert all(alike(answer) == alike(answers[0]) for answer in answers)


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        ("nobody", "users", 401), ("scim", "users", 403), ("scim", "groups", 403), ("consumer elsewhere", "users", 403), ("consumer elsewhere", "groups", 403),
        ("consumer of groups", "users", 403), ("consumer of users", "groups", 403), ("consumer of leavers", "users", 403), ("consumer of leavers", "groups", 403),
    ],
)  # fmt: skip
def test_who_may_not(resolving: Resolving, who: str, path: str, status: int) -> None:
    ids = resolving.users if path == "users" else resolving.groups
    for asked in (path, f"{path}/{ids[0]}", f"{path}/{uuid4()}"):
        assert resolving.ask(who, asked).status_code == status, asked


def test_a_page_continues_after_its_cursor_only(resolving: Resolving) -> None:
    wrong = resolving.ask("consumer", "users", after="ada")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (400, "after")
    assert resolving.ask("consumer", "users", limit=0).status_code == 400
    assert (
        resolving.ask("consumer", "users", user_name="").json()["detail"]
        == "`user_name` is empty: give it a value, or leave it out."
    )
    assert resolving.ask("consumer", "users", userName="ada").json()["detail"].endswith("did you mean `user_name`?")


def test_nobody_is_active_in_a_closed_directory(service: Service) -> None:
    slug = f"closed-{uuid4().hex[:8]}"
    with service.client("admin") as admin:
        assert admin.post(f"{service.base}/v1/directories", json={"slug": slug}).status_code == 201
        token = admin.post(f"{service.base}/v1/tokens", json={"role": "scim", "name": "x", "directories": [slug]}).json()["token"]
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60) as idp:
            filled(idp, f"{service.base}/scim/{slug}/v2")
        closed = admin.post(f"{service.base}/v1/directories/{slug}/close", json={"reason": "over", "confirm": slug})
        assert closed.status_code == 200
        rows = admin.get(f"{service.base}/v1/directories/{slug}/users").json()["data"]
        assert not any(row["active"] or row["data"]["object"]["active"] for row in rows)


def test_the_directories_that_a_consumer_reads(resolving: Resolving, service: Service) -> None:
    headers = {"Authorization": f"Bearer {resolving.tokens['consumer']}"}
    listed = httpx.get(f"{service.base}/v1/directories", headers=headers, trust_env=False).json()["data"]
    assert [row["slug"] for row in listed] == [resolving.slug]


def test_the_same_on_the_command_line(resolving: Resolving, service: Service) -> None:
    ada, admins = resolving.users[0], resolving.groups[0]
    shown = service.cli("user", "list", resolving.slug, "--user-name", "ada@resolving.example").stdout
    assert (ada in shown, "e-1" in shown, len(shown.splitlines())) == (True, True, 2)
    assert (
        json.loads(service.cli("user", "show", resolving.slug, ada, "--json").stdout)
        == resolving.ask("admin", f"users/{ada}").json()
    )
    assert "ada@resolving.example" in service.cli("user", "show", resolving.slug, ada).stdout
    listed = json.loads(service.cli("group", "list", resolving.slug, "--limit", "1", "--json").stdout)
    assert (len(listed["data"]), listed["has_more"]) == (1, True)
    assert "Admins" in service.cli("group", "show", resolving.slug, admins).stdout
    missing = service.cli("user", "show", resolving.slug, "ada")
    assert missing.returncode == 4
    assert missing.stderr.endswith("`scim-ledger user list` lists those that there are.\n"), missing.stderr


def alike(answer: httpx.Response) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
    """What a caller could tell two answers apart by."""
    document = {name: value for name, value in answer.json().items() if name != "request_id"}
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in {"x-request-id", "date"})
    return answer.status_code, document, headers
