"""Tokens over HTTP (docs/operations.md, "Tokens and directories"): issue, list, show, rotate with overlap, revoke, each within
the scopes of the caller.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest

from api.app import make_app
from operations import directories, tokens
from runtime.bootstrap import machine
from runtime.wiring import now_us
from tests.postgres.ledgers import opened

FIELDS = {
    "object", "id", "role", "name", "directories", "types", "consumers", "bodies", "created_at", "created_by", "expires_at", "last_used_at", "last_used_from",
    "revoked_at", "supersedes", "superseded_by", "state",
}  # fmt: skip


class Edge:
    """The application in this process, which a test asks with one token or another."""

    def __init__(self, http: httpx.AsyncClient, services: Any) -> None:
        self.http, self.services, self.ledger = http, services, services.ledger
        self.admin = self.id = ""

    async def ask(self, method: str, path: str, body: Any = None, token: str = "", **params: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.admin}"}
        return await self.http.request(method, path, json=body, params=params, headers=headers)

    async def issue(self, token: str = "", **asked: Any) -> dict[str, Any]:
        answer = await self.ask("POST", "/v1/tokens", {"name": "n", **asked}, token)
        assert answer.status_code == 201, answer.text
        return answer.json()


@asynccontextmanager
async def edge(url: str, clock: Callable[[], int] = now_us) -> AsyncIterator[Edge]:
    async with opened(url, clock=clock) as ledger:
        services = ledger.services
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(services)), base_url="http://ledger.test") as http:
            made = Edge(http, services)
            await directories.create(services.ledger, machine(), "other", "generic@1")
            admin = await tokens.issue(services.ledger, machine(), "admin", "test", ("*",), None, days=1)
            made.admin, made.id = admin.text, admin.shown["id"]
            yield made


def run(url: str, check: Callable[[Edge], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with edge(url) as made:
            await check(made)

    asyncio.run(all_of_it())


def test_a_token_is_shown_with_all_fields_and_its_text_only_once(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(
            role="consumer",
            name="crm",
            directories=["acme"],
            types=["user.*"],
            consumers=["crm"],
            bodies=False,
            expires_in_days=30,
        )
        assert set(made) == FIELDS | {"token"}
        assert made["token"].startswith("sl_consumer_")
        assert (made["object"], made["state"], made["bodies"]) == ("token", "active", False)
        assert (made["directories"], made["types"], made["consumers"]) == (["acme"], ["user.*"], ["crm"])
        life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
        assert life.days == 30
        shown = (await edge.ask("GET", f"/v1/tokens/{made['id']}")).json()
        assert set(shown) == FIELDS
        assert shown == {key: value for key, value in made.items() if key != "token"}
        assert made["created_by"] == f"tok_{edge.id.replace('-', '')}"
        listed = (await edge.ask("GET", "/v1/tokens", role="consumer", directory="acme", state="active")).json()["data"]
        assert [row["id"] for row in listed] == [made["id"]]
        assert (await edge.ask("GET", "/v1/tokens", state="revoked")).json()["data"] == []
        for wrong in ({"state": "sleeping"}, {"role": "king"}):
            assert (await edge.ask("GET", "/v1/tokens", **wrong)).json()["code"] == "invalid_parameters"

    run(app_url, check)


def test_a_rotation_keeps_the_scopes_and_both_tokens_work_during_the_overlap(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        old = await edge.issue(role="auditor", directories=["acme"])
        answer = await edge.ask("POST", f"/v1/tokens/{old['id']}/rotate", {"overlap_seconds": 600})
        assert answer.status_code == 201
        new = answer.json()
        assert (new["supersedes"], new["directories"], new["role"]) == (old["id"], ["acme"], "auditor")
        before = (await edge.ask("GET", f"/v1/tokens/{old['id']}")).json()
        assert (before["state"], before["superseded_by"]) == ("overlapping", new["id"])
        assert datetime.fromisoformat(before["expires_at"]) < datetime.fromisoformat(old["expires_at"])
        for token in (old["token"], new["token"]):
            assert (await edge.ask("GET", "/v1/directories", token=token)).status_code == 200
        again = await edge.ask("POST", f"/v1/tokens/{old['id']}/rotate", {})
        assert (again.status_code, again.json()["code"]) == (409, "token_rotated")
        at_once = (await edge.ask("POST", f"/v1/tokens/{new['id']}/rotate", {"overlap_seconds": 0})).json()
        assert (await edge.ask("GET", "/v1/directories", token=new["token"])).status_code == 401
        assert (await edge.ask("GET", "/v1/directories", token=at_once["token"])).status_code == 200
        assert (await edge.ask("GET", f"/v1/tokens/{new['id']}")).json()["state"] == "expired"

    run(app_url, check)


@pytest.mark.parametrize("body", [None, {}, {"reason": "left the company"}])
def test_a_revoked_token_is_refused_from_the_next_request_on(app_url: str, body: Any) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="operator")
        assert (await edge.ask("GET", "/v1/consumers", token=made["token"])).status_code == 200
        for _ in range(2):
            assert (await edge.ask("DELETE", f"/v1/tokens/{made['id']}", body)).status_code == 204
        assert (await edge.ask("GET", "/v1/consumers", token=made["token"])).status_code == 401
        shown = (await edge.ask("GET", f"/v1/tokens/{made['id']}")).json()
        assert shown["state"] == "revoked"
        assert shown["revoked_at"] is not None
        told = (await edge.ask("GET", "/v1/events", directory="_system", types="token.revoked", subject=made["id"])).json()[
            "data"
        ]
        assert [event["data"]["object"].get("reason") for event in told] == [(body or {}).get("reason")]

    run(app_url, check)


WITHIN = (
    ({"role": "operator"}, 403), ({"role": "operator", "directories": ["other"]}, 403),
    ({"role": "operator", "directories": ["nowhere"]}, 403), ({"role": "operator", "directories": ["acme", "other"]}, 403),
    ({"role": "scim", "directories": ["other"]}, 403), ({"role": "admin", "directories": ["acme"]}, 201),
    ({"role": "scim", "directories": ["acme"]}, 201), ({"role": "scim", "directories": ["_system"]}, 400),
)  # fmt: skip


def test_a_narrowed_admin_can_issue_only_within_its_scopes(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        narrow = await edge.issue(role="admin", directories=["acme"])
        for asked, status in WITHIN:
            answer = await edge.ask("POST", "/v1/tokens", {"name": "n", **asked}, narrow["token"])
            assert answer.status_code == status, (asked, answer.text)

    run(app_url, check)


REFUSED = (
        {"role": "king"}, {"role": "scim"}, {"role": "scim", "directories": ["acme", "other"]}, {"role": "scim", "directories": ["_system"]},
        {"role": "scim", "directories": ["*"]}, {"role": "auditor", "directories": ["nowhere"]}, {"role": "auditor", "directories": []},
        {"role": "operator", "types": ["user.*"]}, {"role": "consumer", "types": ["user.married"]}, {"role": "auditor", "expires_in_days": 0},
        {"role": "auditor", "expires_in_days": 4_000}, {"role": "auditor", "name": ""}, {"role": "auditor", "colour": "red"},
        {"role": "consumer", "types": []}, {"role": "consumer", "consumers": ["No name"]}, {"role": "consumer", "consumers": ["x" * 64]},
)  # fmt: skip


def test_an_impossible_token_is_refused_with_a_reason(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        for asked in REFUSED:
            answer = await edge.ask("POST", "/v1/tokens", {"name": "n", **asked})
            assert answer.status_code == 400, (asked, answer.text)
            assert answer.json()["detail"].endswith((".", "?"))

    run(app_url, check)


def test_no_scim_token_is_issued_for_a_closed_directory(app_url: str) -> None:
    """Otherwise it would be issued, and refused as unknown at its first request."""

    async def check(edge: Edge) -> None:
        closing = {"reason": "the customer left", "confirm": "other"}
        assert (await edge.ask("POST", "/v1/directories/other/close", closing)).status_code == 200
        refused = await edge.ask("POST", "/v1/tokens", {"role": "scim", "name": "n", "directories": ["other"]})
        assert (refused.status_code, refused.json()["code"]) == (409, "directory_closed")
        await edge.issue(role="auditor", directories=["other"])

    run(app_url, check)


def test_a_name_with_a_nul_is_refused_with_the_field_and_nothing_is_made(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        refused = await edge.ask("POST", "/v1/tokens", {"role": "auditor", "name": "a\0b"})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameters")
        assert refused.json()["errors"] == [{"field": "name", "reason": "has a NUL character: remove it"}]
        for path in ("/v1/tokens?role=%00", "/v1/tokens?directory=%00", "/v1/consumers/%00", "/v1/profiles/%00", "/v1/requests?directory=%00",
                     "/v1/events?subject=%00", "/v1/events?types=%00", "/v1/events?after=%00", "/v1/events/%00", "/v1/replays?consumer=%00",
                     "/v1/replays/%00", "/v1/tokens/%00", "/v1/directories/%00", "/v1/audit/acme/population?as_of=%00"):  # fmt: skip
            place, _, name = path.removesuffix("=%00").partition("?")
            answer = await edge.ask("GET", place, **({name: "\0"} if name else {}))
            assert 400 <= answer.status_code < 500, (path, answer.text)

    run(app_url, check)
