"""The database holds no readable personal data: the whole data directory is searched for the data of a canary user."""

import base64
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import warm
from tests.acceptance.conftest import Service, until

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
CANARIES = ("Quetzalcoatlus", "zanzibar.kumquat", "Rumpelstilzchen-47", "Grp-Xylophonist")


def _encodings(text: str) -> Iterator[tuple[str, bytes]]:
    yield "utf-8", text.encode()
    yield "casefolded", text.casefold().encode()
    yield "utf-16", text.encode("utf-16-le")
    yield "hex", text.encode().hex().encode()
    yield "json escaped", "".join(f"\\u{ord(c):04x}" for c in text).encode()
    for shift in range(3):  # base64 at each of its three alignments, without the characters that depend on neighbouring bytes
        encoded = base64.b64encode(b"\0" * shift + text.encode())
        yield "base64", encoded[4:-4] if shift else encoded[:-4]


def _found(places: list[Path], words: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """(word, encoding, file) for every occurrence."""
    hits: set[tuple[str, str, str]] = set()
    patterns = [(word, name, pattern) for word in words for name, pattern in _encodings(word)]
    for place in places:
        for path in [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]:
            content = path.read_bytes()
            hits |= {(word, name, str(path)) for word, name, pattern in patterns if pattern in content}
    return hits


def _live_a_life(service: Service) -> None:
    with service.client("scim") as client:
        user = {
            "schemas": [USER, ENTERPRISE], "userName": f"{CANARIES[1]}@canary.example", "externalId": CANARIES[2],
            "name": {"familyName": CANARIES[0], "givenName": CANARIES[0]}, "displayName": CANARIES[0],
            "emails": [{"value": f"{CANARIES[1]}@canary.example", "type": "work"}], "password": f"secret {CANARIES[0]}",
            ENTERPRISE: {"employeeNumber": CANARIES[2]}, "urn:example:unknown": {"nick": CANARIES[0]},
        }  # fmt: skip
        made = client.post(service.scim + "/Users", json=user)
        assert made.status_code == 201
        assert "password" not in made.text
        uid = made.json()["id"]
        group = client.post(
            service.scim + "/Groups", json={"schemas": [GROUP], "displayName": CANARIES[3], "members": [{"value": uid}]}
        )
        # Refused requests must not be logged either: a taken name, a wrong value, a filter, a broken body, an unknown path.
        assert client.post(service.scim + "/Users", json=user).status_code == 409
        assert client.post(service.scim + "/Users", json={**user, "active": CANARIES[0]}).status_code == 400
        assert client.get(service.scim + "/Users", params={"filter": f'userName eq "{CANARIES[1]}@canary.example"'}).json()[
            "totalResults"
        ]
        assert client.get(service.scim + "/Users", params={"filter": f'nonsense "{CANARIES[0]}"'}).status_code == 400
        assert client.post(service.scim + "/Users", content=f'{{"{CANARIES[0]}'.encode()).status_code == 400
        assert client.get(f"{service.scim}/Users/{CANARIES[0]}").status_code == 404
        assert client.get(f"{service.scim}/{CANARIES[0]}").status_code == 404
        patch = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{"op": "replace", "path": "title", "value": CANARIES[0]}],
        }
        assert client.patch(f"{service.scim}/Users/{uid}", json=patch).status_code == 200
        assert client.delete(f"{service.scim}/Users/{uid}").status_code == 204
        assert client.delete(f"{service.scim}/Groups/{group.json()['id']}").status_code == 204
        metrics = client.get(service.base + "/metrics").text
        _submit_everywhere(client, service, CANARIES[0])
        metrics += client.get(service.base + "/metrics").text
    assert not [word for word in CANARIES if word.casefold() in metrics.casefold()]
    _operate(service, CANARIES[0])
    with service.client("auditor") as auditor:
        auditor.get(f"{service.base}/v1/audit/acme/users/{uid}", params={"as_of": CANARIES[0]})
        auditor.get(f"{service.base}/v1/events/{CANARIES[0]}")


def _submit_everywhere(client: httpx.Client, service: Service, word: str) -> None:
    """Send the canary wherever a client can write text: in each part of a request, and in each kind of refusal that may quote it."""
    url, users, groups = service.scim, f"{service.scim}/Users", f"{service.scim}/Groups"
    user: dict[str, Any] = {"schemas": [USER], "userName": f"{word}-{time.monotonic_ns()}"}
    uid = client.post(users, json=user).json()["id"]
    group: dict[str, Any] = {"schemas": [GROUP], "displayName": word}
    gid = client.post(groups, json=group).json()["id"]
    for members in (
        [{"value": word}],
        [{"value": word, "display": word}],
        word,
        [word],
        [{"value": {word: word}}],
        [{word: word}],
    ):
        client.post(groups, json={**group, "members": members})
        client.put(f"{groups}/{gid}", json={**group, "members": members})
        _patch(client, f"{groups}/{gid}", {"op": "add", "path": "members", "value": members})
        _patch(client, f"{groups}/{gid}", {"op": "remove", "path": "members", "value": members})
    for path in (
        word, f"name.{word}", f"{word}.x", f'members[value eq "{word}"]', f'emails[{word} eq "x"].value', f"urn:example:{word}:2.0:User:nick",
        f"{USER}:{word}", f'emails[type eq "{word}"].value', f"title[{word}", f"urn:{word}",
    ):  # fmt: skip
        for op in ("add", "replace", "remove", word):
            _patch(client, f"{users}/{uid}", {"op": op, "path": path, "value": word})
            _patch(client, f"{groups}/{gid}", {"op": op, "path": path, "value": {word: word}})
    for wrong in (
        {"active": word}, {"emails": word}, {"emails": [{"primary": word}]}, {"name": word}, {"schemas": [word]}, {"schemas": [USER, f"urn:{word}"]},
        {word: word}, {f"urn:{word}:x": {word: word}}, {"userName": [word]}, {"meta": {word: word}}, {"id": word}, {"password": word}, {"groups": [{"value": word}]},
    ):  # fmt: skip
        client.post(users, json={**user, **wrong})
        client.put(f"{users}/{uid}", json={**user, **wrong})
    for text in (
        f'{word} eq "x"', f'userName eq "{word}"', f"userName eq {word}", f"userName {word} 1", f"urn:example:{word}:2.0:User:nick pr",
        f'emails[{word} eq "{word}"]', f'name.{word} co "{word}"', f'(userName eq "{word}"', f'meta.created gt "{word}"',
    ):  # fmt: skip
        for place in (users, groups, url):
            client.get(place, params={"filter": text})
        client.post(f"{url}/.search", json={"schemas": [SEARCH], "filter": text})
    _submit_besides(client, service, word, user, group, f"{users}/{uid}")


def _submit_besides(
    client: httpx.Client, service: Service, word: str, user: dict[str, Any], group: dict[str, Any], mine: str
) -> None:
    """Send it in query strings, paths, headers, unreadable bodies, bulk requests, and to the rest of the API."""
    url, users = service.scim, f"{service.scim}/Users"
    for name in ("sortBy", "attributes", "excludedAttributes", "cursor", "count", "startIndex", "asOf", word):
        client.get(users, params={name: word})
        client.post(f"{users}/.search", json={"schemas": [SEARCH], name: word})
    for path in (
        f"/Users/{word}",
        f"/{word}",
        f"/Users/{word}/{word}",
        f"/Schemas/{word}",
        f"/ResourceTypes/{word}",
        f"/{word}/.search",
    ):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            client.request(method, url + path, content=b"{}")
    for headers in (
        {"If-Match": word}, {"If-None-Match": f'W/"{word}"'}, {"Content-Type": f"application/{word}"}, {"Accept": word}, {"User-Agent": word},
        {"X-Request-Id": word}, {"X-Forwarded-For": word}, {"Host": f"{word}.example"}, {"Cookie": word}, {"Referer": f"https://{word}.example"},
        {"Authorization": f"Bearer {word}"}, {"Authorization": word}, {"Idempotency-Key": word}, {word: word},
    ):  # fmt: skip
        client.put(mine, json=user, headers=headers)
        client.get(mine, headers=headers)
    for content in (
        word,
        f'"{word}"',
        f'{{"{word}',
        f'{{"{word}": 1, "{word}": 2}}',
        f"[{word}]",
        f'{{"userName": "{word}\\ud800"}}',
    ):
        client.post(users, content=content.encode())
        client.patch(mine, content=content.encode())
        client.post(f"{url}/Bulk", content=content.encode())
    for operation in (
        {"method": word, "path": "/Users", "bulkId": word, "data": user}, {"method": "POST", "path": f"/{word}", "bulkId": word, "data": user},
        {"method": "PUT", "path": f"/Users/{word}", "data": user}, {"method": "POST", "path": "/Users", "bulkId": word, "data": {word: word}},
        {"method": "PATCH", "path": f"/Users/{mine[-36:]}", "version": word, "data": {"schemas": [word]}}, {word: word},
        {"method": "POST", "path": "/Groups", "bulkId": word, "data": {**group, "members": [{"value": f"bulkId:{word}-2"}]}},
    ):  # fmt: skip
        client.post(f"{url}/Bulk", json={"schemas": [BULK], "Operations": [operation]})
    with service.client("admin") as admin:
        for path in (
            "/v1/events",
            "/v1/requests",
            "/v1/consumers",
            "/v1/audit/acme/population",
            "/v1/tokens",
            f"/v1/directories/{word}",
            f"/v1/{word}",
        ):
            for name in ("after", "directory", "types", "subject", "as_of", "filter", "state", word):
                admin.get(service.base + path, params={name: word})
            admin.post(service.base + path, json={word: word}, headers={"Idempotency-Key": word})


def _operate(service: Service, word: str) -> None:
    """Send the canary wherever an operator can write text: URLs of webhooks, reasons, names of replays.

    Operators see it as they wrote it.
    """
    base, url = service.base, f"http://127.0.0.1:9/{word}?key={word}"  # no server listens there, so each delivery fails
    hook = {"mode": "webhook", "url": url, "directories": ["acme"], "types": ["user.*"], "start": "beginning"}
    with service.client("admin") as admin:
        for wrong in (
            {"url": f"ftp://{word}.example"},
            {"url": f"https://{word}@h.example"},
            {"types": [word]},
            {"directories": [word]},
        ):
            assert admin.put(f"{base}/v1/consumers/canary", json={**hook, **wrong}).status_code in {400, 403, 422}
        assert admin.put(f"{base}/v1/consumers/canary", json=hook).status_code == 201
        assert admin.put(f"{base}/v1/consumers/canary", json={"url": url + "&more"}).json()["url"] == url + "&more"
        stuck = _failing(admin, f"{base}/v1/consumers/canary/blocked")
        assert admin.post(f"{base}/v1/consumers/canary/blocked/{stuck}/park", json={"reason": word}).is_success
        assert admin.get(f"{base}/v1/consumers/canary/parked").json()["data"][0]["reason"] == word
        stuck = _failing(admin, f"{base}/v1/consumers/canary/blocked")
        assert admin.post(f"{base}/v1/consumers/canary/blocked/{stuck}/skip", json={"reason": word}).is_success
        run = {"name": word, "consumer": "canary", "from": 1, "to": 3, "reason": word}
        assert admin.post(f"{base}/v1/replays", json=run).status_code == 202
        assert [(r["name"], r["reason"]) for r in admin.get(f"{base}/v1/replays").json()["data"]] == [(word, word)]
        assert admin.post(f"{base}/v1/consumers/canary/seek", json={"to": 1, "reason": word}).is_success
        assert admin.post(f"{base}/v1/consumers/canary/ping").is_success
        assert admin.post(f"{base}/v1/directories", json={"slug": "other"}).is_success
        for act in ("pause", "resume", "close", "surge/release"):
            admin.post(f"{base}/v1/directories/other/{act}", json={"reason": word, "confirm": "other"})
        token = admin.post(f"{base}/v1/tokens", json={"role": "auditor", "name": "passing", "directories": ["acme"]}).json()
        assert admin.request("DELETE", f"{base}/v1/tokens/{token['id']}", json={"reason": word}).is_success
        assert word.casefold() not in admin.get(f"{base}/metrics").text.casefold()


def _failing(operator: httpx.Client, place: str) -> str:
    """The id of an event whose delivery failed."""
    found = list[dict[str, Any]]()
    until(lambda: bool(found.extend(operator.get(place).json()["data"]) or found), 60)
    return found[0]["event_id"]


def _patch(client: httpx.Client, url: str, operation: dict[str, Any]) -> None:
    client.patch(url, json={"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]})


def test_no_canary_in_heap_wal_or_any_log_after_a_clean_stop(make_service: Callable[..., Service]) -> None:
    service = make_service(LEDGER_WEBHOOK_ALLOW="127.0.0.0/8")
    _live_a_life(service)
    assert service.stop() == 0
    places = [service.data_dir, service.log]
    assert _found(places, CANARIES) == set()


@pytest.mark.parametrize("first", ["serve", "command"])
def test_the_first_start_after_an_upgrade_leaves_no_plaintext_in_the_files(
    make_service: Callable[..., Service], first: str
) -> None:
    """The URL is kept and shown; the tables that held it have new files, and the old files are gone.

    Older WAL is left to expire.
    """
    from runtime import embedded
    from tests.postgres.test_sealed_notes import downgraded

    service, word = make_service(LEDGER_WEBHOOK_ALLOW="127.0.0.0/8"), CANARIES[0]
    url = f"http://127.0.0.1:9/{word}?key={word}"
    hook = {"mode": "webhook", "url": "http://127.0.0.1:9/x", "directories": ["acme"], "start": "now"}
    with service.client("admin") as admin:
        assert admin.put(f"{service.base}/v1/consumers/canary", json=hook).status_code == 201
    running = embedded.running(service.data_dir / "postgres")
    assert running is not None
    downgraded(
        running.url("postgres", "ledger"),
        dict.fromkeys(("parked", "skipped", "replay_name", "replay_reason"), word) | {"url": url},
    )
    assert service.stop() == 0
    tables = service.data_dir / "postgres" / "data" / "base"
    assert _found([tables], (word,)), "as the release before kept it"
    if first == "command":
        assert service.cli("migrate").returncode == 0
        assert url in service.cli("consumer", "show", "canary", "--json").stdout
    else:
        service.start()
        with service.client("admin") as admin:
            assert admin.get(f"{service.base}/v1/consumers/canary").json()["url"] == url
        assert service.stop() == 0
    assert _found([tables, service.log], (word,)) == set()


def test_the_search_finds_stored_plaintext(make_service: Callable[..., Service]) -> None:
    """The positive control: a value that is stored in plaintext, in each encoding, is found by the same search."""
    service = make_service()
    from runtime import embedded

    running = embedded.running(service.data_dir / "postgres")
    assert running is not None
    import psycopg

    with psycopg.connect(running.url("postgres", "ledger"), autocommit=True) as conn:
        conn.execute("create table control (word text, raw bytea)")
        for name, pattern in _encodings(CANARIES[0]):
            conn.execute("insert into control values (%s, %s)", (name, pattern))
    assert service.stop() == 0
    found = {name for _, name, _ in _found([service.data_dir], CANARIES[:1])}
    assert found == {name for name, _ in _encodings(CANARIES[0])}


def test_only_their_owner_may_read_the_key_and_the_first_run_file(service: Service) -> None:
    for name in ("kek", "first-run.json"):
        assert (service.data_dir / name).stat().st_mode & 0o777 == 0o600


def test_the_log_names_requests_only_by_their_template(make_service: Callable[..., Service]) -> None:
    service = make_service(LEDGER_WEBHOOK_ALLOW="127.0.0.0/8")
    _live_a_life(service)
    assert service.stop() == 0
    text = re.sub(r'"token":"[0-9a-f-]{36}"', "", service.log.read_text())  # the id of a token is no secret
    assert "/scim/{directory}/v2/Users" in text, "refused requests are logged"
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-", text), "no resource id"
    assert "sl_" not in text, "no token"


def test_settings_masks_secrets(service: Service) -> None:
    shown = warm.run(["settings"], {**os.environ, "LEDGER_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"})
    assert shown.returncode == 0, shown.stderr
    assert "hunter2" not in shown.stdout
    assert "LEDGER_DATABASE_URL" in shown.stdout


def test_an_invalid_database_url_never_shows_its_password(tmp_path: Path) -> None:
    """Neither the error message nor a traceback shows it, and no part of it that was taken for a host."""
    for words, url in (
        (("serve",), "postgresql://u:hunter2@[::1/x"), (("migrate",), "mysql://u:hunter2@127.0.0.1:1/x"),
        (("token", "list"), "postgresql://u:p@hunter2@127.0.0.1:1/x"), (("replay", "verify"), "postgresql://u:hunter2%zz@127.0.0.1:1/x"),
    ):  # fmt: skip
        environment = {
            "LEDGER_DATABASE_URL": url,
            "LEDGER_DATA_DIR": str(tmp_path),
            "LEDGER_PORT": "0",
            "PATH": os.environ["PATH"],
        }
        run = warm.run(words, environment)
        assert run.returncode == 2, run.stderr
        assert "hunter2" not in run.stdout + run.stderr
        assert "LEDGER_DATABASE_URL is not understood" in run.stderr
        assert "Traceback" not in run.stderr
