"""Rebuild and verify on a real database: drift is found and repaired, an interrupted rebuild continues, and writes go on
meanwhile.
"""

import asyncio
from collections.abc import Sequence

import psycopg
import pytest

from database.connections import connect_owner
from database.locks import REBUILD
from ledger.directories import Directory
from replay.rebuild import RebuildRefusedError, Result, rebuild
from replay.shadow_tables import CHUNK_EVENTS
from replay.stored_events import Finding, UnreadableEventError
from replay.verify import FINDINGS_MAX, verify
from tests.postgres.ledgers import Ledger, id_of, opened


def _unheard(_done: int, _total: int) -> None:
    pass


async def _directories(ledger: Ledger) -> list[Directory]:
    async with ledger.services.ledger.connection() as conn:
        return await ledger.services.ledger.directories.all(conn)


async def _rebuild(ledger: Ledger, owner_url: str, progress=_unheard, **options) -> Result:
    return await rebuild(owner_url, ledger.services.ledger.kek, progress, lambda _text: None, **options)


async def _verify(ledger: Ledger, owner_url: str) -> list[Finding]:
    findings, _, _ = await verify(owner_url, ledger.services.ledger.kek, await _directories(ledger), _unheard)
    return findings


async def _history(ledger: Ledger) -> list:
    """A history with all kinds of changes: names are swapped, members added and removed, users leave and return, resources are
    deleted.
    """
    users = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}", externalId=f"x{n}") for n in range(30)))]
    group = id_of(await ledger.create_group("g", tuple(users[:10])))
    outer = id_of(await ledger.create_group("outer", (group,)))
    rename = {"op": "replace", "path": "userName"}
    await ledger.patch_user(users[0], {**rename, "value": "aside"})
    await ledger.patch_user(users[1], {**rename, "value": "u0"})
    await ledger.patch_user(users[0], {**rename, "value": "u1"})
    for active in (False, True, False):
        await ledger.patch_user(users[2], {"op": "replace", "path": "active", "value": active})
    await ledger.delete_user(users[3])
    await ledger.create_user("U3", emails=[{"value": "back@x.example", "type": "work"}, {"value": "Two@x.example"}])
    await ledger.patch_group(group, {"op": "remove", "path": f'members[value eq "{users[4]}"]'})
    await ledger.add_member(group, users[4])
    await ledger.patch_group(outer, {"op": "replace", "path": "displayName", "value": "renamed"})
    return users


def _sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        for statement in statements:
            conn.execute(statement)  # type: ignore[arg-type]


def test_an_intact_ledger_verifies_and_rebuilds_to_the_same_content(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            assert await _verify(ledger, owner_url) == []
            result = await _rebuild(ledger, owner_url)
            assert result.drifted == ()
            assert await _verify(ledger, owner_url) == []
            # The service goes on with the swapped tables: reads, writes and uniqueness.
            assert (await ledger.create_user("after")).seq
            assert len((await asyncio.gather(ledger.create_user("AFTER"), return_exceptions=True))[0].args) >= 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("table", "drift"),
    [
        ("users", "update users set active = not active where rv = 1 and body_seq = (select min(body_seq) from users)"),
        ("users", "delete from users where body_seq = (select max(body_seq) from users)"),
        (
            "memberships",
            "update memberships set to_seq = from_seq + 1 where ctid = (select ctid from memberships where to_seq > 1e18 limit 1)",
        ),
        ("memberships", "insert into memberships select directory, grp, gen_random_uuid(), 0, 1 from memberships limit 1"),
        ("states", "update states set active = not active where ctid = (select ctid from states limit 1)"),
        ("groups", "update groups set body_seq = body_seq - 1"),
    ],
)
def test_drift_in_a_read_model_is_found_named_and_repaired(app_url: str, owner_url: str, table: str, drift: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            _sql(owner_url, drift)
            findings = await _verify(ledger, owner_url)
            assert findings
            assert {f.place for f in findings} == {f"table {table}"}
            assert "directory" in findings[0].problem, "the row is shown"
            result = await _rebuild(ledger, owner_url)
            assert result.drifted == (table,)
            assert await _verify(ledger, owner_url) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ("update events set rv = 99 where seq = 5 and directory = 2", "column rv"),
        ("update events set etag_rv = 99 where seq = 5 and directory = 2", "column etag_rv"),
        ("update events set obj = gen_random_uuid() where seq = 5 and directory = 2", "column obj"),
        ("update events set type = 4 where seq = 5 and directory = 2", "column type"),
        ("update events set leaf_hash = sha256('x') where seq = 5 and directory = 2", "hash"),
        ("update events set leaf = leaf || ' ' where seq = 5 and directory = 2", "leaf"),
        ("update bodies set ct = ct || 'x' where seq = 5 and directory = 2", "sealed body"),
        ("delete from events where seq = 5 and directory = 2", "hole"),
        ("update commits set size = 2 where seq = 5 and directory = 2", "size"),
        ("update commits set at = at + 3600000000 where seq = 5 and directory = 2", "at"),
        ("update commits set req = gen_random_uuid() where seq = 5 and directory = 2", "req"),
        ("update commits set types = 3 where seq = 5 and directory = 2", "types"),
        ("delete from commits where seq = 5 and directory = 2", "no row"),
        ("delete from bodies where seq = 5 and directory = 2", "body is missing"),
        ("delete from subject_keys where obj = (select obj from events where seq = 5 and directory = 2)", "key"),
    ],
)
def test_an_edited_column_beside_a_leaf_is_found_and_its_row_named(
    app_url: str, owner_url: str, superuser_url: str, edit: str, named: str
) -> None:
    """The test disables the triggers; an edit that is possible only in this way is found as well."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            tables = ("events", "bodies", "commits", "subject_keys")
            off = [f"alter table {table} disable trigger all" for table in tables]
            _sql(superuser_url, *off, edit)
            findings = await _verify(ledger, owner_url)
            assert any("seq 5" in f.place or "seq 6" in f.place for f in findings), findings
            assert any(named in f.problem for f in findings), findings

    asyncio.run(run())


def test_an_interrupted_rebuild_continues_where_it_was(app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def stop_half_way(done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted

    async def run() -> None:
        monkeypatch.setattr("replay.shadow_tables.CHUNK_EVENTS", 7)
        async with opened(app_url) as ledger:
            await _history(ledger)
            with pytest.raises(Interrupted):
                await _rebuild(ledger, owner_url, stop_half_way)
            await ledger.create_user("meanwhile")
            result = await _rebuild(ledger, owner_url)
            assert result.resumed_at > result.events // 2
            assert result.drifted == ()
            assert await _verify(ledger, owner_url) == []

    assert CHUNK_EVENTS == 5_000
    asyncio.run(run())


@pytest.mark.long
def test_writes_go_on_during_a_rebuild_and_nothing_is_lost(app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr("replay.shadow_tables.CHUNK_EVENTS", 50)
        async with opened(app_url) as ledger:
            await _history(ledger)
            over = asyncio.Event()

            async def write(writer: int) -> int:
                count = 0
                while not over.is_set():
                    await ledger.create_user(f"w{writer}n{count}")
                    count += 1
                return count

            writers = [asyncio.create_task(write(n)) for n in range(8)]
            for _ in range(3):
                result = await _rebuild(ledger, owner_url)
                assert result.drifted == ()
            over.set()
            written = sum(await asyncio.gather(*writers))
            assert written > 50
            assert await _verify(ledger, owner_url) == []

    asyncio.run(run())


def test_two_rebuilds_at_once_are_refused(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            holder = await connect_owner(owner_url)
            await holder.execute("select pg_advisory_lock($1::int4, $2::int4)", (REBUILD.number, REBUILD.key))
            with pytest.raises(RebuildRefusedError, match="Another rebuild"):
                await _rebuild(ledger, owner_url)
            await holder.close()

    asyncio.run(run())


def test_only_some_of_the_tables_can_be_rebuilt_alone(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            _sql(owner_url, "delete from users", "delete from memberships")
            only: Sequence[str] = ("users",)
            assert (await _rebuild(ledger, owner_url, only=only)).drifted == ("users",)
            assert {f.place for f in await _verify(ledger, owner_url)} == {"table memberships"}

    asyncio.run(run())


def test_a_missing_body_stops_a_rebuild_which_names_the_event(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            _sql(superuser_url, "alter table bodies disable trigger all", "delete from bodies where seq = 20 and directory = 2")
            with pytest.raises(UnreadableEventError, match="acme seq 20"):
                await _rebuild(ledger, owner_url)

    asyncio.run(run())


def test_every_body_and_key_that_cannot_be_opened_is_named(app_url: str, owner_url: str, superuser_url: str) -> None:
    """This covers deleted resources too; the first finding must not hide the others, and none ends in a traceback."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            users = [id_of(o) for o in [await ledger.create_user(f"u{n}") for n in range(4)]]
            await ledger.delete_user(users[3])
            damage = "set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)"
            for user in (users[0], users[2], users[3]):
                _sql(superuser_url, f"update subject_keys set wrapped = {damage} where obj = '{user}'")
            found = await _verify(ledger, owner_url)
            problem = "the key of its sealed body is damaged, or wrapped with another one"
            assert [(f.place, f.problem) for f in found] == [(f"acme seq {seq}", problem) for seq in (2, 4, 6)]
            body = "set_byte(ct, 60, get_byte(ct, 60) # 1)"
            damaged = f"update bodies set ct = {body} where directory = 2 and seq in (3, 5)"
            _sql(superuser_url, "alter table bodies disable trigger all", damaged)
            log = [f for f in await _verify(ledger, owner_url) if "leaf commits to" in f.problem]
            assert [f.place for f in log] == ["acme seq 3", "acme seq 5"]
            with pytest.raises(UnreadableEventError, match="acme seq 2"):
                await _rebuild(ledger, owner_url)

    asyncio.run(run())


def test_at_most_a_screenful_of_findings_is_reported(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await _history(ledger)
            _sql(superuser_url, "alter table events disable trigger all", "update events set etag_rv = 99")
            assert len(await _verify(ledger, owner_url)) <= 2 * FINDINGS_MAX

    asyncio.run(run())
