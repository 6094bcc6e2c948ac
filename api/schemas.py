"""Extension schemas of a directory over HTTP: list them, register one (RFC 7643 §7)."""

from typing import Any, Literal, NotRequired, TypedDict

from fastapi import APIRouter, Request

from api.answers import Created, Json, ListOf, list_of, listed
from api.description import document_of
from api.gate import caller_of
from api.invalid_fields import DocumentRoute
from api.problems import ProblemError
from api.services import Services
from operations import schemas
from operations.schemas import RegisteredSchema
from scim.body import read_json


class SchemaBody(TypedDict):
    schema: dict[str, Any]
    resource_type: NotRequired[Literal["User", "Group"]]


def routes(services: Services) -> APIRouter:
    """GET and POST /v1/directories/{directory}/schemas."""
    router, ledger = APIRouter(route_class=DocumentRoute), services.ledger

    @router.get("/v1/directories/{directory}/schemas", name="schemas.list")
    async def list_schemas(request: Request, directory: str) -> Json[ListOf[RegisteredSchema]]:
        return listed(await schemas.list_all(ledger, caller_of(request), directory))

    @router.post(
        "/v1/directories/{directory}/schemas",
        name="schemas.register",
        openapi_extra=document_of("A Schema document (RFC 7643 §7), and the type of the resources that it extends.", SchemaBody),
    )
    async def register_schema(
        request: Request, directory: str
    ) -> Json[ListOf[RegisteredSchema]] | Created[ListOf[RegisteredSchema]]:
        raw = await request.body()
        body = await ledger.turns.read(len(raw), lambda: read_json(raw))
        schema, resource_type = body.get("schema"), body.get("resource_type", "User")
        if not isinstance(schema, dict) or not isinstance(resource_type, str):
            raise ProblemError(400, "refused", 'Send {"resource_type": "User", "schema": {…the Schema document…}}.')
        rows, new = await schemas.register(
            ledger, caller_of(request), directory, resource_type, schema, weight=1_000 + len(raw)
        )  # fmt: skip
        return Created(list_of(rows)) if new else listed(rows)

    return router
