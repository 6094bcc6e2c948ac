"""The log as a recorder of the eventsourcing library: the library's own test, its subscription, and a projection of a user of the
library.
"""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, JSONTranscoder, Notification, ProgrammingError, StoredEvent
from eventsourcing.tests.persistence import ApplicationRecorderTestCase

from database.connections import connect
from examples.access_list import AccessList, follow
from ledger.commands import DeleteGroup, RecordFacts, needs_of
from ledger.directories import PROFILE, Directory
from ledger.events import OPERATOR, TOKEN, TOKEN_ISSUED, TOKEN_REVOKED, TOKEN_ROTATED, Body, Draft
from ledger.eventsourcing_recorder import LedgerMapper, LedgerRecorder
from ledger.lifecycle import closed
from ledger.sealing import Kek, wrap_key
from ledger.transaction import BatchReport, Submission
from runtime.identifiers import uuid7
from runtime.wiring import make_transaction
from scim.profile import profile_of
from tests.postgres.ledgers import id_of, opened

MAPPER = LedgerMapper(transcoder=JSONTranscoder())
TOPICS = {"topic1": TOKEN_ISSUED, "topic2": TOKEN_ROTATED, "topic3": TOKEN_REVOKED}
BACK = {kind.topic: name for name, kind in TOPICS.items()}


class _Written(LedgerRecorder):
    """The recorder in the library's test: reading is ours, `insert_events` replaces commands that make these events.

    The topics and states of the test are stored as real events of our log: three of its types, with the state in a sealed body.
    """

    def __init__(self, url: str, kek: Kek, directory: Directory) -> None:
        super().__init__(url, kek)
        self._directory_written = directory

    # type: ignore[override]
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return asyncio.run(self._write(stored_events)) if stored_events else None

    async def _write(self, stored_events: Sequence[StoredEvent]) -> Sequence[int]:
        conn = await connect(self._url)
        try:
            for event in stored_events:
                if len(self.select_events(event.originator_id, gt=event.originator_version - 1)):
                    raise IntegrityError
            drafts = tuple(
                Draft(
                    TOPICS[e.topic], UUID(str(e.originator_id)), TOKEN, cause=OPERATOR, body=Body({"state": e.state.decode()}, [])
                )
                for e in stored_events
            )
            command, report = RecordFacts(drafts), BatchReport()
            waiter = asyncio.get_running_loop().create_future()
            submission = Submission(self._directory_written, command, needs_of(command), "sys", uuid7(), 0, waiter)
            await make_transaction(self._kek).run(conn, [submission], report, wait_for_locks=True)
            head = self.max_notification_id() or 0
            return list(range(head - len(drafts) + 1, head + 1))
        finally:
            await conn.close()

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        return [self._told(e) for e in super().select_events(*args, **kwargs)]

    # type: ignore[override]
    def select_notifications(self, start, limit, stop=None, topics=(), **kwargs) -> Sequence[Notification]:
        wanted = [TOPICS[t].topic for t in topics]
        return [self._told(n) for n in super().select_notifications(start, limit, stop, wanted, **kwargs)]

    def _told(self, event: Any) -> Any:
        return replace(event, topic=BACK[event.topic], state=orjson.loads(event.state)["data"]["object"]["state"].encode())


def _directory(url: str, kek: Kek) -> Directory:
    uuid, key = uuid4(), os.urandom(32)
    wrapped = wrap_key(kek, key, directory=uuid, obj=uuid, nonce=os.urandom(12))
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(
            "insert into ledger.directories (uuid, slug, profile, index_key) values (%s, 'under-test', %s, %s) returning id",
            (uuid, PROFILE, wrapped),
        ).fetchone()
    assert row is not None
    return Directory(row[0], uuid, "under-test", profile_of(PROFILE), key)


def test_the_librarys_own_select_and_notification_test_passes_over_our_events(app_url: str) -> None:
    kek = Kek.of(os.urandom(32))
    recorder = _Written(app_url, kek, _directory(app_url, kek))

    class Case(ApplicationRecorderTestCase):
        def create_recorder(self) -> _Written:  # type: ignore[override]
            return recorder

        def runTest(self) -> None:  # noqa: N802
            self.test_insert_select()

    try:
        Case().runTest()
    finally:
        recorder.close()


@pytest.fixture
def history(app_url: str) -> Iterator[tuple[str, Kek, Callable[[Callable], Any]]]:
    """A ledger with some events, and a function that makes more."""
    kek = Kek.of(os.urandom(32))

    def act(what: Callable) -> Any:
        async def run() -> Any:
            async with opened(app_url, kek=kek) as ledger:
                return await what(ledger)

        return asyncio.run(run())

    async def begin(ledger):
        users = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(5)))]
        await ledger.create_group("g", tuple(users))
        await ledger.delete_user(users[0])
        return users

    # `opened` writes the ledger's row once; later openings read it.
    async def first() -> Any:
        async with opened(app_url, kek=kek) as ledger:
            return await begin(ledger)

    asyncio.run(first())
    yield app_url, kek, act


def test_writing_through_the_recorder_is_refused_with_a_reason(history) -> None:
    url, kek, _ = history
    recorder = LedgerRecorder(url, kek)
    try:
        with pytest.raises(ProgrammingError, match="SCIM request"):
            recorder.insert_events([StoredEvent(uuid4(), 1, "user.created", b"{}")])
    finally:
        recorder.close()


def test_a_subscription_yields_existing_and_then_new_events(history) -> None:
    url, kek, act = history
    recorder = LedgerRecorder(url, kek)
    got: list[Notification] = []
    caught_up, complete = threading.Event(), threading.Event()
    before = recorder.max_notification_id()
    assert before
    try:
        with recorder.subscribe(gt=0) as subscription:

            def follow() -> None:
                for notification in subscription:
                    got.append(notification)
                    if notification.id == before:
                        caught_up.set()
                    if notification.id == before + 3:
                        complete.set()
                        return

            reader = threading.Thread(target=follow)
            reader.start()
            assert caught_up.wait(timeout=20)

            async def more(ledger):
                await asyncio.gather(*(ledger.create_user(f"later{n}") for n in range(3)))

            act(more)
            assert complete.wait(timeout=20)
            reader.join()
    finally:
        recorder.close()
    assert [n.id for n in got] == list(range(1, before + 4)), "dense and in order"


def test_a_projection_of_a_user_follows_the_ledger(history, tmp_path: Path) -> None:
    """examples/access_list.py in the library's own runner catches up, follows, and stores its place."""
    url, kek, act = history
    (tmp_path / "kek").write_text(kek.key(1).hex())
    with follow({"LEDGER_DATABASE_URL": url, "LEDGER_KEK_FILE": str(tmp_path / "kek")}) as runner:

        async def more(ledger):
            user = id_of(await ledger.create_user("joins"))
            group = id_of(await ledger.create_group("later"))
            await ledger.add_member(group, user)
            return group, user

        group, user = act(more)
        head = runner.app.recorder.max_notification_id()
        runner.wait(head, timeout=20)
        assert (str(group), str(user)) in {edge[1:] for edge in runner.view.members}
        assert len(runner.view.members) == 5, "four are left of the first group, one joined"
        assert runner.view.max_tracking_id("Ledger") == head

        async def leave_and_return(ledger):
            active = {"op": "replace", "path": "active"}
            await ledger.patch_user(user, {**active, "value": False})
            yield set()
            await ledger.patch_user(user, {**active, "value": True})
            yield {(str(group), str(user))}
            await ledger.add_member(group, user)  # a duplicate, which makes no event
            second = id_of(await ledger.create_group("second"))
            asleep = id_of(await ledger.create_user("asleep", active=False))
            await ledger.add_member(second, asleep)  # stored, but it grants nothing
            yield {(str(group), str(user))}
            await ledger.submit(DeleteGroup(group))
            yield set()

        async def steps(ledger):
            async for expected in leave_and_return(ledger):
                relevant = runner.app.recorder.select_notifications(1, 1_000, topics=AccessList.topics)
                await asyncio.to_thread(runner.wait, relevant[-1].id, 20)
                of_them = {edge[1:] for edge in runner.view.members if edge[2] == str(user)}
                assert of_them == expected
            assert len(runner.view.members) == 4

        act(steps)
        head = runner.app.recorder.max_notification_id()

        async def close(ledger):
            facts = closed(ledger.directory, "over", "acme")
            assert facts is not None
            await ledger.submit(facts)

        act(close)
        runner.wait(head + 1, timeout=20)
        assert runner.view.members == set(), "the closing ends all access, before anything is taken away"
        runner.app.recorder.close()


def test_events_carry_their_explicit_topic_version_and_attributes(history) -> None:
    url, kek, _ = history
    recorder = LedgerRecorder(url, kek)
    try:
        created = recorder.select_notifications(1, 10, topics=["user.created"])[0]
        event = MAPPER.to_domain_event(created)
        assert (type(event).__name__, event.TOPIC, event.class_version) == ("UserCreated", "user.created", 1)
        assert event.data is not None
        assert event.data["object"]["userName"].startswith("u")
        assert event.leaf["seq"] >= 2
        assert json.loads(created.state)["leaf"] == event.leaf
        assert datetime.fromtimestamp(event.leaf["at"] / 1e6).year >= 2026  # noqa: DTZ006
    finally:
        recorder.close()


def test_a_damaged_key_affects_only_its_own_events(app_url: str, superuser_url: str) -> None:
    kek = Kek.of(os.urandom(32))

    async def write() -> list[UUID]:
        async with opened(app_url, kek=kek) as ledger:
            return [id_of(await ledger.create_user(f"u{n}")) for n in range(2)]

    users = asyncio.run(write())
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        damage = "update ledger.subject_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where obj = %s"
        conn.execute(damage, (users[0],))
    recorder = LedgerRecorder(app_url, kek)
    try:
        states = [orjson.loads(n.state)["data"] for n in recorder.select_notifications(1, 100, topics=["user.created"])]
        assert states[0] == {"unreadable": True}
        assert states[1]["object"]["userName"] == "u1"
    finally:
        recorder.close()
