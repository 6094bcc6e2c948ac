"""Work of requests in the real parts of a service: it ends when the client disconnects, holds no connection, and heavy work
leaves the shared batch.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from api.scim import members
from api.scim.bulk import bulk
from api.scim.http import Call
from api.scim.queries import Query
from api.scim.search import from_query
from api.scim.writes import Write
from api.services import Services
from ledger import commands, state
from ledger.tokens import Token
from projections import reads, user_groups
from projections.reads import Alone
from runtime.identifiers import uuid7
from scim.errors import InvalidValue, TooMany
from scim.profile import profile_of
from scim.work import AbandonedError, Work
from tests.postgres.ledgers import id_of, opened
from tests.postgres.test_lifecycle import until

TITLE = "t" * 100_000
GONE = {"type": "http.disconnect"}


class Client:
    """The messages of a client, and whether it is still connected."""

    def __init__(self, body: bytes = b"") -> None:
        self.gone = asyncio.Event()
        self._body = body
        self._sent = False

    async def receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body}
        await self.gone.wait()
        return GONE


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait in a thread for a condition; after five seconds the test fails."""
    looks = threading.Event()
    for _ in range(5_000):
        if holds() or looks.wait(0.001):
            return


def _call(client: Client, method: str, *path: str, **query: str) -> Call:
    headers = {b"content-type": b"application/scim+json"}
    return Call(method, list(path), "acme", headers, query, uuid7(), client.receive)


def test_a_search_ends_when_its_client_disconnects(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "SCAN_PAGE", 5)  # so that the search has many steps

    async def run() -> None:
        async with opened(app_url) as ledger:
            await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(50)))
            client = Client()
            call = _call(client, "GET", "Users", filter='title co "x"')
            seen = 0
            unsealed = reads.unsealed

            def counted(*given: Any) -> Any:
                nonlocal seen
                seen += 1
                if seen == 7:
                    loop.call_soon_threadsafe(client.gone.set)
                    if threading.get_ident() != of_the_loop:  # the event loop sets `gone` meanwhile; a thread might end before
                        wait_until(lambda: call.work.gone)
                return unsealed(*given)

            loop, of_the_loop = asyncio.get_running_loop(), threading.get_ident()
            monkeypatch.setattr(reads, "unsealed", counted)
            with pytest.raises(AbandonedError):
                await Query(ledger.services, call, ledger.directory).many([ledger.directory.user_type], from_query(call.query))
            assert seen < 50
            call.unwatch()

    asyncio.run(run())


def test_a_bulk_request_stops_before_its_next_operation_when_its_client_disconnects(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            client = Client(_bulk_of(50))
            call = _call(client, "POST", "Bulk")
            submit = ledger.services.ledger.submit

            def submitted(submission: Any) -> Any:
                submission.token = None  # the test is not about tokens
                if submission.op == 5:
                    client.gone.set()
                return submit(submission)

            object.__setattr__(ledger.services.ledger, "submit", submitted)
            await bulk(ledger.services, call, ledger.directory, _token())
            call.unwatch()
            assert 5 <= call.events < 50, "the queued operation is written, later ones are not begun"

    asyncio.run(run())


def _bulk_of(count: int) -> bytes:
    urn = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
    schemas = ["urn:ietf:params:scim:schemas:core:2.0:User"]
    creations = [
        {"method": "POST", "path": "/Users", "bulkId": str(n), "data": {"schemas": schemas, "userName": f"b{n}"}}
        for n in range(count)
    ]
    return orjson.dumps({"schemas": [urn], "Operations": creations})


def _token() -> Token:
    return Token(uuid4(), "scim", "test", ("acme",), (), bodies=True)  # type: ignore[arg-type]


def test_no_connection_is_held_while_a_list_computes(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(20)))
            await until(lambda: _none_held(ledger.services))
            held: list[int] = []
            compute = ledger.services.ledger.turns.compute

            async def watched(directory: int, work: Any) -> Any:
                held.append(_held(ledger.services))
                return await compute(directory, work)

            monkeypatch.setattr(type(ledger.services.ledger.turns), "compute", lambda _, *given: watched(*given))
            for query in ({"filter": 'title co "x"'}, {"sortBy": "userName"}, {"filter": 'groups.display co "x"'}, {}):
                call = _call(Client(), "GET", "Users", **query)
                await Query(ledger.services, call, ledger.directory).many([ledger.directory.user_type], from_query(query))
                call.unwatch()
            assert len(held) >= 4
            assert not any(held)

    asyncio.run(run())


@pytest.mark.parametrize(("profile", "key"), [("generic-username@1", "userName"), ("generic-externalid@1", "externalId")])
def test_no_connection_is_held_while_members_are_resolved(
    app_url: str, monkeypatch: pytest.MonkeyPatch, profile: str, key: str
) -> None:
    """Names are read and keys are made before and after the query; no user is unsealed."""
    monkeypatch.setattr(members, "LOOKED_UP_AT_ONCE", 100)

    async def run() -> None:
        async with opened(app_url) as ledger:
            directory = replace(ledger.directory, profile=profile_of(profile))
            users = [id_of(await ledger.create_user(f"Ann{n}", externalId=f"ext-{n}")) for n in range(3)]
            await until(lambda: _none_held(ledger.services))
            held: list[int] = []

            def watched(*given: Any) -> Any:
                held.append(_held(ledger.services))
                return reads.mac(*given[:1], members_kind[key], given[2])

            members_kind = {"userName": reads.USER_NAME, "externalId": reads.EXTERNAL_ID}
            monkeypatch.setattr(members.reads, "blind", lambda d, _, value: watched(d.index_key, None, value))
            names = [f"aNN{n}" if key == "userName" else f"ext-{n}" for n in range(3)]
            leniency = directory.leniency()
            values = [*names[:2], *(f"nobody-{n}" for n in range(250)), str(users[0]), str(uuid4()), names[2]]
            found = await members.resolve_members(ledger.services.ledger.turns, directory, values, leniency)
            assert found == dict(zip(names, map(str, users), strict=True))
            assert leniency.used == {"unknown_member"}
            assert len(held) == len(values)
            assert not any(held)

    asyncio.run(run())


async def _none_held(services: Services) -> bool:
    """A connection that the pool is still opening counts as one in use."""
    return _held(services) == 0


def _held(services: Services) -> int:
    stats = services.ledger.connection.__self__._pool.get_stats()
    return stats["pool_size"] - stats["pool_available"]


def test_a_large_document_leaves_the_shared_batch(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            large = id_of(await ledger.create_user("large", title=TITLE))
            small = id_of(await ledger.create_user("small"))
            change = {"op": "replace", "path": "nickName", "value": "x"}
            alone, shared = await asyncio.gather(ledger.patch_user(large, change), ledger.patch_user(small, change))
            assert len(TITLE) > state.SHARED_BYTES_MAX
            assert alone.large
            assert not shared.large
            assert alone.size > len(TITLE)
            assert alone.document is not None
            assert alone.document["title"] == TITLE
            assert (await ledger.patch_user(large, change)).seq is None, "again it changes nothing"

    asyncio.run(run())


def test_a_change_of_members_reads_no_document(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            group = id_of(await ledger.create_group("g"))
            opened_bodies: list[UUID] = []
            monkeypatch.setattr(state, "open_payload", lambda *_, obj, **__: opened_bodies.append(obj))
            assert (await ledger.add_member(group, user)).events == 1
            assert opened_bodies == []

    asyncio.run(run())


def test_a_large_user_is_read_in_a_query_of_its_own(app_url: str) -> None:
    """Other requests that share the query must not wait for it."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            large = id_of(await ledger.create_user("large", title=TITLE))
            assert isinstance(await ledger.services.reads.users.get((ledger.directory.id, large)), Alone)
            assert isinstance(await ledger.services.reads.names.get((ledger.directory.id, "large")), Alone)
            for path, query in ((("Users", str(large)), {}), (("Users",), {"filter": 'userName eq "large"'})):
                call = _call(Client(), "GET", *path, **query)
                asked = Query(ledger.services, call, ledger.directory)
                kind = ledger.directory.user_type
                answer = await (asked.one(kind, path[1]) if len(path) == 2 else asked.many([kind], from_query(query)))
                call.unwatch()
                assert TITLE.encode() in answer.body

    asyncio.run(run())


def test_very_many_groups_of_a_user_are_read_in_a_query_of_its_own(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_groups, "SHARED_ROWS_MAX", 3)

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            turns, names = ledger.services.ledger.turns, ledger.services.group_names

            async def groups(steps: int) -> list[user_groups.GroupOf]:
                found = await user_groups.groups_of(turns, names, ledger.directory, [user], Work(steps), user_groups.as_it_is)
                return found[user]

            for n in range(5):
                await ledger.create_group(f"g{n}", (user,))
            assert isinstance(await ledger.services.reads.groups.get((ledger.directory.id, user)), Alone)
            assert [group.name for group in await groups(1_000)] == [f"g{n}" for n in range(5)]
            with pytest.raises(TooMany):
                await groups(10)
            monkeypatch.setattr(user_groups, "EDGES_MAX", 4)
            with pytest.raises(TooMany):
                await groups(1_000)

    asyncio.run(run())


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH"])
def test_the_ids_of_many_members_are_read_off_the_event_loop(app_url: str, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """300 000 ids take a second: in the thread of the event loop, every other directory would wait for it."""
    schemas = "urn:ietf:params:scim:schemas:core:2.0:Group", "urn:ietf:params:scim:api:messages:2.0:PatchOp"
    here, elsewhere, parse_id = 0, 0, commands.parse_id

    def counted(text: str) -> UUID | None:
        nonlocal here, elsewhere
        if threading.current_thread() is threading.main_thread():
            here += 1
        else:
            elsewhere += 1
        return parse_id(text)

    async def run() -> None:
        async with opened(app_url) as ledger:
            group = id_of(await ledger.create_group("team"))
            some = [{"value": str(id_of(await ledger.create_user(f"u{n}")))} for n in range(3)]
            values = some * 1_000
            whole = {"schemas": [schemas[0]], "displayName": "team", "members": values}
            change = {"schemas": [schemas[1]], "Operations": [{"op": "add", "path": "members", "value": values}]}
            client = Client(orjson.dumps(change if verb == "PATCH" else whole))
            call = _call(client, verb, "Groups", *([] if verb == "POST" else [str(group)]))
            submit = ledger.services.ledger.submit

            def submitted(submission: Any) -> Any:
                submission.token = None  # the test is not about tokens
                return submit(submission)

            object.__setattr__(ledger.services.ledger, "submit", submitted)
            monkeypatch.setattr(commands, "parse_id", counted)
            write = Write(ledger.services, call, ledger.directory, _token())
            if verb == "POST":
                await write.create_group()
            else:
                await (write.replace_group if verb == "PUT" else write.patch_group)(str(group))
            call.unwatch()
        assert elsewhere >= 3, "they are counted"
        assert here <= 10

    asyncio.run(run())


def test_of_very_many_unknown_members_only_the_first_are_looked_up(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up 300 000 would take seconds, only to name ten; and encoding all of them at once would block the event loop."""
    monkeypatch.setattr(state, "SOUGHT_AT_ONCE", 20)
    sought: list[int] = []
    uuids = state.uuids

    def counted(ids: Any) -> Any:
        sought.append(len(ids))
        return uuids(ids)

    async def run() -> None:
        async with opened(app_url) as ledger:
            user, group = id_of(await ledger.create_user("u")), id_of(await ledger.create_group("g"))
            monkeypatch.setattr(state, "uuids", counted)
            strangers = [str(uuid4()) for _ in range(2_000)]
            for ask in (
                ledger.create_group("many", (user, *map(UUID, strangers))),
                ledger.patch_group(group, {"op": "add", "path": "members", "value": [{"value": s} for s in strangers]}),
            ):
                with pytest.raises(InvalidValue, match="and more") as refused:
                    await ask
                assert refused.value.detail.count('", "') == 9, "ten are named"
                assert max(sought) <= 20
                assert sum(sought) <= 100
                sought.clear()
            named = [{"value": s} for s in [*strangers, str(user)]]
            changed = await ledger.patch_group(group, {"op": "remove", "path": "members", "value": named})
            assert changed.seq is None
            assert sum(sought) <= 20, "the group's own members say all"

    asyncio.run(run())
