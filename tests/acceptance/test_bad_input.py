"""Whatever is sent, the answer is a clear error, never a 5xx, and nothing is half-written."""

import json
from typing import Any

import pytest

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
VALID = {"schemas": [USER], "userName": "x"}


def _deep(levels: int) -> bytes:
    return b'{"schemas":["' + USER.encode() + b'"],"userName":"deep","x":' + b"[" * levels + b"]" * levels + b"}"


BODIES: dict[str, tuple[bytes, int, str]] = {
    "malformed JSON": (b'{"userName": ', 400, "line"),
    "an empty body": (b"", 400, "empty"),
    "not an object": (b"[]", 400, "object"),
    "a number": (b"17", 400, "object"),
    "non-UTF-8": (b'{"userName": "\xff\xfe"}', 400, "UTF-8"),
    "a NUL": (b'{"schemas":["%s"],"userName":"a\\u0000b"}' % USER.encode(), 400, "NUL"),
    "a lone surrogate": (b'{"schemas":["%s"],"userName":"\\ud800"}' % USER.encode(), 400, "column"),
    "a duplicate key": (b'{"schemas":["%s"],"userName":"a","userName":"b"}' % USER.encode(), 400, "twice"),
    "a duplicate key in another case": (b'{"schemas":["%s"],"userName":"a","USERNAME":"b"}' % USER.encode(), 400, "twice"),
    "deep nesting": (_deep(40), 400, "32"),
    "very deep nesting": (_deep(200_000), 400, "32"),
    "a body over the limit": (b'{"userName": "' + b"a" * (1 << 20) + b'"}', 413, "1048576"),
    "a wrong type": (json.dumps({**VALID, "userName": 5}).encode(), 400, "userName"),
    "a wrong list": (json.dumps({**VALID, "emails": "x@y"}).encode(), 400, "emails"),
    "a wrong boolean": (json.dumps({**VALID, "active": "maybe"}).encode(), 400, "active"),
    "no schemas": (json.dumps({"userName": 7}).encode(), 400, ""),
    "no userName": (json.dumps({"schemas": [USER]}).encode(), 400, "userName"),
    "an empty userName": (json.dumps({"schemas": [USER], "userName": ""}).encode(), 400, "userName"),
    "infinity": (b'{"schemas":["%s"],"userName":"a","x":1e999}' % USER.encode(), 400, ""),
}


@pytest.mark.parametrize("what", BODIES)
def test_an_invalid_body_is_refused_with_its_place_and_changes_nothing(service: Service, what: str) -> None:
    body, status, told = BODIES[what]
    with service.client("scim") as client:
        before = _head(service)
        answer = client.post(service.scim + "/Users", content=body)
        assert answer.status_code == status, answer.text
        error = answer.json()
        assert error["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert error["status"] == str(status)
        assert told.casefold() in error["detail"].casefold()
        assert _head(service) == before


def _head(service: Service) -> int:
    with service.client("consumer") as reader:
        return reader.get(service.base + "/v1/events", params={"limit": 1}).json()["head_position"]


def _patch(*operations: Any) -> dict[str, Any]:
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}


PATCHES: dict[str, tuple[Any, int]] = {
    "operations that are no list": ({**_patch(), "Operations": {"op": "add"}}, 400),
    "an operation that is no object": (_patch("add"), 400),
    "an op that is a number": (_patch({"op": 5}), 400),
    "a path that is a list": (_patch({"op": "add", "path": ["x"], "value": 1}), 400),
    "a path with brackets only": (_patch({"op": "replace", "path": "[", "value": 1}), 400),
    "a filter in a path that never ends": (_patch({"op": "replace", "path": 'emails[type eq "work"', "value": 1}), 400),
    "an unknown attribute": (_patch({"op": "replace", "path": "colour", "value": "x"}), 400),
    "a read-only attribute": (_patch({"op": "replace", "path": "meta.created", "value": "x"}), 400),
    "active removed": (_patch({"op": "remove", "path": "active"}), 400),
    "userName removed": (_patch({"op": "remove", "path": "userName"}), 400),
    "userName as a list": (_patch({"op": "replace", "path": "userName", "value": ["a", "b"]}), 400),
    "a value that is missing": (_patch({"op": "replace", "path": "userName"}), 400),
}


@pytest.mark.parametrize("what", PATCHES)
def test_an_invalid_patch_is_refused_and_changes_nothing(service: Service, what: str) -> None:
    body, status = PATCHES[what]
    with service.client("scim") as client:
        user = client.post(service.scim + "/Users", json={**VALID, "userName": f"patched {what}"}).json()
        good = {"op": "replace", "path": "title", "value": "half written"}
        if isinstance(body["Operations"], list) and body["Operations"]:
            body = {**body, "Operations": [good, *body["Operations"]]}
        answer = client.patch(user["meta"]["location"], json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]
        assert client.get(user["meta"]["location"]).json() == user


def test_if_none_match_compares_whole_tags(service: Service) -> None:
    with service.client("scim") as client:
        made = client.post(service.scim + "/Users", json={**VALID, "userName": "tagged"})
        url, tag = made.headers["Location"], made.headers["ETag"]
        for value, status in ((tag, 304), (f'"9", {tag}', 304), ("*", 304), (f"{tag}x", 200), ('W/"9"', 200)):
            assert client.get(url, headers={"If-None-Match": value}).status_code == status


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("unwanted", ["*", "its own"])
def test_a_write_with_if_none_match_of_the_current_version_is_412(service: Service, method: str, unwanted: str) -> None:
    """RFC 9110 §13.1.2: the condition is false if the resource exists (`*`), or has one of the listed versions."""
    name = f"unwanted {method} {unwanted}"
    replace = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "title", "value": "x"}],
    }
    body = {"PUT": {**VALID, "userName": name, "title": "x"}, "PATCH": replace}.get(method)
    with service.client("scim") as client:
        made = client.post(service.scim + "/Users", json={**VALID, "userName": name})
        url = made.headers["Location"]
        header = "*" if unwanted == "*" else made.headers["ETag"]
        refused = client.request(method, url, json=body, headers={"If-None-Match": header})
        assert (refused.status_code, refused.json()["status"]) == (412, "412")
        assert client.get(url).json() == made.json()
        assert client.request(method, url, json=body, headers={"If-None-Match": 'W/"9"'}).status_code in (200, 204)


def test_the_error_names_an_unknown_member(service: Service) -> None:
    ghost = "0f0f0f0f-1111-4222-8333-444444444444"
    with service.client("scim") as client:
        answer = client.post(
            service.scim + "/Groups", json={"schemas": [GROUP], "displayName": "g", "members": [{"value": ghost}]}
        )
    assert answer.status_code == 400
    assert answer.json()["scimType"] == "invalidValue"
    assert ghost in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/Users?filter=" + "x" * 9000, "/Users?filter=%FF", "/Users?startIndex=one", "/Users?count=1e5", "/Users/%00", "/Users/a%2Fb",
        "/Users?attributes=userName&excludedAttributes=title", "/Users?filter=userName%20eq", "/Groups/..%2f..%2fetc", "/Users?filter=",
        "/Users?filter=" + "(" * 500 + 'a eq "b"' + ")" * 500, "//Users", "/Users/" + "9" * 5000,
    ],
)  # fmt: skip
def test_unusual_urls_are_client_errors(service: Service, path: str) -> None:
    with service.client("scim") as client:
        answer = client.get(service.scim + path)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["detail"]


def test_wrong_tokens_and_directories_are_refused_without_revealing_which_exist(service: Service) -> None:
    with service.client("scim") as client:
        unknown = client.get(f"{service.base}/scim/nowhere/v2/Users")
        system = client.get(f"{service.base}/scim/_system/v2/Users")
        assert (unknown.status_code, system.status_code) == (403, 403)
        assert unknown.json() == system.json()
        good = client.headers["Authorization"]
        for header in ("", "Bearer", "Bearer x", "Basic abc", good[:-1], good[:-1] + "0" * 2, "Bearer sl_scim_x_y"):
            answer = client.get(service.scim + "/Users", headers={"Authorization": header})
            assert answer.status_code == 401, header
            assert "Bearer" in answer.headers["WWW-Authenticate"]
    with service.client("consumer") as consumer:
        assert consumer.get(service.scim + "/Users").status_code == 403
    with service.client("scim") as client:
        assert client.get(service.base + "/v1/events").status_code == 403


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"after": "c_garbage"}, 400, "invalid_cursor"),
        ({"after": "x" * 500}, 400, "invalid_cursor"),
        ({"after": "evt_acme_1_zzzzzzzz"}, 400, "invalid_cursor"),
        ({"after": "evt_acme_99999999_00000000"}, 409, "cursor_ahead"),
        ({"after": "evt_acme_1_00000000"}, 409, "cursor_forked"),
        ({"limit": "0"}, 400, "invalid_parameters"),
        ({"limit": "1001"}, 400, "invalid_parameters"),
        ({"wait": "31"}, 400, "invalid_parameters"),
        ({"types": "user.*,nonsense.*"}, 400, "invalid_types"),
        ({"subject": "no"}, 400, "invalid_subject"),
        ({"range_start": "yesterday"}, 400, "invalid_parameters"),
        ({"range_start": "2026-01-01T00:00:00"}, 400, "invalid_parameters"),
        ({"directory": "nowhere"}, 403, "forbidden"),
    ],
)
def test_invalid_feed_requests_are_problems_with_a_code(service: Service, query: dict[str, str], status: int, code: str) -> None:
    with service.client("consumer") as reader:
        answer = reader.get(service.base + "/v1/events", params=query)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ED%A0%80", "A", "x" * 64, "_other"])
def test_a_name_that_cannot_be_a_directory_is_answered_like_an_unknown_one(service: Service, name: str) -> None:
    with service.client("admin") as admin:
        for path in (f"/v1/directories/{name}/profile", f"/v1/audit/{name}/population?as_of=seq:head"):
            assert admin.get(service.base + path).status_code == 403
        assert admin.get(service.base + "/v1/events", params={"directory": "a\0b"}).status_code == 403


@pytest.mark.parametrize(
    "as_of",
    [
        "2026-11-24",
        "tomorrow",
        "2999-01-01T00:00:00Z",
        "1999-01-01T00:00:00Z",
        "seq:0",
        "seq:999999999",
        "seq:x",
        "",
        "2026-11-24T00:00:00",
    ],
)
def test_an_invalid_as_of_is_refused_and_never_means_now(service: Service, as_of: str) -> None:
    with service.client("auditor") as auditor:
        answer = auditor.get(service.base + "/v1/audit/acme/population", params={"as_of": as_of})
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_as_of"
