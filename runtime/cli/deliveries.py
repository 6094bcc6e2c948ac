"""`scim-ledger blocked …` and `scim-ledger parked …`: list deliveries that wait, and retry, park or skip them."""

from typing import Annotated, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import ConsumerName
from runtime.cli.confirming import Yes, confirm
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, Reason, Superseded, print_list, say

blocked = new_group("Deliveries that failed: blocked ones, and those that are tried again.")
parked = new_group("Parked deliveries.")
Limit = Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")]
STUCK: Final = (
    "event_id",
    "type",
    "subject",
    "state",
    "attempts",
    "last_error",
    "since",
    "last_answer",
    "next_attempt_at",
    "reason",
)


@blocked.command("list")
def list_blocked(name: ConsumerName, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List failed deliveries: blocked ones, and those that are retried.

    Example: scim-ledger blocked list door
    """
    with service() as found:
        print_list(as_json, found.listed("blocked list", limit=limit, name=name), STUCK)


@blocked.command("retry")
def retry_blocked(
    name: ConsumerName,
    event_id: str,
    *,
    reason: Reason,
    include_superseded: Superseded = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Retry a failed delivery now.

    Example: scim-ledger blocked retry door evt_acme_97_5f0c9a1e --reason fixed
    """
    _act("blocked retry", name, event_id, reason, key, as_json, **_asked(include_superseded))


@blocked.command("park")
def park_blocked(name: ConsumerName, event_id: str, *, reason: Reason, key: Key = None, as_json: AsJson = False) -> None:
    """Park a failed delivery, so that others do not wait for it.

    Example: scim-ledger blocked park door evt_acme_97_5f0c9a1e --reason poison
    """
    _act("blocked park", name, event_id, reason, key, as_json)


@blocked.command("skip")
def skip_blocked(
    name: ConsumerName, event_id: str, *, reason: Reason, yes: Yes = False, key: Key = None, as_json: AsJson = False
) -> None:
    """Skip a failed delivery for ever. The reason stays on record, and the audit shows the hole.

    Example: scim-ledger blocked skip door evt_acme_97_5f0c9a1e --reason poison
    """
    confirm(yes, f"Consumer {name} will never get event {event_id}.")
    _act("blocked skip", name, event_id, reason, key, as_json)


@parked.command("list")
def list_parked(name: ConsumerName, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List parked deliveries.

    Example: scim-ledger parked list door
    """
    with service() as found:
        print_list(as_json, found.listed("parked list", limit=limit, name=name), STUCK)


@parked.command("retry")
def retry_parked(
    name: ConsumerName,
    event_id: str,
    *,
    reason: Reason,
    include_superseded: Superseded = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Bring a parked delivery back. It goes before newer ones of its subject that have not left yet.

    Example: scim-ledger parked retry door evt_acme_97_5f0c9a1e --reason fixed
    """
    _act("parked retry", name, event_id, reason, key, as_json, **_asked(include_superseded))


@parked.command("skip")
def skip_parked(
    name: ConsumerName, event_id: str, *, reason: Reason, yes: Yes = False, key: Key = None, as_json: AsJson = False
) -> None:
    """Skip a parked delivery for ever. The reason stays on record.

    Example: scim-ledger parked skip door evt_acme_97_5f0c9a1e --reason poison
    """
    confirm(yes, f"Consumer {name} will never get event {event_id}.")
    _act("parked skip", name, event_id, reason, key, as_json)


def _asked(include: bool) -> dict[str, str]:
    return {"superseded": "include"} if include else {}


def _act(verb: str, name: str, event_id: str, reason: str, key: str | None, as_json: bool, **asked: str) -> None:
    found = ask(verb, body={"reason": reason, **asked}, key=key, name=name, event_id=event_id)
    say(as_json, found, f"{event_id}: {verb.split()[1]}, on record.")
