"""What the edge serves, without a service: for tests that hold lists and pages against it."""

from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from starlette.routing import Route

from api.app import _fastapi


@cache
def served() -> list[Route]:
    """The routes of FastAPI, in the order in which it looks."""
    nothing = cast("Any", SimpleNamespace(ledger=None, readiness=None))  # routes use the rest when they are called, not when made
    return [route for route in _fastapi(nothing).router.routes if isinstance(route, Route)]
