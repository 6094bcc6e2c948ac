"""The gate: authenticates a request and checks the permission table, before any route runs and before the body is read."""

from uuid import UUID

from fastapi import FastAPI, Request
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from api.problems import MethodError
from api.services import Services
from api.strangers import address_of
from operations.admission import check
from operations.caller import MACHINE, Caller
from operations.permissions import TABLE, open_to_strangers


def caller_of(request: Request) -> Caller:
    """The caller that the gate found."""
    caller: Caller = request.scope["caller"]
    return caller


def routes_without_rule(app: FastAPI) -> list[str]:
    """The routes whose name is not in the permission table."""
    return [getattr(route, "path", repr(route)) for route in app.router.routes if getattr(route, "name", "") not in TABLE]


class Gate:
    """Finds the operation that a request asks for, and its caller."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        unknown = routes_without_rule(app)
        if unknown:
            raise LookupError(f"operations/permissions.py has no line for {', '.join(unknown)}")
        self._routes = app.router.routes
        self._services = services

    async def admit(self, scope: Scope) -> Route | None:
        """Put the caller into the scope, and return the route; None for an unknown path, which the router refuses.

        Raises Unauthorized or ForbiddenError, and MethodError for a path that does not take the method.
        """
        route = self._route(scope)
        if route is None:
            return None
        scope["route"] = route  # a request that is refused here is counted and logged by its route too
        if not open_to_strangers(route.name):
            scope["caller"] = caller = await self._caller(scope)
            check(caller, route.name)
        return route

    def _route(self, scope: Scope) -> Route | None:
        """The route of a request; None for an unknown path. Raises MethodError for a path that does not take the method."""
        near: list[BaseRoute] = []
        for route in self._routes:
            match = route.matches(scope)[0]
            if match is Match.FULL:
                return route if isinstance(route, Route) else None
            if match is Match.PARTIAL:
                near.append(route)
        if near:
            scope["route"] = near[0]  # for the count of requests by route
            raise MethodError({method for route in near if isinstance(route, Route) for method in route.methods or ()})
        return None

    async def _caller(self, scope: Scope) -> Caller:
        request, authorization = UUID(scope["request_id"]), Request(scope).headers.get("authorization")
        if authorization is None and scope.get("local"):
            return Caller(MACHINE, request)  # it came through the local socket, which only the service's owner can open
        token = await self._services.authentication.authenticate(
            authorization, address_of(scope), route=f"{scope['method']} {scope['route'].path}"
        )
        return Caller(token, request)
