"""Free texts are stored sealed: each text column has a closed alphabet, and plaintext of earlier releases is moved and sealed."""

import asyncio
import os
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aiohttp import web

from database.connections import connect
from database.deadlines import Deadline
from database.migrate import migrate
from delivery import consumers as acts
from delivery import leftovers
from delivery.interventions import parked, skipped
from delivery.leftovers import seal_leftovers
from delivery.reports import BLOCKED
from ledger.refused import RefusedError
from ledger.sealing import open_note
from operations import consumers, deliveries, directories, replays, surges, tokens
from operations.consumers import Changes
from operations.replays import Wanted
from proofs.keys import WrapError
from runtime.bootstrap import machine
from tests.postgres.deliveries import LOOPBACK, Scene, scene
from tests.postgres.test_delivery import blocked_user, run

CANARY = "Quetzalcoatlus"
WORDS = ("text", "varchar", "bpchar", "char", "name", "json", "jsonb", "xml", "citext", "hstore")  # types that can hold words

# Every column of such a type, and why it holds nobody's name. Free texts are sealed (bytea), so they are not in this list.
SLUGS = "a name with a closed alphabet, checked before it is stored"
OURS = "one of a few words of ours"
LABEL = "an operator's label, in clear and said to be so (SECURITY.md)"
SETUP = "how data of a directory is shaped: no data (docs/concepts.md)"
PUBLIC = "public keys, or where they are published: what anybody may know (docs/operations.md)"
COUNTED = "numbers, ids, paths of attributes, and labels of consumers and tokens"
COLUMNS = {
    "clients": {"name": LABEL, "auth": OURS, "jwks": PUBLIC, "jwks_uri": PUBLIC, "created_by": OURS},
    "consumers": {"name": SLUGS, "mode": OURS, "ordering": OURS, "directories": SLUGS, "types": SLUGS, "state": OURS},
    "consumer_epochs": {"directories": SLUGS, "types": SLUGS},
    "consumer_forks": {"common": SLUGS, "gone": SLUGS},
    "directories": {"slug": SLUGS, "profile": SLUGS},
    "directory_states": {"state": OURS},
    "erasures": {"counts": COUNTED, "recipients": COUNTED, "mentions": COUNTED, "refused": OURS},
    "holds": {"placed_by": OURS, "released_by": OURS},
    "extension_schemas": {"resource_type": OURS, "urn": SETUP, "document": SETUP},
    "key_epochs": {"provider": OURS, "root": "the name of a root key at its provider, such as an ARN: no data"},
    "migrations": {"name": OURS, "checksum": OURS},
    "open_deliveries": {"error": OURS},
    "profiles": {"name": SLUGS, "document": SETUP},
    "replays": {"superseded": OURS, "state": OURS, "failure": OURS},
    "requests": {"method": OURS, "route": OURS, "scim_type": OURS, "profile": SLUGS, "tolerances": OURS, "mistake": OURS},
    "surge_limits": {"action": OURS},
    "tokens": {
        "role": OURS, "name": LABEL, "directories": SLUGS, "types": SLUGS, "consumers": SLUGS, "created_by": OURS,
    },
    "unsealed_notes": {"kind": OURS, "content": "what an earlier release kept in clear: the table is empty once the service has started"},
}  # fmt: skip


def test_every_text_column_has_a_closed_alphabet_or_is_named_here(owner_url: str) -> None:
    """Whoever adds a text column must decide what it may contain; free text is bytea, and sealed."""
    with psycopg.connect(owner_url) as conn:
        rows = conn.execute(
            "select c.table_name, c.column_name from information_schema.columns c where table_schema = 'ledger'"
            " and ltrim(udt_name, '_') = any(%s) order by 1, 2",
            (list(WORDS),),
        ).fetchall()
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    assert found == {table: set(columns) for table, columns in COLUMNS.items()}


async def in_clear(s: Scene) -> list[tuple[str, int]]:
    """The tables with rows in which the canary can be read, also where bytes are shown in hexadecimal."""
    found: list[tuple[str, int]] = []
    for (table,) in await s.sql("select tablename::text from pg_tables where schemaname = 'ledger' order by 1"):
        ((count,),) = await s.sql(
            f"select count(*) from {table} t where t::text ilike '%%' || %s || '%%' or t::text ilike '%%' || %s || '%%'",
            CANARY, CANARY.encode().hex(),
        )  # fmt: skip
        found += [(table, count)] if count else []
    return found


async def live(s: Scene, first: int, event_id: str) -> str:
    """Write the canary into everything that an operator may write. Returns the id of the replay."""
    ledger, url = s.ledger.services.ledger, f"{s.hook.url}/{CANARY}?key={CANARY}"
    await consumers.put(ledger, machine(), "app", Changes(url=url), None, LOOPBACK)
    made = Changes(mode="webhook", url=url, directories=("acme",))
    await consumers.put(ledger, machine(), "other", made, "now", LOOPBACK)
    wanted = Wanted(f"of {CANARY}", "1", None, None, None, None, None, "skip", f"asked for by {CANARY}")
    _, started = await replays.create(ledger, machine(), "other", wanted, dry_run=False)
    assert started is not None
    await deliveries.act(ledger, machine(), "app", event_id, "park", f"{CANARY} called", of_parked=False)
    await consumers.seek(ledger, machine(), "other", "beginning", f"{CANARY} lost it", dry_run=False)
    await surges.release(ledger, machine(), "acme", CANARY)
    await directories.pause(ledger, machine(), "acme", CANARY)
    await directories.resume(ledger, machine(), "acme", CANARY)
    issued = await tokens.issue(ledger, machine(), "auditor", "of the audit", ("*",), None, days=1)
    await tokens.revoke(ledger, machine(), issued.shown["id"], CANARY)
    return str(started.id)


async def event_at(s: Scene, position: int) -> str:
    return next(event["id"] for event in await s.wanted() if event["position"] == position)


def test_no_text_of_an_operator_or_a_receiver_is_readable_in_any_table(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            first, _ = await blocked_user(s)
            s.hook.verdict = lambda e: web.Response(status=500, text=CANARY) if e["position"] == first else None
            async with s.working():
                await s.until(lambda: is_blocked(s, first))
            event_id = await event_at(s, first)
            run_id = await live(s, first, event_id)
            assert await in_clear(s) == []
            await shown_as_written(s, run_id, event_id)
            await deliveries.act(s.ledger.services.ledger, machine(), "app", event_id, "skip", f"{CANARY} left", of_parked=True)
            assert await in_clear(s) == []
            assert (await holes(s))["skipped"] == f"{CANARY} left"

    run(body())


async def shown_as_written(s: Scene, run_id: str, event_id: str) -> None:
    """Operators see the texts as before."""
    ledger = s.ledger.services.ledger
    url = f"{s.hook.url}/{CANARY}?key={CANARY}"
    assert [status["url"] for status in await consumers.list_all(ledger, machine())] == [url, url]
    assert (await consumers.show(ledger, machine(), "app"))["url"] == url
    (row,), _ = await deliveries.list_parked(ledger, machine(), "app", 0, 10)
    assert (row["event_id"], row["reason"], row["last_answer"]) == (event_id, f"{CANARY} called", CANARY)
    found = await replays.show(ledger, machine(), run_id)
    assert (found.name, found.reason) == (f"of {CANARY}", f"asked for by {CANARY}")
    assert await replays.list_runs(ledger, machine(), "other", 10) == [found]
    assert (await holes(s))["parked"] == f"{CANARY} called"


async def holes(s: Scene) -> dict[str, str | None]:
    found = await consumers.audit(s.ledger.services.ledger, machine(), "app", None, None)
    return {hole["why"]: hole["reason"] for hole in found["holes"]}


async def is_blocked(s: Scene, position: int) -> bool:
    return (await s.states()).get(position) == BLOCKED


def test_a_note_can_be_opened_only_as_its_own_kind_and_for_its_owner(app_url: str) -> None:
    """Otherwise a sealed reason could be put in the place of a URL, and deliveries would go to an address that somebody wrote
    there.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            consumer, other = await s.make(), await s.make("other")
            assert consumer.sealed_url is not None
            assert consumer.url(s.kek) == s.hook.url
            for kind, owner in (("parked", consumer.uuid), ("secret", consumer.uuid), ("url", other.uuid)):
                with pytest.raises(WrapError):
                    open_note(s.kek, consumer.sealed_url, kind=kind, owner=owner)

    run(body())


def test_an_unchanged_url_is_recognised_although_its_sealed_form_differs(app_url: str) -> None:
    """A text that is sealed twice has two sealed forms, so the opened texts are compared."""

    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            same, moved = consumer.defined(s.kek), Changes(url=f"{s.hook.url}?other")
            assert acts.change(consumer, same, kek=s.kek, random=os.urandom) is None
            await consumers.put(s.ledger.services.ledger, machine(), "app", moved, None, LOOPBACK)
            assert (await s.consumer()).url(s.kek) == moved.get("url")
            assert (await s.consumer()).version > consumer.version

    run(body())


# -- a ledger of the previous release -------------------------------------------

# Change the schema of today to that of 0009, with the texts as they were stored then. The test opens what is sealed now.
BEFORE = """
set search_path to ledger;
drop function take_unsealed_notes();
drop table unsealed_notes;
alter table consumers alter sealed_url type text using null;
alter table consumers rename sealed_url to url;
alter table open_deliveries alter sealed_reason type text using null;
alter table open_deliveries rename sealed_reason to reason;
alter table skips alter sealed_reason type text using '';
alter table skips rename sealed_reason to reason;
alter table skips alter reason set not null;
alter table replays alter sealed_name type text using '', alter sealed_reason type text using '';
alter table replays rename sealed_name to name;
alter table replays rename sealed_reason to reason;
alter table replays alter name set not null, alter reason set not null;
alter table consumer_epochs add reason text not null default 'created';
alter table consumer_epochs alter reason drop default;
delete from migrations where number = 10;
"""


def downgraded(url: str, notes: dict[str, str]) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(BEFORE)
        conn.execute("update consumers set url = %s where mode = 'webhook'", (notes["url"],))
        conn.execute("update open_deliveries set reason = %s where state = 5", (notes["parked"],))
        conn.execute("update skips set reason = %s", (notes["skipped"],))
        conn.execute("update replays set name = %s, reason = %s", (notes["replay_name"], notes["replay_reason"]))
        conn.execute("update consumer_epochs set reason = %s", (CANARY,))


async def aside(s: Scene) -> tuple[int, int]:
    """Of the deliveries of one user one is parked and one skipped; returns their positions."""
    first, wanted = await blocked_user(s)
    second = wanted[1]["position"]
    s.hook.verdict = lambda e: 500 if e["position"] in {first, second} else None
    async with s.working():
        await s.until(lambda: is_blocked(s, first))
        await s.act(parked(await s.consumer(), first, "evt", "-", kek=s.kek, random=os.urandom))
        await s.until(lambda: is_blocked(s, second))
        await s.act(skipped(await s.consumer(), second, "evt", "-", kek=s.kek, random=os.urandom))
    return first, second


async def sealed_now(s: Scene) -> int:
    async with await connect(s.url) as conn:
        return await seal_leftovers(conn, s.kek, os.urandom)


def test_an_upgrade_seals_plaintext_and_deliveries_go_on(app_url: str, owner_url: str, superuser_url: str) -> None:
    """No URL and no reason is lost, and none stays readable: neither in a row nor in the old file of a table, because each table
    gets a new file.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await aside(s)
            s.hook.verdict = lambda _: None
            made = await s.replay()
            notes = {
                "url": f"{s.hook.url}?of={CANARY}", "parked": f"{CANARY} asked", "skipped": f"{CANARY} went",
                "replay_name": CANARY, "replay_reason": f"for {CANARY}",
            }  # fmt: skip
            downgraded(superuser_url, notes)
            before = files(superuser_url)
            assert [table for table, _ in await in_clear(s)] == [
                "consumer_epochs", "consumers", "open_deliveries", "replays", "skips",
            ]  # fmt: skip
            assert migrate(owner_url) == ["0010 sealed_notes"]
            assert [table for table, _ in await in_clear(s)] == ["unsealed_notes"], "until the service has started"
            held = files(superuser_url)
            assert sorted(await asyncio.gather(sealed_now(s), sealed_now(s))) == [0, 5], "of two starts at once one seals"
            assert await in_clear(s) == []
            after = files(superuser_url)
            assert not set(before.values()) & set(after.values()), "the plaintext was in files that no longer exist"
            assert held["unsealed_notes"] != after["unsealed_notes"]
            await told_as_before(s, made.id, notes)
            await s.ledger.create_user("later")
            async with s.working():
                await s.until(lambda: any(event["data"].get("object", {}).get("userName") == "later" for event in s.hook.took))

    run(body())


def test_a_dump_that_delays_the_first_start_after_an_upgrade_is_named(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of plaintext is truncated, and a dump holds it until it ends: the start says so while it waits."""
    monkeypatch.setattr(leftovers, "STATEMENT", Deadline(0.1, "a lock", "refused"))

    async def body() -> None:
        async with scene(app_url) as s:
            with psycopg.connect(superuser_url, autocommit=True) as dump:
                dump.execute("insert into ledger.unsealed_notes (kind, owner, content) values ('url', gen_random_uuid(), 'x')")
                with dump.transaction():
                    dump.execute("lock table ledger.unsealed_notes in access share mode")
                    with pytest.raises(RefusedError, match="another session reads it"):
                        await sealed_now(s)
            assert await sealed_now(s) == 1

    run(body())


async def told_as_before(s: Scene, run_id: UUID, notes: dict[str, str]) -> None:
    ledger = s.ledger.services.ledger
    assert (await consumers.show(ledger, machine(), "app"))["url"] == notes["url"]
    (row,), _ = await deliveries.list_parked(ledger, machine(), "app", 0, 10)
    assert row["reason"] == notes["parked"]
    assert (await holes(s)).items() >= {"parked": notes["parked"], "skipped": notes["skipped"]}.items()
    found = await replays.show(ledger, machine(), str(run_id))
    assert (found.name, found.reason) == (notes["replay_name"], notes["replay_reason"])


def files(url: str) -> dict[str, Any]:
    """The file of each table that has, or had, free texts."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select relname::text, pg_relation_filenode(oid) from pg_class where relnamespace = 'ledger'::regnamespace and relname = any(%s)",
            (["consumers", "consumer_epochs", "open_deliveries", "skips", "replays", "unsealed_notes"],),
        ).fetchall()
    return dict(rows)


def test_a_start_without_plaintext_changes_nothing(app_url: str, superuser_url: str) -> None:
    """The check runs at every start."""

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            before = files(superuser_url)
            assert await sealed_now(s) == 0
            assert files(superuser_url) == before

    run(body())
