"""Erasures on the real parts in one process: what verify and rebuild say of them, races, keys and ciphertexts, and a thousand at once."""

import asyncio
import json
import os
from collections.abc import Awaitable, Sequence
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from database.connections import connect_owner
from ledger.commands import Erase
from ledger.directories import Directory
from ledger.events import GROUP, USER
from ledger.eventsourcing_recorder import LedgerRecorder
from ledger.forgetting import Forgetting
from ledger.receipts import incomplete
from ledger.refused import HeldError, OvertakenError, StateError
from ledger.sealing import Kek, open_payload, unwrap_key
from operations import directories, erasures, holds, snapshot
from operations.aftercare import Aftercare
from operations.caller import MACHINE, Caller
from operations.open_ledger import OpenLedger
from proofs import tree
from proofs.body import commitment
from proofs.keys import WrapError
from proofs.leaf import leaf_hash
from replay.rebuild import rebuild
from replay.verify import Verified, verify
from runtime.identifiers import uuid7
from tests.postgres.ledgers import Ledger, id_of, opened

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


def caller() -> Caller:
    return Caller(MACHINE, uuid7())


def erase(ledger: Ledger, subject: UUID, ot: str = USER, **more: bool) -> "asyncio.Future[object]":
    return ledger.submit(Erase(subject, ot, uuid4(), **more))


async def verified(ledger: Ledger, owner_url: str) -> Verified:
    services = ledger.services
    async with services.ledger.connection() as conn:
        directories: Sequence[Directory] = await services.ledger.directories.all(conn)
    return await verify(owner_url, services.ledger.kek, directories, lambda _done, _total: None)


def sql(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        found: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = conn.execute(statement)  # type: ignore[arg-type]
            found = cursor.fetchall() if cursor.description else []
        return found


def root(url: str, directory: int, size: int) -> bytes:
    """The root of the directory's tree (RFC 6962) over its first leaves."""
    leaves = sql(url, f"select leaf from events where directory = {directory} and seq <= {size} order by seq")
    return tree.root([leaf_hash(leaf) for (leaf,) in leaves if isinstance(leaf, bytes)])


async def people(ledger: Ledger, count: int) -> tuple[list[UUID], UUID]:
    made = await asyncio.gather(*(ledger.create_user(f"u{n}", externalId=f"x{n}") for n in range(count)))
    users = [id_of(one) for one in made]
    group = id_of(await ledger.create_group("g", tuple(users[::2])))
    for user in users[:5]:
        await ledger.patch_user(user, {"op": "replace", "path": "title", "value": "t"})
        await ledger.patch_user(user, {"op": "replace", "path": "active", "value": False})
    return users, group


@pytest.mark.parametrize("percent", [1, 50, 100])
def test_e2_e3_rebuild_and_verify_after_a_part_was_erased(app_url: str, owner_url: str, percent: int) -> None:
    """The root of the log before is unchanged, verify finds nothing, and a rebuild makes the tables that are there."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            users, group = await people(ledger, 100)
            size = (await ledger.page(directory=ledger.directory)).head
            before = root(owner_url, ledger.directory.id, size)
            await asyncio.gather(*(erase(ledger, user) for user in users[:percent]))
            if percent == 100:
                await erase(ledger, group, GROUP)
            assert root(owner_url, ledger.directory.id, size) == before
            found = await verified(ledger, owner_url)
            assert found.findings == []
            assert found.erased >= percent
            result = await rebuild(owner_url, ledger.services.ledger.kek, lambda _d, _t: None, lambda _text: None)
            assert result.drifted == ()
            assert (await verified(ledger, owner_url)).findings == []
            again = await ledger.create_user("u0", externalId="x0")
            assert id_of(again) not in users, "the name is free, for somebody new"

    asyncio.run(run())


DELETED = "alter table {0} disable trigger all; delete from {0} where {1}; alter table {0} enable always trigger erased_only"


@pytest.mark.parametrize(
    ("table", "where", "says"),
    [
        ("bodies", "seq = 3 and directory = 2", "its sealed body is missing, and no event says that it was erased"),
        ("subject_keys", "obj = (select obj from events where seq = 3 and directory = 2)", "key"),
    ],
)
def test_a_deletion_without_its_event_is_a_finding(
    app_url: str, owner_url: str, superuser_url: str, table: str, where: str, says: str
) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 8)
            await erase(ledger, users[7])
            for statement in DELETED.format(table, where).split("; "):
                sql(superuser_url, statement)
            findings = (await verified(ledger, owner_url)).findings
            assert any(says in finding.problem for finding in findings), findings

    asyncio.run(run())


def test_a_body_or_key_that_came_back_is_a_finding(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 4)
            kept = sql(superuser_url, f"select directory, wrapped from subject_keys where obj = '{users[0]}'")
            ct = sql(superuser_url, "select seq, ct from bodies where directory = 2 and seq = 2")
            await erase(ledger, users[0])
            assert (await verified(ledger, owner_url)).findings == []
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute("insert into ledger.subject_keys values (%s, %s, %s)", (users[0], *kept[0]))
            problems = {finding.problem for finding in (await verified(ledger, owner_url)).findings}
            assert problems == {"it was erased, and its key is still there"}
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute("insert into ledger.bodies values (2, %s, %s)", ct[0])
            problems = {finding.problem for finding in (await verified(ledger, owner_url)).findings}
            assert "it was erased, and a sealed body of it is still there" in problems

    asyncio.run(run())


def test_a_receipt_without_its_event_is_a_finding(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 2)
            insert = (
                "insert into erasures (id, directory, obj, ot, seq, counts) values (gen_random_uuid(), 2, '{}', 0, 2, '{{}}')"
            )
            sql(superuser_url, insert.format(users[0]))
            problems = [finding.problem for finding in (await verified(ledger, owner_url)).findings]
            assert problems == ["its erasure has a receipt, and no event says that it was erased"]

    asyncio.run(run())


def test_an_erasure_while_verify_reads_is_no_finding(app_url: str, owner_url: str) -> None:
    """Stretches are read in later snapshots than the read models: it begins again."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 40)
            erasing = asyncio.gather(*(erase(ledger, user) for user in users))
            found = await verified(ledger, owner_url)
            await erasing
            assert found.findings == []

    asyncio.run(run())


def test_e12_a_dictionary_attack_on_the_commitment_fails_without_the_salt(app_url: str, superuser_url: str) -> None:
    """Who knows the whole body recomputes the commitment with the salt (the control); after the erasure nobody has the salt."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("known"))
            (row,) = sql(
                superuser_url,
                f"select e.leaf, b.ct, k.wrapped from events e join bodies b using (directory, seq) join subject_keys k on k.obj = e.obj where e.obj = '{user}'",
            )
            leaf, ct, wrapped = row
            assert isinstance(leaf, bytes)
            assert isinstance(ct, bytes)
            assert isinstance(wrapped, bytes)
            kek, uuid = ledger.services.ledger.kek, ledger.directory.uuid
            key = unwrap_key(kek, wrapped, directory=uuid, obj=user)
            aad = uuid.bytes + user.bytes + (2).to_bytes(8)
            plaintext = AESGCM(key).decrypt(ct[1:13], ct[13:], aad)
            said, salt, known = json.loads(leaf)["cmt"], plaintext[:32], plaintext[33:]
            assert commitment(salt, plaintext[32], known).hex() == said, "control: who has the salt can try names"
            await erase(ledger, user)
            assert all(
                commitment(guess, plaintext[32], known).hex() != said for guess in (bytes(32), b"\xff" * 32, user.bytes * 2)
            )
            left = sql(
                superuser_url, f"select count(*) from bodies b join events e using (directory, seq) where e.obj = '{user}'"
            )
            assert left == [(0,)]

    asyncio.run(run())


def test_e13_bodies_of_like_lengths_have_one_length(app_url: str, superuser_url: str) -> None:
    """What a backup still has of an erased person tells the length of its attributes in buckets only."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            for n in range(20):
                await ledger.create_user("u" * (n + 1))
            lengths = sql(
                superuser_url, "select octet_length(ct), count(*) from bodies where directory = 2 and seq > 1 group by 1"
            )
            assert len(lengths) <= 5, "twenty names of twenty lengths"

    asyncio.run(run())


def test_e15_a_swapped_key_or_ciphertext_opens_nothing(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            one, other = id_of(await ledger.create_user("one")), id_of(await ledger.create_user("other"))
            keys = dict(sql(superuser_url, "select obj, wrapped from subject_keys"))
            sql(
                superuser_url,
                f"update subject_keys set wrapped = (select wrapped from subject_keys where obj = '{other}') where obj = '{one}'",
            )
            wrapped = keys[other]
            assert isinstance(wrapped, bytes)
            with pytest.raises(WrapError):
                unwrap_key(ledger.services.ledger.kek, wrapped, directory=ledger.directory.uuid, obj=one)
            problems = [finding.problem for finding in (await verified(ledger, owner_url)).findings]
            assert any("damaged, or wrapped with another one" in problem for problem in problems), problems
            await erase(ledger, one)
            assert (await verified(ledger, owner_url)).findings == [], "what cannot be opened can be erased"

    asyncio.run(run())


def test_e6_a_hold_and_an_erasure_at_the_same_moment_exclude_each_other(app_url: str) -> None:
    """Either the hold stands and the user lives, or the user is erased and the hold was refused."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            open_ledger: OpenLedger = ledger.services.ledger
            for n in range(10):
                user = id_of(await ledger.create_user(f"u{n}"))
                placing = holds.place(open_ledger, caller(), "acme", USER, str(user), "m", None)
                erasing = erasures.erase(open_ledger, caller(), "acme", USER, str(user), "r", dry_run=False)
                held, erased = await asyncio.gather(placing, erasing, return_exceptions=True)
                assert isinstance(held, BaseException) != isinstance(erased, BaseException), (held, erased)
                if isinstance(erased, BaseException):
                    assert isinstance(erased, HeldError), erased
                else:
                    assert not isinstance(held, OvertakenError), held

    asyncio.run(run())


def test_erasures_of_users_in_one_group_share_a_batch(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, group = await people(ledger, 60)
            created = [ledger.create_user(f"new{n}") for n in range(60)]
            await asyncio.gather(*(erase(ledger, user) for user in users), *created)
            assert (await verified(ledger, owner_url)).findings == []
            page = await ledger.page(directory=ledger.directory, subject=group)
            assert sum(b'"cause":"user_erased"' in event.json for event in page.events) == 30

    asyncio.run(run())


def test_a_thousand_receipts_are_completed_by_one_look_through_the_directory(app_url: str, owner_url: str) -> None:
    """Without an owner's URL the service may not vacuum, and the receipts say so; with it they say when."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 30)
            report = id_of(await ledger.create_user("report", **{ENTERPRISE: {"manager": {"value": str(users[3])}}}))
            await asyncio.gather(*(erase(ledger, user) for user in users))
            open_ledger: OpenLedger = ledger.services.ledger

            async def unnoted(_ledger: OpenLedger) -> None:
                return

            async def owned() -> object:
                return await connect_owner(owner_url)

            refused = Aftercare(open_ledger, owned, None, asyncio.Event(), unnoted)  # type: ignore[arg-type]
            assert (await refused.sweep()).refused == "vacuum,wal"
            allowed = Aftercare(open_ledger, owned, owned, asyncio.Event(), unnoted)  # type: ignore[arg-type]
            async with open_ledger.connection() as conn:
                rows = await incomplete(conn, 1_000)
            await allowed.complete(rows)
            listed, _ = await erasures.list_all(open_ledger, caller(), "acme", after=0, limit=1_000)
            assert len(listed) == 30
            assert {one["state"] for one in listed} == {"complete"}
            (told,) = [one["remaining_mentions"] for one in listed if one["subject"]["id"] == str(users[3])]
            assert told is not None
            place = {"type": "User", "id": str(report), "path": f"{ENTERPRISE}:manager.value", "current": True}
            assert told == {"data": [place], "count": 1, "complete": True}
            assert all(one["horizon"]["database"]["state"] == "vacuumed" for one in listed)

    asyncio.run(run())


def test_a_process_forgets_names_and_events_within_a_look(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("forgotten"))
            told: list[set[UUID]] = []
            forgetting = Forgetting(ledger.services.ledger.connection, lambda subjects: told.append(set(subjects)))
            await forgetting.current()
            await erase(ledger, user)
            await forgetting.look()
            assert told == [{user}]
            assert user in forgetting
            assert forgetting.stale(user, b'{"data":{"object":1}}')
            assert not forgetting.stale(user, b'{"data":{"erased":true}}')
            assert not forgetting.stale(uuid4(), b"x")

    asyncio.run(run())


def test_open_payload_of_an_erased_event_needs_what_is_gone(app_url: str, superuser_url: str) -> None:
    """E5 from the other side: with the ciphertext and the key of a backup, and the key-encryption key, the body opens; that is the horizon."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("from a backup"))
            (kept,) = sql(
                superuser_url,
                f"select b.ct, k.wrapped from events e join bodies b using (directory, seq) join subject_keys k on k.obj = e.obj where e.obj = '{user}'",
            )
            await erase(ledger, user)
            ct, wrapped = kept
            assert isinstance(ct, bytes)
            assert isinstance(wrapped, bytes)
            uuid = ledger.directory.uuid
            key = unwrap_key(ledger.services.ledger.kek, wrapped, directory=uuid, obj=user)
            assert b"from a backup" in open_payload(key, ct, directory=uuid, obj=user, seq=2)  # type: ignore[arg-type]

    asyncio.run(run())


def test_a_snapshot_under_way_goes_on_without_the_person(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of a seq before the erasure, so the person is in it, in the erased form."""
    monkeypatch.setattr(snapshot, "PAGE", 2)
    monkeypatch.setattr(snapshot, "SENT_BYTES", 1)

    async def run() -> None:
        async with opened(app_url) as ledger:
            users = sorted([id_of(await ledger.create_user(f"streamed{n}")) for n in range(8)])
            found = await snapshot.read(ledger.services.ledger, caller(), "acme")

            async def unchecked() -> None:
                return

            text, erased = b"", False
            async for piece in found.lines(unchecked):
                text += piece
                if not erased and b"streamed" in text:
                    erased = bool(await erase(ledger, users[-1]))
            lines = [json.loads(line) for line in text.splitlines()]
            assert erased
            shown = {line["id"]: line["data"] for line in lines if line["object"] == "user"}
            assert len(shown) == 8
            assert shown[str(users[-1])] == {"erased": True}
            assert lines[-1]["users"] == 8, "the counts of then"

    asyncio.run(run())


def test_the_recorder_of_the_eventsourcing_library_reads_on(app_url: str) -> None:
    kek = Kek.of(os.urandom(32))

    async def write() -> None:
        async with opened(app_url, kek=kek) as ledger:
            users = [id_of(await ledger.create_user(f"u{n}")) for n in range(2)]
            await erase(ledger, users[0])

    asyncio.run(write())
    recorder = LedgerRecorder(app_url, kek)
    try:
        found = recorder.select_notifications(1, 100, topics=["user.created", "user.deleted", "user.erased"])
        states = [orjson.loads(one.state)["data"] for one in found]
        assert states[0] is None
        assert states[1]["object"]["userName"] == "u1"
        assert states[2:] == [None, None]
    finally:
        recorder.close()


def test_beside_a_process_of_an_older_release_nothing_is_erased(app_url: str) -> None:
    """It would go on showing what it holds in memory, because it does not look for erasures."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))

            def asked() -> Awaitable[object]:
                return erasures.erase(ledger.services.ledger, caller(), "acme", USER, str(user), "r", dry_run=False)

            with psycopg.connect(app_url, autocommit=True) as older:
                older.execute("select pg_advisory_lock_shared(6, 23)")
                with pytest.raises(StateError, match="older release") as refused:
                    await asked()
                assert refused.value.code == "older_release"
            assert await asked()

    asyncio.run(run())


def test_somebody_in_a_closed_directory_is_erased(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, _ = await people(ledger, 6)
            await directories.close(ledger.services.ledger, caller(), "acme", "r", "acme")
            await erase(ledger, users[1])
            assert (await verified(ledger, owner_url)).findings == []
            page = await ledger.page(directory=ledger.directory, subject=users[1])
            assert page.events[-1].json.count(b'"user.erased"') == 1
            assert b"u1" not in b"".join(event.data for event in page.events)

    asyncio.run(run())
