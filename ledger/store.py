"""The log as an eventsourcing ApplicationRecorder, read-only: repositories, notification logs and anyone's own projections.

originator_id = resource id, originator_version = rv, notification id = position, topic = event type, state = the JSON that
`LedgerMapper` reads. Writing goes through commands only: a second write path would bypass what the ledger promises.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final, NoReturn
from uuid import UUID

import orjson
import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    InfrastructureFactory,
    ListenNotifySubscription,
    Mapper,
    Notification,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from psycopg import Connection, RawCursor
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from database.connections import BoundedThread, set_for_threads
from database.deadlines import POOL, with_deadlines
from database.queries import load_queries
from ledger.events import BY_TOPIC, EVENT_TYPES
from ledger.rendering import DAMAGED, UNREADABLE
from ledger.sealing import Kek, data_of, open_payload, unwrap_key

SQL: Final = load_queries(__file__)
READ_POOL_MAX: Final = 4
_READ_ONLY: Final = "The ledger is read-only here: send a SCIM request, its events follow."


class LedgerSubscription(ListenNotifySubscription["LedgerRecorder"]):
    """Follows the log; woken by the ledger's NOTIFY, which is a hint only: what it yields is read from the log."""

    def __init__(self, recorder: "LedgerRecorder", gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._stop_listening = recorder.on_wake(self._has_been_notified.set)

    def stop(self) -> None:
        """End the iteration."""
        super().stop()
        self._stop_listening()


class LedgerRecorder(ApplicationRecorder):
    """Reads the ledger at `url` (the serving role suffices) with its key-encryption key.

    Raises the library's OperationalError where PostgreSQL cannot be reached.
    """

    def __init__(self, url: str, kek: Kek) -> None:
        self._url = url
        self._kek = kek
        self._pool: ConnectionPool[BoundedThread] = ConnectionPool(
            with_deadlines(url),
            connection_class=BoundedThread,
            configure=set_for_threads,
            min_size=1,
            max_size=READ_POOL_MAX,
            open=True,
            timeout=POOL.seconds,
            kwargs={"autocommit": True, "cursor_factory": RawCursor},
        )
        self._directories: dict[int, UUID] = {}

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> NoReturn:
        """Refuse: events follow from commands (SCIM requests, administrative acts), never from outside."""
        raise ProgrammingError(_READ_ONLY)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of one resource by rv."""
        params = (UUID(str(originator_id)), gt or 0, lte if lte is not None else 2**31 - 1)
        with self._reading() as conn:
            rows = conn.execute(SQL["stream_of"], params).fetchall()
        events = [
            StoredEvent(row[7], row[2], orjson.loads(row[4])["type"], self._state(row[0], row[7], row[1], row[4], row[5], row[6]))
            for row in rows
        ]
        if desc:
            events.reverse()
        return events[:limit] if limit is not None else events

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events by position, whole ledger. Unknown topics select nothing."""
        first = 1 if start is None else start + (0 if inclusive_of_start else 1)
        kinds = [BY_TOPIC[topic].number for topic in topics if topic in BY_TOPIC] if topics else [k.number for k in EVENT_TYPES]
        with self._reading() as conn:
            rows = conn.execute(SQL["notifications"], (first, stop if stop is not None else 2**62, kinds, limit)).fetchall()
        return [
            Notification(obj, rv, orjson.loads(leaf)["type"], self._state(directory, obj, seq, leaf, ct, wrapped), position)
            for position, directory, seq, obj, rv, leaf, ct, wrapped in rows
        ]

    def max_notification_id(self) -> int | None:
        """The last position, or None for an empty ledger."""
        with self._reading() as conn:
            row = conn.execute(SQL["head"]).fetchone()
        return row[0] if row and row[0] else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Follow the log from after position `gt`."""
        return LedgerSubscription(self, gt, topics)

    def on_wake(self, wake: Any) -> Any:
        """Call `wake` at each NOTIFY until the returned function is called."""
        return _Listener(self._url, wake).stop

    @contextmanager
    def _reading(self) -> Generator[Connection[TupleRow]]:
        try:
            with self._pool.connection() as conn:
                yield conn
        except psycopg.OperationalError as lost:
            raise OperationalError("PostgreSQL cannot be reached") from lost

    def _state(self, directory: int, obj: UUID, seq: int, leaf: bytes, ct: bytes | None, wrapped: bytes | None) -> bytes:
        """`{"leaf":…,"data":…}`: structure as hashed, attributes as in the feed (null once erased or where there are none).

        One damaged body costs its own event only: `data` says that it is unreadable.
        """
        data = b"null"
        if ct is not None and wrapped is not None:
            uuid = self._uuid(directory)
            try:
                key = unwrap_key(self._kek, wrapped, directory=uuid, obj=obj)
                data = data_of(open_payload(key, ct, directory=uuid, obj=obj, seq=seq))
            except DAMAGED:
                data = UNREADABLE
        return b'{"leaf":' + bytes(leaf) + b',"data":' + data + b"}"

    def _uuid(self, number: int) -> UUID:
        if number not in self._directories:
            with self._reading() as conn:
                self._directories = {row[0]: row[1] for row in conn.execute(SQL["directories_all"]).fetchall()}
        return self._directories[number]


class _Listener:
    """A thread that waits for NOTIFY on a connection of its own."""

    def __init__(self, url: str, wake: Any) -> None:
        self._wake = wake
        self._stopped = False
        self._conn = BoundedThread.connect(with_deadlines(url), autocommit=True, cursor_factory=RawCursor)
        set_for_threads(self._conn)
        self._conn.execute("listen ledger")
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            try:
                # The time limit only bounds how long stop() waits for the thread.
                for _ in self._conn.notifies(timeout=0.5, stop_after=1):
                    self._wake()
            except psycopg.Error:
                return  # the subscription goes on by its own polling interval

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()
        self._conn.close()


@dataclass(frozen=True)
class LedgerEvent:
    """An event as the library's mapper gives it. A subclass per type carries the stored TOPIC and its class_version."""

    originator_id: UUID
    originator_version: int
    leaf: dict[str, Any]
    data: dict[str, Any] | None

    TOPIC: ClassVar[str] = ""
    class_version: ClassVar[int] = 1


def _event_class(topic: str, version: int) -> type[LedgerEvent]:
    name = "".join(part.capitalize() for part in topic.replace(".", "_").split("_"))
    return type(name, (LedgerEvent,), {"TOPIC": topic, "class_version": version, "__doc__": f"{topic} (docs/events.md)"})


EVENT_CLASSES: Final[dict[str, type[LedgerEvent]]] = {kind.topic: _event_class(kind.topic, kind.version) for kind in EVENT_TYPES}


class LedgerMapper(Mapper[UUID]):
    """Turns stored events into LedgerEvent objects through an explicit registry: no stored text ever names a class to import."""

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Give the LedgerEvent. Raises KeyError for a topic this release does not know."""
        state = orjson.loads(stored_event.state)
        event_class = EVENT_CLASSES[stored_event.topic]
        return event_class(UUID(str(stored_event.originator_id)), stored_event.originator_version, state["leaf"], state["data"])

    def to_stored_event(self, domain_event: Any) -> NoReturn:
        """Refuse: see LedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)


class LedgerFactory(InfrastructureFactory[TrackingRecorder]):
    """Makes the ledger a persistence module of the library: PERSISTENCE_MODULE=ledger.store, DATABASE_URL, KEK_FILE.

    In an application class named `Ledger` these are read as LEDGER_DATABASE_URL and LEDGER_KEK_FILE, as the service does.
    """

    def application_recorder(self) -> LedgerRecorder:
        """Raises EnvironmentError naming the variable that is missing, ValueError for a file that holds no key."""
        url, path = self.env.get("DATABASE_URL"), self.env.get("KEK_FILE")
        if not url or not path:
            raise OSError("DATABASE_URL and KEK_FILE are needed to read the ledger.")
        return LedgerRecorder(url, Kek.read(Path(path).read_text(encoding="ascii")))

    def mapper(self, transcoder: Any = None, mapper_class: Any = None) -> Any:
        """The ledger's own mapper, whatever was asked for."""
        return LedgerMapper(transcoder=transcoder or self.transcoder())

    def aggregate_recorder(self, purpose: str = "events") -> NoReturn:
        """Refuse: see LedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> NoReturn:
        """Refuse: a projection keeps its place in its own database."""
        raise ProgrammingError("A projection keeps its tracking beside its own view: give it a persistence module of its own.")

    def process_recorder(self) -> NoReturn:
        """Refuse: see LedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)
