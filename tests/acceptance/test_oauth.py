"""OAuth 2.0 client credentials (RFC 6749 §4.4, RFC 7523, RFC 8414), with the clients of others as they come."""

import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc import jwt
from joserfc.jwk import Key, RSAKey
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CREDENTIALS = {"grant_type": "client_credentials"}


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


def _signing(service: Service, key: Key, **asked: Any) -> dict[str, Any]:
    return _client(service, auth="jwt", jwks={"keys": [key.as_dict(private=False)]}, **asked)


def _claims(client: dict[str, Any], **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": client["client_id"], "sub": client["client_id"], "aud": client["token_endpoint"], "iat": now, "exp": now + 300,
        "jti": uuid.uuid4().hex,
    }  # fmt: skip
    return {name: value for name, value in (claims | changed).items() if value is not None}


def _assertion(client: dict[str, Any], key: Key, algorithm: str = "RS256", kid: str | None = None, **changed: Any) -> str:
    header = {"alg": algorithm} | ({} if kid is None else {"kid": kid})
    return jwt.encode(header, _claims(client, **changed), key, algorithms=[algorithm])


def _ask(client: dict[str, Any], data: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return httpx.post(client["token_endpoint"], data=CREDENTIALS | (data or {}), **more)


def _ask_with(client: dict[str, Any], assertion: str, **data: str) -> httpx.Response:
    return _ask(client, {"client_assertion_type": JWT_BEARER, "client_assertion": assertion, **data})


def _create(service: Service, token: str, method: str = "POST") -> httpx.Response:
    body = {"schemas": [USER], "userName": f"oauth-{uuid.uuid4().hex}"}
    return httpx.request(method, service.scim + "/Users", json=body if method == "POST" else None, headers=_bearer(token))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _revoke(service: Service, client: dict[str, Any]) -> None:
    with service.client("admin") as admin:
        gone = admin.request("DELETE", f"{service.base}/v1/clients/{client['id']}", json={"reason": "planned work"})
    assert gone.status_code == 204, gone.text


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
