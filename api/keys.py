"""The key epochs over HTTP. No key is ever shown."""

from typing import Literal, TypedDict

from fastapi import APIRouter, Request

from api.answers import Json, ListOf, listed
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from ledger.event_data import Count, Instant
from ledger.key_epochs import Epoch, EpochState, Provider, current_of
from operations import keys


class ShownEpoch(TypedDict):
    """A key epoch. `state`: announced until all processes can open it, then current; earlier until it is destroyed.

    `root_key`: which of the provider's keys opens it. `key_id`: shows whether a key is the right one.
    """

    object: Literal["key_epoch"]
    epoch: Count
    state: EpochState
    provider: Provider
    root_key: str
    key_id: str
    created_at: Instant
    active_at: Instant | None
    rewrapped_at: Instant | None
    destroyed_at: Instant | None


def routes(services: Services) -> APIRouter:
    """GET /v1/keys."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.get("/v1/keys", name="keys.list")
    async def list_keys(request: Request) -> Json[ListOf[ShownEpoch]]:
        found = await keys.list_all(ledger, caller_of(request))
        return listed([_epoch_json(epoch, current_of(found)) for epoch in found])

    return router


def _epoch_json(epoch: Epoch, current: int) -> ShownEpoch:
    return {
        "object": "key_epoch", "epoch": epoch.number, "state": epoch.state(current), "provider": epoch.provider, "root_key": epoch.root,
        "key_id": epoch.key_id.hex(), "created_at": epoch.made_at, "active_at": epoch.active_at, "rewrapped_at": epoch.rewrapped_at,
        "destroyed_at": epoch.destroyed_at,
    }  # fmt: skip
