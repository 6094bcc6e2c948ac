"""The feed, the stream and snapshots of a ledger."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias, cast
from urllib.parse import quote

import httpx

from scim_ledger_client.connection import Connection, Expand, given
from scim_ledger_client.consumer import Consumer
from scim_ledger_client.errors import RefusedError, UnreachableError, refusal
from scim_ledger_client.events import Event
from scim_ledger_client.pages import Page, page_of
from scim_ledger_client.resources import Directory, Group, User, path_of, rows_of
from scim_ledger_client.retries import Retries
from scim_ledger_client.snapshot import Snapshot
from scim_ledger_client.sse import Message, MessageDecoder

PAGE: Final = 500
WAIT_S: Final = 30  # the longest that the service lets a request wait for events
Types: TypeAlias = Sequence[str]
_FEED: Final = "/v1/events"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came through a stream. `after` is the cursor behind it; `event` is None where only a range was covered that a filter left out."""

    after: str
    event: Event | None


class Ledger:
    """A ledger, read with a token of role consumer, operator, auditor or admin; a function that returns the token may stand for it.

    Use it as a context manager, or call `close`. Several threads may share it.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str],
        *,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(base_url, token, retries=retries, transport=transport, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def consumer(self, name: str) -> Consumer:
        """The consumer of that name, whose place the ledger keeps."""
        return Consumer(self._connection, name)

    def event(self, event_id: str, *, expand: Expand = ()) -> Event:
        """One event. Raises MissingError."""
        return cast("Event", self._connection.get(f"{_FEED}/{quote(event_id, safe='')}", given(expand=",".join(expand))))

    def page(
        self,
        after: str | None = None,
        *,
        start: str | None = None,
        directory: str | None = None,
        types: Types = (),
        subject: str | None = None,
        expand: Expand = (),
        limit: int = PAGE,
        wait: int = 0,
    ) -> Page:
        """The events after a cursor, or from `start` where there is none: `now`, an instant, a position, `seq:N` of the directory.

        `expand`: whose names membership events carry. `wait`: how many seconds the service waits for events. Raises LostEndError if the
        log no longer has the cursor.
        """
        params = given(
            after=after,
            directory=directory,
            types=",".join(types),
            subject=subject,
            expand=",".join(expand),
            limit=limit,
            wait=wait,
        )
        if after is None and start is not None:
            params = {**params, "from": start}
        return page_of(self._connection.get(_FEED, params))

    def pages(
        self,
        after: str | None = None,
        *,
        start: str | None = None,
        directory: str | None = None,
        types: Types = (),
        expand: Expand = (),
    ) -> Iterator[Page]:
        """All pages up to the head of the log. Store `after` of each page with what you made of its events."""
        more = True
        while more:
            page = self.page(after, start=start, directory=directory, types=types, expand=expand)
            yield page
            after, more = page.after, page.has_more

    def follow(
        self,
        after: str | None = None,
        *,
        start: str | None = None,
        directory: str | None = None,
        types: Types = (),
        expand: Expand = (),
    ) -> Iterator[Page]:
        """The same without an end: waits for new events by long polls, and yields a page without events where a filter left all out."""
        while True:
            page = self.page(after, start=start, directory=directory, types=types, expand=expand, wait=WAIT_S)
            if page.after != after:
                yield page
            after = page.after

    def stream(
        self,
        after: str | None = None,
        *,
        directory: str | None = None,
        types: Types = (),
        subject: str | None = None,
        expand: Expand = (),
    ) -> Iterator[Streamed]:
        """Events as they come, over one connection. If it breaks, it is made again and continues after the last event.

        Raises UnauthorizedError when the token ends, and LostEndError when the log lost its end.
        """
        params = given(directory=directory, types=",".join(types), subject=subject, expand=",".join(expand))
        failures = 0
        while True:
            decoder = MessageDecoder()
            try:
                resumed = {"Last-Event-ID": after} if after is not None else None
                with self._connection.lines(f"{_FEED}/stream", params, resumed) as lines:
                    for message in filter(None, map(decoder.take, lines)):
                        failures, after = 0, message.id or after
                        yield _streamed(message)
                self._connection.sleep(decoder.retry_s)  # the service ended it, because it restarts or the token ended
            except (UnreachableError, RefusedError) as error:
                failures += 1
                self._connection.recover(failures, error)

    def directories(self) -> list[Directory]:
        """The directories that the token reaches."""
        return cast("list[Directory]", self._connection.get("/v1/directories", {})["data"])

    def user(self, directory: str, user: str) -> User:
        """One user of now, by id. Raises MissingError."""
        return cast("User", self._connection.get(path_of(directory, "users", user), {}))

    def users(self, directory: str, *, external_id: str | None = None, user_name: str | None = None) -> Iterator[User]:
        """The users of now, by id: all, or those with these words of the IdP. Raises ForbiddenError if the token may not search by them."""
        return rows_of(self._connection, path_of(directory, "users"), external_id=external_id, user_name=user_name)

    def group(self, directory: str, group: str) -> Group:
        """One group of now, by id. Raises MissingError."""
        return cast("Group", self._connection.get(path_of(directory, "groups", group), {}))

    def groups(self, directory: str, *, external_id: str | None = None, display_name: str | None = None) -> Iterator[Group]:
        """The groups of now, in the same way."""
        return rows_of(self._connection, path_of(directory, "groups"), external_id=external_id, display_name=display_name)

    @contextmanager
    def snapshot(self, directory: str) -> Generator[Snapshot]:
        """All state of a directory, to be read to its end inside the `with` block. Continue with `follow(snapshot.after, directory=…)`."""
        path, failures = f"/v1/directories/{quote(directory, safe='')}/snapshot", 0
        with ExitStack() as opened:
            while True:
                try:
                    snapshot = Snapshot(opened.enter_context(self._connection.lines(path)))
                    break
                except (UnreachableError, RefusedError) as error:
                    failures += 1
                    self._connection.recover(failures, error)
            yield snapshot


def _streamed(message: Message) -> Streamed:
    document = json.loads(message.data)
    if message.event == "error":
        raise refusal(int(document["status"]), document)
    return Streamed(message.id, None if message.event == "covered" else cast("Event", document))
