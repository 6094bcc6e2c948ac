"""No input leads to a 5xx or a stack trace: raw bytes, any JSON, damaged messages, unusual headers and URLs, on every route."""

import copy
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis.openapi
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance, status_code_conformance
from schemathesis.core.result import Ok

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
MESSAGE = "urn:ietf:params:scim:api:messages:2.0:"


@dataclass(frozen=True, eq=False, repr=False)
class Target:
    """The service under test, with a user and a group as targets."""

    service: Service
    clients: dict[str, httpx.Client]  # by role
    user: str
    group: str

    def scim(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = self.service.scim + path.replace("{user}", self.user).replace("{group}", self.group)
        return checked(self.clients["scim"].request(method, url, **more))


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer is no server error, and an error has the format that clients can read."""
    assert "Traceback" not in answer.text
    assert answer.status_code < 500 or (answer.status_code == 501 and answer.url.path.endswith("/Me")), answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        scim = answer.url.path.startswith("/scim/")
        media_type = "application/scim+json" if scim else "application/problem+json"
        assert answer.headers["Content-Type"].partition(";")[0] == media_type
        found = answer.json()
        assert str(found["status"]) == str(answer.status_code)
        assert found["detail"]
        assert not scim or found["schemas"] == [f"{MESSAGE}Error"]
    return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The service; at the end it is ready, and has logged no defect."""
    service = Service(tmp_path_factory.mktemp("fuzz") / "ledger").start()
    clients = {role: service.client(role) for role in service.first_run["tokens"]}
    clients["nobody"] = httpx.Client(timeout=60, trust_env=False)
    user = clients["scim"].post(service.scim + "/Users", json={"schemas": [USER], "userName": "target"}).json()["id"]
    group = clients["scim"].post(service.scim + "/Groups", json={"schemas": [GROUP], "displayName": "target"}).json()["id"]
    yield Target(service, clients, user, group)
    assert clients["scim"].get(service.base + "/readyz").status_code == 200
    verified = service.cli("replay", "verify")
    assert verified.returncode == 0, verified.stdout
    for client in clients.values():
        client.close()
    assert service.stop() == 0
    log = service.log.read_text()
    assert "request_failed" not in log
    assert "Traceback" not in log


# ---- generated input -----------------------------------------------------------------------------------------------------------

ROUTES = [
    *(("POST", path) for path in ("/Users", "/Groups", "/Bulk", "/.search", "/Users/.search", "/Groups/.search")),
    *((method, path) for method in ("PUT", "PATCH") for path in ("/Users/{user}", "/Groups/{group}")),
]
OTHER_PATHS = [
    "",
    "/",
    "/Me",
    "/Schemas",
    f"/Schemas/{USER}",
    "/ResourceTypes",
    "/ResourceTypes/User",
    "/ServiceProviderConfig",
    "/Nothing",
]
ALL_PATHS = [*dict.fromkeys(path for _, path in ROUTES), *OTHER_PATHS]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]

ODD = [
    "", " ", "\0", "\ud800", "\udfff\ud800", "é", "e\u0301", "ß", "\u202e", "a" * 5000, "null", "True", "-1", "1e999", "[", "]", '"', "\\", "%", "%s",
    "'; DROP TABLE events; --", "bulkId:x", "bulkId:", "urn:", "urn:x", "urn:x:y", ":", "..", "../..", "*", 'W/"1"', USER, GROUP, ENTERPRISE,
    f"{MESSAGE}PatchOp", "emails[", "emails[type eq", 'emails[type eq "work"].value', "members[value pr]", "a.b.c", "$ref", "value", "id", "meta",
    "0001-01-01T00:00:00-23:59", "9999-12-31T23:59:60+23:59", "00000000-0000-0000-0000-000000000000",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=12))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([2**53, 2**63, -(2**63) - 1, 10**400, 1e308, 5e-324, -0.0]),
    st.floats(), TEXTS,
)  # fmt: skip
NAMES = [
    "schemas", "id", "externalId", "userName", "displayName", "members", "emails", "value", "active", "name", "meta", "groups", "password",
    "Operations", "op", "path", "method", "bulkId", "data", "failOnErrors", "filter", "count", "startIndex", "sortBy", "cursor", ENTERPRISE,
]  # fmt: skip
KEYS = st.one_of(st.sampled_from(NAMES), TEXTS)
JSON = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)), max_leaves=12
)

_PERSON = {
    "schemas": [USER, ENTERPRISE], "userName": "fuzzed", "externalId": "x", "active": True, "name": {"familyName": "F", "givenName": "G"},
    "emails": [{"value": "a@b.example", "type": "work", "primary": True}, {"value": "c@d.example"}], "x509Certificates": [{"value": "AQID"}],
    ENTERPRISE: {"department": "D", "manager": {"value": "m"}}, "urn:x:y:1.0:Z": {"a": [1, {"b": None}]},
}  # fmt: skip
_TEAM = {
    "schemas": [GROUP],
    "displayName": "fuzzed",
    "members": [{"value": "{user}", "type": "User", "$ref": "x", "display": "y"}],
}
_CHANGES = {
    "schemas": [f"{MESSAGE}PatchOp"],
    "Operations": [
        {"op": "add", "path": 'emails[type eq "home"].value', "value": "h@h.example"},
        {"op": "replace", "value": {"title": "T", "name.givenName": "X", f"{ENTERPRISE}:department": "E"}},
        {"op": "remove", "path": "nickName"},
    ],
}
_MEMBERSHIP = {
    "schemas": [f"{MESSAGE}PatchOp"],
    "Operations": [
        {"op": "add", "path": "members", "value": [{"value": "{user}"}]},
        {"op": "remove", "path": 'members[value eq "{user}"]'},
        {"op": "replace", "path": "displayName", "value": "fuzzed"},
    ],
}
_BULK = {
    "schemas": [f"{MESSAGE}BulkRequest"], "failOnErrors": 3,
    "Operations": [
        {"method": "POST", "path": "/Users", "bulkId": "u", "data": _PERSON},
        {"method": "POST", "path": "/Groups", "bulkId": "g", "data": {**_TEAM, "members": [{"value": "bulkId:u"}]}},
        {"method": "PATCH", "path": "/Groups/bulkId:g", "data": _MEMBERSHIP, "version": 'W/"1"'},
        {"method": "PUT", "path": "/Users/{user}", "data": _PERSON},
        {"method": "DELETE", "path": "/Users/bulkId:u"},
    ],
}  # fmt: skip
_SEARCH = {
    "schemas": [f"{MESSAGE}SearchRequest"], "attributes": ["userName", "emails.value"], "sortBy": "name.familyName", "sortOrder": "descending",
    "filter": 'emails[type eq "work" and value co "@"] or not (meta.created gt "2020-01-01T00:00:00Z")', "startIndex": 1, "count": 10,
}  # fmt: skip
VALID: dict[str, dict[str, Any]] = {
    "POST /Users": _PERSON, "POST /Groups": _TEAM, "POST /Bulk": _BULK, "POST /.search": _SEARCH, "POST /Users/.search": _SEARCH,
    "POST /Groups/.search": _SEARCH, "PUT /Users/{user}": _PERSON, "PATCH /Users/{user}": _CHANGES, "PUT /Groups/{group}": _TEAM,
    "PATCH /Groups/{group}": _MEMBERSHIP,
}  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: its parent, and its key or index there."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _places(inner)


@st.composite
def _damaged(draw: st.DrawFn, message: dict[str, Any]) -> dict[str, Any]:
    """A valid message in which a few places are replaced, removed, renamed, wrapped, or filled from elsewhere in it."""
    damaged = copy.deepcopy(message)
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(damaged))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        other, other_key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "rename", "wrap", "fill", "repeat"])):
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(KEYS)] = holder.pop(key)
            case "wrap":
                holder[key] = [holder[key]]
            case "fill":
                holder[key] = copy.deepcopy(other[other_key])
            case "repeat" if isinstance(holder, list):
                holder.extend(copy.deepcopy(holder[key]) for _ in range(3))
            case _:
                holder[key] = draw(JSON)
    return damaged


MEDIA_TYPES = st.sampled_from(
    ["application/scim+json", "application/json; charset=utf-8", "text/plain", "", "application/json;;", "multipart/x"]
)
# The characters that a client library permits in a header: no line ends, Latin-1.
HEADER_TEXTS = st.one_of(
    st.sampled_from(
        [
            "*",
            'W/"1"',
            '"1"',
            'W/"' + "9" * 40 + '"',
            "Bearer",
            "Basic eDp5",
            "Bearer sl_scim_x_y",
            "-1",
            "gzip",
            "x" * 9000,
        ]
    ),
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20).map(str.strip),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "If-Match",
            "If-None-Match",
            "Content-Type",
            "Accept",
            "Content-Encoding",
            "Range",
            "Prefer",
            "X-Request-Id",
            "Expect-Not",
        ]
    ),
    HEADER_TEXTS,
    max_size=3,
)
QUERY_NAMES = ["filter", "attributes", "excludedAttributes", "sortBy", "sortOrder", "startIndex", "count", "cursor"]
FILTER_PIECES = ["userName", "emails", "meta.created", "id", "eq", "co", "gt", "pr", "and", "or", "not", "(", ")", "[", "]", '"a"', "1", "null", "urn:x:y:z", "."]  # fmt: skip
QUERY_VALUES = st.one_of(
    TEXTS, st.lists(st.sampled_from(FILTER_PIECES), max_size=8).map(" ".join), st.integers(-(10**20), 10**20).map(str)
)


def _query(names: list[str], values: st.SearchStrategy[str] = QUERY_VALUES) -> st.SearchStrategy[str]:
    """A query string: mostly valid parameters, sometimes random bytes."""

    def encoded(pairs: list[tuple[str, str]]) -> str:
        return "&".join(f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}" for name, value in pairs)

    named = st.lists(st.tuples(st.one_of(st.sampled_from(names), st.sampled_from(names), TEXTS), values), max_size=4).map(encoded)
    return st.one_of(named, named, st.binary(max_size=20).map(lambda raw: quote(raw, safe="&=+;%?")))


# ---- SCIM ------------------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(ROUTES), st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())), MEDIA_TYPES
)
def test_any_bytes_and_any_json_are_answered(target: Target, route: tuple[str, str], body: bytes, media_type: str) -> None:
    target.scim(*route, content=body, headers={"Content-Type": media_type})


@given(st.data(), st.sampled_from(list(VALID)))
@settings(max_examples=5 * settings().max_examples)
def test_damaged_messages_are_answered(target: Target, data: st.DataObject, route: str) -> None:
    method, path = route.split()
    text = json.dumps(data.draw(_damaged(VALID[route]))).replace("{user}", target.user).replace("{group}", target.group)
    answer = target.scim(method, path, content=text.encode())
    if path == "/Bulk" and answer.status_code == 200:
        assert [o for o in answer.json()["Operations"] if int(o["status"]) >= 500] == []


@given(st.data(), st.sampled_from(list(VALID)))
def test_messages_with_damaged_bytes_are_answered(target: Target, data: st.DataObject, route: str) -> None:
    method, path = route.split()
    body = json.dumps(VALID[route]).replace("{user}", target.user).encode()
    at, end = sorted(data.draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    kept = data.draw(st.sampled_from([body[:at] + body[end:], body[:at] + body[at:end] * 2 + body[end:], body[:at]]))
    target.scim(method, path, content=kept[: at // 2] + data.draw(st.binary(max_size=3)) + kept[at // 2 :])


@given(st.sampled_from(METHODS), st.sampled_from(ALL_PATHS), _query(QUERY_NAMES), HEADERS)
@settings(max_examples=2 * settings().max_examples)
def test_any_query_and_headers_on_every_route_and_method_are_answered(
    target: Target, method: str, path: str, query: str, headers: dict[str, str]
) -> None:
    if method == "DELETE" and "{" in path:
        path = "/Users/00000000-0000-4000-8000-000000000000"  # the target of the other tests must not be deleted
    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
    target.scim(method, f"{path}?{query}", content=body, headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()])


@given(st.lists(TEXTS.map(lambda text: quote(text, safe="%", errors="surrogatepass")), min_size=1, max_size=4))
def test_any_path_is_answered(target: Target, segments: list[str]) -> None:
    client, path = target.clients["scim"], "/".join(segments)
    for base in (target.service.scim, f"{target.service.base}/scim", f"{target.service.base}/v1", target.service.base):
        checked(client.get(httpx.URL(f"{base}/{path}")))


@given(st.one_of(HEADER_TEXTS, st.just(None)), st.sampled_from(METHODS), st.sampled_from(ALL_PATHS))
def test_any_credentials_are_answered(target: Target, credentials: str | None, method: str, path: str) -> None:
    headers = [] if credentials is None else [(b"Authorization", credentials.encode("latin-1"))]
    answer = checked(target.clients["nobody"].request(method, target.service.scim + path, headers=headers))
    assert answer.status_code in {401, 429}, "an address with many failures is slowed"


# ---- below HTTP ------------------------------------------------------------------------------------------------------------------


def _exchange(target: Target, sent: bytes) -> bytes:
    """Send bytes, end the sending side, and read until the connection ends."""
    with socket.create_connection(("127.0.0.1", target.service.port), timeout=30) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (BrokenPipeError, ConnectionResetError):  # the server refused before it had read all of it
            return b""


@given(
    st.sampled_from(ROUTES),
    st.sampled_from(["0", "1", "5", "100000", "-1", "+5", "0x5", "5, 5", "", "99999999999999999999", "1e2"]),
    st.sampled_from(["", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n", "Connection: close\r\n"]),
    st.one_of(st.just(json.dumps(_PERSON).encode()), st.just(b"2\r\n{}\r\n0\r\n\r\n"), st.binary(max_size=50)),
)
def test_a_wrong_content_length_is_answered_or_ends_the_connection(
    target: Target, route: tuple[str, str], length: str, more: str, body: bytes
) -> None:
    token = target.service.first_run["tokens"]["scim"]
    head = f"{route[0]} /scim/acme/v2{route[1].format(user=target.user, group=target.group)} HTTP/1.1\r\nHost: x\r\n{more}"
    head += f"Authorization: Bearer {token}\r\nContent-Type: application/scim+json\r\nContent-Length: {length}\r\n\r\n"
    _not_a_server_error(_exchange(target, head.encode() + body))


@given(
    st.one_of(
        st.binary(max_size=100), st.binary(max_size=30).map(lambda raw: b"GET /scim/acme/v2/Users?" + raw + b" HTTP/1.1\r\n\r\n")
    )
)
def test_almost_valid_http_is_answered_or_ends_the_connection(target: Target, sent: bytes) -> None:
    _not_a_server_error(_exchange(target, sent))


def _not_a_server_error(received: bytes) -> None:
    assert b"Traceback" not in received
    if received:
        assert received.split()[1][:1] in {b"1", b"2", b"4"}, received


# ---- /v1 -------------------------------------------------------------------------------------------------------------------------

# Never with `wait`: the answer would come with the next event, or half a minute later.
V1_NAMES = ["after", "limit", "directory", "types", "subject", "range_start", "range_end", "as_of", "from", "to", "nested", "effective", "group", "user", "since", "until", "status"]  # fmt: skip
V1_VALUES = st.one_of(
    QUERY_VALUES,
    st.sampled_from(["acme", "_system", "seq:1", "seq:head", "seq:0", "seq:-1", "seq:" + "9" * 30, "user.*", "*.*", "*", "c_", "c_AAAA", "evt_acme_1_00000000"]),
    st.sampled_from(["2026-10-01T00:00:00Z", "2026-10-01", "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "true", "{user}", "{group}"]),
)  # fmt: skip


@given(st.data(), st.sampled_from(METHODS), _query(V1_NAMES, V1_VALUES), JSON)
@settings(max_examples=3 * settings().max_examples)
def test_every_v1_route_answers_any_query(target: Target, data: st.DataObject, method: str, query: str, body: Any) -> None:
    client = target.clients[data.draw(st.sampled_from(sorted(target.clients)))]
    described = [
        path for path in client.get(target.service.base + "/openapi.json").json()["paths"] if not path.startswith("/scim/")
    ]
    path: str = data.draw(st.sampled_from(sorted(described)))
    for name, known in (
        ("directory", "acme"),
        ("user", target.user),
        ("group", target.group),
        ("event_id", "evt_acme_1_00000000"),
    ):
        path = path.replace(f"{{{name}}}", quote(data.draw(st.one_of(st.just(known), TEXTS)), safe="", errors="surrogatepass"))
    content = json.dumps(body).encode() if method in ("POST", "PUT", "PATCH") else b""
    with client.stream(method, f"{target.service.base}{path}?{query}", content=content) as answer:
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            assert answer.status_code == 200  # the body is not read, because an open stream has no end
        else:
            answer.read()
            checked(answer)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.long
def test_requests_generated_from_the_openapi_document_are_answered(target: Target) -> None:
    schema = schemathesis.openapi.from_url(target.service.base + "/openapi.json")
    for operation in (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)):
        if operation.path == "/v1/events/stream":
            continue  # an answer without an end, which the test above begins to read
        requests = operation.as_strategy()
        if list(operation.iter_parameters()):
            requests |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        roles = ["scim"] if operation.path.startswith("/scim/") else ["admin", "auditor", "consumer"]

        @given(requests, st.sampled_from(roles))
        @settings(max_examples=settings().max_examples // 8)  # for each operation, and there are dozens
        def answered(case: schemathesis.Case[Any], role: str) -> None:
            case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
            headers = {"Authorization": target.clients[role].headers["Authorization"]}
            case.call_and_validate(headers=headers, checks=CHECKS)

        answered()
