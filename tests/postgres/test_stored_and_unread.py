"""A stored change is answered as stored, also if other parts of its answer cannot be read."""

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from api.scim import writes
from scim.errors import TooMany
from tests.postgres.ledgers import CORE_GROUP, CORE_USER, PATCH_OP
from tests.postgres.test_tokens_http import Edge, edge


async def _made(edge: Edge, token: str) -> tuple[str, str]:
    user = (await edge.ask("POST", "/scim/acme/v2/Users", {"schemas": [CORE_USER], "userName": "u"}, token)).json()["id"]
    body = {"schemas": [CORE_GROUP], "displayName": "g", "members": [{"value": user}]}
    return user, (await edge.ask("POST", "/scim/acme/v2/Groups", body, token)).json()["id"]


def _retitled(title: str) -> dict[str, Any]:
    return {"schemas": [PATCH_OP], "Operations": [{"op": "replace", "path": "title", "value": title}]}


def test_the_database_refuses_the_reads_for_the_answer(app_url: str, superuser_url: str) -> None:
    """The role may read what the write needs, but not what its answer reads in addition."""

    async def check() -> None:
        async with edge(app_url) as made:
            token = (await made.issue(role="scim", directories=["acme"]))["token"]
            user, _ = await _made(made, token)
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute("revoke select on ledger.bodies from ledger_app")
                group = await made.ask("POST", "/scim/acme/v2/Groups", {"schemas": [CORE_GROUP], "displayName": "h"}, token)
                conn.execute("grant select on ledger.bodies to ledger_app")
                conn.execute("revoke select on ledger.groups from ledger_app")
                patched = await made.ask("PATCH", f"/scim/acme/v2/Users/{user}", _retitled("t"), token)
            assert (group.status_code, patched.status_code) == (201, 200), (group.text, patched.text)
            assert group.json()["displayName"] == "h"
            assert patched.json()["title"] == "t"
            assert not {"members", "groups"} & (set(group.json()) | set(patched.json())), (
                "the attribute is left out, not shown as empty"
            )
            events = (await made.ask("GET", "/v1/events", directory="acme")).json()["data"]
            assert {int(group.headers["Ledger-Seq"]), int(patched.headers["Ledger-Seq"])} <= {event["seq"] for event in events}

    asyncio.run(check())


def test_the_answer_needs_too_much_work(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def too_many(*_: Any) -> None:
        raise TooMany

    async def check() -> None:
        async with edge(app_url) as made:
            token = (await made.issue(role="scim", directories=["acme"]))["token"]
            user, _ = await _made(made, token)
            monkeypatch.setattr(writes, "groups_of_user", too_many)
            patched = await made.ask("PATCH", f"/scim/acme/v2/Users/{user}", _retitled(uuid4().hex), token)
            assert patched.status_code == 200, patched.text
            assert "groups" not in patched.json()

    asyncio.run(check())
