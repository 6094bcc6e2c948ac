"""The same view as access_list.py, over HTTP: a projection of the eventsourcing library without the database and the server's packages.

    LEDGER_URL=http://127.0.0.1:8000 LEDGER_TOKEN=sl_consumer_… python examples/client_access_list.py

Needs `pip install "./clients/python[eventsourcing]"`.
"""

from typing import Any

from eventsourcing.application import Application
from eventsourcing.persistence import Tracking, TrackingRecorder
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from scim_ledger_client.access import Edge, apply
from scim_ledger_client.events import Event


class Ledger(Application):
    """The ledger as an application of the library; read-only."""

    name = "Ledger"
    env = {"PERSISTENCE_MODULE": "scim_ledger_client.recorder"}  # noqa: RUF012  # the library's own convention


class AccessView(TrackingRecorder):
    """What the projection writes: each change together with its tracking."""

    members: set[Edge]

    def apply(self, event: Event, tracking: Tracking) -> None:
        raise NotImplementedError


class AccessViewInMemory(AccessView, POPOTrackingRecorder):
    """The view in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.members = set()

    def apply(self, event: Event, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            apply(self.members, event)


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
        self.view.apply(domain_event.event, tracking)


def follow(env: dict[str, str] | None = None) -> ProjectionRunner[Ledger, AccessView]:
    """Start following; use as a context manager. `runner.wait(position)` waits until the view has come that far."""
    return ProjectionRunner(application_class=Ledger, projection_class=AccessList, view_class=AccessViewInMemory, env=env)


if __name__ == "__main__":
    with follow() as runner:
        runner.run_forever()
