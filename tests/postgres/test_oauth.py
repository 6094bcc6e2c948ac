"""OAuth 2.0 clients and their access tokens on a real database: refusals as a table, two processes, the write transaction, the log."""

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from api import strangers
from api.app import make_app
from database.connections import connect_owner
from delivery.consumers import Allowed
from ledger import clients
from ledger.clients import prune_access
from ledger.sealing import Kek
from ledger.tokens import new_text, token_hash
from operations import directories, tokens
from operations.consumers import Webhooks
from replay.verify import verify_tokens
from runtime.bootstrap import machine
from runtime.wiring import _touch_used
from tests.postgres.ledgers import opened
from tests.unit.delivery.test_documents import documents
from tests.unit.delivery.test_webhook import http

KEK = Kek.of(bytes(range(32)))
LOOPBACK = Webhooks(Allowed.read("127.0.0.0/8"), 1.0)
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, auto_kid=False)
EC = ECKey.generate_key("P-256", {"kid": "ec"})
BURST = int(strangers.BURST)
UNKNOWN = {"error": "invalid_client", "error_description": "The client is unknown here, or its secret or its assertion is wrong."}


class Process:
    """The application in this process, on the database; two of them share nothing else."""

    def __init__(self, services: Any) -> None:
        self.services, self.ledger, self.admin, self.app = services, services.ledger, "", make_app(services)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=(str(uuid4()), 1)), base_url="http://ledger.test"
        )

    async def ask(self, method: str, path: str, body: Any = None, **params: str) -> httpx.Response:
        return await self.http.request(method, path, json=body, params=params, headers={"Authorization": f"Bearer {self.admin}"})

    async def client(self, directory: str = "acme", **asked: Any) -> dict[str, Any]:
        answer = await self.ask("POST", "/v1/clients", {"directory": directory, "name": "okta", **asked})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def grant(self, client: dict[str, Any], **more: Any) -> httpx.Response:
        """Ask for an access token, with the secret of the client if nothing else is given."""
        given = {"client_id": client["client_id"], "client_secret": client.get("client_secret")} if not more else {}
        form = {"grant_type": "client_credentials", **given, **more}
        return await self.post(client["token_endpoint"], {name: value for name, value in form.items() if value is not None})

    async def sign_in(self, client: dict[str, Any], text: str, **more: str) -> httpx.Response:
        return await self.grant(client, client_assertion_type=JWT_BEARER, client_assertion=text, **more)

    async def post(self, url: str, data: Any, **more: Any) -> httpx.Response:
        # each request of another address: failed authentications are slowed by address
        transport = httpx.ASGITransport(self.app, client=(f"10.{uuid4().int % 250}.{uuid4().int % 250}.{uuid4().int % 250}", 1))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post(url, data=data, **more)

    async def token(self, client: dict[str, Any]) -> str:
        answer = await self.grant(client)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def write(self, token: str, directory: str = "acme") -> httpx.Response:
        body = {"schemas": [USER], "userName": uuid4().hex}
        return await self.http.post(f"/scim/{directory}/v2/Users", json=body, headers={"Authorization": f"Bearer {token}"})

    async def read(self, token: str, directory: str = "acme") -> int:
        answer = await self.http.get(f"/scim/{directory}/v2/Users?count=1", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code


@asynccontextmanager
async def process(url: str, *, first: bool = True) -> AsyncIterator[Process]:
    async with opened(url, kek=KEK, webhooks=LOOPBACK) as ledger:
        made = Process(ledger.services)
        if first:
            await directories.create(made.ledger, machine(), "other", "generic@1")
        made.admin = (await tokens.issue(made.ledger, machine(), "admin", "test", ("*",), None, days=1)).text
        async with made.http:
            yield made


def run(url: str, check: Callable[[Process], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with process(url) as made:
            await check(made)

    asyncio.run(all_of_it())


def claims_of(client: dict[str, Any], **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    own = {
        "iss": client["client_id"],
        "sub": client["client_id"],
        "aud": client["issuer"],
        "iat": now,
        "exp": now + 300,
        "jti": uuid4().hex,
    }
    return own | changed


def signed(client: dict[str, Any], key: Key = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changed: Any) -> str:
    header = {"alg": algorithm} | ({} if kid is None else {"kid": kid})
    return jwt.encode(header, claims_of(client, **changed), key, algorithms=[algorithm])


def public(*keys: Key) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def basic(name: str, secret: str, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"}


def test_a_client_is_shown_with_all_fields_and_its_secret_once(app_url: str) -> None:
    async def check(edge: Process) -> None:
        made = await edge.client()
        secret = made.pop("client_secret")
        assert secret.startswith(f"sl_client_{made['client_id'].removeprefix('cli_')}_")
        assert made["token_endpoint"] == made["issuer"] + "/token"
        assert (made["object"], made["auth"], made["state"], made["directory"], made["rotated_at"]) == (
            "client",
            "secret",
            "active",
            "acme",
            None,
        )
        assert (await edge.ask("GET", f"/v1/clients/{made['id']}")).json() == made
        assert (await edge.ask("GET", f"/v1/clients/{made['client_id']}")).json() == made
        assert (await edge.ask("GET", "/v1/clients", directory="acme")).json()["data"] == [made]
        assert (await edge.ask("GET", "/v1/clients", directory="other")).json()["data"] == []
        assert (await edge.ask("GET", f"/v1/clients/{uuid4()}")).status_code == 404
        jwt_client = await edge.client(auth="jwt", jwks=public(RSA))
        assert "client_secret" not in jwt_client
        assert jwt_client["jwks"] == public(RSA)
        events = (await edge.ask("GET", "/v1/events", directory="_system", types="client.created")).json()["data"]
        assert [event["data"]["object"]["id"] for event in events] == [made["id"], jwt_client["id"]]
        assert secret not in str(events)

    run(app_url, check)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"auth": "secret", "jwks": public(RSA)}, "no keys"), ({"auth": "jwt"}, "needs one"),
        ({"auth": "jwt", "jwks": public(RSA), "jwks_uri": "https://idp.example/keys"}, "needs one"), ({"auth": "jwt", "jwks": {"keys": [RSA.as_dict(private=True)]}}, "private"),
        ({"auth": "jwt", "jwks": public(RSA) | {"pad": "x" * 17_000}}, "larger"), ({"auth": "jwt", "jwks_uri": "https://10.0.0.1/keys"}, "private or loopback"),
        ({"auth": "jwt", "jwks_uri": "http://idp.example/keys"}, "not encrypted"), ({"auth": "jwt", "jwks_uri": "https://u:p@idp.example/k"}, "user name"),
        ({"auth": "jwt", "jwks_uri": "https://idp.example/" + "k" * 2_000}, "2 000"), ({"auth": "mtls"}, "auth"), ({"name": ""}, "name"),
    ],
)  # fmt: skip
def test_a_client_that_cannot_work_is_not_made(app_url: str, asked: dict[str, Any], words: str) -> None:
    async def check(edge: Process) -> None:
        answer = await edge.ask("POST", "/v1/clients", {"directory": "acme", "name": "okta", **asked})
        assert answer.status_code == 400
        assert words in answer.text
        assert (await edge.ask("GET", "/v1/clients")).json()["data"] == []

    run(app_url, check)


def test_requests_that_the_token_endpoint_refuses(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client, other = await edge.client(), await edge.client("other")
        url, name, secret = client["token_endpoint"], client["client_id"], client["client_secret"]
        form = {"grant_type": "client_credentials"}
        own = form | {"client_id": name, "client_secret": secret}
        wrong = secret[:-9] + ("0" if secret[-9] != "0" else "1") + secret[-8:]
        table: list[tuple[str, dict[str, Any], dict[str, Any], int, str]] = [
            ("no grant_type", {"client_id": name, "client_secret": secret}, {}, 400, "invalid_request"),
            ("an empty grant_type", own | {"grant_type": ""}, {}, 400, "invalid_request"),
            ("another grant", own | {"grant_type": "password"}, {}, 400, "unsupported_grant_type"),
            ("another scope", own | {"scope": "scim admin"}, {}, 400, "invalid_scope"),
            ("a secret in the URL", form, {"params": {"client_id": name, "client_secret": secret}}, 400, "invalid_request"),
            ("JSON", {}, {"json": own}, 400, "invalid_request"),
            ("two ways at once", own, {"headers": basic(name, secret)}, 400, "invalid_request"),
            ("a secret and an assertion", own | {"client_assertion": "a.b.c", "client_assertion_type": JWT_BEARER}, {}, 400, "invalid_request"),
            ("an assertion of another type", form | {"client_assertion": "a.b.c", "client_assertion_type": "saml"}, {}, 400, "invalid_request"),
            ("another client_id in the body", form | {"client_id": other["client_id"]}, {"headers": basic(name, secret)}, 400, "invalid_request"),
            ("a large body", own | {"pad": "x" * 2**20}, {}, 413, "invalid_request"),
            ("too many parameters", own | {f"p{n}": "x" for n in range(60)}, {}, 400, "invalid_request"),
            ("no authentication", form, {}, 401, "invalid_client"),
            ("Basic that is none", form, {"headers": {"Authorization": "Basic !!!"}}, 401, "invalid_client"),
            ("Basic without a colon", form, {"headers": {"Authorization": "Basic " + base64.b64encode(b"x").decode()}}, 401, "invalid_client"),
            ("another scheme", form, {"headers": {"Authorization": f"Bearer {secret}"}}, 401, "invalid_client"),
            ("a wrong secret", own | {"client_secret": wrong}, {}, 401, "invalid_client"),
            ("a secret of another client", own | {"client_secret": other["client_secret"]}, {}, 401, "invalid_client"),
            ("another client", own | {"client_id": "cli_" + "0" * 32}, {}, 401, "invalid_client"),
            ("no client_id", form | {"client_secret": secret}, {}, 401, "invalid_client"),
            ("a client of another directory", own | {"client_id": other["client_id"], "client_secret": other["client_secret"]}, {}, 401, "invalid_client"),
            ("an assertion of a client with a secret", form | {"client_assertion": signed(client), "client_assertion_type": JWT_BEARER}, {}, 401, "invalid_client"),
        ]  # fmt: skip
        for what, data, more, status, error in table:
            if "json" in more:
                answer = await edge.post(url, None, **more)
            else:
                answer = await edge.post(url, data, **more)
            assert (answer.status_code, answer.json()["error"]) == (status, error), (what, answer.text)
            assert answer.headers["cache-control"] == "no-store"
            assert ("www-authenticate" in answer.headers) == (status == 401), what
        twice = await edge.post(
            url,
            None,
            content="grant_type=client_credentials&grant_type=client_credentials",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert twice.json()["error"] == "invalid_request"
        broken = await edge.post(
            url, None, content=b"grant_type=\xff", headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert broken.json()["error"] == "invalid_request"
        got = await edge.http.get(url)
        assert (got.status_code, got.headers["allow"]) == (405, "POST")
        assert await counted(edge, "access_tokens") == 0

    run(app_url, check)


async def counted(edge: Process, table: str) -> int:
    async with edge.ledger.connection() as conn:
        row = await (await conn.execute(b"select count(*) from " + table.encode())).fetchone()
    assert row is not None
    return row[0]


def test_an_unknown_client_and_an_unknown_directory_are_answered_as_a_wrong_secret_is(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        form = {"grant_type": "client_credentials", "client_secret": client["client_secret"][:-1] + "z"}
        answers = [
            await edge.post(f"http://ledger.test/oauth/{slug}/token", form | {"client_id": name})
            for slug in ("acme", "other", "nowhere", "_system", "Not a slug")
            for name in (client["client_id"], "cli_" + "1" * 32, "x")
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()) == (401, UNKNOWN)
            assert answer.headers.keys() == answers[0].headers.keys()

    run(app_url, check)


def test_the_metadata_tells_no_directory_apart(app_url: str) -> None:
    async def check(edge: Process) -> None:
        path = "/.well-known/oauth-authorization-server/oauth/"
        known, unknown = [await edge.http.get(path + slug) for slug in ("acme", "nosuch")]
        assert known.json()["issuer"].endswith("/oauth/acme")
        assert known.text.replace("/acme", "/nosuch") == unknown.text
        assert known.json()["response_types_supported"] == []
        assert "none" not in known.text
        assert "HS256" not in known.text
        assert (await edge.http.get(path + "Not a slug")).status_code == 404

    run(app_url, check)


def test_assertions_that_are_refused(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client(auth="jwt", jwks=public(RSA))
        two = await edge.client(auth="jwt", jwks=public(RSA, EC))
        now = int(time.time())
        unsigned = jws.serialize_compact({"alg": "HS256"}, b"{}", OctKey.import_key("x" * 40), algorithms=["HS256"])
        table = [
            ("none", client, "eyJhbGciOiJub25lIn0." + signed(client).split(".")[1] + ".", ""),
            ("HMAC", client, unsigned, ""),
            ("another algorithm than the key's", client, signed(client, EC, "ES256"), ""),
            ("another key", client, signed(client, RSAKey.generate_key(2048)), ""),
            ("a kid that is unknown", client, signed(client, kid="other"), ""),
            ("no kid with several keys", two, signed(two, kid=None), ""),
            ("a wrong audience", client, signed(client, aud="https://elsewhere.example"), "`aud`"),
            ("the audience of another directory", client, signed(client, aud=client["issuer"].replace("acme", "other")), "`aud`"),
            ("expired", client, signed(client, exp=now - 61), "expired"),
            ("far ahead", client, signed(client, exp=now + 3_700), "ahead"),
            ("no jti", client, signed(client, jti=None), "`jti`"),
            ("of another client", client, signed(client, iss=two["client_id"]), "`iss`"),
            ("no JWT", client, "x", ""),
        ]
        for what, whose, text, words in table:
            answer = await edge.sign_in(whose, text)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), (what, answer.text)
            assert words in answer.json()["error_description"], what
            assert words or answer.json() == UNKNOWN, what
        assert (await edge.sign_in(client, "a" * 2**20)).status_code == 413
        assert (await edge.sign_in(client, signed(client), client_id=two["client_id"])).json()["error"] == "invalid_client"
        assert await counted(edge, "access_tokens") == await counted(edge, "client_assertions") == 0
        for good in (signed(client), signed(client, kid=None), signed(client, aud=[client["token_endpoint"], "x"])):
            assert (await edge.sign_in(client, good)).status_code == 200
        assert (await edge.sign_in(two, signed(two, EC, "ES256", "ec"), client_id=two["client_id"])).status_code == 200

    run(app_url, check)


def test_an_assertion_is_used_once_also_by_two_processes_at_once(app_url: str) -> None:
    async def all_of_it() -> None:
        async with process(app_url) as one, process(app_url, first=False) as two:
            client = await one.client(auth="jwt", jwks=public(RSA))
            for _ in range(5):
                text = signed(client)
                answers = await asyncio.gather(*(edge.sign_in(client, text) for edge in (one, two, one, two)))
                assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
                assert "used before" in next(answer for answer in answers if answer.status_code == 401).text
            assert await counted(one, "access_tokens") == 5

    asyncio.run(all_of_it())


def test_assertions_are_bounded_and_pruned(app_url: str, superuser_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client(auth="jwt", jwks=public(RSA))
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute(
                "insert into ledger.client_assertions select %s, sha256(n::text::bytea), now() + interval '1 hour' from generate_series(1, 20000) n",
                (client["id"],),
            )
        full = await edge.sign_in(client, signed(client))
        assert (full.status_code, full.json()["error"], full.headers["retry-after"]) == (429, "temporarily_unavailable", "60")
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("update ledger.client_assertions set expires_at = now() - interval '1 minute'")
        async with edge.ledger.connection() as conn:
            await prune_access(conn)
            await prune_access(conn)
        assert await counted(edge, "client_assertions") == 0
        assert (await edge.sign_in(client, signed(client))).status_code == 200

    run(app_url, check)


def test_access_tokens_are_pruned_a_day_after_their_end(app_url: str, superuser_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        texts = [await edge.token(client) for _ in range(3)]
        for age, left in (("1 hour", 3), ("25 hours", 2)):
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute(
                    "update ledger.access_tokens set expires_at = now() - %s::interval where id = (select id from ledger.access_tokens order by id limit 1)",
                    (age,),
                )
            async with edge.ledger.connection() as conn:
                await prune_access(conn)
            assert await counted(edge, "access_tokens") == left
        assert sorted([await edge.read(text) for text in texts]) == [200, 200, 401]

    run(app_url, check)


def test_of_a_client_with_too_many_access_tokens_the_oldest_are_deleted(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(edge: Process) -> None:
        busy, calm = await edge.client(), await edge.client()
        texts = [await edge.token(busy) for _ in range(5)]
        other = await edge.token(calm)
        monkeypatch.setattr(clients, "ACCESS_TOKENS_MAX", 2)
        async with edge.ledger.connection() as conn:
            await prune_access(conn)
        assert [await edge.read(text) for text in texts] == [401, 401, 401, 200, 200]
        assert await edge.read(other) == 200

    run(app_url, check)


def test_an_access_token_ends_with_its_client_in_every_process_also_for_writes(app_url: str) -> None:
    async def all_of_it() -> None:
        async with process(app_url) as one, process(app_url, first=False) as two:
            client = await one.client()
            token = await one.token(client)
            for edge in (one, two):  # now both know it
                assert (await edge.write(token)).status_code == 201
                assert await edge.read(token) == 200
            gone = await one.ask("DELETE", f"/v1/clients/{client['id']}", {"reason": "a test"})
            assert gone.status_code == 204
            for edge in (two, one):
                assert (await edge.write(token)).status_code == 401
                assert await edge.read(token) == 401
                assert (await edge.grant(client)).json() == UNKNOWN
            assert (await one.ask("DELETE", f"/v1/clients/{client['id']}")).status_code == 204
            events = (await one.ask("GET", "/v1/events", directory="_system", types="client.*")).json()["data"]
            assert [event["type"] for event in events] == ["client.created", "client.revoked"]
            assert (await one.ask("POST", f"/v1/clients/{client['id']}/rotate")).json()["code"] == "client_revoked"
            assert (await one.ask("GET", f"/v1/clients/{client['id']}")).json()["state"] == "revoked"

    asyncio.run(all_of_it())


def test_a_secret_is_rotated_with_overlap(app_url: str) -> None:
    async def check(edge: Process) -> None:
        first = await edge.client()
        second = (await edge.ask("POST", f"/v1/clients/{first['id']}/rotate", {"overlap_seconds": 600})).json()
        assert second["state"] == "overlapping"
        assert second["client_secret"] != first["client_secret"]
        assert [(await edge.grant(each)).status_code for each in (first, second)] == [200, 200]
        third = (await edge.ask("POST", f"/v1/clients/{first['id']}/rotate", {"overlap_seconds": 0})).json()
        assert third["state"] == "active"
        assert [(await edge.grant(each)).status_code for each in (first, second, third)] == [401, 401, 200]
        bad = await edge.ask("POST", f"/v1/clients/{first['id']}/rotate", {"overlap_seconds": -1})
        assert bad.status_code == 400
        signing = await edge.client(auth="jwt", jwks=public(RSA))
        assert (await edge.ask("POST", f"/v1/clients/{signing['id']}/rotate")).json()["code"] == "client_without_secret"
        both = await asyncio.gather(*(edge.ask("POST", f"/v1/clients/{first['id']}/rotate") for _ in range(2)))
        assert [answer.status_code for answer in both] == [201, 201]
        assert sorted([(await edge.grant(answer.json())).status_code for answer in both]) == [200, 200]

    run(app_url, check)


def test_access_tokens_are_of_one_directory_and_of_scim_alone(app_url: str) -> None:
    async def check(edge: Process) -> None:
        token = await edge.token(await edge.client())
        assert await edge.read(token, "other") == 403
        for path in ("/v1/clients", "/v1/tokens", "/v1/events"):
            assert (await edge.http.get(path, headers={"Authorization": f"Bearer {token}"})).status_code == 403
        admin = (await tokens.issue(edge.ledger, machine(), "admin", "of other", ("other",), None, days=1)).text
        hidden = await edge.http.post(
            "/v1/clients", json={"directory": "acme", "name": "n"}, headers={"Authorization": f"Bearer {admin}"}
        )
        assert hidden.status_code == 403

    run(app_url, check)


def test_a_closed_directory_ends_its_clients(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client("other")
        token = await edge.token(client)
        await edge.ask("POST", "/v1/directories/other/close", {"reason": "a test", "confirm": "other"})
        assert await edge.read(token, "other") == 401
        assert (await edge.write(token, "other")).status_code in {401, 403}
        assert (await edge.grant(client)).json() == UNKNOWN
        assert (await edge.ask("POST", "/v1/clients", {"directory": "other", "name": "n"})).status_code in {400, 409}
        await edge.ask("GET", "/v1/events", directory="_system", types="client.revoked", wait="20")
        assert (await edge.ask("GET", f"/v1/clients/{client['id']}")).json()["state"] == "revoked"

    run(app_url, check)


def test_an_access_token_expires_for_reads_and_for_writes(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        monkeypatch.setattr(clients, "ACCESS_S", 0)
        token = await edge.token(client)
        assert await edge.read(token) == 401
        assert (await edge.write(token)).status_code == 401

    run(app_url, check)


def test_a_write_that_waits_in_the_queue_is_refused_when_its_client_has_ended(app_url: str) -> None:
    """The transaction looks at the access token again: the process still knows it, and another one has revoked the client."""

    async def all_of_it() -> None:
        async with process(app_url) as one, process(app_url, first=False) as two:
            client = await one.client()
            token = await one.token(client)
            assert (await one.write(token)).status_code == 201
            assert (await two.ask("DELETE", f"/v1/clients/{client['id']}")).status_code == 204
            asked = one.services.authentication
            known = await asked.authenticate(f"Bearer {token}", fresh=False)
            assert known.actor == client["client_id"], "this process has not noticed yet"
            assert (await one.write(token)).status_code == 401
            (event,) = (await one.ask("GET", "/v1/events", directory="acme", types="user.created")).json()["data"]
            assert event["actor"] == client["client_id"]

    asyncio.run(all_of_it())


def test_a_bearer_token_and_an_access_token_write_side_by_side(app_url: str) -> None:
    """As while an IdP changes over: also in one batch, where one of them has ended and the other has not."""

    async def check(edge: Process) -> None:
        client = await edge.client()
        access = await edge.token(client)
        bearer = await tokens.issue(edge.ledger, machine(), "scim", "idp", ("acme",), None, days=1)
        both = [access, bearer.text] * 10
        answers = await asyncio.gather(*map(edge.write, both))
        assert [answer.status_code for answer in answers] == [201] * 20
        events = (await edge.ask("GET", "/v1/events", directory="acme", types="user.created")).json()["data"]
        number = bearer.shown["id"].replace("-", "")
        assert Counter(event["actor"] for event in events) == {client["client_id"]: 10, f"tok_{number}": 10}
        await tokens.revoke(edge.ledger, machine(), bearer.shown["id"], None)
        answers = await asyncio.gather(*map(edge.write, both))
        assert [answer.status_code for answer in answers] == [201, 401] * 10

    run(app_url, check)


def test_an_address_that_fails_too_often_is_slowed_and_a_valid_client_there_is_served(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        form = {"grant_type": "client_credentials", "client_id": client["client_id"]}
        statuses = [
            (await edge.http.post(client["token_endpoint"], data=form | {"client_secret": "wrong"})).status_code
            for _ in range(BURST + 5)
        ]
        assert statuses[:BURST] == [401] * BURST
        assert set(statuses[BURST:]) <= {401, 429}
        assert 429 in statuses
        slowed = await edge.http.post(client["token_endpoint"], data=form | {"client_secret": "wrong"})
        if slowed.status_code == 429:
            assert slowed.json()["error"] == "temporarily_unavailable"
            assert int(slowed.headers["retry-after"]) >= 1
        good = await edge.http.post(client["token_endpoint"], data=form | {"client_secret": client["client_secret"]})
        assert good.status_code == 200

    run(app_url, check)


def test_events_and_the_journal_name_the_client(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        token = await edge.token(client)
        assert (await edge.write(token)).status_code == 201
        (event,) = (await edge.ask("GET", "/v1/events", directory="acme", types="user.created")).json()["data"]
        assert event["actor"] == client["client_id"]
        await edge.ask("DELETE", f"/v1/clients/{client['id']}")
        assert await edge.read(token) == 401
        await edge.services.journal.flush()
        seen = (await edge.ask("GET", "/v1/requests", directory="acme")).json()["data"]
        assert [(entry["status"], entry["token"]) for entry in seen] == [(401, client["client_id"]), (201, client["client_id"])]
        health = (await edge.ask("GET", "/v1/directories/acme/health")).json()
        assert [(found["id"], found["name"]) for found in health["clients"]] == [(client["id"], "okta")]

    run(app_url, check)


def test_the_use_of_a_client_is_noted(app_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        await edge.token(client)
        await _touch_used(edge.services)
        (listed,) = (await edge.ask("GET", "/v1/clients")).json()["data"]
        for found in (listed, (await edge.ask("GET", f"/v1/clients/{client['id']}")).json()):
            assert found["last_used_at"] is not None
            assert found["last_used_from"]["route"] == "POST /oauth/{directory}/token"
            assert found["last_used_from"]["network"].endswith("/24")

    run(app_url, check)


TAMPERED = {
    "another secret": "update ledger.clients set secret_hash = sha256('mine')",
    "brought back": "update ledger.clients set revoked_at = null",
    "another directory": "update ledger.clients set directory = (select id from ledger.directories where slug = 'other')",
    "as it was before the rotation": "update ledger.clients set rotations = rotations - 1",
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_client_that_was_changed_by_hand_is_refused_and_found(
    app_url: str, superuser_url: str, owner_url: str, how: str
) -> None:
    async def check(edge: Process) -> None:
        made = await edge.client()
        client = (await edge.ask("POST", f"/v1/clients/{made['id']}/rotate")).json()
        token = await edge.token(client)
        assert await findings(edge, owner_url) == []
        if how == "brought back":
            await edge.ask("DELETE", f"/v1/clients/{client['id']}")
            assert await findings(edge, owner_url) == []
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            with pytest.raises(psycopg.errors.RestrictViolation):
                conn.execute(TAMPERED[how].encode())
            conn.execute("alter table ledger.clients disable trigger user")
            conn.execute(TAMPERED[how].encode())
            conn.execute("alter table ledger.clients enable always trigger kept")
        assert await edge.read(token) in {401, 403}
        assert (await edge.write(token)).status_code in {401, 403}
        assert (await edge.grant(client)).status_code == 401
        assert await findings(edge, owner_url) == [f"client {client['id']}"]

    run(app_url, check)


def test_a_client_whose_row_is_gone_is_found(app_url: str, superuser_url: str, owner_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            with pytest.raises(psycopg.Error):
                conn.execute("delete from ledger.clients")
            conn.execute("alter table ledger.clients disable trigger user")
            conn.execute("delete from ledger.clients")
        assert await findings(edge, owner_url) == [f"client {client['id']}"]

    run(app_url, check)


async def findings(edge: Process, owner_url: str) -> list[str]:
    conn = await connect_owner(owner_url)
    try:
        async with edge.ledger.connection() as reader:
            known = await edge.ledger.directories.all(reader)
        return [found.place for found in await verify_tokens(conn, KEK, known)]
    finally:
        await conn.close()


def test_an_access_token_that_the_service_did_not_issue_is_refused(app_url: str, superuser_url: str) -> None:
    async def check(edge: Process) -> None:
        client = await edge.client()
        mine = new_text(lambda size: b"\1" * size, "access", UUID(client["id"]))
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute(
                "insert into ledger.access_tokens values (%s, %s, %s, now() + interval '1 hour', %s)",
                (uuid4(), token_hash(mine), client["id"], b"\0" * 32),
            )
        assert await edge.read(mine) == 401
        assert (await edge.write(mine)).status_code == 401

    run(app_url, check)


def test_keys_at_a_url_are_fetched_once_for_a_minute(app_url: str) -> None:
    async def check(edge: Process) -> None:
        sets = [public(RSA)]
        async with documents(lambda: http(200, json.dumps(sets[0]).encode())) as (url, asked):
            client = await edge.client(auth="jwt", jwks_uri=url)
            for _ in range(3):
                assert (await edge.sign_in(client, signed(client))).status_code == 200
            sets[0] = public(RSA, EC)
            assert (await edge.sign_in(client, signed(client, EC, "ES256", "ec"))).json() == UNKNOWN  # it was fetched just now
            assert len(asked) == 1

    run(app_url, check)
