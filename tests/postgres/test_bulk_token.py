"""A bulk request whose token is revoked or expires during it: 401 if nothing was done, otherwise the results so far and why it
stopped.
"""

import asyncio
from typing import Any
from uuid import uuid4

import orjson
import pytest

from api.scim.bulk import bulk
from api.scim.http import Call
from runtime.identifiers import uuid7
from scim.errors import Unauthorized
from tests.postgres.ledgers import opened
from tests.postgres.machine import administration

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def _call(body: Any) -> Call:
    messages = [{"type": "http.request", "body": orjson.dumps(body), "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()  # the client stays connected

    return Call("POST", ["Bulk"], "acme", {b"content-type": b"application/json"}, {}, uuid7(), receive)


def test_if_nothing_was_done_the_answer_is_401(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            text = await acts.issue_token("scim", "t", ("acme",), acts_end())
            token = await ledger.services.authentication.authenticate(f"Bearer {text}")
            operations = [
                {"method": "POST", "path": "/Users", "bulkId": str(n), "data": {"schemas": [USER], "userName": f"u{n}-{uuid4()}"}}
                for n in range(3)
            ]
            alive = await bulk(ledger.services, _call({"schemas": [BULK], "Operations": operations[:1]}), ledger.directory, token)
            assert alive.status == 200
            await acts.revoke_token(token.id)
            call = _call({"schemas": [BULK], "Operations": operations[1:]})
            with pytest.raises(Unauthorized):
                await bulk(ledger.services, call, ledger.directory, token)
            assert call.refusals == []

    asyncio.run(run())


def acts_end() -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=1)
