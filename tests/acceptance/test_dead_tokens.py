"""A revoked or expired token is answered 401 on every SCIM request, whatever else is wrong with the request."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from runtime import embedded
from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"]}
NOBODY = "11111111-2222-4333-8444-555555555555"
TITLE = {"op": "replace", "path": "title", "value": "x"}
CREATE = {"method": "POST", "path": "/Users", "bulkId": "a", "data": {"schemas": [USER], "userName": "by-bulk"}}

REQUESTS: dict[str, tuple[str, str, Any]] = {
    "list": ("GET", "/Users", None),
    "one": ("GET", f"/Users/{NOBODY}", None),
    "discovery": ("GET", "/Schemas", None),
    "search": ("POST", "/.search", SEARCH),
    "search users": ("POST", "/Users/.search", SEARCH),
    "search groups": ("POST", "/Groups/.search", SEARCH),
    "unreadable search": ("POST", "/.search", b"{"),
    "create": ("POST", "/Users", {"schemas": [USER], "userName": "dead"}),
    "unreadable create": ("POST", "/Users", b"{nothing"),
    "create without a name": ("POST", "/Users", {"schemas": [USER]}),
    "replace": ("PUT", f"/Users/{NOBODY}", {"schemas": [USER], "userName": "dead"}),
    "patch": ("PATCH", f"/Users/{NOBODY}", {"schemas": [PATCH], "Operations": [TITLE]}),
    "unreadable patch": ("PATCH", f"/Users/{NOBODY}", b'{"schemas":'),
    "patch of nothing": ("PATCH", f"/Users/{NOBODY}", {"schemas": [PATCH], "Operations": []}),
    "patch of what is no id": ("PATCH", "/Users/nobody", {"schemas": [PATCH], "Operations": [TITLE]}),
    "delete": ("DELETE", f"/Groups/{NOBODY}", None),
    "bulk": ("POST", "/Bulk", {"schemas": [BULK], "Operations": [CREATE]}),
    "unreadable bulk": ("POST", "/Bulk", b"["),
    "me": ("POST", "/Me", b""),
    "unknown endpoint": ("POST", "/Nothing", b""),
    "method that is none here": ("DELETE", "/Users", None),
    "another directory": ("POST", "/../../other/v2/Users", {"schemas": [USER], "userName": "dead"}),
}  # fmt: skip


_addresses = count(1)


def _send(service: Service, token: str, method: str, path: str, content: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"}
    body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    # Each request comes from another address, because an address with many failures is slowed.
    with httpx.Client(transport=httpx.HTTPTransport(local_address=f"127.0.1.{next(_addresses)}"), timeout=30) as client:
        url = f"{service.base}/scim/other/v2/Users" if path.startswith("/..") else service.scim + path
        return client.request(method, url, content=body, headers=headers)


def _issued(service: Service) -> tuple[str, str]:
    asked = {"role": "scim", "name": "to die", "directories": ["acme"]}
    with service.client("admin") as admin:
        made = admin.post(f"{service.base}/v1/tokens", json=asked, headers={"Content-Type": "application/json"})
    assert made.status_code == 201, made.text
    return made.json()["token"], made.json()["id"]


def _revoke(service: Service, token: str) -> None:
    with service.client("admin") as admin:
        assert admin.delete(f"{service.base}/v1/tokens/{token}").status_code < 300


@pytest.fixture(scope="module", params=["revoked", "expired"])
def dead(request: pytest.FixtureRequest, service: Service) -> Iterator[str]:
    """A token that ended after the service had cached it, for reads and for writes."""
    text, token = _issued(service)
    assert _send(service, text, "GET", "/Users", None).status_code == 200
    created = {"schemas": [USER], "userName": f"alive-{token}"}
    assert _send(service, text, "POST", "/Users", created).status_code == 201
    if request.param == "revoked":
        _revoke(service, token)
    else:
        running = embedded.running(service.data_dir / "postgres")
        assert running is not None
        with psycopg.connect(running.url("postgres", "ledger"), autocommit=True) as conn:
            conn.execute("update ledger.tokens set expires_at = now() where id = %s", (token,))
    yield text


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_with_a_token_that_has_ended_is_401(service: Service, dead: str, name: str) -> None:
    answer = _send(service, dead, *REQUESTS[name])
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["status"] == "401"


def test_each_kind_of_write_is_refused_also_as_the_first_request_after_the_end(service: Service) -> None:
    """In the test above, the first refusal removes the token from the cache; here each kind of write meets a token that is still
    cached.
    """
    for name, (method, path, content) in REQUESTS.items():
        text, token = _issued(service)
        assert _send(service, text, "GET", "/ServiceProviderConfig", None).status_code == 200
        _revoke(service, token)
        assert _send(service, text, method, path, content).status_code == 401, name


def test_with_an_active_token_the_request_is_refused_for_its_own_fault(service: Service) -> None:
    """Otherwise the 401 above could have another cause."""
    text, _ = _issued(service)
    expected = {"unreadable patch": 400, "unreadable bulk": 400, "me": 501, "unknown endpoint": 404, "another directory": 403}
    for name, status in expected.items():
        assert _send(service, text, *REQUESTS[name]).status_code == status, name
