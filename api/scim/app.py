"""The SCIM endpoint as one ASGI application: routes as a table, errors always as SCIM bodies."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple
from urllib.parse import unquote
from uuid import UUID

import psycopg
import structlog

from api.authentication import SlowedError, presented
from api.database_errors import given_up, scim_error
from api.journal import Entry
from api.memory import GIANT_EVENTS, release
from api.metrics import method_shown, observe, observe_scim
from api.scim.bulk import BULK_BYTES_MAX, bulk
from api.scim.http import Answer, Call, ClientGoneError, Receive, Refusal, Scope, Send, as_json, of_error, read_query, send_answer
from api.scim.queries import LONG_TEXT, Query
from api.scim.search import COUNT_MAX, filter_in, from_message, from_query
from api.scim.writes import THREAD_BYTES_MIN, Write
from api.services import Services
from api.spans import end_of_request, parent_of
from api.strangers import address_of
from database import patience
from ledger.clients import find_clients
from ledger.commands import parse_id
from ledger.decide import CLOSED_SAYS, PAUSED_RETRY_S, PAUSED_SAYS
from ledger.directories import Directory
from ledger.events import ACTIVE, PAUSED
from ledger.tokens import Token
from ledger.trace_context import HEADER
from operations.journal import formerly
from operations.oauth import endpoint_of
from operations.permissions import TABLE, allowed
from scim import discovery
from scim.bulk import BULK_OPERATIONS_MAX
from scim.errors import Forbidden, MethodNotAllowed, NotFound, NotImplementedHere, ScimError, Unauthorized, Unavailable
from scim.leniency import Tolerance
from scim.mistakes import Mistake, mistake_in
from scim.redaction import redacted_filter
from scim.respelling import endpoint_in
from scim.schema import GROUP, RESOURCE_TYPES, USER, ResourceType
from scim.strictness import Strictness, is_other_spelling_of_id
from scim.work import AbandonedError

SEARCH_BYTES_MAX = 2**20
TRACEPARENT: Final = HEADER.encode()
SCIM_PATH: Final = "/scim/{directory}/v2"
_log = structlog.get_logger("api.scim")
Handler = Callable[[Services, Call, Directory, Token], Awaitable[Answer]]
_TRANSACTED: Final[set[Handler]] = set()  # writes whose transaction looks at the token again


def _write(name: str) -> Handler:
    async def handle(services: Services, call: Call, directory: Directory, token: Token) -> Answer:
        return await getattr(Write(services, call, directory, token), name)(*call.path[1:])

    _TRANSACTED.add(handle)
    return handle


async def _get_user(services: Services, call: Call, directory: Directory, _: Token) -> Answer:
    return await Query(services, call, directory).one(directory.user_type, call.path[1])


async def _get_group(services: Services, call: Call, directory: Directory, _: Token) -> Answer:
    return await Query(services, call, directory).one(directory.group_type, call.path[1])


def _list(*kinds: ResourceType) -> Handler:
    async def handle(services: Services, call: Call, directory: Directory, _: Token) -> Answer:
        return await Query(services, call, directory).many([directory.typed(kind) for kind in kinds], from_query(call.query))

    return handle


def _search(*kinds: ResourceType) -> Handler:
    async def handle(services: Services, call: Call, directory: Directory, _: Token) -> Answer:
        content = await call.content(SEARCH_BYTES_MAX)
        large = content.size > THREAD_BYTES_MIN
        message = await services.ledger.turns.compute(directory.id, content.load) if large else content.load()
        call.filter = filter_in(message)
        return await Query(services, call, directory).many([directory.typed(kind) for kind in kinds], from_message(message))

    return handle


def _base(services: Services, directory: Directory) -> str:
    return f"{services.base_url}/scim/{directory.slug}/v2"


def _refuse_filter(call: Call) -> None:
    if "filter" in call.query:
        raise Forbidden("Discovery endpoints take no filter (RFC 7644 §4).")


async def _config(services: Services, call: Call, directory: Directory, _token: Token) -> Answer:
    _refuse_filter(call)
    return as_json(
        200,
        discovery.service_provider_config(
            _base(services, directory),
            bulk_supported=True,
            bulk_operations_max=BULK_OPERATIONS_MAX,
            bulk_payload_bytes_max=BULK_BYTES_MAX,
            sort_supported=True,
            results_max=COUNT_MAX,
            oauth=await _oauth(services, directory),
            interoperable=directory.profile.is_interoperable,
        ),
    )


async def _oauth(services: Services, directory: Directory) -> discovery.OAuthTold | None:
    """What is told of OAuth 2.0: where the profile puts it first, and where the directory has a client."""
    primary = Strictness.OAUTH_FIRST in directory.profile.strictness
    if not primary:
        async with services.ledger.connection() as conn:
            clients = await find_clients(conn, directory=directory.slug)
        if all(client.revoked_at is not None for client in clients):
            return None
    endpoint = endpoint_of(services.base_url, directory.slug)
    return discovery.OAuthTold(endpoint.url, endpoint.metadata_url, primary)


async def _discover(services: Services, call: Call, directory: Directory, _: Token) -> Answer:
    _refuse_filter(call)
    make = discovery.schemas if call.path[0] == "Schemas" else discovery.resource_types
    documents = make(_base(services, directory), (directory.user_type, directory.group_type))
    if len(call.path) == 1:
        return as_json(200, discovery.list_response(documents, len(documents), 1))
    for document in documents:
        if document["id"].casefold() == call.path[1].casefold():
            return as_json(200, document)
    raise NotFound("There is no such document here. List the endpoint to see what there is.")


async def _me(_services: Services, _call: Call, _directory: Directory, _token: Token) -> Answer:
    raise NotImplementedHere("/Me is not offered: a provisioning token belongs to an IdP, not to a user (RFC 7644 §3.11).")


# (first segment, number of segments) -> method -> handler
ROUTES: Final[dict[tuple[str, int], dict[str, Handler]]] = {
    ("", 0): {"GET": _list(USER, GROUP)},
    (".search", 1): {"POST": _search(USER, GROUP)},
    ("Bulk", 1): {"POST": bulk},
    ("Users", 1): {"GET": _list(USER), "POST": _write("create_user")},
    ("Users", 2): {
        "GET": _get_user,
        "PUT": _write("replace_user"),
        "PATCH": _write("patch_user"),
        "DELETE": _write("delete_user"),
    },
    ("Groups", 1): {"GET": _list(GROUP), "POST": _write("create_group")},
    ("Groups", 2): {
        "GET": _get_group,
        "PUT": _write("replace_group"),
        "PATCH": _write("patch_group"),
        "DELETE": _write("delete_group"),
    },
    ("ServiceProviderConfig", 1): {"GET": _config},
    ("ResourceTypes", 1): {"GET": _discover},
    ("ResourceTypes", 2): {"GET": _discover},
    ("Schemas", 1): {"GET": _discover},
    ("Schemas", 2): {"GET": _discover},
    ("Me", 1): dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), _me),
}
SEARCHES: Final[dict[str, dict[str, Handler]]] = {"Users": {"POST": _search(USER)}, "Groups": {"POST": _search(GROUP)}}
_FIRST: Final = frozenset(first for first, _ in ROUTES)
_OTHER: Final = "{other}"  # stands for any first segment without a route, so that nobody fills the cache of routes with texts
READ, WRITE = TABLE["scim.read"].operation, TABLE["scim.write"].operation


class ScimApp:
    """Serves /scim/{directory}/v2/… on plain ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        patience.begin()
        started = asyncio.get_running_loop().time()
        request_id = self._services.new_request_id()
        method: str = scope["method"]
        template, call, error = SCIM_PATH, None, None
        answer = Answer(500)
        try:
            call = self._call(scope, receive, method, request_id)
            template = _route(call).template
            call.place = f"{method_shown(method)} {template}"
            call.span = self._services.tracer.begin(call.place, "server", parent_of(call.header(TRACEPARENT)))
            answer = await self._answer(call)
        except (ClientGoneError, AbandonedError):
            return
        except ScimError as refused:
            error = refused
        except psycopg.Error as broken:
            error = scim_error(broken)
        except asyncio.CancelledError:
            error = given_up()
        except Exception:  # a defect: it is logged, but never shown to the client
            _log.exception("request_failed", request_id=str(request_id), method=method_shown(method), path=template)
            error = ScimError("An unexpected error. It was logged under this request's id.")
        if error is not None:
            answer = of_error(error)
        if call is not None:
            end_of_request(call.span, answer.status, call.found_directory.slug if call.found_directory is not None else "")
        if not await self._sent(send, answer, request_id, call, template):
            return
        if call is not None and Tolerance.ENDPOINT_CASE in call.leniency.used:
            # with the directory's profile the endpoint may be written in another case; now it is known
            template = _route(call).template
        seconds = asyncio.get_running_loop().time() - started
        observe(method, template, answer.status, seconds)
        if call is not None and call.found_directory is not None:
            observe_scim(call.found_directory.slug, method, template, answer.status)
            await self._note(call, template, answer.status, error, seconds)
        if answer.status >= 500 or answer.status == 401 or (answer.status >= 400 and call is not None and call.token is not None):
            # Of requests without a token a 401 is logged and no other refusal: 401s are slowed, so strangers cannot fill the log.
            _log.info(
                "request",
                request_id=str(request_id),
                method=method_shown(method),
                path=template,
                status=answer.status,
                seconds=round(seconds, 4),
                **_who(call, error),
            )

    async def _sent(self, send: Send, answer: Answer, request_id: UUID, call: Call | None, template: str) -> bool:
        """Send the answer, and stop watching the connection. False if the client closed the connection before the end."""
        try:
            await send_answer(send, answer, request_id)
        except AbandonedError:  # in the middle of a large answer
            return False
        except (psycopg.Error, Unavailable):
            # In the middle of a large answer: the server cuts the connection, so the client sees that it is incomplete.
            _log.warning("answer_cut", request_id=str(request_id), path=template)
        finally:
            if call is not None:
                call.unwatch()
        return True

    async def _note(self, call: Call, template: str, status: int, error: ScimError | None, seconds: float) -> None:
        """Write the request to the journal, and give memory back to the system after a giant one."""
        directory = call.found_directory
        assert directory is not None
        if call.filter is not None and len(call.filter) > LONG_TEXT:
            # In a worker thread, because parsing a long filter takes long. The result is cached for _entry.
            redact = partial(redacted_filter, call.filter, _kind(call, directory))
            with contextlib.suppress(Unavailable):  # no worker thread in time: then _entry does it
                await self._services.ledger.turns.compute(directory.id, redact)
        entry = _entry(self._services, call, template, status, error, seconds)
        self._services.journal.add(entry)
        for part in call.refusals:
            self._services.journal.add(_of_part(entry, part))
        if call.large or call.events >= GIANT_EVENTS:
            with contextlib.suppress(Unavailable):  # the next giant request gives it back
                await self._services.ledger.turns.compute(directory.id, release)

    def _call(self, scope: Scope, receive: Receive, method: str, request_id: UUID) -> Call:
        path_sent: str = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
        parts = path_sent.split("/")[1:]
        if "%" in path_sent:
            parts = [unquote(segment) for segment in parts]
        if len(parts) < 3 or parts[2] != "v2":
            self._note_path(scope, parts, method, request_id)
            raise NotFound("SCIM lives under /scim/{directory}/v2.")
        path = parts[3:]
        if path and not path[-1]:
            path.pop()  # a trailing slash
        headers = dict(scope["headers"])
        query = read_query(scope["query_string"])
        address = address_of(scope)
        return Call(method, path, parts[1], headers, query, request_id, receive, filter=query.get("filter"), address=address)

    def _note_path(self, scope: Scope, parts: list[str], method: str, request_id: UUID) -> None:
        """Count a request to a URL without /v2 for the directory that it was meant for."""
        authorization = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
        slug = parts[1] if len(parts) > 1 else ""
        self._services.mistakes.add(Mistake.NO_V2, slug, mistake_in(authorization)[1], method_shown(method), request_id)

    def _note_mistake(self, call: Call, mistake: Mistake, token: UUID | None) -> None:
        self._services.mistakes.add(mistake, call.directory, token, method_shown(call.method), call.request_id)

    async def _directory(self, call: Call, token: Token) -> Directory:
        """The directory of the URL. Raises Forbidden, and counts the mistake, if the token does not reach it."""
        try:
            return await self._services.directory(call.directory, token)
        except Forbidden:
            self._note_mistake(call, Mistake.WRONG_SLUG, token.owner)
            raise

    async def _token(self, call: Call, *, fresh: bool) -> Token:
        authorization = call.header(b"authorization")
        try:
            return await self._services.authentication.authenticate(authorization, call.address, route=call.place, fresh=fresh)
        except Unauthorized:
            with contextlib.suppress(Unauthorized):  # without a token the request belongs to no directory
                owner = await formerly(self._services.ledger, presented(authorization), call.directory)
                if owner is not None:
                    call.found_directory, call.token = owner
            if call.found_directory is None:
                self._note_mistake(call, *mistake_in(authorization))
            raise
        except SlowedError:
            mistake, claimed = mistake_in(authorization)
            if mistake is not Mistake.WRONG_SECRET:  # nobody looked whether the secret is wrong, or the token has ended
                self._note_mistake(call, mistake, claimed)
            raise

    async def _answer(self, call: Call) -> Answer:
        route = _route(call)
        if route.handler not in _TRANSACTED:
            return await self._handled(call, route, await self._token(call, fresh=True))
        token = await self._token(call, fresh=False)
        try:
            return await self._handled(call, route, token)
        except Unauthorized:
            self._services.authentication.forget(call.header(b"authorization"))
            raise
        except ScimError:
            # It was refused before a transaction checked the token, which may have ended meanwhile: then 401 is the answer. Where the
            # database cannot be asked now, the refusal stays the answer: nothing was stored.
            with contextlib.suppress(psycopg.Error, Unavailable):
                await self._token(call, fresh=True)
            raise

    async def _handled(self, call: Call, route: "_Route", token: Token) -> Answer:
        if not allowed(token.role, route.operation):
            with contextlib.suppress(ScimError):  # for the journal: the admin must see that the IdP has a token of another role
                call.found_directory, call.token = await self._directory(call, token), token
            raise Forbidden("This token is not a SCIM token. Give the IdP one of role scim.")
        directory = await self._directory(call, token)
        call.found_directory, call.token, call.leniency = directory, token, directory.leniency()
        if call.path and (endpoint := endpoint_in(call.path[0], call.leniency) or call.path[0]) != call.path[0]:
            call.path[0] = endpoint
            route = _route(call)
        if directory.rate_limit is not None:
            await self._services.rates.check(directory)
        if call.leniency.strict:
            _check_exact_id(call)
        if directory.state != ACTIVE:
            await self._open_to(route.operation, directory)
        if route.methods is None:
            raise NotFound("There is no such endpoint. See /ResourceTypes for what there is.")
        if route.handler is None:
            raise MethodNotAllowed(f"This endpoint takes {', '.join(route.methods)}.", allowed=route.methods)
        call.turns = self._services.ledger.turns
        try:
            return await route.handler(self._services, call, directory, token)
        finally:
            if call.large:
                await call.held.aclose()

    async def _open_to(self, operation: str, directory: Directory) -> None:
        """Raises Unavailable for a write to a paused directory, a bulk request as a whole, and Forbidden for a closed directory.

        The transaction decides this again, and its decision holds; refused here, the body need not be read. A pause that this process
        knows of may have ended: the database is asked.
        """
        if directory.state == PAUSED and operation == WRITE:
            async with self._services.ledger.connection() as conn:
                await self._services.ledger.directories.refresh(conn)
            now = self._services.ledger.directories.known(directory.slug)
            if now is None or now.state == PAUSED:
                raise Unavailable(PAUSED_SAYS, retry_after=PAUSED_RETRY_S)
        if directory.is_closed:
            raise Forbidden(CLOSED_SAYS)


def _check_exact_id(call: Call) -> None:
    """Raises NotFound for an id in another spelling, where the profile compares ids exactly."""
    named = call.path[1] if len(call.path) == 2 and call.path[0] in RESOURCE_TYPES else ""
    if is_other_spelling_of_id(named) and call.leniency.demands(Strictness.EXACT_IDS):
        raise NotFound


def _who(call: Call | None, error: ScimError | None) -> dict[str, str]:
    """Of a refused request what an operator looks for: its directory and token, if they were found, and the scimType."""
    found = {
        "directory": call.found_directory.slug if call is not None and call.found_directory is not None else None,
        "token": str(call.token.owner) if call is not None and call.token is not None else None,
        "scim_type": error.scim_type if error is not None else None,
    }
    return {name: value for name, value in found.items() if value}


class _Route(NamedTuple):
    """Where a request goes."""

    methods: tuple[str, ...] | None  # of the path; None where there is no such endpoint
    handler: Handler | None  # None where the path is unknown or has no such method
    operation: str  # the line of the permission table that the request falls under
    template: str  # the path without ids and names, for logs and metrics


def _route(call: Call) -> _Route:
    path = call.path
    first = "" if not path else path[0] if path[0] in _FIRST else _OTHER
    method = "GET" if call.method == "HEAD" else call.method
    return _found(first, len(path), method, search=len(path) == 2 and path[1] == ".search")


@lru_cache(maxsize=256)
def _found(first: str, segments: int, method: str, *, search: bool) -> _Route:
    if search and first in SEARCHES:
        methods, tail = SEARCHES[first], f"/{first}/.search"
    else:
        methods, tail = ROUTES.get((first, segments)), f"/{_OTHER}" if segments else ""
        if 0 < segments < 3 and first in _FIRST:
            tail = f"/{first}" + "/{id}" * (segments - 1)
    handler = (methods or {}).get(method)
    operation = WRITE if handler in _TRANSACTED or handler is bulk else READ
    return _Route(None if methods is None else tuple(methods), handler, operation, "/scim/{directory}/v2" + tail)


def _entry(services: Services, call: Call, template: str, status: int, error: ScimError | None, seconds: float) -> Entry:
    directory, text = call.found_directory, call.filter
    assert directory is not None
    kind = _kind(call, directory)
    return Entry(
        directory.id, services.ledger.clock(), method_shown(call.method), template.removeprefix("/scim/{directory}/v2") or "/",
        redacted_filter(text, kind) if text else None, status, error.scim_type if error else None, error.detail if error else None,
        directory.profile.text, tuple(sorted(call.leniency.used)), call.events, int(seconds * 1e6), call.request_id, call.token.owner if call.token else None,
        subject=_subject_of(call.path),
    )  # fmt: skip


def _subject_of(path: Sequence[str]) -> UUID | None:
    """The user or group that a path names."""
    return parse_id(path[1]) if len(path) == 2 and path[0].lower() in {"users", "groups"} else None


def _kind(call: Call, directory: Directory) -> ResourceType | None:
    """The resource type of the endpoint in the path; None where there is none."""
    return {"Users": directory.user_type, "Groups": directory.group_type}.get(call.path[0]) if call.path else None


def _of_part(entry: Entry, part: Refusal) -> Entry:
    """The journal entry of a refused operation of a bulk request. Its counts are 0, because the entry of the request has them."""
    return entry._replace(
        method=part.method, route=part.route, status=part.status, scim_type=part.scim_type, detail=part.detail,
        tolerances=(), events=0, duration_us=0, subject=part.subject,
    )  # fmt: skip
