"""The token endpoint of each directory (RFC 6749 §4.4) and its metadata (RFC 8414). Errors have the form of RFC 6749 §5.2."""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict, get_args
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request

from api.answers import Json
from api.bodies import BodyTooLargeError
from api.invalid_fields import DocumentRoute
from api.services import Services
from api.strangers import address_of
from ledger.token_use import Use
from operations.assertions import ALGORITHMS
from operations.key_sets import key_sets_of
from operations.oauth import (
    SCOPE,
    AuthenticationMethod,
    Credentials,
    InvalidClientError,
    TooManyAssertionsError,
    endpoint_of,
    grant,
)
from operations.refusals import NotFoundError
from scim.errors import TooManyRequests

TOKEN_PATH: Final = "/oauth/{directory}/token"  # noqa: S105  # a path
_GRANT: Final = "client_credentials"
_FORM: Final = "application/x-www-form-urlencoded"
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_AUTHENTICATION: Final[list[AuthenticationMethod]] = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
_SLUG: Final = re.compile(r"_system|[a-z0-9][a-z0-9-]{0,62}")
_PARAMETERS_MAX: Final = 50
_BUSY: Final = "Too many requests without a valid client came from this address. Check its credentials, then try again."
ErrorName = Literal["invalid_request", "invalid_client", "invalid_scope", "unsupported_grant_type", "temporarily_unavailable"]
_FORM_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A client authenticates with HTTP Basic, with `client_id` and `client_secret` here, or with an assertion (RFC 7523 §2.2).",
        "content": {
            _FORM: {
                "example": {"grant_type": _GRANT, "client_id": f"cli_{'0' * 32}", "client_secret": "sl_client_…"},
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": [_GRANT]},
                        "scope": {"type": "string", "enum": [SCOPE]},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string"},
                        "client_assertion_type": {"type": "string", "enum": [_ASSERTION_TYPE]},
                        "client_assertion": {"type": "string"},
                    },
                },
            }
        },
    }
}


class AccessToken(TypedDict):
    """An access token (RFC 6749 §5.1): `access_token` is shown once and works for `expires_in` seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str


class OAuthError(TypedDict):
    """An error of the token endpoint (RFC 6749 §5.2)."""

    error: ErrorName
    error_description: NotRequired[str]


class Metadata(TypedDict):
    """What a client must know of a directory's token endpoint (RFC 8414 §2)."""

    issuer: str
    token_endpoint: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    scopes_supported: list[str]
    token_endpoint_auth_methods_supported: list[AuthenticationMethod]
    token_endpoint_auth_signing_alg_values_supported: list[str]


class TokenRefused(Json[OAuthError]):
    status = 400


class ClientRefused(Json[OAuthError]):
    status = 401


class FormTooLarge(Json[OAuthError]):
    status = 413


class SlowedDown(Json[OAuthError]):
    status = 429


Refused: TypeAlias = TokenRefused | ClientRefused | FormTooLarge | SlowedDown
_ANSWERS: Final[Mapping[int, type[Refused]]] = {kind.status: kind for kind in get_args(Refused)}


class _RefusedError(Exception):
    def __init__(self, name: ErrorName, why: str, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(name)
        self.name: ErrorName = name
        self.why, self.status, self.headers = why, status, headers or {}


def routes(services: Services) -> APIRouter:
    """/oauth/{directory}/token and its metadata."""
    router, key_sets = APIRouter(route_class=DocumentRoute), key_sets_of(lambda: services.webhooks.allowed)

    @router.post(TOKEN_PATH, name="oauth.token", openapi_extra=_FORM_BODY)
    async def get_access_token(
        request: Request, directory: str
    ) -> Json[AccessToken] | TokenRefused | ClientRefused | FormTooLarge | SlowedDown:
        """Give an OAuth 2.0 client of the directory an access token (RFC 6749 §4.4)."""
        try:
            sent = _credentials(request, _form(await _form_text(request)))
            await _admit(services, request)
            if not _SLUG.fullmatch(directory):
                raise InvalidClientError
            endpoint = endpoint_of(services.base_url, directory)
            granted = await grant(services.ledger, key_sets, endpoint, sent, services.rates.check)
        except InvalidClientError as nobody:
            return _answer(_failed(services, request, str(nobody)))
        except TooManyAssertionsError:
            why = "Too many assertions of this client are in use: use an access token until it expires, and a short `exp`."
            return _answer(_busy(why, 60))
        except TooManyRequests as often:  # of the whole directory: nobody without a valid client gets here
            return _answer(_busy(often.detail, often.retry_after))
        except _RefusedError as refused:
            return _answer(refused)
        services.authentication.used[granted.client] = Use(f"POST {TOKEN_PATH}", address_of(request.scope))
        answer = Json[AccessToken](
            {"access_token": granted.text, "token_type": "Bearer", "expires_in": granted.expires_in, "scope": SCOPE}
        )
        answer.headers["Pragma"] = "no-cache"  # RFC 6749 §5.1; Cache-Control: no-store is on every answer
        return answer

    @router.get("/.well-known/oauth-authorization-server/oauth/{directory}", name="oauth.metadata")
    async def get_metadata(directory: str) -> Json[Metadata]:
        """What a client must know of a directory's token endpoint (RFC 8414); the same for each slug, whether it is taken or not."""
        if not _SLUG.fullmatch(directory):
            raise NotFoundError("No directory can have this name.")
        endpoint = endpoint_of(services.base_url, directory)
        return Json(
            {
                "issuer": endpoint.issuer,
                "token_endpoint": endpoint.url,
                "grant_types_supported": [_GRANT],
                "response_types_supported": [],
                "scopes_supported": [SCOPE],
                "token_endpoint_auth_methods_supported": _AUTHENTICATION,
                "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            }
        )

    return router


def _answer(refused: _RefusedError) -> Refused:
    answer = _ANSWERS[refused.status](OAuthError(error=refused.name, error_description=refused.why))
    answer.headers.update(refused.headers)
    return answer


async def _form_text(request: Request) -> bytes:
    if request.url.query:
        why = "Parameters belong into the body. A secret that was in the URL is in logs now: rotate it."
        raise _RefusedError("invalid_request", why)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise _RefusedError("invalid_request", f"Send the parameters as {_FORM}.")
    try:
        return await request.body()
    except BodyTooLargeError as large:
        raise _RefusedError("invalid_request", str(large.detail), 413) from large


def _form(body: bytes) -> dict[str, str]:
    """The parameters, checked as far as they are the same for all clients. One without a value counts as omitted (RFC 6749 §3.2)."""
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=_PARAMETERS_MAX, errors="strict"
        )
    except ValueError as broken:
        raise _RefusedError("invalid_request", "The body is not a form.") from broken
    if len({name for name, _ in pairs}) < len(pairs):
        raise _RefusedError("invalid_request", "A parameter comes twice.")
    form = {name: value for name, value in pairs if value}
    if "grant_type" not in form:
        raise _RefusedError("invalid_request", f"`grant_type` is missing; it is {_GRANT}.")
    if form["grant_type"] != _GRANT:
        raise _RefusedError("unsupported_grant_type", f"The only `grant_type` here is {_GRANT}.")
    if set(form.get("scope", SCOPE).split()) - {SCOPE}:
        raise _RefusedError("invalid_scope", f"The only `scope` here is {SCOPE}.")
    return form


def _credentials(request: Request, form: Mapping[str, str]) -> Credentials:
    """How the client authenticates. Raises _RefusedError for two ways at once (RFC 6749 §2.3), InvalidClientError for none."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise _RefusedError("invalid_request", "The client authenticates in more than one way: use one.")
    header = headers[0] if headers else None
    ways = (header is not None) + ("client_secret" in form) + ("client_assertion" in form)
    if ways > 1:
        raise _RefusedError("invalid_request", "The client authenticates in more than one way: use one.")
    if not ways:
        raise InvalidClientError("The client does not authenticate: send its secret, or an assertion.")
    claimed = form.get("client_id", "")
    if header is not None:
        found = _basic(header)
        if claimed not in {"", found.client_id}:
            raise _RefusedError("invalid_request", "`client_id` in the body is another than in the header.")
        return found
    if "client_secret" in form:
        return Credentials(claimed, secret=form["client_secret"])
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise _RefusedError("invalid_request", f"`client_assertion_type` is {_ASSERTION_TYPE}.")
    return Credentials(claimed, assertion=form["client_assertion"])


def _basic(header: str) -> Credentials:
    """HTTP Basic, in which id and secret are encoded as in a form first (RFC 6749 §2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise InvalidClientError
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError as broken:  # binascii.Error and UnicodeDecodeError are some
        raise InvalidClientError from broken
    if not colon:
        raise InvalidClientError
    return Credentials(unquote_plus(client_id), secret=unquote_plus(secret))


async def _admit(services: Services, request: Request) -> None:
    if not await services.authentication.strangers.admits(address_of(request.scope)):
        raise _busy(_BUSY, 1)


def _failed(services: Services, request: Request, why: str) -> _RefusedError:
    """The refusal of a client that did not authenticate, or that its address has failed too often."""
    wait = services.authentication.strangers.failed(address_of(request.scope))
    if wait:
        return _busy(_BUSY, wait)
    return _RefusedError("invalid_client", why, 401, {"WWW-Authenticate": 'Basic realm="scim-ledger", charset="UTF-8"'})


def _busy(why: str, seconds: int) -> _RefusedError:
    return _RefusedError("temporarily_unavailable", why, 429, {"Retry-After": str(seconds)})
