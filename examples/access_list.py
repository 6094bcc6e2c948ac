"""Your own view of the ledger with the eventsourcing library's projection runner: who has access through which group, in your own store.

    LEDGER_DATABASE_URL=postgresql://… LEDGER_KEK_FILE=var/kek python examples/access_list.py

The runner subscribes to the ledger's log and calls `process_event` for each event in order; the view keeps its place
(tracking) together with its rows, so a restart goes on where it was. Here the view lives in memory; give ACCESSLIST_
PERSISTENCE_MODULE=eventsourcing.postgres (and its settings) to keep it in a database of yours.
"""

from typing import Any

from eventsourcing.application import Application
from eventsourcing.persistence import Tracking, TrackingRecorder
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner


class Ledger(Application):
    """The ledger as an application of the library; read-only."""

    name = "Ledger"
    env = {"PERSISTENCE_MODULE": "ledger.eventsourcing_recorder"}  # noqa: RUF012  # the library's own convention


class AccessView(TrackingRecorder):
    """What the projection writes: each change together with its tracking."""

    members: set[tuple[str, str]]

    def change(self, edge: tuple[str, str], directory: str, *, member: bool, tracking: Tracking) -> None:
        raise NotImplementedError

    def end(self, directory: str, tracking: Tracking) -> None:
        raise NotImplementedError


class AccessViewInMemory(AccessView, POPOTrackingRecorder):
    """The view in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.members = set()
        self._directories: dict[str, str] = {}  # of each group

    def change(self, edge: tuple[str, str], directory: str, *, member: bool, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            (self.members.add if member else self.members.discard)(edge)
            self._directories[edge[0]] = directory

    def end(self, directory: str, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            self.members = {edge for edge in self.members if self._directories[edge[0]] != directory}


GRANTS = ("group.member_added", "group.member_access_restored")
ENDS = ("group.member_removed", "group.member_access_revoked", "directory.closed")


class AccessList(Projection[AccessView]):
    """Follows all events that grant or end access; `topics` keeps the others away.

    A user who is deactivated, or a group that is deleted, needs nothing else: for each membership there is an event of its own.
    """

    name = "accesslist"
    topics = (*GRANTS, *ENDS)

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        leaf, topic = domain_event.leaf, domain_event.TOPIC
        if topic == "directory.closed":  # all access ends with this one event; the removals that follow are tidying
            self.view.end(leaf["dir"], tracking)
            return
        member = topic in GRANTS and leaf["eff"]  # a membership of an inactive user is stored, but grants nothing
        self.view.change((leaf["obj"], leaf["mem"]), leaf["dir"], member=member, tracking=tracking)


def follow(env: dict[str, str] | None = None) -> ProjectionRunner[Ledger, AccessView]:
    """Start following; use as a context manager. `runner.wait(position)` waits until the view has come that far."""
    return ProjectionRunner(application_class=Ledger, projection_class=AccessList, view_class=AccessViewInMemory, env=env)


if __name__ == "__main__":
    with follow() as runner:
        runner.run_forever()
