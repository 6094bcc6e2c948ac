"""Profiles of live directories: what a change affects at once, and what it leaves unchanged."""

import asyncio
import threading
from typing import Any

import orjson
import pytest

from api import profiles as edge_profiles
from ledger.directories import Directories
from ledger.refused import RefusedError
from ledger.tokens import Token
from operations import profiles as operated_profiles
from operations.refusals import ForbiddenError
from scim.errors import Forbidden, Unavailable
from scim.profile import UnknownProfileError, profile_of
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.machine import administration
from tests.postgres.test_tokens_http import Edge, run


async def _events(ledger: Ledger) -> list[dict[str, Any]]:
    return [orjson.loads(event.json) for event in (await ledger.page()).events]


async def _followed(ledger: Ledger, profile: str) -> None:
    """Wait until the serving process uses the profile; the test does not notify it."""
    async with asyncio.timeout(10):
        while (known := ledger.services.ledger.directories.known("acme")) is None or known.profile.text != profile:
            async with ledger.services.ledger.connection() as conn:
                await conn.execute("select pg_sleep(0.01)")
    ledger.directory = known


async def _known(ledger: Ledger) -> None:
    async with ledger.services.ledger.connection() as conn:
        await ledger.services.ledger.directories.by_slug(conn, "acme")


def test_setting_a_profile_is_one_event_and_takes_effect_in_a_serving_process(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _known(ledger)
            await ledger.create_user("ada", title="Countess")
            before = await _events(ledger)
            async with administration(app_url, ledger.services.ledger.kek) as acts:
                changed = await acts.set_profile("acme", "okta")
            assert changed.profile.text == "okta@1"
            await _followed(ledger, "okta@1")
            await ledger.create_user("bob")
            after = await _events(ledger)
            assert after[: len(before)] == before, "nothing already stored changes"
            event, bob = after[len(before) :]
            assert event["type"] == "directory.profile_changed"
            assert event["profile"] == "generic@1"
            assert event["data"] == {
                "object": {"id": str(changed.uuid), "slug": "acme", "profile": "okta@1"},
                "changes": [{"path": "profile", "from": "generic@1", "to": "okta@1"}],
            }
            assert bob["profile"] == "okta@1"
            async with ledger.services.ledger.connection() as conn:
                assert [d.profile.text for d in await Directories(ledger.services.ledger.kek).all(conn)] == [
                    "generic@1",
                    "okta@1",
                ]

    asyncio.run(run())


def test_setting_the_same_profile_again_makes_no_event(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            before = await _events(ledger)
            async with administration(app_url, ledger.services.ledger.kek) as acts:
                assert (await acts.set_profile("acme", "generic")).profile.text == "generic@1"
            assert await _events(ledger) == before

    asyncio.run(run())


def test_a_profile_that_cannot_be_set_is_refused_with_a_reason(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            with pytest.raises(RefusedError, match=r"no profile nope@1 here"):
                await acts.set_profile("acme", "nope@1")
            with pytest.raises(ForbiddenError, match=r"no directory of that name"):
                await acts.set_profile("none", "okta")
            with pytest.raises(ForbiddenError, match=r"no directory of that name"):
                await acts.set_profile("_system", "okta")
            with pytest.raises(RefusedError, match=r"no profile nope here"):
                await acts.create_directory("second", profile="nope")
            made = await acts.create_directory("second", profile="entra")
            assert made.profile.text == "entra@1"
            assert made.profile.tolerances == profile_of("entra@1").tolerances

    asyncio.run(run())


def test_user_events_carry_the_user_that_is_the_same_for_every_idp(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            ada = id_of(await ledger.create_user("ada", title="Countess", emails=[{"value": "a@x", "type": "work"}]))
            await ledger.patch_user(ada, {"op": "replace", "path": "active", "value": False})
            await ledger.delete_user(ada)
            user = {"id": str(ada), "user_name": "ada", "active": True, "email": "a@x", "title": "Countess"}
            shown = [event["data"] for event in await _events(ledger) if event["subject"]["type"] == "User"]
            assert [list(data) for data in shown] == [["object", "changes", "user"]] * 3
            assert [data["user"] for data in shown] == [user, {**user, "active": False}, {**user, "active": False}]

    asyncio.run(run())


def test_a_profile_that_this_release_does_not_know_stops_writes_and_the_error_says_so(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _known(ledger)
            async with ledger.services.ledger.connection() as conn:
                await conn.execute("update directories set profile = 'okta@99' where slug = 'acme'")
                await ledger.services.ledger.directories.refresh(conn)
                assert (await ledger.services.ledger.directories.by_id(conn, ledger.directory.id)).slug == "acme", (
                    "its log stays readable"
                )
            token = Token(ledger.directory.uuid, "scim", "t", ("acme",), ("*",), bodies=True)
            with pytest.raises(Unavailable, match=r"okta@99, which this release does not know"):
                await ledger.services.directory("acme", token)
            with pytest.raises(Forbidden):
                await ledger.services.directory("other", token)
            async with administration(app_url, ledger.services.ledger.kek) as acts:
                with pytest.raises(UnknownProfileError, match=r"Directory acme has the profile okta@99"):
                    await acts.directories()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/v1/profiles/validate", {}),
        ("POST", "/v1/profiles/try", {"requests": [{"method": "POST", "path": "/Users", "body": {}}]}),
        ("PUT", "/v1/directories/other/profile", {}),
    ],
)
def test_a_long_document_is_read_off_the_event_loop(
    app_url: str, monkeypatch: pytest.MonkeyPatch, method: str, path: str, more: dict[str, Any]
) -> None:
    """A document of a quarter of a megabyte that is invalid at every place takes most of a second: requests of other directories
    would wait.
    """
    here: list[str] = []

    def watched(name: str, work: Any) -> Any:
        def asked(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                here.append(name)
            return work(*given, **named)

        return asked

    for module in (edge_profiles, operated_profiles):
        monkeypatch.setattr(module, "read_profile", watched("read_profile", module.read_profile))
    monkeypatch.setattr(edge_profiles, "read_json", watched("read_json", edge_profiles.read_json))
    monkeypatch.setattr(edge_profiles, "name_places", watched("name_places", edge_profiles.name_places))

    async def check(edge: Edge) -> None:
        wrong = {"profile": {f"x{n}": n for n in range(10_000)}, **more}
        answer = await edge.ask(method, path, wrong)
        assert answer.status_code == (200 if "validate" in path else 400), answer.text[:300]
        assert here == []

    run(app_url, check)
