"""Tokens over HTTP (docs/operations.md, "Tokens and directories"): issue, list, rotate, revoke."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from api.answers import Created, Json, ListOf, NoContent, listed
from api.bodies import Body
from api.consumers import ITEMS_MAX, Reason, TypeName
from api.csv_answers import Csv, wants_csv
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from ledger.clocks import microseconds
from ledger.rendering import rfc3339
from ledger.tokens import LIFE_DAYS, OVERLAP_S, ROLES, STATES, Role, Scope, ShownToken
from operations import token_report, tokens
from operations.token_report import CredentialFinding, CredentialReport
from operations.tokens import DAYS_MAX, NAME_LENGTH_MAX, UNUSED_S_MAX, UNUSED_S_MIN, Issued

# Named in the description only: the operation refuses others, and says what there is.
_RoleAsked = Annotated[str | None, Query(json_schema_extra={"enum": list(ROLES)})]
_StateAsked = Annotated[str | None, Query(json_schema_extra={"enum": list(STATES)})]
COLUMNS: Final = ("finding", "severity", "kind", "id", "name", "since", "fix")
_Names = Annotated[tuple[str, ...], Field(max_length=ITEMS_MAX)]


class TokenBody(Body):
    """The body of POST /v1/tokens. `types`, `consumers` and `bodies` narrow tokens of role consumer."""

    role: Role
    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]
    directories: _Names = ("*",)
    types: Annotated[tuple[TypeName, ...], Field(max_length=ITEMS_MAX)] = ("*",)
    consumers: _Names = ("*",)
    bodies: bool = True
    expires_in_days: Annotated[int, Field(ge=1, le=DAYS_MAX)] = LIFE_DAYS

    def scope(self) -> Scope | None:
        """The scope that narrows the token, or None."""
        asked = Scope(self.types, self.consumers, self.bodies)
        return asked if asked != Scope() else None


class IssuedToken(ShownToken):
    """A new token. `token` is its text, which is shown once."""

    token: str


class RotateTokenBody(Body):
    overlap_seconds: int = OVERLAP_S


class RevokeBody(Body):
    """The body of DELETE /v1/tokens/{token_id}. `unused_for_seconds`: refuse if the token was used within that time."""

    reason: Reason | None = None
    unused_for_seconds: Annotated[int | None, Field(ge=UNUSED_S_MIN, le=UNUSED_S_MAX)] = None


def routes(services: Services) -> APIRouter:
    """/v1/tokens and everything below."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.post("/v1/tokens", name="tokens.issue")
    async def issue_token(request: Request, body: TokenBody) -> Created[IssuedToken]:
        made = await tokens.issue(
            ledger, caller_of(request), body.role, body.name, body.directories, body.scope(), days=body.expires_in_days
        )  # fmt: skip
        return Created(_with_text(made))

    @router.get("/v1/tokens", name="tokens.list")
    async def list_tokens(
        request: Request, role: _RoleAsked = None, directory: str | None = None, state: _StateAsked = None
    ) -> Json[ListOf[ShownToken]]:
        return listed(await tokens.list_all(ledger, caller_of(request), role=role, directory=directory, state=state))

    @router.get("/v1/tokens/report", name="tokens.report")
    async def report_tokens(request: Request) -> Json[CredentialReport] | Csv:
        found = await token_report.report(ledger, caller_of(request))
        return Csv(COLUMNS, map(_line, found["data"])) if wants_csv(request) else Json(found)

    @router.get("/v1/tokens/{token_id}", name="tokens.show")
    async def get_token(request: Request, token_id: str) -> Json[ShownToken]:
        return Json(await tokens.show(ledger, caller_of(request), token_id))

    @router.post("/v1/tokens/{token_id}/rotate", name="tokens.rotate")
    async def rotate_token(request: Request, token_id: str, body: RotateTokenBody | None = None) -> Created[IssuedToken]:
        asked = body or RotateTokenBody()
        return Created(_with_text(await tokens.rotate(ledger, caller_of(request), token_id, asked.overlap_seconds)))

    @router.delete("/v1/tokens/{token_id}", name="tokens.revoke")
    async def revoke_token(request: Request, token_id: str, body: RevokeBody | None = None) -> NoContent:
        asked = body or RevokeBody()
        await tokens.revoke(ledger, caller_of(request), token_id, asked.reason, asked.unused_for_seconds)
        return NoContent()

    return router


def _line(found: CredentialFinding) -> Sequence[str]:
    """The line of a finding in a CSV."""
    subject = found["subject"]
    return (
        found["finding"],
        found["severity"],
        subject["kind"],
        subject["id"],
        subject["name"],
        rfc3339(microseconds(found["since"])),
        found["fix"],
    )


def _with_text(issued: Issued) -> IssuedToken:
    return {**issued.shown, "token": issued.text}
