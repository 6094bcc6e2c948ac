"""OAuth 2.0 clients over HTTP (docs/operations.md, "OAuth 2.0"): create, list, show, rotate, revoke."""

from typing import Annotated, Any, NotRequired

from fastapi import APIRouter, Request
from pydantic import Field

from api.answers import Created, Json, ListOf, NoContent, listed
from api.bodies import Body
from api.consumers import Reason
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from api.tokens import RotateTokenBody
from ledger.clients import Auth, ShownClient
from operations import clients
from operations.clients import Keys, Made
from operations.oauth import endpoint_of
from operations.tokens import NAME_LENGTH_MAX


class EndClientBody(Body):
    """The body of DELETE /v1/clients/{client_id}."""

    reason: Reason | None = None


class ClientBody(Body):
    """The body of POST /v1/clients. A client with `auth` `jwt` has its public keys in `jwks` or at `jwks_uri`."""

    directory: str
    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]
    auth: Auth = "secret"
    jwks: dict[str, Any] | None = None
    jwks_uri: Annotated[str, Field(min_length=1)] | None = None


class Client(ShownClient):
    """A client, and where it gets access tokens."""

    issuer: str
    token_endpoint: str


class ClientWithSecret(Client):
    """`client_secret` is shown once; a client with keys has none."""

    client_secret: NotRequired[str]


def routes(services: Services) -> APIRouter:
    """/v1/clients and everything below."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    def placed(shown: ShownClient) -> Client:
        endpoint = endpoint_of(services.base_url, shown["directory"])
        return {**shown, "issuer": endpoint.issuer, "token_endpoint": endpoint.url}

    def with_secret(made: Made) -> ClientWithSecret:
        found: ClientWithSecret = {**placed(made.shown)}
        if made.secret is not None:
            found["client_secret"] = made.secret
        return found

    @router.post("/v1/clients", name="clients.create")
    async def create_client(request: Request, body: ClientBody) -> Created[ClientWithSecret]:
        keys, allowed = Keys(body.jwks, body.jwks_uri), services.webhooks.allowed
        made = await clients.create(ledger, caller_of(request), body.directory, body.name, body.auth, keys, allowed)
        return Created(with_secret(made))

    @router.get("/v1/clients", name="clients.list")
    async def list_clients(request: Request, directory: str | None = None) -> Json[ListOf[Client]]:
        return listed([placed(found) for found in await clients.list_all(ledger, caller_of(request), directory=directory)])

    @router.get("/v1/clients/{client_id}", name="clients.show")
    async def get_client(request: Request, client_id: str) -> Json[Client]:
        return Json(placed(await clients.show(ledger, caller_of(request), client_id)))

    @router.post("/v1/clients/{client_id}/rotate", name="clients.rotate")
    async def rotate_client(request: Request, client_id: str, body: RotateTokenBody | None = None) -> Created[ClientWithSecret]:
        asked = body or RotateTokenBody()
        return Created(with_secret(await clients.renew_secret(ledger, caller_of(request), client_id, asked.overlap_seconds)))

    @router.delete("/v1/clients/{client_id}", name="clients.revoke")
    async def revoke_client(request: Request, client_id: str, body: EndClientBody | None = None) -> NoContent:
        await clients.revoke_client(ledger, caller_of(request), client_id, body.reason if body else None)
        return NoContent()

    return router
