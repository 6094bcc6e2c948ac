"""Pages of the log."""

from dataclasses import dataclass
from typing import Any

from scim_ledger_client.events import Event


@dataclass(frozen=True, slots=True)
class Page:
    """Some events in order. `after` is the cursor behind them, to be stored in the transaction that applies them.

    The page covers the log from `covered_from` to `covered_to`, with what a filter left out: these ranges have no gaps.
    """

    events: list[Event]
    after: str
    covered_from: int
    covered_to: int
    head: int
    has_more: bool


def page_of(document: dict[str, Any]) -> Page:
    """Read an answer of the feed or of a pull."""
    covered = document["covered"]
    return Page(
        document["data"], document["list_metadata"]["after"], covered["from_position"], covered["to_position"],
        document["head_position"], document["has_more"],
    )  # fmt: skip
