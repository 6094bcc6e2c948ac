"""Questions about past states over HTTP and the command line: nested access with every path, diamonds and cycles, diff, times."""

import json
import random

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class _Scim:
    def __init__(self, service: Service, client) -> None:
        self.service, self.client = service, client
        self.seq = 0

    def _keep(self, answer):
        assert answer.status_code < 300, answer.text
        self.seq = int(answer.headers.get("Ledger-Seq", self.seq))
        return answer

    def user(self) -> str:
        body = {"schemas": [USER], "userName": f"audited-{random.random()}"}
        return self._keep(self.client.post(self.service.scim + "/Users", json=body)).json()["id"]

    def group(self, *members: str) -> str:
        body = {"schemas": [GROUP], "displayName": f"g{random.random()}", "members": [{"value": m} for m in members]}
        return self._keep(self.client.post(self.service.scim + "/Groups", json=body)).json()["id"]

    def patch(self, kind: str, resource: str, **operation) -> int:
        body = {"schemas": [PATCH], "Operations": [operation]}
        self._keep(self.client.patch(f"{self.service.scim}/{kind}/{resource}", json=body))
        return self.seq


def test_nested_access_names_every_path_through_diamonds_and_cycles(service: Service) -> None:
    with service.client("scim") as client, service.client("auditor") as auditor:
        scim = _Scim(service, client)
        user = scim.user()
        inner = scim.group(user)
        left, right = scim.group(inner), scim.group(inner)
        top = scim.group(left, right)
        scim.patch("Groups", inner, op="add", path="members", value=[{"value": top}])  # a cycle
        answer = auditor.get(f"{service.base}/v1/audit/acme/users/{user}/access").json()
        paths = {row["id"]: sorted(map(tuple, row["paths"])) for row in answer["data"]}
        assert paths == {
            inner: [(inner,)],
            left: [(inner, left)],
            right: [(inner, right)],
            top: sorted([(inner, left, top), (inner, right, top)]),
        }
        assert {row["id"] for row in answer["data"] if row["direct"]} == {inner}
        members = auditor.get(f"{service.base}/v1/audit/acme/groups/{top}/members", params={"nested": "true"}).json()["data"]
        assert {m["id"] for m in members} >= {user, inner, left, right}


def test_access_ends_with_the_commit_that_deactivates_and_past_answers_stay(service: Service) -> None:
    with service.client("scim") as client, service.client("auditor") as auditor:
        scim = _Scim(service, client)
        user = scim.user()
        group = scim.group(user)
        before = scim.seq
        after = scim.patch("Users", user, op="replace", path="active", value=False)
        deleted = client.delete(f"{service.scim}/Users/{user}")
        gone = int(deleted.headers["Ledger-Seq"])

        def ask(path: str, seq: int):
            return auditor.get(f"{service.base}/v1/audit/acme{path}", params={"as_of": f"seq:{seq}"})

        access = f"/users/{user}/access"
        assert [row["id"] for row in ask(access, before).json()["data"]] == [group]
        assert ask(access, after).json()["data"] == []
        # A seq inside the commit means the whole commit: no answer shows the state between the revocation and the deactivation.
        assert ask(access, after - 1).json()["as_of"]["seq"] == after
        assert ask(access, gone).json()["data"] == []
        members = f"/groups/{group}/members"
        assert [(m["id"], m["effective"]) for m in ask(members, after).json()["data"]] == [(user, False)]
        assert ask(members, gone).json()["data"] == []
        assert ask(f"/users/{user}", before).json()["data"]["active"] is True
        assert ask(f"/users/{user}", after).json()["data"]["active"] is False
        assert ask(f"/users/{user}", gone).status_code == 404


def test_an_instant_is_inclusive_and_the_answer_has_its_seq(service: Service) -> None:
    with service.client("scim") as client, service.client("auditor") as auditor, service.client("consumer") as reader:
        scim = _Scim(service, client)
        user = scim.user()
        events, asked_of = [], {"directory": "acme", "subject": user, "limit": 1000}
        while not events:  # a page ends after a limited number of other users' events
            page = reader.get(service.base + "/v1/events", params=asked_of).json()
            events, asked_of["after"] = page["data"], page["list_metadata"]["after"]
        time = events[0]["time"]
        assert (
            auditor.get(f"{service.base}/v1/audit/acme/users/{user}", params={"as_of": time}).json()["as_of"]["seq"]
            >= events[0]["seq"]
        )
        just_before = time[:-1]
        micros = int(just_before[-6:]) - 1
        if micros >= 0:
            asked = f"{just_before[:-6]}{micros:06d}+00:00"
            assert auditor.get(f"{service.base}/v1/audit/acme/users/{user}", params={"as_of": asked}).status_code == 404


def test_diff_says_what_changed_between_two_points(service: Service) -> None:
    with service.client("scim") as client, service.client("auditor") as auditor:
        scim = _Scim(service, client)
        stays, leaves, sleeps = scim.user(), scim.user(), scim.user()
        group = scim.group(stays, leaves, sleeps)
        begin = scim.seq
        joins = scim.user()
        scim.patch("Groups", group, op="add", path="members", value=[{"value": joins}])
        client.delete(f"{service.scim}/Users/{leaves}")
        end = scim.patch("Users", sleeps, op="replace", path="active", value=False)
        rows = auditor.get(f"{service.base}/v1/audit/acme/diff", params={"from": f"seq:{begin}", "to": f"seq:{end}"}).json()[
            "data"
        ]
        assert {(r["change"], r.get("member", {}).get("id", r["id"])) for r in rows} == {
            ("created", joins), ("member_added", joins), ("member_removed", leaves), ("deleted", leaves), ("deactivated", sleeps),
        }  # fmt: skip
        swapped = auditor.get(f"{service.base}/v1/audit/acme/diff", params={"from": f"seq:{end}", "to": f"seq:{begin}"})
        assert swapped.status_code == 400
        both = auditor.get(f"{service.base}/v1/audit/acme/diff", params={"from": f"seq:{begin}", "to": f"seq:{end}"}).json()
        assert (both["from"]["seq"], both["as_of"]["seq"]) == (begin, end)
        shown = service.cli("audit", "diff", "acme", "--from", f"seq:{begin}", "--to", f"seq:{end}", "--json")
        assert len(json.loads(shown.stdout)["data"]) == len(rows)


def test_nested_access_begins_with_the_youngest_edge_of_its_path(service: Service) -> None:
    with service.client("scim") as client, service.client("auditor") as auditor:
        scim = _Scim(service, client)
        user, inner = scim.user(), scim.group()
        outer = scim.group(inner)
        joined = scim.patch("Groups", inner, op="add", path="members", value=[{"value": user}])
        rows = auditor.get(f"{service.base}/v1/audit/acme/users/{user}/access").json()["data"]
        assert {row["id"]: row["since_seq"] for row in rows} == {inner: joined, outer: joined}


def test_an_unknown_id_is_an_error(service: Service) -> None:
    """A mistyped id must not look like "no access"."""
    with service.client("auditor") as auditor:
        for path in ("users/{}/access", "users/{}", "groups/{}/members"):
            url = f"{service.base}/v1/audit/acme/" + path.format("11111111-2222-4333-8444-555555555555")
            assert auditor.get(url).status_code == 404


def test_the_command_line_gives_the_same_answers(service: Service) -> None:
    with service.client("scim") as client:
        scim = _Scim(service, client)
        user = scim.user()
        group = scim.group(user)
    for words, expected in (
        (("members", "acme", group), user),
        (("access", "acme", user), group),
        (("user", "acme", user), user),
        (("population", "acme", "--as-of", f"seq:{scim.seq}"), user),
    ):
        run = service.cli("audit", *words, "--json")
        assert run.returncode == 0, run.stderr
        assert expected in run.stdout
        assert service.cli("audit", *words).returncode == 0
    refused = service.cli("audit", "members", "acme", group, "--as-of", "yesterday")
    assert refused.returncode == 2
    assert "as_of" in refused.stderr
    assert service.cli("audit", "members", "nowhere", group).returncode == 4


def test_only_auditors_and_admins_may_ask(service: Service) -> None:
    for role, status in (("scim", 403), ("consumer", 403), ("operator", 403), ("auditor", 200), ("admin", 200)):
        with service.client(role) as client:
            assert client.get(f"{service.base}/v1/audit/acme/population").status_code == status
