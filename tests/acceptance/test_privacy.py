"""The database holds no readable personal data: the whole data directory is searched for a canary person."""

import base64
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
CANARIES = ("Quetzalcoatlus", "zanzibar.kumquat", "Rumpelstilzchen-47", "Grp-Xylophonist")


def _encodings(text: str) -> Iterator[tuple[str, bytes]]:
    yield "utf-8", text.encode()
    yield "casefolded", text.casefold().encode()
    yield "utf-16", text.encode("utf-16-le")
    yield "hex", text.encode().hex().encode()
    yield "json escaped", "".join(f"\\u{ord(c):04x}" for c in text).encode()
    for shift in range(3):  # base64 at each of its three alignments, without the characters that depend on the neighbours
        encoded = base64.b64encode(b"\0" * shift + text.encode())
        yield "base64", encoded[4:-4] if shift else encoded[:-4]


def _found(places: list[Path], words: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """(word, encoding, file) of every occurrence."""
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
        # What is refused is not logged either: a taken name, a wrong value, a filter, a broken body, an unknown path.
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
    assert not [word for word in CANARIES if word.casefold() in metrics.casefold()]
    with service.client("auditor") as auditor:
        auditor.get(f"{service.base}/v1/audit/acme/users/{uid}", params={"as_of": CANARIES[0]})
        auditor.get(f"{service.base}/v1/events/{CANARIES[0]}")


def test_no_canary_in_heap_wal_or_any_log_after_a_clean_stop(make_service: Callable[..., Service]) -> None:
    service = make_service()
    _live_a_life(service)
    assert service.stop() == 0
    places = [service.data_dir, service.log]
    assert _found(places, CANARIES) == set()


def test_the_search_finds_what_is_there(make_service: Callable[..., Service]) -> None:
    """The positive control: a value stored in the clear, in each encoding, is found by the same search."""
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


def test_the_key_and_the_first_run_file_are_private(service: Service) -> None:
    for name in ("kek", "first-run.json"):
        assert (service.data_dir / name).stat().st_mode & 0o777 == 0o600


def test_the_log_names_requests_by_template_only(make_service: Callable[..., Service]) -> None:
    service = make_service()
    _live_a_life(service)
    assert service.stop() == 0
    text = service.log.read_text()
    assert "/scim/{directory}/v2/Users" in text, "refused requests are logged"
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-", text), "no resource id"
    assert "sl_" not in text, "no token"


def test_settings_masks_secrets(service: Service) -> None:
    shown = subprocess.run(
        ["env", "LEDGER_DATABASE_URL=postgresql://u:hunter2@127.0.0.1:1/x", *_command("settings")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    assert "hunter2" not in shown.stdout
    assert "LEDGER_DATABASE_URL" in shown.stdout


def _command(*words: str) -> list[str]:
    import sys

    return [sys.executable, "-c", "from runtime.cli import main; main()", *words]
