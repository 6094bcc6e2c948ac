"""Profiles over HTTP: list, show, validate, try, and set that of a directory (docs/operations.md, "Profiles")."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict

import orjson
from fastapi import APIRouter, Request

from api.answers import Json, ListOf, listed
from api.description import document_of
from api.gate import caller_of
from api.invalid_fields import DocumentRoute, check_members
from api.problems import ProblemError, name_places
from api.services import Services
from operations import profiles
from operations.open_ledger import OpenLedger
from scim.body import read_json
from scim.dry_run import Trial
from scim.profile import Profile, ProfileError, is_shipped, read_profile

BODY_BYTES_MAX = 2**18
TRIED_BYTES_MAX = 2**20
LINE_LENGTH_MAX = 500  # characters of one error, which may quote the document
TRIED_MAX = 1_000  # requests that one trial may have


class AskedProfile(TypedDict):
    profile: str | dict[str, Any]


class ProfileDocument(TypedDict):
    profile: dict[str, Any]


class RecordedRequest(TypedDict):
    """A request as an IdP sent it. `before`: the resource so far."""

    method: str
    path: str
    body: NotRequired[dict[str, Any]]
    before: NotRequired[dict[str, Any]]


class TrialBody(AskedProfile):
    """`directory`: the slug of one whose extension schemas count, too."""

    requests: list[RecordedRequest]
    directory: NotRequired[str]


class ProfileLine(TypedDict):
    """A profile by `name@version`. `shipped`: it comes with the service."""

    profile: str
    title: str
    shipped: bool


class ShownProfile(TypedDict):
    """A profile with its document: how requests of this kind of IdP are read."""

    profile: str
    document: dict[str, Any]


class DirectoryProfile(ShownProfile):
    directory: str


class Validation(TypedDict):
    """Whether a document is a profile: its name if it is, else its errors, one for each place."""

    valid: bool
    profile: NotRequired[str]
    errors: NotRequired[list[str]]


def routes(services: Services) -> APIRouter:
    """GET /v1/profiles and one of them; GET and PUT /v1/directories/{directory}/profile."""
    router, ledger = APIRouter(route_class=DocumentRoute), services.ledger
    _add_trials(router, ledger)

    @router.get("/v1/profiles", name="profiles.list")
    async def list_profiles(request: Request) -> Json[ListOf[ProfileLine]]:
        found = await profiles.list_all(ledger, caller_of(request))
        rows: list[ProfileLine] = [
            {"profile": text, "title": p.file.title, "shipped": is_shipped(p.file.name)} for text, p in found.items()
        ]
        return listed(rows)

    @router.get("/v1/profiles/{name}", name="profiles.show")
    async def show_profile(request: Request, name: str) -> Json[ShownProfile]:
        return Json(_profile_json(await profiles.show(ledger, caller_of(request), name)))

    @router.get("/v1/directories/{directory}/profile", name="profiles.of_directory")
    async def show_profile_of(request: Request, directory: str) -> Json[DirectoryProfile]:
        found = await profiles.of_directory(ledger, caller_of(request), directory)
        return Json({"directory": directory, **_profile_json(found)})

    @router.put(
        "/v1/directories/{directory}/profile",
        name="profiles.set",
        openapi_extra=document_of("A profile by `name`, by `name@version`, or as a document of your own.", AskedProfile),
    )
    async def set_profile_of(request: Request, directory: str) -> Json[DirectoryProfile]:
        raw = await request.body()
        if len(raw) > BODY_BYTES_MAX:
            raise ProblemError(413, "too_large", f"A profile has at most {BODY_BYTES_MAX} bytes.")
        asked = await ledger.turns.read(len(raw), lambda: _asked_for(_read(raw, ("profile",)).get("profile")))
        found = await profiles.set_profile(ledger, caller_of(request), directory, asked, weight=1_000 + len(raw))
        return Json({"directory": directory, **_profile_json(found)})

    return router


def _add_trials(router: APIRouter, ledger: OpenLedger) -> None:
    """Add the routes that validate a profile and try recorded requests with one. They store nothing."""

    @router.post(
        "/v1/profiles/validate",
        name="profiles.validate",
        openapi_extra=document_of("The document of a profile.", ProfileDocument),
    )
    async def validate_profile(request: Request) -> Json[Validation]:
        asked, size = await _body(ledger, request, ("profile",))
        try:
            profile = await profiles.validate(ledger, caller_of(request), asked.get("profile"))
        except ProfileError as wrong:
            return Json({"valid": False, "errors": (await ledger.turns.read(size, partial(_places, wrong))).splitlines()})
        return Json({"valid": True, "profile": profile.text})

    @router.post(
        "/v1/profiles/try",
        name="profiles.try",
        openapi_extra=document_of("A profile, and recorded requests to try with it.", TrialBody),
    )
    async def try_profile(request: Request) -> Json[ListOf[Trial]]:
        asked, size = await _body(ledger, request, ("profile", "requests", "directory"))
        steps, slug = asked.get("requests"), asked.get("directory")
        if not isinstance(steps, list) or not 0 < len(steps) <= TRIED_MAX or not all(isinstance(step, dict) for step in steps):
            raise ProblemError(
                400, "refused", f'Send {{"profile", "requests": [{{"method", "path", "body"}}, …]}}, at most {TRIED_MAX}.'
            )
        profile = await ledger.turns.read(size, lambda: _asked_for(asked.get("profile")))
        return listed(await profiles.tried(ledger, caller_of(request), profile, steps, slug=slug if slug is None else str(slug)))


async def _body(ledger: OpenLedger, request: Request, known: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The parsed body, which has only `known` members, and its size in bytes."""
    raw = await request.body()
    if len(raw) > TRIED_BYTES_MAX:
        raise ProblemError(413, "too_large", f"This takes at most {TRIED_BYTES_MAX} bytes.")
    return await ledger.turns.read(len(raw), lambda: _read(raw, known)), len(raw)


def _read(raw: bytes, known: Sequence[str]) -> dict[str, Any]:
    body = read_json(raw)
    check_members(body, known)  # `dry_run`, ignored, would be an act
    return body


def _asked_for(asked: Any) -> str | Profile:
    """The name of a profile, or a Profile from an operator's document."""
    if isinstance(asked, str):
        return asked
    if not isinstance(asked, dict):
        raise ProblemError(
            400, "refused", 'Send {"profile": "okta"}, or with a profile of your own {"profile": {…its document…}}.'
        )
    try:
        return read_profile(orjson.dumps(asked), json=True)
    except ProfileError as wrong:
        raise ProblemError(400, "refused", _places(wrong)) from wrong


def _places(wrong: ProfileError) -> str:
    """The first errors, one a line; a document can have 100 000."""
    return name_places(str(wrong).splitlines(), "\n", LINE_LENGTH_MAX)


def _profile_json(profile: Profile) -> ShownProfile:
    return {"profile": profile.text, "document": profile.file.model_dump()}
