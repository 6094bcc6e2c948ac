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
    """What the projection writes: each change together with its tracking; also the place of an event that changes nothing."""

    members: set[tuple[str, str, str]]  # directory, group, member

    def change(self, change: tuple | None, tracking: Tracking) -> None:
        raise NotImplementedError


class AccessViewInMemory(AccessView, POPOTrackingRecorder):
    """The view in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.members = set()

    def change(self, change: tuple | None, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            match change:
                case False, directory, None, None:  # this one event ends all access; the removals that follow are tidying
                    self.members = {edge for edge in self.members if edge[0] != directory}
                case True, *edge:
                    self.members.add(tuple(edge))
                case False, *edge:
                    self.members.discard(tuple(edge))


def access_change(event: dict) -> tuple | None:
    """What an event does to access: (begins, directory, group, member), or None. Without a group: all of the directory ends."""
    kind, directory, data = event["type"], event["directory"], event["data"]
    if kind == "directory.closed":
        return False, directory, None, None
    if kind in {"group.member_added", "group.member_access_restored"} and data["effective"]:
        return True, directory, data["group"]["id"], data["member"]["id"]
    if kind in {"group.member_removed", "group.member_access_revoked"}:
        return False, directory, data["group"]["id"], data["member"]["id"]
    return None


class AccessList(Projection[AccessView]):
    """Follows all events that grant or end access; `topics` keeps the others away."""

    name = "accesslist"
    topics = (
        "group.member_added",
        "group.member_access_restored",
        "group.member_removed",
        "group.member_access_revoked",
        "directory.closed",
    )

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        leaf = domain_event.leaf  # the event as it is hashed; here it gets the words of the feed
        data = {"group": {"id": leaf["obj"]}, "member": {"id": leaf.get("mem")}, "effective": leaf.get("eff")}
        self.view.change(access_change({"type": domain_event.TOPIC, "directory": leaf["dir"], "data": data}), tracking)


def follow(env: dict[str, str] | None = None) -> ProjectionRunner[Ledger, AccessView]:
    """Start following; use as a context manager. `runner.wait(position)` waits until the view has come that far."""
    return ProjectionRunner(application_class=Ledger, projection_class=AccessList, view_class=AccessViewInMemory, env=env)


if __name__ == "__main__":
    with follow() as runner:
        runner.run_forever()
