"""The request journal and the health of a directory: refused requests with their reasons, no values, counted tolerances."""

import json
import random
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from tests.acceptance.conftest import Service, until

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"


def _written(service: Service, reader: httpx.Client, request_id: str, **params) -> dict:
    """The entry of a request: the journal is written within a second, so the question is repeated until the entry is there."""
    for _ in range(10_000):
        page = reader.get(service.base + "/v1/requests", params={"limit": 1000, **params}).json()
        found = [row for row in page["data"] if row["request_id"] == request_id]
        if found:
            return found[0]
    raise AssertionError("never written")


def test_a_refused_request_has_an_entry_with_its_reason_and_without_values(service: Service) -> None:
    with service.client("scim") as client, service.client("operator") as operator:
        secret = f"hidden{random.random()}"
        refused = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": secret, "active": secret})
        entry = _written(service, operator, refused.headers["X-Request-Id"])
        assert (entry["status"], entry["scim_type"], entry["method"], entry["path"]) == (400, "invalidValue", "POST", "/Users")
        assert entry["detail"] == refused.json()["detail"]
        assert "The mapping sends a value of another type" in entry["fix"]
        assert entry["directory"] == "acme"
        listed = client.get(service.scim + "/Users", params={"filter": f'userName eq "{secret}"'})
        entry = _written(service, operator, listed.headers["X-Request-Id"])
        assert entry["filter"] == "userName eq ?"
        missing = client.get(f"{service.scim}/Users/{secret}")
        entry = _written(service, operator, missing.headers["X-Request-Id"], refused="true")
        assert entry["path"] == "/Users/{id}"
        assert secret not in operator.get(service.base + "/v1/requests", params={"limit": 1000}).text


@pytest.mark.parametrize(
    ("path", "more", "shape"),
    [
        ("/Users/.search", {"filter": 'userName eq "{secret}" and emails[value co "{secret}"]'}, "userName eq ? and emails[value co ?]"),
        ("/Groups/.search", {"FILTER": 'displayName sw "{secret}"'}, "displayName sw ?"),
        ("/.search", {"filter": 'displayName eq "{secret}" or userName pr'}, "displayName eq ? or userName pr"),
        ("/.search", {"filter": 'title pr and title eq "{secret}"', "count": "many"}, "title pr and title eq ?"),
        ("/Users/.search", {"filter": "userName eq {secret}"}, "(unreadable)"),
        ("/Users/.search", {"filter": 'division sw "{secret}"'}, f"{ENTERPRISE}:division sw ?"),
        ("/Users/.search", {"filter": ["{secret}"]}, None),
        ("/Users/.search?filter=title%20pr", {"count": 1}, None),
    ],
)  # fmt: skip
def test_a_search_has_an_entry_with_its_filter_without_values(service: Service, path: str, more: dict, shape: str | None) -> None:
    """The filter is in the request body, which the journal does not keep."""
    secret = f"hidden{random.random()}"
    message = json.dumps({"schemas": [SEARCH], "count": 1, **more}).replace("{secret}", secret)
    with service.client("scim") as client, service.client("operator") as operator:
        answer = client.post(service.scim + path, content=message)
        entry = _written(service, operator, answer.headers["X-Request-Id"])
        assert (entry["path"], entry.get("filter")) == (path.partition("?")[0], shape)
        assert secret not in operator.get(service.base + "/v1/requests", params={"limit": 1000}).text


def test_a_refused_operation_of_a_bulk_request_has_an_entry_too(service: Service) -> None:
    bulk = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
    operations = [
        {"method": "POST", "path": "/Users", "bulkId": "1", "data": {"schemas": [USER], "userName": f"j{random.random()}"}},
        {"method": "secret", "path": "/Users/1"},
        {"method": "PATCH", "path": "/Users/secret", "data": {"schemas": [PATCH], "Operations": []}},
    ]
    with service.client("scim") as client, service.client("operator") as operator:
        answer = client.post(service.scim + "/Bulk", json={"schemas": [bulk], "Operations": operations})
        request_id = answer.headers["X-Request-Id"]
        _written(service, operator, request_id, refused="true")
        page = operator.get(service.base + "/v1/requests", params={"limit": 1000}).json()["data"]
    found = {(row["method"], row["path"], row["status"], row["events"]) for row in page if row["request_id"] == request_id}
    assert found == {("POST", "/Bulk", 200, 1), ("-", "/Bulk", 400, 0), ("PATCH", "/Bulk/Users/{id}", 404, 0)}
    assert all("secret" not in json.dumps(row) for row in page if row["request_id"] == request_id)


def test_requests_with_a_revoked_token_have_an_entry_of_their_own(service: Service) -> None:
    """An expired token is the most frequent reason why an IdP stops: the journal must not look as if the IdP had sent nothing."""
    issued = json.loads(service.cli("token", "issue", "scim", "--directory", "acme", "--json").stdout)
    assert service.cli("token", "revoke", str(UUID(issued["token"].split("_")[2])), "--yes").returncode == 0
    with service.client("operator") as operator:
        wrong = operator.get(service.scim + "/Users")
        late = httpx.post(service.scim + "/Users", headers={"Authorization": f"BEARER {issued['token']}"}, json={})
        assert (wrong.status_code, late.status_code) == (403, 401)
        entry = _written(service, operator, late.headers["X-Request-Id"], refused="true")
        assert (entry["status"], entry["directory"], entry["events"]) == (401, "acme", 0)
        assert "issue one and put it into the IdP" in entry["fix"]
        assert _written(service, operator, wrong.headers["X-Request-Id"])["status"] == 403
        assert "mistake" not in entry


def test_mistakes_in_url_and_token_are_explained_where_they_were_meant(make_service: Callable[..., Service]) -> None:
    """The answers stay those of a stranger; the journal and the health of the directory say what is wrong and what to do."""
    service = make_service()
    with service.client("admin") as admin, service.client("scim") as client, service.client("operator") as operator:
        assert admin.post(service.base + "/v1/directories", json={"slug": "other"}).status_code == 201
        own = client.headers["Authorization"]
        number = str(UUID(own.split("_")[2]))
        start, _, secret = own.rpartition("_")
        cut, unknown = f"{start}_{secret[:-9]}", f"Bearer sl_scim_{'0' * 32}_{secret}"
        base = service.base + "/scim"
        sent = [
            ("acme/v2/Users", None, 401), ("acme/v2/Users", "Basic eDp5", 401), ("acme/v2/Users", unknown, 401),
            ("acme/v2/Users", cut, 401), ("acme/v2/Users", cut, 401), ("acme/Users", own, 404), ("acme", None, 404), ("v2/Users", own, 404),
            ("acmee/v2/Users", own, 403), ("other/v2/Users", own, 403), ("other/v2/Users", cut, 401), ("nowhere/v2/Users", unknown, 401),
            ("acme/v2/Users", own.removeprefix("Bearer "), 401), ("acme/v2/Users", f"Bearer {own}", 401), ("../acme/v2/Users", own, 404),
            ("acme/v2/Users", own.replace("sl_", "'sl_") + "'", 401), ("acme/v2/Users", unknown.removeprefix("Bearer "), 401),
        ]  # fmt: skip
        for path, authorization, status in sent:
            answer = httpx.get(
                f"{base}/{path}".replace("/scim/../", "/"), headers={"Authorization": authorization} if authorization else {}
            )
            assert (answer.status_code, "acme" in answer.text) == (status, False)
        wanted = {
            "acme": {("no_token", None): 1, ("not_a_token", None): 3, ("wrong_secret", number): 2, ("no_v2", number): 2, ("no_v2", None): 1,
                     ("wrong_slug", number): 3, ("no_bearer", number): 1, ("bearer_twice", number): 1, ("in_quotes", number): 1, ("no_scim", number): 1},
            "other": {("foreign_token", None): 2},
        }  # fmt: skip
        for slug, counts in wanted.items():
            found = _mistakes(service, operator, slug, sum(counts.values()))
            assert found == counts
        health = operator.get(service.base + "/v1/directories/acme/health").json()
        assert (health["last_request"], health["operations"], health["refusals"]) == (None, [], [])
        assert any("with the id of this token and another secret. (2, the last" in line for line in health["advice"])
        assert not any("No request has arrived yet" in line for line in health["advice"])
        page = operator.get(service.base + "/v1/requests", params={"directory": "acme", "limit": 1000}).json()["data"]
        entries = {(row["mistake"], row.get("token"), row["status"]): row for row in page}
        without = entries["no_bearer", f"tok_{UUID(number).hex}", 401]
        assert without["detail"].endswith("without the word Bearer before it.")
        assert without["fix"].endswith("enter Bearer, a space and the token.")
        assert "enter it again" in entries["wrong_secret", f"tok_{UUID(number).hex}", 401]["fix"]
        assert entries["no_v2", None, 404]["detail"] == "Requests came to a URL without /v2 after the directory."
    shown = service.cli("directory", "doctor", "acme")
    assert shown.returncode == 1
    assert shown.stdout.count("Requests came without a token.") == 1
    listed = service.cli("requests", "list", "--directory", "acme").stdout
    assert "mistake: no bearer" in listed
    assert "GET" not in listed, "a mistake has no path"


def test_the_doctor_sees_what_the_mapping_of_the_idp_does_wrong(make_service: Callable[..., Service]) -> None:
    """Its report has counts, ids and names of attributes; no value of a person is in it."""
    service = make_service()
    group = "urn:ietf:params:scim:schemas:core:2.0:Group"
    with service.client("admin") as admin, service.client("scim") as client, service.client("operator") as operator:
        assert admin.put(service.base + "/v1/directories/acme/profile", json={"profile": "okta"}).status_code == 200
        users = [
            {"userName": "jane@secret.example", "externalId": "secret1", "departement": "secret", "jane@secret.example": 1},
            {"userName": "secretjane", "externalId": "secret1", "urn:example:app": {"badge": "secret"}},
            {"userName": "john@secret.example", ENTERPRISE: {"department": "secret", "flor": "secret"}},
        ]
        made = [client.post(service.scim + "/Users", json={"schemas": [USER], **user}).json()["id"] for user in users]
        twins = [
            client.post(service.scim + "/Groups", json={"schemas": [group], "displayName": "secret"}).json()["id"]
            for _ in range(2)
        ]
        early = {"schemas": [group], "displayName": "early", "members": [{"value": "secret"}]}
        refused = client.post(service.scim + "/Groups", json=early)
        assert refused.status_code == 400
        _written(service, operator, refused.headers["X-Request-Id"])
        answer = operator.get(service.base + "/v1/directories/acme/health")
    quality = answer.json()["quality"]
    assert {*quality.pop("same_external_id")["examples"], *quality.pop("same_display_name")["examples"]} == {*made[:2], *twins}
    names = [(row["attribute"], row["resources"]) for row in quality.pop("unknown_attributes")]
    assert sorted(names) == [("(other)", 1), ("departement", 1), ("urn:example:app:badge", 1), (f"{ENTERPRISE}:flor", 1)]
    assert quality == {
        "users": 3, "users_without_external_id": 1, "unknown_members": 1, "resources_read": 5, "user_names_without_email": 1,
    }  # fmt: skip
    assert "secret" not in json.dumps(answer.json()["advice"]) + json.dumps(answer.json()["quality"])
    said = " ".join(answer.json()["advice"])
    assert all(
        part in said
        for part in (
            "2 groups share",
            "2 users share",
            "groups come before their users",
            "1 of 3 users have no",
            "departement",
            "no e-mail",
        )
    )


@pytest.mark.parametrize("path", ["/v2/Users", "/Users", ""])
@pytest.mark.parametrize("known_id", [False, True])
@pytest.mark.parametrize("form", ["Bearer {}", "{}", "Bearer Bearer {}", "Bearer '{}'"])
def test_a_stranger_is_told_the_same_whether_or_not_the_directory_and_the_token_exist(
    service: Service, path: str, form: str, *, known_id: bool
) -> None:
    number = service.client("scim").headers["Authorization"].split("_")[2] if known_id else "0" * 32
    headers = {"Authorization": form.format(f"sl_scim_{number}_{'0' * 72}")}
    # An address of its own: others have failed from 127.0.0.1 before, and would be slowed in the middle of this.
    address = f"127.{random.randrange(1, 250)}.{random.randrange(250)}.{random.randrange(1, 250)}"
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), headers=headers) as client:
        answers = [client.get(f"{service.base}/scim/{slug}{path}") for slug in ("acme", "nowhere", "a\u00e9")]
    told = [(a.status_code, a.content, {**a.headers, "x-request-id": "", "date": ""}) for a in answers]
    assert told[0] == told[1] == told[2]
    assert answers[0].status_code in {401, 404}


def _mistakes(service: Service, reader: httpx.Client, slug: str, requests: int) -> dict[tuple[str, str | None], int]:
    """The mistakes of a directory, when so many requests have been counted: that takes a second or two."""
    for _ in range(10_000):
        rows = reader.get(f"{service.base}/v1/directories/{slug}/health").json()["mistakes"]
        if sum(row["count"] for row in rows) >= requests:
            return {(row["mistake"], row["token"]): row["count"] for row in rows}
    raise AssertionError("never counted")


def test_an_accepted_deviation_and_the_number_of_its_events_are_recorded(service: Service) -> None:
    with service.client("scim") as client, service.client("operator") as operator:
        user = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"j{random.random()}"}).json()
        changes = {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": "False"}]}
        answer = client.patch(user["meta"]["location"], json=changes)
        entry = _written(service, operator, answer.headers["X-Request-Id"])
        assert entry["tolerances"] == ["op_case", "string_booleans"]
        assert entry["events"] == 1
        assert "fix" not in entry
        again = client.patch(user["meta"]["location"], json=changes)
        assert _written(service, operator, again.headers["X-Request-Id"])["events"] == 0
        health = operator.get(service.base + "/v1/directories/acme/health").json()
        assert {"op_case", "string_booleans"} <= {row["tolerance"] for row in health["tolerances"]}
        meant = {row["tolerance"]: row["meaning"] for row in health["tolerances"]}
        assert meant["string_booleans"] == 'This IdP sends booleans such as active as strings ("True", "False").'
        assert health["last_request"]
        assert {"PATCH", "POST"} <= {row["method"] for row in health["operations"]}


def test_pages_of_the_journal_go_back_in_time_without_gaps(service: Service) -> None:
    with service.client("scim") as client, service.client("operator") as operator:
        last = [client.get(service.scim + "/Users", params={"count": 0}).headers["X-Request-Id"] for _ in range(7)][-1]
        _written(service, operator, last)
        whole = operator.get(service.base + "/v1/requests", params={"limit": 50, "directory": "acme"}).json()["data"]
        paged, after = [], None
        while True:
            params = {"limit": 3, "directory": "acme"} | ({"after": after} if after else {})
            page = operator.get(service.base + "/v1/requests", params=params).json()
            paged += page["data"]
            after = page["list_metadata"]["after"]
            if after is None or paged[-1]["id"] <= whole[-1]["id"]:
                break
        found = [row["id"] for row in paged if whole[-1]["id"] <= row["id"] <= whole[0]["id"]]
        assert found == [row["id"] for row in whole]


def test_only_operators_auditors_and_admins_read_the_journal(service: Service) -> None:
    for role, status in (("scim", 403), ("consumer", 403), ("operator", 200), ("auditor", 200), ("admin", 200)):
        with service.client(role) as client:
            assert client.get(service.base + "/v1/requests").status_code == status
            assert client.get(service.base + "/v1/directories/acme/health").status_code == status
    with service.client("operator") as operator:
        assert operator.get(service.base + "/v1/directories/nowhere/health").status_code == 403


def test_the_doctor_names_a_retry_storm_and_the_refusals(make_service: Callable[..., Service]) -> None:
    service = make_service()
    silent = service.cli("directory", "doctor", "acme")
    assert silent.returncode == 1
    assert "No request has arrived yet" in silent.stdout
    with service.client("scim") as client, service.client("operator") as operator:
        for _ in range(25):
            last = client.post(service.scim + "/Users", json={"schemas": [USER]})
        _written(service, operator, last.headers["X-Request-Id"])
    sick = service.cli("directory", "doctor", "acme")
    assert sick.returncode == 1
    assert "repeats POST /Users without success (25 times" in sick.stdout
    assert "userName is required" in sick.stdout
    assert "fill it in the IdP" in " ".join(sick.stdout.split())
    with service.client("scim") as client, service.client("operator") as operator:
        for name in ("twin-a", "twin-b"):
            for _ in range(2):
                last = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name})
        _written(service, operator, last.headers["X-Request-Id"])
    report = json.loads(service.cli("directory", "doctor", "acme", "--json").stdout)
    (taken,) = [row for row in report["refusals"] if row["status"] == 409]
    assert taken["count"] == 2, "sentences that differ in ids only are one reason"
    assert taken["fix"].startswith(f"User {taken['detail'].split()[2]} has this userName already")
    assert report["retry_storms"][0]["count"] == 25
    assert report["refusals"][0]["count"] == 25
    assert "fill it in the IdP" in report["refusals"][0]["fix"]
    assert (report["spikes"], report["test_objects"]) == ([], 0)
    scim = str(UUID(service.first_run["tokens"]["scim"].split("_")[2]))
    successor = json.loads(service.cli("token", "rotate", scim, "--json").stdout)["id"]
    rotated = service.cli("directory", "doctor", "acme").stdout
    assert f"was replaced by {successor}, and works until" in rotated
    assert "rotate it" not in rotated
    assert service.cli("directory", "doctor", "nowhere").returncode == 4
    service.cli("directory", "pause", "acme", "--reason", "test")
    paused = service.cli("directory", "doctor", "acme")
    assert "! It is paused since 20" in paused.stdout.splitlines()[2]
    service.cli("directory", "close", "acme", "--reason", "test", "--confirm", "acme")
    closed = service.cli("directory", "doctor", "acme")
    assert (closed.returncode, closed.stdout.startswith("acme: Closed since 20")) == (0, True)
    with service.client("scim") as client, service.client("operator") as operator:
        refused = client.get(service.scim + "/Users")
        assert refused.status_code == 401
        _written(service, operator, refused.headers["X-Request-Id"])
    goes_on = service.cli("directory", "doctor", "acme")
    assert (goes_on.returncode, "! The IdP still sends requests (the last 20" in goes_on.stdout) == (1, True)


def test_old_entries_are_pruned(app_url: str) -> None:
    """The journal keeps 30 days; only the age of an entry decides."""
    import psycopg

    from api.journal import DAYS_KEPT, PRUNE_BATCH, SQL

    with psycopg.connect(app_url, autocommit=True, cursor_factory=psycopg.RawCursor) as conn:
        conn.execute("set search_path to ledger")
        for days in (0, DAYS_KEPT - 1, DAYS_KEPT + 1, 400):
            conn.execute(
                "insert into requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
                "values (1, now() - make_interval(days => $1), 'GET', '/', 200, 'generic@1', '{}', 0, 1, gen_random_uuid())",
                (days,),
            )
        assert conn.execute(SQL["prune_requests"], (DAYS_KEPT, PRUNE_BATCH)).rowcount == 2


def test_a_spike_is_a_minute_far_above_the_median(app_url: str) -> None:
    import psycopg

    from operations.journal import SPIKE_REQUESTS_MIN, SPIKE_TIMES_MIN, SQL, advice

    with psycopg.connect(app_url, autocommit=True, cursor_factory=psycopg.RawCursor) as conn:
        conn.execute("set search_path to ledger")
        for directory, minutes in ((901, [3, 3, 70, 3]), (902, [70, 70, 70]), (903, [1, 59, 1])):
            for ago, count in enumerate(minutes, 1):
                conn.execute(
                    "insert into requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
                    "select $1, date_trunc('minute', now()) - make_interval(mins => $2), 'GET', '/', 200, 'generic@1', '{}', 0, 1, "
                    "gen_random_uuid() from generate_series(1, $3)",
                    (directory, ago, count),
                )
        found = {
            directory: conn.execute(SQL["doctor_spikes"], (directory, 0, SPIKE_REQUESTS_MIN, SPIKE_TIMES_MIN)).fetchall()
            for directory in (901, 902, 903)
        }
    ((minute, requests, times),) = found[901]
    assert (requests, times, found[902], found[903]) == (70, 23.3, [], [])
    spike = {"minute": minute, "requests": requests, "times_the_median": times}
    report = {
        "directory": "acme",
        "clock": None,
        "state": "active",
        "state_since": None,
        "surge": {"revocations_last_hour": 0, "per_hour": 100, "action": "alarm"},
        "retry_storms": [],
        "operations": [],
        "hours": 24,
        "since": None,
        "last_request": minute,
        "spikes": [spike],
        "mistakes": [],
        "cycle_minutes": None,
        "quality": {
            "users": 0,
            "users_without_external_id": 0,
            "same_external_id": {"values": 0},
            "same_display_name": {"values": 0},
            "unknown_members": 0,
            "unknown_attributes": [],
            "user_names_without_email": None,
        },
        "tokens": [],
        "clients": [],
    }
    assert "23.3 times the usual" in advice(report, minute)[-1]


def test_metrics_say_what_the_idp_of_a_directory_does_and_when_its_token_expires(service: Service) -> None:
    created = 'ledger_scim_requests_total{directory="acme",operation="POST /Users",process="serve-1",status="2xx"}'

    def figure(text: str, name: str) -> float:
        return float(next((line for line in text.splitlines() if line.startswith(name)), "x 0").rsplit(" ", 1)[1])

    with service.client("scim") as client, service.client("admin") as admin:
        before = figure(admin.get(service.base + "/metrics").text, created)
        for _ in range(2):
            made = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"metric{random.random()}"})
        _written(service, admin, made.headers["X-Request-Id"])

        def shown() -> str:
            return admin.get(service.base + "/metrics").text

        until(lambda: figure(shown(), created) >= before + 2)
        assert figure(shown(), 'ledger_directory_silent_seconds{directory="acme"}') < 3_600
        assert figure(shown(), "ledger_token_expires_seconds{") > 0
        assert "ledger_build_info{" in shown()
        with httpx.Client(trust_env=False) as stranger:
            nameless = stranger.get(service.base + "/metrics").text
        assert "process_resident_memory_bytes" in nameless
        assert not any(name in nameless for name in ("ledger_directory", "ledger_token", "ledger_scim", "acme"))
