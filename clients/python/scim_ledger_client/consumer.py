"""A consumer that pulls: the ledger keeps its place, which acknowledgements move."""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from scim_ledger_client.connection import Connection, Expand, given
from scim_ledger_client.errors import PlaceMovedError, RefusedError
from scim_ledger_client.events import Event
from scim_ledger_client.pages import Page, page_of

WAIT_S: Final = 30
_PAUSED: Final = "consumer_paused"


class Consumer:
    """One consumer by its name. Made by `Ledger.consumer`."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._path = f"/v1/consumers/{quote(name, safe='')}"

    def pull(self, *, limit: int = 500, wait: int = 0, expand: Expand = ()) -> Page:
        """The events after the acknowledged place, which stays. `wait`: how many seconds the service waits for events.

        `expand`: whose names membership events carry.
        """
        return page_of(self._connection.get(f"{self._path}/events", given(limit=limit, wait=wait, expand=",".join(expand))))

    def acknowledge(self, through: Page | str) -> None:
        """Say that everything up to the end of a page, or up to an event id, was processed and its result stored.

        Raises PlaceMovedError if an operator moved the consumer after the page was read: nothing was acknowledged, pull again.
        """
        place = through.after if isinstance(through, Page) else through
        self._connection.post(f"{self._path}/ack", {"through": place})

    def process(
        self, handle: Callable[[list[Event]], None], *, limit: int = 500, once: bool = False, expand: Expand = ()
    ) -> None:
        """Pull, call `handle` with the events, acknowledge: for ever, or with `once` up to the head of the log.

        `handle` stores its result before it returns, best in one transaction with the event ids: after a crash in between, the same
        events come again. What it raises ends the loop, and nothing of its page is acknowledged. A paused consumer waits.
        """
        more, acknowledged = True, ""
        while more or not once:
            try:
                page = self.pull(limit=limit, wait=0 if once else WAIT_S, expand=expand)
            except RefusedError as refused:
                if refused.code != _PAUSED or once:
                    raise
                self._connection.sleep(self._connection.retries.longest_s)
                continue
            if page.events:
                handle(page.events)
            more = page.has_more
            if not page.events and page.after == acknowledged:
                continue  # nothing came, also nothing that a filter left out
            try:
                self.acknowledge(page)
                acknowledged = page.after
            except PlaceMovedError:
                more = True  # the next page begins at the place of the consumer
