"""The log as a read-only ApplicationRecorder of the eventsourcing library, for repositories, notification logs and projections.

originator_id = resource id, originator_version = rv, notification id = position, topic = event type, state = the JSON that
`LedgerMapper` reads. It never writes: a write path beside the commands would bypass order, numbering and sealing.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread, current_thread
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
    PersistenceError,
    ProgrammingError,
    ShutDown,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from psycopg import Connection, RawCursor
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from database.connections import LOST, BoundedThread, set_for_threads
from database.deadlines import POOL, with_deadlines
from database.queries import load_queries
from ledger.cursor import START, Anchor
from ledger.events import BY_TOPIC, EVENT_TYPES
from ledger.ids import DirectoryNumber, DirectoryUuid, Position, Seq
from ledger.key_epochs import kek_at
from ledger.rendering import DAMAGED, UNREADABLE
from ledger.root_keys.opening import root_keys
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from proofs.leaf import encode_leaf, leaf_hash

SQL: Final = load_queries(__file__)
READ_POOL_MAX: Final = 4
SUBSCRIPTION_LOOK_S: Final = 0.5  # between two reads of a subscription while no notification comes
_READ_ONLY: Final = "The ledger is read-only here: send a SCIM request, its events follow."


class LostEndError(PersistenceError):
    """The log lost its end since the reader's last event: a backup was restored, or a standby promoted that lagged.

    Undo what was derived from the missing events, then read on from a position before them.
    """

    def __init__(self, position: int, what: str) -> None:
        super().__init__(f"The log is not the one that was read up to position {position}: {what}. See docs/operations.md.")
        self.position = position


class LedgerSubscription(ListenNotifySubscription["LedgerRecorder"]):
    """Follows the log. NOTIFY only wakes it; the events are read from the log.

    It remembers the leaf hash at its position and compares it at each read: if the log lost its end, iterating raises LostEndError.
    While the database is away it waits, then goes on by itself.
    """

    def __init__(
        self, recorder: "LedgerRecorder", gt: int | None = None, topics: Sequence[str] = (), *, leaf_hash: bytes | None = None
    ) -> None:
        self._place = recorder.place(gt or 0, leaf_hash)
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._stop_listening = recorder.on_wake(self._has_been_notified.set)

    def stop(self) -> None:
        """End the iteration."""
        super().stop()
        # the pull thread calls stop after an error, and must not wait for the listener
        if current_thread() is not self._pull_thread:
            self._stop_listening()

    def _pull(self) -> None:
        while not self._has_been_stopped:
            self._has_been_notified.clear()
            try:
                found, self._place = self._recorder.read_on(self._place, self._select_limit, self._topics)
            except OperationalError:
                return  # the next wake-up of the listener calls this method again
            if found:
                try:
                    self._notifications_queue.put(found)
                except ShutDown:
                    return
                self._last_notification_id = found[-1].id
            if len(found) < self._select_limit:
                return


class LedgerRecorder(ApplicationRecorder):
    """Reads the ledger at `url` (the serving role suffices) with its key-encryption key.

    Raises the library's OperationalError if PostgreSQL cannot be reached.
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
        self._directories: dict[DirectoryNumber, DirectoryUuid] = {}

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> NoReturn:
        """Refuse: only commands (SCIM requests, administrative acts) make events."""
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
            StoredEvent(obj, rv, orjson.loads(leaf)["type"], self._state(directory, obj, seq, leaf, ct, wrapped))
            for directory, seq, rv, leaf, ct, wrapped, obj in rows
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
        """Events of the whole ledger by position. An unknown topic selects nothing."""
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

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = (), *, leaf_hash: bytes | None = None
    ) -> Subscription[ApplicationRecorder]:
        """Follow the log from after position `gt`.

        `leaf_hash` is LedgerEvent.leaf_hash of the event at `gt`. With it a log that lost its end and grew again is recognised; the
        library's tracking stores the number only. Raises LostEndError if another event, or none, is at `gt`.
        """
        return LedgerSubscription(self, gt, topics, leaf_hash=leaf_hash)

    def place(self, position: int, leaf_hash: bytes | None = None) -> Anchor:
        """The position with its leaf hash. Raises LostEndError if it has no event, or one with another leaf hash."""
        if position == 0:
            return START
        found = self._leaves([position]).get(position)
        if found is None:
            raise LostEndError(position, "it ends before")
        if leaf_hash is not None and found != leaf_hash:
            raise LostEndError(position, "another event stands there now")
        return Anchor(Position(position), found)

    def read_on(self, place: Anchor, limit: int, topics: Sequence[str] = ()) -> tuple[Sequence[Notification], Anchor]:
        """The next events after a place, and the place after them. Raises LostEndError if the place is no longer in the log."""
        found = self.select_notifications(place.position, limit, topics=topics, inclusive_of_start=False)
        last = found[-1].id if found else place.position
        leaves = self._leaves([place.position, last])  # read after the events: if the place is still there, so were the events
        stands = leaves.get(place.position)
        if place.position and stands != place.leaf_hash:
            raise LostEndError(place.position, "it ends before" if stands is None else "another event stands there now")
        return found, Anchor(Position(last), leaves.get(last, b""))

    def _leaves(self, positions: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as conn:
            return dict(conn.execute(SQL["leaves_at"], (list(positions),)).fetchall())

    def on_wake(self, wake: Any) -> Any:
        """Call `wake` at each NOTIFY until the returned function is called."""
        return _Listener(self._url, wake).stop

    @contextmanager
    def _reading(self) -> Generator[Connection[TupleRow]]:
        try:
            with self._pool.connection() as conn:
                yield conn
        except LOST as lost:
            raise OperationalError("PostgreSQL cannot be reached") from lost

    def _state(
        self, directory: DirectoryNumber, obj: UUID, seq: Seq, leaf: bytes, ct: bytes | None, wrapped: bytes | None
    ) -> bytes:
        """`{"leaf":…,"data":…}`: the leaf as hashed, the attributes as in the feed (null if erased, or if the event has none).

        A damaged body affects only its own event, whose `data` says that it is unreadable.
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

    def _uuid(self, number: DirectoryNumber) -> DirectoryUuid:
        if number not in self._directories:
            with self._reading() as conn:
                self._directories = dict(conn.execute(SQL["directory_uuids"]).fetchall())
        return self._directories[number]


class _Listener:
    """A thread that waits for NOTIFY on its own connection. It also wakes subscribers at intervals, so that a lost end is noticed soon."""

    def __init__(self, url: str, wake: Any) -> None:
        self._url = url
        self._wake = wake
        self._stopped = Event()
        self._conn = self._connected()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connected(self) -> BoundedThread:
        conn = BoundedThread.connect(with_deadlines(self._url), autocommit=True, cursor_factory=RawCursor)
        set_for_threads(conn)
        conn.execute("listen ledger")
        return conn

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                # The timeout bounds how long stop() waits for the thread, and how late events come after a lost notification.
                for _ in self._conn.notifies(timeout=SUBSCRIPTION_LOOK_S, stop_after=1):
                    pass
            except psycopg.Error:
                self._stopped.wait(SUBSCRIPTION_LOOK_S)
                with suppress(psycopg.Error):
                    self._conn.close()
                    self._conn = self._connected()
            self._wake()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._conn.close()


@dataclass(frozen=True)
class LedgerEvent:
    """An event as the library's mapper returns it. Each event type has a subclass with its TOPIC and class_version."""

    originator_id: UUID
    originator_version: int
    leaf: dict[str, Any]
    data: dict[str, Any] | None

    @property
    def leaf_hash(self) -> bytes:
        """The event's leaf hash. Store it beside the tracking position: subscribe() then recognises a lost end of the log."""
        return leaf_hash(encode_leaf(self.leaf))

    TOPIC: ClassVar[str] = ""
    class_version: ClassVar[int] = 1


def _event_class(topic: str, version: int) -> type[LedgerEvent]:
    name = "".join(part.capitalize() for part in topic.replace(".", "_").split("_"))
    return type(name, (LedgerEvent,), {"TOPIC": topic, "class_version": version, "__doc__": f"{topic} (docs/events.md)"})


EVENT_CLASSES: Final[dict[str, type[LedgerEvent]]] = {kind.topic: _event_class(kind.topic, kind.version) for kind in EVENT_TYPES}


class LedgerMapper(Mapper[UUID]):
    """Turns stored events into LedgerEvent objects by a fixed registry, so that no stored text can name a class to import."""

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Make the LedgerEvent. Raises KeyError for a topic that this release does not know."""
        state = orjson.loads(stored_event.state)
        event_class = EVENT_CLASSES[stored_event.topic]
        return event_class(UUID(str(stored_event.originator_id)), stored_event.originator_version, state["leaf"], state["data"])

    def to_stored_event(self, domain_event: Any) -> NoReturn:
        """Refuse: see LedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)


class LedgerFactory(InfrastructureFactory[TrackingRecorder]):
    """Makes the ledger a persistence module of the library.

    Its settings: PERSISTENCE_MODULE=ledger.eventsourcing_recorder, DATABASE_URL, and ROOT_KEY or KEK_FILE.

    In an application class named `Ledger` these are read as LEDGER_DATABASE_URL, LEDGER_ROOT_KEY and LEDGER_KEK_FILE, as the service does.
    """

    def application_recorder(self) -> LedgerRecorder:
        """Raises EnvironmentError if a variable is missing, RootKeyError if the root key does not open the ledger's keys."""
        url, file = self.env.get("DATABASE_URL"), self.env.get("KEK_FILE")
        place = self.env.get("ROOT_KEY") or (file and f"file:{file}")
        if not url or not place:
            raise OSError("DATABASE_URL, and ROOT_KEY or KEK_FILE, are needed to read the ledger.")
        return LedgerRecorder(url, kek_at(url, root_keys(place, self.env)))

    def mapper(self, transcoder: Any = None, mapper_class: Any = None) -> Any:
        """The ledger's mapper; the arguments are ignored."""
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
