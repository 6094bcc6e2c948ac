"""The ASGI application: SCIM straight to its own handler, everything else through FastAPI."""

import asyncio
from dataclasses import replace
from functools import cache
from uuid import UUID

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api import (
    asyncapi,
    audit,
    clients,
    consumers,
    directories,
    erasures,
    event_schemas,
    events,
    health,
    holds,
    keys,
    oauth,
    profiles,
    rate_limits,
    replays,
    requests,
    resources,
    schemas,
    snapshot,
    stream,
    surges,
    tokens,
)
from api.bodies import STRANGER_BYTES_MAX, V1_BYTES_MAX, limited
from api.database_errors import given_up
from api.description import TITLE, VERSION, described
from api.gate import Gate
from api.idempotency import answered_before, asks_once, once
from api.invalid_fields import StrictRoute, check_query, refused
from api.metrics import method_shown, observe
from api.problems import EXPECTED, ProblemError, answer, problem_of, request_id_of
from api.scim.app import ScimApp
from api.scim.http import NO_STORE
from api.scrapes import MEDIA_TYPE
from api.services import Services
from api.spans import NO_SPAN, end_of_request, parent_of
from database import patience
from ledger.trace_context import HEADER
from ledger.tracing import Span
from operations.idempotency import AnsweredBeforeError
from scim.mistakes import Mistake, mistake_in

_PARTS = (
    health, stream, events, snapshot, consumers, replays, surges, audit, requests, schemas, profiles, rate_limits, directories, resources, erasures, holds,
    tokens, clients, oauth, keys, event_schemas, asyncapi,
)  # fmt: skip
_log = structlog.get_logger("api")


def _fastapi(services: Services) -> FastAPI:
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a redirect would use the Host header, which the client chooses
    )
    for part in _PARTS:
        # added one by one, because the gate looks up each route by its name
        app.router.routes.extend(part.routes(services).routes)

    app.openapi = cache(lambda: described(app.router.routes))

    async def refuse(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        request.scope["refused"] = problem.code
        return answer(problem, request_id_of(request))

    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        return await refuse(request, refused(error.errors(), request.scope["route"], error.body))

    for kind in (*EXPECTED, Exception):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, refuse_fields)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(AnsweredBeforeError, answered_before)
    return app


class _Fence:
    """Middleware: gives each request an id, asks the gate, counts the request by route, and turns uncaught errors into problems."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        self._app = app
        self._services = services
        self._gate = Gate(app, services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        patience.begin()
        request_id = str(self._services.new_request_id())
        scope["request_id"] = request_id
        status, span = 0, NO_SPAN

        async def tagged(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
                headers: list[tuple[bytes, bytes]] = message.setdefault("headers", [])  # pyright: ignore[reportAssignmentType]
                headers.append((b"x-request-id", request_id.encode()))
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(NO_STORE)
            else:
                patience.renew()  # a stream may go on while it has data to send
            await send(message)

        loop_time = self._services.ledger.clock
        started = loop_time()
        try:
            route = await self._gate.admit(scope)
            if route is None:
                self._refuse_without_scim(scope, request_id)
            span = self._traced(scope, route)
            if isinstance(route, StrictRoute) and route.path.startswith("/v1/"):
                check_query(route, scope["query_string"])
            known = "caller" in scope
            bounded = limited(receive, scope, V1_BYTES_MAX if known else STRANGER_BYTES_MAX)  # pyright: ignore[reportArgumentType]
            if asks_once(scope):
                await once(self._app, self._services.ledger, scope, bounded, tagged)  # pyright: ignore[reportArgumentType]
            else:
                await self._app(scope, bounded, tagged)  # pyright: ignore[reportArgumentType]
        except (Exception, asyncio.CancelledError) as error:
            problem = problem_of(given_up() if isinstance(error, asyncio.CancelledError) else error)
            scope["refused"] = problem.code
            if problem.status == 500:
                _log.exception("request_failed", request_id=request_id)
            if status == 0:
                await answer(problem, request_id)(scope, receive, tagged)  # pyright: ignore[reportArgumentType]
        route = getattr(scope.get("route"), "path", "/{other}")
        end_of_request(span, status)
        observe(scope["method"], route, status, (loop_time() - started) / 1e6)
        if "refused" in scope and "caller" in scope:  # strangers cannot fill the log
            _log_refusal(scope, route, status)

    def _refuse_without_scim(self, scope: Scope, request_id: str) -> None:
        """Count a request to /DIRECTORY/v2 for the directory that it was meant for. Raises ProblemError for it."""
        segments = scope["path"].split("/")
        if len(segments) < 3 or segments[2] != "v2":
            return
        claimed = mistake_in(Headers(scope=scope).get("authorization"))[1]
        self._services.mistakes.add(Mistake.NO_SCIM, segments[1], claimed, method_shown(scope["method"]), UUID(request_id))
        raise ProblemError(404, "not_found", "SCIM lives under /scim/{directory}/v2.")

    def _traced(self, scope: Scope, route: Route | None) -> Span:
        """The span of an admitted request. What its caller does is stored with the context of this span."""
        name = f"{scope['method']} {'/{other}' if route is None else route.path}"
        span = self._services.tracer.begin(name, "server", parent_of(Headers(scope=scope).get(HEADER)))
        if "caller" in scope and span.context is not None:
            scope["caller"] = replace(scope["caller"], trace=span.context)
        return span


def _log_refusal(scope: Scope, route: str, status: int) -> None:
    """One line for a refused request of a known token: the route, never the names and values in it."""
    caller = scope["caller"]
    _log.info(
        "request_refused", request_id=scope["request_id"], method=scope["method"], route=route, status=status, code=scope["refused"],
        token=str(caller.token.owner) if caller.token_id is not None else "sys",
    )  # fmt: skip


def make_app(services: Services) -> ASGIApp:
    """Build the application."""
    scim, rest = ScimApp(services), _Fence(_fastapi(services), services)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await (scim if scope["path"].startswith("/scim/") else rest)(scope, receive, send)

    return app


def make_metrics_app(services: Services) -> ASGIApp:
    """Build the application of the metrics port: only /metrics, with names. Only this machine reaches the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics" or scope["method"] not in {"GET", "HEAD"}:
            await Response(status_code=404)(scope, receive, send)
            return
        text = await services.scrapes.whole.get()
        await Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})(scope, receive, send)

    return app
