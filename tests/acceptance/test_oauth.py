"""OAuth 2.0 client credentials (RFC 6749 §4.4, RFC 7523, RFC 8414), with the clients of others as they come."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc import jwt
from joserfc.jwk import RSAKey
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


@pytest.fixture(scope="module", autouse=True)
def without_tls() -> Iterator[None]:
    """The libraries of others insist on https; the service of a test has no certificate."""
    names = ("OAUTHLIB_INSECURE_TRANSPORT", "AUTHLIB_INSECURE_TRANSPORT")
    os.environ.update(dict.fromkeys(names, "1"))
    yield
    for name in names:
        del os.environ[name]


@pytest.fixture(scope="module")
def rsa() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "r"}, auto_kid=False)


def _client(service: Service, **asked: Any) -> dict[str, Any]:
    with service.client("admin") as admin:
        made = admin.post(service.base + "/v1/clients", json={"directory": "acme", "name": "okta", **asked})
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    return made.json()


def _signing(service: Service, key: RSAKey) -> dict[str, Any]:
    return _client(service, auth="jwt", jwks={"keys": [key.as_dict(private=False)]})


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token_with_a_secret(service: Service, method: str) -> None:
    made = _client(service)
    with AuthlibSession(made["client_id"], made["client_secret"], token_endpoint_auth_method=method, scope="scim") as session:
        token = session.fetch_token(made["token_endpoint"], grant_type="client_credentials")
        assert {**token, "access_token": "", "expires_at": 0} == {
            "access_token": "", "token_type": "Bearer", "expires_in": 3600, "scope": "scim", "expires_at": 0,
        }  # fmt: skip
        created = session.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"authlib-{method}"})
        assert created.status_code == 201, created.text
        assert session.get(created.json()["meta"]["location"]).status_code == 200
    assert made["client_secret"] not in service.log.read_text()
    assert token["access_token"] not in service.log.read_text()


def test_authlib_gets_a_token_with_an_assertion(service: Service, rsa: RSAKey) -> None:
    made = _signing(service, rsa)
    with AuthlibSession(made["client_id"], rsa.as_pem(private=True), token_endpoint_auth_method="private_key_jwt") as session:
        session.register_client_auth_method(PrivateKeyJWT(made["token_endpoint"]))
        session.fetch_token(made["token_endpoint"], grant_type="client_credentials")
        assert session.get(service.scim + "/Users", params={"count": 1}).status_code == 200


def test_requests_oauthlib_gets_a_token(service: Service) -> None:
    made = _client(service)
    with OAuth2Session(client=BackendApplicationClient(made["client_id"], scope=["scim"])) as session:
        session.fetch_token(made["token_endpoint"], client_id=made["client_id"], client_secret=made["client_secret"])
        assert session.get(service.scim + "/ServiceProviderConfig").status_code == 200
    with OAuth2Session(client=BackendApplicationClient(made["client_id"])) as session:
        session.fetch_token(made["token_endpoint"], client_secret=made["client_secret"], include_client_id=True)
        assert session.get(service.scim + "/ServiceProviderConfig").status_code == 200


def test_the_command_line_makes_shows_rotates_and_revokes_a_client(service: Service, tmp_path: Path, rsa: RSAKey) -> None:
    def told(*words: str, code: int = 0) -> str:
        ended = service.cli(*words)
        assert ended.returncode == code, ended.stderr
        return ended.stdout

    made = dict(line.split() for line in told("client", "create", "acme", "--name", "by hand").splitlines())
    assert set(made) == {"client_id", "client_secret", "token_endpoint", "issuer"}
    form = {"grant_type": "client_credentials", "client_id": made["client_id"]}
    assert httpx.post(made["token_endpoint"], data=form | {"client_secret": made["client_secret"]}).status_code == 200
    rotated = json.loads(told("client", "rotate", made["client_id"], "--overlap", "0", "--json"))
    assert httpx.post(made["token_endpoint"], data=form | {"client_secret": made["client_secret"]}).status_code == 401
    token = httpx.post(made["token_endpoint"], data=form | {"client_secret": rotated["client_secret"]}).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(service.scim + "/Users?count=1", headers=headers).status_code == 200
    assert "by hand" in told("client", "list", "--directory", "acme")
    assert made["client_id"] in told("client", "show", rotated["id"])
    told("client", "revoke", rotated["id"], code=2)
    told("client", "revoke", rotated["id"], "--reason", "planned work", "--yes")
    assert httpx.get(service.scim + "/Users?count=1", headers=headers).status_code == 401
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [rsa.as_dict(private=False)]}))
    signing = json.loads(told("client", "create", "acme", "--jwks", str(keys), "--json"))
    assert (signing["auth"], "client_secret" in signing) == ("jwt", False)
    assert '"kty"' in told("client", "show", signing["id"])
    keys.write_text(json.dumps({"keys": [rsa.as_dict(private=True)]}))
    told("client", "create", "acme", "--jwks", str(keys), code=2)


@pytest.mark.long
def test_an_idp_changes_from_a_bearer_token_to_oauth_and_rotates_without_one_refusal(
    make_service: Callable[..., Service], rsa: RSAKey
) -> None:
    """In a service of three processes; each request has a connection of its own, so that any of them may get it."""
    service = make_service(LEDGER_WORKERS="3")
    bearer = service.first_run["tokens"]["scim"]
    made, statuses = _client(service), list[int]()

    def write(token: str, times: int = 15) -> None:
        for _ in range(times):
            body = {"schemas": [USER], "userName": uuid4().hex}
            statuses.append(
                httpx.post(service.scim + "/Users", json=body, headers={"Authorization": f"Bearer {token}"}).status_code
            )

    def granted(secret: str) -> str:
        answer = httpx.post(made["token_endpoint"], data={"grant_type": "client_credentials"}, auth=(made["client_id"], secret))
        statuses.append(answer.status_code + 1)
        return answer.json()["access_token"]

    write(bearer)
    access = granted(made["client_secret"])
    for token in (access, bearer, access):
        write(token)
    with service.client("admin") as admin:
        rotated = admin.post(f"{service.base}/v1/clients/{made['id']}/rotate", json={"overlap_seconds": 600}).json()
        tokens = admin.get(service.base + "/v1/tokens", params={"role": "scim"}).json()["data"]
        for secret in (made["client_secret"], rotated["client_secret"]):
            write(granted(secret))
        admin.request("DELETE", f"{service.base}/v1/tokens/{tokens[0]['id']}")
        write(access)
        assert set(statuses) == {201}
        admin.request("DELETE", f"{service.base}/v1/clients/{made['id']}")
        write(access)
        assert set(statuses[-15:]) == {401}
    signing = _signing(service, rsa)
    now = int(time.time())
    claims = {"iss": signing["client_id"], "sub": signing["client_id"], "aud": signing["issuer"], "exp": now + 60, "jti": "once"}
    form = {
        "grant_type": "client_credentials", "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode({"alg": "RS256"}, claims, rsa, algorithms=["RS256"]),
    }  # fmt: skip
    assert [httpx.post(signing["token_endpoint"], data=form).status_code for _ in range(12)] == [200, *[401] * 11]
    large = httpx.post(signing["token_endpoint"], data=form | {"client_assertion": "a" * 2**20})
    assert (large.status_code, large.json()["error"]) == (413, "invalid_request")
