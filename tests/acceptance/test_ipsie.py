"""A test for each sentence that says MUST or SHALL of an application, in two drafts, by requests to a running service.

`draft-openid-ipsie-al-scim-profile` (draft 00, levels AL1 and AL2) and the SCIM interoperability profile that it requires
(`draft-zollner-scim-interop-profile`). Tests are named after their sentences. docs/idp/ipsie.md says what was chosen where the drafts
contradict each other.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.acceptance.conftest import Service, until
from tests.conftest import copied

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SLUG = "ipsie"
ENDPOINTS = [
    ("GET", "/Users"), ("POST", "/Users"), ("GET", f"/Users/{uuid4()}"), ("PUT", f"/Users/{uuid4()}"), ("PATCH", f"/Users/{uuid4()}"),
    ("DELETE", f"/Users/{uuid4()}"), ("GET", "/Groups"), ("POST", "/Groups"), ("PATCH", f"/Groups/{uuid4()}"), ("POST", "/Bulk"),
    ("POST", "/.search"), ("GET", "/ServiceProviderConfig"), ("GET", "/ResourceTypes"), ("GET", "/Schemas"),
]  # fmt: skip


@dataclass
class Application:
    """A directory of the profile, as its identity service sees it: it has the key, and an access token that it got for it."""

    service: Service
    key: RSAKey
    made: dict[str, Any]
    scim: str
    http: httpx.Client

    def assertion(self, **changed: Any) -> str:
        client, now = self.made["client_id"], int(time.time())
        claims = {"iss": client, "sub": client, "aud": self.made["issuer"], "exp": now + 60, "jti": uuid4().hex} | changed
        return jwt.encode({"alg": "RS256", "kid": "idp"}, claims, self.key, algorithms=["RS256"])

    def token(self, **asked: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION, "client_assertion": self.assertion()}
        return httpx.post(self.made["token_endpoint"], data=form | {"scope": "scim"} | asked)

    def ask(self, method: str, path: str, status: int, body: Any = None, **params: Any) -> dict[str, Any]:
        answer = self.http.request(method, self.scim + path, json=body, params=params or None)
        assert answer.status_code == status, answer.text
        if answer.content:
            assert answer.headers["content-type"].startswith("application/scim+json")
        return answer.json() if answer.content else {}

    def user(self, **attributes: Any) -> dict[str, Any]:
        body = {"schemas": [USER], "userName": f"{uuid4().hex}@example.com", **attributes}
        return self.ask("POST", "/Users", 201, body)

    def group(self, *members: str, **attributes: Any) -> str:
        listed = {"members": [{"value": member} for member in members]} if members else {}
        return self.ask("POST", "/Groups", 201, {"schemas": [GROUP], "displayName": uuid4().hex, **attributes, **listed})["id"]

    def patch(self, path: str, *operations: dict[str, Any], status: int = 200) -> dict[str, Any]:
        return self.ask("PATCH", path, status, {"schemas": [PATCH_OP], "Operations": list(operations)})

    def refused(self, method: str, path: str, scim_type: str, body: Any = None, status: int = 400, **params: Any) -> None:
        answer = self.ask(method, path, status, body, **params)
        assert (answer["schemas"], answer["status"], answer.get("scimType")) == ([ERROR], str(status), scim_type), answer

    def patch_refused(self, path: str, scim_type: str, *operations: dict[str, Any]) -> None:
        self.refused("PATCH", path, scim_type, {"schemas": [PATCH_OP], "Operations": list(operations)})

    def found(self, endpoint: str, wanted: str) -> list[str]:
        answer = self.ask("GET", endpoint, 200, filter=wanted)
        assert answer["totalResults"] == len(answer["Resources"])
        return [resource["id"] for resource in answer["Resources"]]

    def members(self, group: str) -> set[str]:
        return {member["value"] for member in self.ask("GET", f"/Groups/{group}", 200).get("members", [])}

    def operated(self, role: str, method: str, path: str, status: int = 200, **sent: Any) -> dict[str, Any]:
        with self.service.client(role) as client:
            answer = client.request(method, self.service.base + path, **sent)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else {}

    def schema(self, urn: str) -> dict[str, dict[str, Any]]:
        return {attribute["name"]: attribute for attribute in self.ask("GET", f"/Schemas/{urn}", 200)["attributes"]}


def _op(op: str, path: str, value: Any = None) -> dict[str, Any]:
    return {"op": op, "path": path} | ({} if value is None else {"value": value})


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "idp"}, auto_kid=False)


@pytest.fixture(scope="module")
def jwks_uri(key: RSAKey) -> Iterator[str]:
    """Where the identity service publishes its keys."""
    keys = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(keys)))
            self.end_headers()
            self.wfile.write(keys)

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/keys"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, first_started: Path, key: RSAKey, jwks_uri: str) -> Iterator[Application]:
    data_dir = copied(first_started, tmp_path_factory.mktemp("ipsie") / "ledger")
    service = Service(data_dir, LEDGER_WEBHOOK_ALLOW="127.0.0.0/8").start()
    service.note_address()
    with service.client("admin") as admin:
        assert admin.post(service.base + "/v1/directories", json={"slug": SLUG, "profile": "ipsie"}).status_code == 201
        asked = {"directory": SLUG, "name": "identity service", "auth": "jwt", "jwks_uri": jwks_uri}
        made = admin.post(service.base + "/v1/clients", json=asked)
        assert made.status_code == 201, made.text
    headers = {"Content-Type": "application/scim+json"}
    with httpx.Client(headers=headers, timeout=60, trust_env=False) as http:
        found = Application(service, key, made.json(), f"{service.base}/scim/{SLUG}/v2", http)
        granted = found.token()
        assert granted.status_code == 200, granted.text
        http.headers["Authorization"] = f"Bearer {granted.json()['access_token']}"
        yield found
    assert service.stop() == 0


# ---- IPSIE, shared: authentication and authorization -------------------------------------------------------------------------------


def test_the_application_must_use_oauth_2_for_all_scim_requests(app: Application) -> None:
    assert app.ask("GET", "/Users", 200, count=1)
    told = app.ask("GET", "/ServiceProviderConfig", 200)["authenticationSchemes"]
    assert [(scheme["type"], scheme["primary"]) for scheme in told] == [("oauth2", True), ("oauthbearertoken", False)]
    assert app.made["token_endpoint"] in told[0]["description"]
    for method, path in ENDPOINTS:
        answer = httpx.request(method, app.scim + path)
        assert (answer.status_code, answer.json()["schemas"]) == (401, [ERROR])
        assert "Bearer" in answer.headers["www-authenticate"]


def test_oauth_interactions_must_use_client_credentials_with_jwt_client_authentication(app: Application) -> None:
    granted = app.token()
    assert (granted.status_code, granted.json()["token_type"]) == (200, "Bearer")
    assert app.token(grant_type="password").json()["error"] == "unsupported_grant_type"
    stranger = RSAKey.generate_key(2048, {"kid": "idp"}, auto_kid=False)
    forged = Application(app.service, stranger, app.made, app.scim, app.http).token()
    assert (forged.status_code, forged.json()["error"]) == (401, "invalid_client")


def test_the_identity_service_must_authenticate_using_http_basic_which_works_with_a_secret(app: Application) -> None:
    """RFC 7523 has no place for a JWT in HTTP Basic: docs/idp/ipsie.md."""
    made = app.operated("admin", "POST", "/v1/clients", 201, json={"directory": SLUG, "name": "basic", "auth": "secret"})
    basic = (made["client_id"], made["client_secret"])
    granted = httpx.post(made["token_endpoint"], data={"grant_type": "client_credentials"}, auth=basic)
    assert granted.status_code == 200, granted.text
    app.operated("admin", "DELETE", f"/v1/clients/{made['id']}", 204, json={"reason": "the test is over"})


def test_the_access_token_must_include_the_scim_scope_and_not_grant_broader_permissions(app: Application) -> None:
    granted = app.token().json()
    assert granted["scope"] == "scim"
    assert app.token(scope="scim admin").json()["error"] == "invalid_scope"
    headers = {"Authorization": f"Bearer {granted['access_token']}"}
    for path in ("/v1/events", "/v1/tokens", "/v1/directories", "/v1/consumers"):
        assert httpx.get(app.service.base + path, headers=headers).status_code == 403
    assert httpx.get(app.service.scim + "/Users", headers=headers).status_code == 403, "the token is of one directory"


def test_the_application_must_expose_authorization_server_metadata_with_a_token_endpoint(app: Application) -> None:
    told = httpx.get(f"{app.service.base}/.well-known/oauth-authorization-server/oauth/{SLUG}").json()
    assert told["token_endpoint"] == app.made["token_endpoint"]
    assert told["issuer"] == app.made["issuer"]
    assert "private_key_jwt" in told["token_endpoint_auth_methods_supported"]
    assert "client_credentials" in told["grant_types_supported"]


def test_the_application_can_retrieve_the_public_keys_of_the_identity_service_from_its_jwks_uri(
    app: Application, jwks_uri: str
) -> None:
    shown = app.operated("admin", "GET", f"/v1/clients/{app.made['id']}")
    assert shown["jwks_uri"] == jwks_uri
    assert "n" not in json.dumps(shown.get("jwks") or {}), "the keys are nowhere but there"
    assert app.token().status_code == 200


# ---- IPSIE, shared: interoperability -----------------------------------------------------------------------------------------------


def test_implementations_must_also_conform_to_the_interoperability_profile(app: Application) -> None:
    assert app.ask("GET", "/ServiceProviderConfig", 200)["interopProfileConformant"] is True
    with app.service.client("scim") as other:
        assert "interopProfileConformant" not in other.get(app.service.scim + "/ServiceProviderConfig").json()


def test_the_application_shall_implement_the_required_functionality_of_a_service_provider(app: Application) -> None:
    types = app.ask("GET", "/ResourceTypes", 200)["Resources"]
    assert [kind["name"] for kind in types] == ["User", "Group"]
    for kind in types:
        assert app.ask("GET", kind["endpoint"], 200)["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:ListResponse"]
    user = app.user()
    whole = {"schemas": [USER], "userName": user["userName"], "displayName": "By PUT"}
    assert app.ask("PUT", f"/Users/{user['id']}", 200, whole)["displayName"] == "By PUT"
    body = {"schemas": [SEARCH], "filter": f'id eq "{user["id"]}"'}
    assert app.ask("POST", "/.search", 200, body)["totalResults"] == 1


def test_local_modifications_to_users_or_groups_in_the_application_are_prohibited(app: Application) -> None:
    user = app.user()
    for role in ("admin", "operator"):
        with app.service.client(role) as client:
            for kind, obj in (("users", user["id"]), ("groups", app.group())):
                one = f"{app.service.base}/v1/directories/{SLUG}/{kind}/{obj}"
                answers = [client.request(method, one, json={"active": True}) for method in ("PUT", "PATCH", "DELETE", "POST")]
                assert {answer.status_code for answer in answers} == {405}
            assert client.delete(f"{app.scim}/Users/{user['id']}").status_code == 403
    assert app.ask("GET", f"/Users/{user['id']}", 200)["meta"] == user["meta"]


# ---- IPSIE, shared: performance and efficiency -------------------------------------------------------------------------------------


@pytest.fixture
def limited(app: Application) -> Iterator[str]:
    """The address of a directory of its own, whose limit is the lowest that there is, and its token in `app`."""
    slug = f"limited-{uuid4().hex[:8]}"
    app.operated("admin", "POST", "/v1/directories", 201, json={"slug": slug, "profile": "ipsie"})
    lowest = {"per_second": 25, "burst": 25}
    app.operated("admin", "PUT", f"/v1/directories/{slug}/rate-limit", json=lowest)
    made = app.operated("admin", "POST", "/v1/tokens", 201, json={"role": "scim", "name": slug, "directories": [slug]})
    before = app.scim, app.http.headers["Authorization"]
    app.scim, app.http.headers["Authorization"] = f"{app.service.base}/scim/{slug}/v2", f"Bearer {made['token']}"
    yield slug
    app.scim, app.http.headers["Authorization"] = before


def _until_limited(app: Application, method: str, path: str) -> httpx.Response:
    """Ask until it is too often; a client that sends faster than 25 a second gets there."""
    for _ in range(2_000):
        answer = app.http.request(method, app.scim + path, json={} if method in {"POST", "PUT", "PATCH"} else None)
        if answer.status_code == 429:
            return answer
    raise AssertionError("never limited")


def test_the_application_must_enforce_rate_limits_on_all_scim_endpoints(app: Application, limited: str) -> None:
    for method, path in ENDPOINTS:
        answer = _until_limited(app, method, path)
        assert (answer.json()["schemas"], answer.json()["status"]) == ([ERROR], "429")
        assert int(answer.headers["retry-after"]) >= 1
    until(lambda: app.http.get(app.scim + "/Users").status_code == 200)
    with app.service.client("operator") as operator:
        metrics = operator.get(app.service.base + "/metrics").text
    assert f'ledger_scim_rate_limited_total{{directory="{limited}",' in metrics

    def health() -> dict[str, Any]:
        return app.operated("operator", "GET", f"/v1/directories/{limited}/health")

    assert health()["rate_limit"] == {"per_second": 25, "burst": 25}
    until(lambda: any("the limit of this directory, 25 a second" in said for said in health()["advice"]))


def test_the_application_must_support_at_least_25_scim_requests_per_second_per_tenant(app: Application, limited: str) -> None:
    """As many at once are let through by the lowest limit that can be set; a second later there are as many again."""
    for _ in range(25):
        app.ask("GET", "/Users", 200)
    with app.service.client("admin") as admin:
        path = f"{app.service.base}/v1/directories/{limited}/rate-limit"
        for wrong in ({"per_second": 24, "burst": 25}, {"per_second": 30, "burst": 25}, {"per_second": 25, "burst": 24}):
            assert admin.put(path, json=wrong).status_code in {400, 422}
        reset = admin.delete(path).json()
    assert (reset["per_second"], reset["burst"], reset["set_by"]) == (50, 500, "profile")


def test_the_application_must_support_the_bulk_endpoint(app: Application) -> None:
    assert app.ask("GET", "/ServiceProviderConfig", 200)["bulk"]["supported"] is True
    operations = [
        {"method": "POST", "path": "/Users", "bulkId": "Ada", "data": {"schemas": [USER], "userName": uuid4().hex}},
        {"method": "POST", "path": "/Groups", "bulkId": "g", "data": {
            "schemas": [GROUP], "displayName": uuid4().hex, "members": [{"value": "bulkId:Ada"}]}},
    ]  # fmt: skip
    answer = app.ask("POST", "/Bulk", 200, {"schemas": [BULK], "Operations": operations})
    user, group = (one["location"].rpartition("/")[2] for one in answer["Operations"])
    assert [one["status"] for one in answer["Operations"]] == ["201", "201"]
    assert app.members(group) == {user}


def test_the_application_must_support_patch_requests_that_update_multiple_attributes(app: Application) -> None:
    user = app.user(name={"givenName": "Ada"})
    changed = app.patch(
        f"/Users/{user['id']}", _op("replace", "displayName", "Ada L."), _op("add", "name.familyName", "Lovelace"),
        _op("replace", "title", "Countess"), _op("add", f"{ENTERPRISE}:department", "Engines"),
    )  # fmt: skip
    assert (changed["displayName"], changed["title"]) == ("Ada L.", "Countess")
    assert changed["name"] == {"givenName": "Ada", "familyName": "Lovelace"}
    assert changed[ENTERPRISE] == {"department": "Engines"}


# ---- AL1: user deprovisioning ------------------------------------------------------------------------------------------------------


def _events_of(app: Application, user: str) -> list[dict[str, Any]]:
    with app.service.client("operator") as client:
        found = client.get(app.service.base + "/v1/events", params={"directory": SLUG, "limit": 1000}).json()["data"]
    return [event for event in found if user in (event["subject"]["id"], event["data"].get("member", {}).get("id"))]


def test_when_a_user_is_deactivated_all_access_mechanisms_and_authorizations_must_also_be_deactivated(app: Application) -> None:
    """In the commit of the deactivation: whoever has sessions, tokens and keys reads that they end, and for each group that it ended."""
    user = app.user()["id"]
    groups = {app.group(user), app.group(user)}
    assert app.patch(f"/Users/{user}", _op("replace", "active", False))["active"] is False
    *_, first, second, last = _events_of(app, user)
    assert (first["type"], second["type"]) == ("group.member_access_revoked", "group.member_access_revoked")
    assert {first["subject"]["id"], second["subject"]["id"]} == groups
    assert last["type"] == "user.deactivated"
    assert first["commit"] == second["commit"] == last["commit"]
    access = app.operated("auditor", "GET", f"/v1/audit/{SLUG}/users/{user}/access", params={"as_of": "seq:head"})
    assert access["data"] == []


def test_the_application_must_allow_reactivation_of_a_deactivated_user(app: Application) -> None:
    user = app.user()["id"]
    group = app.group(user)
    app.patch(f"/Users/{user}", _op("replace", "active", False))
    assert app.patch(f"/Users/{user}", _op("replace", "active", True))["active"] is True
    assert [event["type"] for event in _events_of(app, user)][-2:] == ["user.reactivated", "group.member_access_restored"]
    assert app.members(group) == {user}


def test_after_a_user_is_deleted_the_application_must_allow_a_new_user_with_the_same_username(app: Application) -> None:
    user = app.user()
    app.ask("DELETE", f"/Users/{user['id']}", 204)
    again = app.user(userName=user["userName"])
    assert again["id"] != user["id"]


def test_the_application_must_support_retrieving_a_single_user_by_id(app: Application) -> None:
    user = app.user()
    assert app.ask("GET", f"/Users/{user['id']}", 200) == user


@pytest.mark.parametrize(
    "wanted",
    [
        'username eq "{mail}"',
        'externalId eq "{external}"',
        'emails[value eq "{mail}"]',
        'emails[type eq "work" and value eq "{mail}"]',
    ],
)
def test_the_application_must_support_the_following_filter_expressions(app: Application, wanted: str) -> None:
    mail, external = f"{uuid4().hex}@example.com", uuid4().hex
    user = app.user(userName=mail, externalId=external, emails=[{"value": mail, "type": "work"}])
    app.user(userName=f"x{mail}", externalId=f"x{external}", emails=[{"value": f"x{mail}", "type": "work"}])
    assert app.found("/Users", wanted.format(mail=mail, external=external)) == [user["id"]]


def test_the_application_shall_support_patch_for_deactivation_and_delete_of_users(app: Application) -> None:
    user = app.user()["id"]
    app.patch(f"/Users/{user}", _op("replace", "active", False))
    app.ask("DELETE", f"/Users/{user}", 204)
    assert [event["type"] for event in _events_of(app, user)][-2:] == ["user.deactivated", "user.deleted"]


# ---- AL2: user and group management ------------------------------------------------------------------------------------------------


def test_the_application_must_accept_creation_and_updates_of_user_accounts(app: Application) -> None:
    user = app.user(displayName="Before", active=True)
    assert (user["displayName"], user["active"]) == ("Before", True)
    changed = app.patch(f"/Users/{user['id']}", _op("replace", "displayName", "After"))
    assert app.ask("GET", f"/Users/{user['id']}", 200)["displayName"] == changed["displayName"] == "After"


def test_the_application_must_prohibit_local_account_creation(app: Application) -> None:
    body = {"schemas": [USER], "userName": uuid4().hex}
    with app.service.client("admin") as admin:
        assert admin.post(f"{app.service.base}/v1/directories/{SLUG}/users", json=body).status_code == 405
        assert admin.post(f"{app.scim}/Users", json=body).status_code == 403
    assert app.found("/Users", f'userName eq "{body["userName"]}"') == []


def test_the_application_must_support_mapping_groups_to_local_roles(app: Application) -> None:
    """An application maps what it reads: groups with their names, and every change of a member as an event that says whether it counts."""
    user = app.user()["id"]
    group = app.group(user, displayName="Administrators of the test")
    shown = app.operated("consumer", "GET", f"/v1/directories/{SLUG}/groups/{group}")
    assert shown["data"]["object"]["displayName"] == "Administrators of the test"
    (added,) = [event for event in _events_of(app, user) if event["type"] == "group.member_added"]
    assert added["data"] == {"group": {"id": group}, "member": {"type": "User", "id": user}, "effective": True}


@pytest.mark.parametrize("name", ["userName", "displayName", "active"])
def test_the_application_must_include_the_following_attributes_in_the_user_schema(app: Application, name: str) -> None:
    assert name in app.schema(USER)


def test_external_id_must_be_supported_by_the_application(app: Application) -> None:
    external = uuid4().hex
    user = app.user(externalId=external)
    assert app.ask("GET", f"/Users/{user['id']}", 200)["externalId"] == external
    assert app.patch(f"/Users/{user['id']}", _op("replace", "externalId", f"{external}2"))["externalId"] == f"{external}2"


def test_the_application_must_not_support_the_password_attribute(app: Application) -> None:
    assert "password" not in app.schema(USER)
    body = {"schemas": [USER], "userName": uuid4().hex, "password": "correct horse"}
    app.refused("POST", "/Users", "invalidSyntax", body)
    user = app.user()["id"]
    app.patch_refused(f"/Users/{user}", "invalidSyntax", _op("replace", "password", "correct horse"))
    app.refused("PUT", f"/Users/{user}", "invalidSyntax", body)
    app.refused("GET", "/Users", "invalidFilter", filter='password eq "correct horse"')
    bulk = [{"method": "POST", "path": "/Users", "bulkId": "p", "data": body}]
    (one,) = app.ask("POST", "/Bulk", 200, {"schemas": [BULK], "Operations": bulk})["Operations"]
    assert (one["status"], one["response"]["scimType"]) == ("400", "invalidSyntax")


@pytest.mark.parametrize(
    "attribute",
    [
        {"name": "passwordHash", "type": "string"}, {"name": "totpSeed", "type": "string"}, {"name": "privateKey", "type": "binary"},
        {"name": "note", "type": "string", "mutability": "writeOnly", "returned": "never"},
        {"name": "mfa", "type": "complex", "subAttributes": [{"name": "secret", "type": "string"}]},
    ],
)  # fmt: skip
def test_the_application_must_not_define_attributes_containing_credentials_in_custom_schemas(
    app: Application, attribute: dict[str, Any]
) -> None:
    schema = {"id": f"urn:example:{uuid4().hex}:2.0:User", "name": "Secrets", "attributes": [attribute]}
    with app.service.client("operator") as client:
        refused = client.post(f"{app.service.base}/v1/directories/{SLUG}/schemas", json={"schema": schema})
        assert refused.status_code == 400, refused.text
        other = f"{app.service.base}/v1/directories/acme"
        assert client.post(f"{other}/schemas", json={"schema": schema}).status_code == 201
    with app.service.client("admin") as admin:
        assert admin.put(f"{other}/profile", json={"profile": "ipsie"}).status_code == 400


def test_the_application_must_support_user_creation_via_post(app: Application) -> None:
    created = app.http.post(app.scim + "/Users", json={"schemas": [USER], "userName": uuid4().hex})
    assert created.status_code == 201
    assert created.headers["location"] == created.json()["meta"]["location"]


def test_the_application_must_support_updating_a_users_attribute_values_via_patch(app: Application) -> None:
    user = app.user(nickName="A")
    changed = app.patch(
        f"/Users/{user['id']}", _op("remove", "nickName"), _op("add", "emails", [{"value": "a@example.com", "type": "home"}])
    )
    assert "nickName" not in changed
    assert changed["emails"] == [{"value": "a@example.com", "type": "home"}]


def test_the_application_must_support_retrieval_of_all_users(app: Application) -> None:
    made = {app.user()["id"] for _ in range(3)}
    seen: set[str] = set()
    page = app.ask("GET", "/Users", 200, cursor="", count=100)
    seen |= {user["id"] for user in page["Resources"]}
    while "nextCursor" in page:
        page = app.ask("GET", "/Users", 200, cursor=page["nextCursor"], count=100)
        seen |= {user["id"] for user in page["Resources"]}
    assert made <= seen
    assert app.ask("GET", "/Users", 200, count=5_000)["itemsPerPage"] <= 1_000, "pages SHOULD have at most 1 000"


@pytest.mark.parametrize("name", ["displayName", "members"])
def test_the_application_must_include_the_following_attributes_in_the_group_schema(app: Application, name: str) -> None:
    assert name in app.schema(GROUP)


def test_external_id_of_groups_must_be_supported_by_the_application(app: Application) -> None:
    external = uuid4().hex
    group = app.group(externalId=external)
    assert app.ask("GET", f"/Groups/{group}", 200)["externalId"] == external


def test_the_application_must_support_group_creation_via_post(app: Application) -> None:
    user = app.user()["id"]
    body = {"schemas": [GROUP], "displayName": uuid4().hex, "members": [{"value": user, "type": "User"}]}
    made = app.ask("POST", "/Groups", 201, body)
    assert [member["value"] for member in made["members"]] == [user]


def test_the_application_must_allow_groups_to_be_created_with_zero_members(app: Application) -> None:
    assert app.members(app.group()) == set()
    body = {"schemas": [GROUP], "displayName": uuid4().hex, "members": []}
    assert app.ask("POST", "/Groups", 201, body)["displayName"] == body["displayName"]


def test_the_application_must_support_retrieval_of_all_groups(app: Application) -> None:
    group = app.group(app.user()["id"])
    listed = app.ask("GET", "/Groups", 200, excludedAttributes="members", filter=f'id eq "{group}"')["Resources"]
    assert [(one["id"], "members" in one) for one in listed] == [(group, False)]
    assert app.ask("GET", "/Groups", 200)["totalResults"] >= 1


def test_the_application_must_support_retrieving_a_single_group_by_id(app: Application) -> None:
    assert app.ask("GET", f"/Groups/{(group := app.group())}", 200)["id"] == group


@pytest.mark.parametrize("wanted", ['displayName eq "{name}"', 'externalId eq "{external}"', 'members[value eq "{member}"]'])
def test_the_application_must_support_the_following_filter_expressions_for_groups(app: Application, wanted: str) -> None:
    name, external, member = uuid4().hex, uuid4().hex, app.user()["id"]
    group = app.group(member, displayName=name, externalId=external)
    app.group(app.user()["id"])
    assert app.found("/Groups", wanted.format(name=name, external=external, member=member)) == [group]


def test_the_application_must_support_updating_a_groups_attribute_values_via_patch(app: Application) -> None:
    group = app.group()
    app.patch(f"/Groups/{group}", _op("replace", "displayName", "Renamed"), _op("add", "externalId", "e1"), status=204)
    shown = app.ask("GET", f"/Groups/{group}", 200)
    assert (shown["displayName"], shown["externalId"]) == ("Renamed", "e1")


def test_the_application_must_support_at_least_50_add_or_remove_operations_on_members_in_one_patch(app: Application) -> None:
    bulk = [
        {"method": "POST", "path": "/Users", "bulkId": f"{n}", "data": {"schemas": [USER], "userName": uuid4().hex}}
        for n in range(60)
    ]
    made = app.ask("POST", "/Bulk", 200, {"schemas": [BULK], "Operations": bulk})["Operations"]
    users = [one["location"].rpartition("/")[2] for one in made]
    group = app.group()
    app.patch(f"/Groups/{group}", *(_op("add", "members", [{"value": user}]) for user in users), status=204)
    assert app.members(group) == set(users)
    app.patch(f"/Groups/{group}", *(_op("remove", f'members[value eq "{user}"]') for user in users[:55]), status=204)
    assert app.members(group) == set(users[55:])


# ---- IPSIE: security considerations ------------------------------------------------------------------------------------------------


def test_error_responses_shall_use_the_scim_error_format_and_shall_not_leak_internal_details(app: Application) -> None:
    app.refused("POST", "/Users", "invalidValue", {"schemas": [USER]})
    broken = app.http.post(app.scim + "/Users", content=b'{"schemas": [')
    missing = app.http.get(f"{app.scim}/Users/{uuid4()}")
    for answer, status in ((broken, 400), (missing, 404), (app.http.get(app.scim + "/Nothing"), 404)):
        assert (answer.status_code, answer.json()["schemas"], answer.json()["status"]) == (status, [ERROR], str(status))
        assert not {"traceback", "psycopg", "pydantic", ".py"} & set(answer.text.lower().split())
        assert ".py" not in answer.text


def test_access_tokens_shall_expire_and_nonces_shall_be_validated_to_prevent_replay(app: Application) -> None:
    assert app.token().json()["expires_in"] == 3600
    once = app.assertion()
    assert app.token(client_assertion=once).status_code == 200
    assert app.token(client_assertion=once).json()["error"] == "invalid_client"
    late = app.assertion(exp=int(time.time()) - 3600)
    assert app.token(client_assertion=late).json()["error"] == "invalid_client"


def test_all_scim_requests_that_create_delete_or_modify_a_resource_shall_be_logged(app: Application) -> None:
    user = app.user()["id"]
    app.patch(f"/Users/{user}", _op("replace", "title", "Logged"))
    app.ask("DELETE", f"/Users/{user}", 204)
    events = _events_of(app, user)
    assert [event["type"] for event in events] == ["user.created", "user.updated", "user.deleted"]
    assert {(event["actor"], event["profile"]) for event in events} == {
        (f"cli_{app.made['id'].removeprefix('cli_').replace('-', '')}", "ipsie@1")
    }
    wanted = {event["request_id"] for event in events}

    def journalled() -> set[str]:
        rows = app.operated("operator", "GET", "/v1/requests", params={"directory": SLUG, "limit": 100})["data"]
        return {row["request_id"] for row in rows}

    until(lambda: wanted <= journalled())


def test_all_endpoints_shall_enforce_rate_limiting(app: Application, limited: str) -> None:
    """One budget for all endpoints: what one used is not there for another one."""
    _until_limited(app, "GET", "/Schemas")
    assert _until_limited(app, "GET", "/Users").headers["retry-after"] == "1"
    asked = {"directory": limited, "name": "often", "auth": "secret"}
    made = app.operated("admin", "POST", "/v1/clients", 201, json=asked)
    form, basic = {"grant_type": "client_credentials"}, (made["client_id"], made["client_secret"])

    def token() -> httpx.Response:
        _until_limited(app, "GET", "/Users")
        return httpx.post(made["token_endpoint"], data=form, auth=basic)

    until(lambda: token().status_code == 429)
    refused = next(answer for answer in iter(token, None) if answer.status_code == 429)
    assert (refused.json()["error"], refused.headers["retry-after"]) == ("temporarily_unavailable", "1")
    until(lambda: httpx.post(made["token_endpoint"], data=form, auth=basic).status_code == 200)


# ---- the interoperability profile: data model --------------------------------------------------------------------------------------


def test_interop_service_providers_must_implement_the_configuration_discovery_endpoints(app: Application) -> None:
    for path in ("/ServiceProviderConfig", "/Schemas", "/ResourceTypes"):
        assert app.ask("GET", path, 200)["schemas"]


def test_interop_schemas_must_match_exactly_what_is_implemented(app: Application) -> None:
    """All schemas of the resource types are there; whatever they do not have is refused."""
    there = {schema["id"] for schema in app.ask("GET", "/Schemas", 200)["Resources"]}
    for kind in app.ask("GET", "/ResourceTypes", 200)["Resources"]:
        assert {kind["schema"], *(one["schema"] for one in kind.get("schemaExtensions", []))} <= there
    assert set(app.schema(USER)) >= {"userName", "name", "emails", "active"}


def test_interop_the_id_of_every_resource_type_must_equal_its_name(app: Application) -> None:
    for kind in app.ask("GET", "/ResourceTypes", 200)["Resources"]:
        assert kind["id"] == kind["name"]


def test_interop_case_rules_must_be_the_same_for_filters_and_uniqueness(app: Application) -> None:
    name = f"Jane.{uuid4().hex}"
    user = app.user(userName=name)
    app.refused("POST", "/Users", "uniqueness", {"schemas": [USER], "userName": name.upper()}, status=409)
    assert app.found("/Users", f'userName eq "{name.swapcase()}"') == [user["id"]]
    assert app.schema(USER)["userName"]["caseExact"] is False


def test_interop_ids_that_differ_in_case_must_be_treated_as_distinct(app: Application) -> None:
    user = app.user()["id"]
    group = app.group(user)
    assert user != user.upper()
    app.ask("GET", f"/Users/{user.upper()}", 404)
    app.ask("DELETE", f"/Users/{user.upper()}", 404)
    assert app.found("/Users", f'id eq "{user.upper()}"') == []
    assert app.found("/Groups", f'members[value eq "{user.upper()}"]') == []
    app.patch_refused(f"/Groups/{group}", "invalidValue", _op("remove", f'members[value eq "{user.upper()}"]'))
    app.patch_refused(f"/Groups/{group}", "invalidValue", _op("add", "members", [{"value": user.upper()}]))
    gone = [{"method": "DELETE", "path": f"/Users/{user.upper()}"}]
    assert app.ask("POST", "/Bulk", 200, {"schemas": [BULK], "Operations": gone})["Operations"][0]["status"] == "404"
    assert app.members(group) == {user}


def test_interop_external_ids_that_differ_in_case_must_be_treated_as_distinct(app: Application) -> None:
    external = f"a{uuid4().hex}"
    user = app.user(externalId=external)
    other = app.user(externalId=external.upper())
    assert app.found("/Users", f'externalId eq "{external}"') == [user["id"]]
    assert app.found("/Users", f'externalId eq "{external.upper()}"') == [other["id"]]


@pytest.mark.parametrize(
    "extra",
    [
        {"favouriteColour": "red"}, {"name": {"givenName": "A", "callName": "B"}}, {"emails": [{"value": "a@example.com", "kind": "x"}]},
        {"urn:example:ext:2.0:User": {"a": 1}}, {ENTERPRISE: {"shoeSize": "42"}}, {f"{USER}:displayName": "x"}, {"name.givenName": "A"},
        {"schemas": [USER, "urn:example:ext:2.0:User"]},
    ],
)  # fmt: skip
def test_interop_attributes_or_schema_uris_that_are_not_defined_must_be_rejected(app: Application, extra: dict[str, Any]) -> None:
    body = {"schemas": [USER], "userName": uuid4().hex, **extra}
    app.refused("POST", "/Users", "invalidSyntax", body)
    user = app.user()["id"]
    app.refused("PUT", f"/Users/{user}", "invalidSyntax", body)
    assert app.found("/Users", f'userName eq "{body["userName"]}"') == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("favouriteColour", "red"), ("name.callName", "B"), ('emails[type eq "work"].kind', "x"), ("urn:example:ext:2.0:User:a", "x"),
        ("urn:example:ext:2.0:User", {"a": "x"}), (f"{ENTERPRISE}:shoeSize", "42"), (ENTERPRISE, {"shoeSize": "42"}),
        ("name", {"callName": "B"}), ("emails", [{"value": "a@example.com", "kind": "x"}]), ("urn:ietf:params:scim:schemas:core:2.0:Device:x", "y"),
    ],
)  # fmt: skip
def test_interop_a_patch_of_what_is_not_defined_must_be_rejected(app: Application, path: str, value: Any) -> None:
    user = app.user(emails=[{"value": "w@example.com", "type": "work"}])
    app.patch_refused(f"/Users/{user['id']}", "invalidSyntax", _op("add", path, value))
    assert app.ask("GET", f"/Users/{user['id']}", 200) == user


def test_interop_a_member_with_an_attribute_that_is_not_defined_must_be_rejected(app: Application) -> None:
    member = {"value": app.user()["id"], "since": "today"}
    app.refused("POST", "/Groups", "invalidSyntax", {"schemas": [GROUP], "displayName": uuid4().hex, "members": [member]})
    app.patch_refused(f"/Groups/{app.group()}", "invalidSyntax", _op("add", "members", [member]))


def test_interop_service_providers_must_declare_the_acceptable_type_values_of_each_multi_valued_attribute(
    app: Application,
) -> None:
    for urn in (USER, GROUP, ENTERPRISE):
        for attribute in app.schema(urn).values():
            subs = {sub["name"]: sub for sub in attribute.get("subAttributes", [])}
            if attribute["multiValued"] and "type" in subs:
                assert subs["type"]["canonicalValues"], attribute["name"]
    wrong = {"schemas": [USER], "userName": uuid4().hex, "emails": [{"value": "a@example.com", "type": "holiday"}]}
    app.refused("POST", "/Users", "invalidValue", wrong)
    app.patch_refused(f"/Users/{app.user()['id']}", "invalidValue", _op("add", "roles", [{"value": "x", "type": "odd"}]))
    assert app.user(emails=[{"value": "a@example.com", "type": "Work"}])["emails"][0]["type"] == "Work"


# ---- the interoperability profile: protocol ----------------------------------------------------------------------------------------


def test_interop_each_resource_type_must_have_an_endpoint_of_its_own(app: Application) -> None:
    kinds = app.ask("GET", "/ResourceTypes", 200)["Resources"]
    assert len({kind["endpoint"] for kind in kinds}) == len(kinds)
    user, group = app.user()["id"], app.group()
    app.ask("GET", f"/Groups/{user}", 404)
    app.ask("GET", f"/Users/{group}", 404)


def test_interop_resources_must_not_be_addressed_by_other_attribute_values_in_the_path(app: Application) -> None:
    user = app.user()
    app.ask("GET", f"/Users/{user['userName']}", 404)
    assert user["meta"]["location"] == f"{app.scim}/Users/{user['id']}"


def test_interop_all_data_exchange_must_be_scim_json(app: Application) -> None:
    """`ask` looks at the media type of each answer."""
    refused = app.http.post(app.scim + "/Users", content=b"<user/>", headers={"Content-Type": "application/xml"})
    assert refused.status_code == 415
    assert refused.headers["content-type"].startswith("application/scim+json")
    app.user()


def test_interop_service_providers_must_support_the_eq_and_and_operators(app: Application) -> None:
    user = app.user(displayName="Filtered", title=(title := uuid4().hex))
    assert app.found("/Users", f'title eq "{title}" and displayName eq "Filtered"') == [user["id"]]
    assert app.found("/Users", f'title eq "{title}" and displayName eq "Other"') == []


@pytest.mark.parametrize(
    "wanted",
    ['favouriteColour eq "red"', 'urn:example:ext:2.0:User:a eq "x"', 'userName eq "a" and not (urn:example:ext:2.0:User:a pr)'],
)
def test_interop_a_filter_on_an_attribute_that_is_not_defined_must_be_refused(app: Application, wanted: str) -> None:
    app.refused("GET", "/Users", "invalidFilter", filter=wanted)
    app.refused("POST", "/Users/.search", "invalidFilter", {"schemas": [SEARCH], "filter": wanted})


def test_interop_service_providers_must_implement_a_pagination_method_with_a_count_of_at_least_100(app: Application) -> None:
    told = app.ask("GET", "/ServiceProviderConfig", 200)
    assert told["pagination"]["maxPageSize"] >= 100
    assert told["pagination"]["defaultPageSize"] >= 100, "SHOULD"
    made = {app.user()["id"] for _ in range(3)}
    pages = [app.ask("GET", "/Users", 200, count=2, startIndex=n) for n in (1, 3)]
    shown = [user["id"] for page in pages for user in page["Resources"]]
    assert len(set(shown)) == 4
    assert app.ask("GET", "/Users", 200, count=100_000)["itemsPerPage"] <= told["filter"]["maxResults"]
    assert len(made) == 3


def test_interop_service_providers_must_reject_patch_operations_that_lack_a_path(app: Application) -> None:
    user = app.user()
    for op in ("add", "replace"):
        app.patch_refused(f"/Users/{user['id']}", "invalidSyntax", {"op": op, "value": {"active": False}})
    app.patch_refused(f"/Users/{user['id']}", "invalidSyntax", {"op": "remove"})
    app.patch_refused(f"/Users/{user['id']}", "invalidSyntax", {"op": "replace", "path": "", "value": {"active": False}})
    app.patch_refused(f"/Groups/{app.group()}", "invalidSyntax", {"op": "add", "value": {"members": [{"value": user["id"]}]}})
    assert app.ask("GET", f"/Users/{user['id']}", 200)["active"] is True


def test_interop_add_and_replace_of_a_simple_attribute_must_be_equivalent(app: Application) -> None:
    shown = [
        app.patch(f"/Users/{app.user(title='Old')['id']}", _op(op, "title", "New"), _op(op, "active", False))
        for op in ("add", "replace")
    ]
    assert [(one["title"], one["active"]) for one in shown] == [("New", False)] * 2


def test_interop_replace_must_replace_the_entire_complex_attribute(app: Application) -> None:
    user = app.user(name={"givenName": "Ada", "familyName": "Lovelace", "honorificPrefix": "Lady"})
    changed = app.patch(f"/Users/{user['id']}", _op("replace", "name", {"familyName": "King"}))
    assert changed["name"] == {"familyName": "King"}
    manager = app.patch(f"/Users/{user['id']}", _op("add", f"{ENTERPRISE}:manager", {"value": "1", "$ref": "../Users/1"}))
    assert manager[ENTERPRISE]["manager"]["value"] == "1"
    other = app.patch(f"/Users/{user['id']}", _op("replace", f"{ENTERPRISE}:manager", {"value": "2"}))
    assert other[ENTERPRISE]["manager"] == {"value": "2"}


def test_interop_add_must_perform_a_partial_merge_of_a_complex_attribute(app: Application) -> None:
    user = app.user(name={"givenName": "Ada", "familyName": "Lovelace"})
    changed = app.patch(f"/Users/{user['id']}", _op("add", "name", {"familyName": "King"}))
    assert changed["name"] == {"givenName": "Ada", "familyName": "King"}


def test_interop_replace_of_a_collection_must_replace_it_and_add_must_append(app: Application) -> None:
    first, second, third = ({"value": f"{n}@example.com", "type": kind} for n, kind in enumerate(("work", "home", "other")))
    user = app.user(emails=[first])["id"]
    assert app.patch(f"/Users/{user}", _op("add", "emails", [second]))["emails"] == [first, second]
    assert app.patch(f"/Users/{user}", _op("replace", "emails", [third]))["emails"] == [third]
    for op in ("add", "replace"):
        app.patch_refused(f"/Users/{user}", "invalidValue", _op(op, "emails", first))


def test_interop_a_filter_in_a_path_must_target_a_sub_attribute(app: Application) -> None:
    user = app.user(emails=[{"value": "a@example.com", "type": "work"}])["id"]
    whole = 'emails[type eq "work"]'
    for operation in (
        _op("replace", whole, {"value": "b@example.com"}),
        _op("add", whole, {"value": "b@example.com"}),
        _op("remove", whole),
    ):
        app.patch_refused(f"/Users/{user}", "invalidPath", operation)
    changed = app.patch(f"/Users/{user}", _op("replace", f"{whole}.value", "b@example.com"))
    assert changed["emails"] == [{"value": "b@example.com", "type": "work"}]


def test_interop_a_filter_in_a_path_that_matches_several_elements_is_an_invalid_filter(app: Application) -> None:
    user = app.user(emails=[{"value": f"{n}@example.com", "type": "work"} for n in range(2)])["id"]
    app.patch_refused(f"/Users/{user}", "invalidFilter", _op("replace", 'emails[type eq "work"].display', "x"))
    app.patch_refused(f"/Users/{user}", "invalidFilter", _op("remove", 'emails[type eq "work"].display'))


def test_interop_a_resource_modified_via_patch_must_be_retained(app: Application) -> None:
    user = app.user(title="x")["id"]
    app.patch(f"/Users/{user}", _op("replace", "active", False), _op("remove", "title"))
    assert app.ask("GET", f"/Users/{user}", 200)["active"] is False


def test_interop_service_providers_must_return_404_for_any_operation_on_a_deleted_resource(app: Application) -> None:
    user, group = app.user(), app.group()
    for path in (f"/Users/{user['id']}", f"/Groups/{group}"):
        app.ask("DELETE", path, 204)
        app.ask("GET", path, 404)
        app.ask("DELETE", path, 404)
        app.patch(path, _op("replace", "displayName", "x"), status=404)
    assert app.found("/Users", f'userName eq "{user["userName"]}"') == []
    assert app.found("/Groups", f'id eq "{group}"') == []


def test_interop_unique_identifiers_of_a_deleted_resource_must_be_available(app: Application) -> None:
    user = app.user(externalId=(external := uuid4().hex))
    app.ask("DELETE", f"/Users/{user['id']}", 204)
    again = app.user(userName=user["userName"].upper(), externalId=external)
    assert app.found("/Users", f'externalId eq "{external}"') == [again["id"]]


def test_interop_a_delete_must_not_modify_attributes_instead(app: Application) -> None:
    user = app.user()["id"]
    app.ask("DELETE", f"/Users/{user}", 204)
    assert [event["type"] for event in _events_of(app, user)] == ["user.created", "user.deleted"]


def test_interop_a_uniqueness_conflict_must_be_409_uniqueness(app: Application) -> None:
    one, other = app.user(), app.user()
    app.refused("POST", "/Users", "uniqueness", {"schemas": [USER], "userName": one["userName"]}, status=409)
    body = {"schemas": [PATCH_OP], "Operations": [_op("replace", "userName", one["userName"])]}
    app.refused("PATCH", f"/Users/{other['id']}", "uniqueness", body, status=409)


# ---- beside the sentences ----------------------------------------------------------------------------------------------------------


def test_a_directory_takes_the_profile_and_leaves_it_while_the_service_runs(make_service: Callable[..., Service]) -> None:
    service = make_service()
    body = {"schemas": [USER], "userName": "odd", "favouriteColour": "red"}
    with service.client("scim") as scim, service.client("admin") as admin:
        user = scim.post(service.scim + "/Users", json=body).json()["id"]
        one = f"{service.scim}/Users/{user}"
        assert admin.put(service.base + "/v1/directories/acme/profile", json={"profile": "ipsie@1"}).status_code == 200
        until(lambda: scim.post(service.scim + "/Users", json=body | {"userName": uuid4().hex}).status_code == 400)
        patch = {"schemas": [PATCH_OP], "Operations": [_op("replace", "active", False)]}
        changed = scim.patch(one, json=patch)
        assert (changed.status_code, changed.json()["active"]) == (200, False), "what is stored does not hold up a deactivation"
        assert changed.json()["favouriteColour"] == "red"
        assert admin.put(service.base + "/v1/directories/acme/profile", json={"profile": "generic"}).status_code == 200
        until(lambda: scim.post(service.scim + "/Users", json=body | {"userName": uuid4().hex}).status_code == 201)
