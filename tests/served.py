"""The routes of the application, without a service: for tests that compare lists and pages with them."""

from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from starlette.routing import Route

from api.app import _fastapi


@cache
def served() -> list[Route]:
    """The routes of FastAPI, in the order in which it matches them."""
    nothing = cast("Any", SimpleNamespace(ledger=None, readiness=None))  # routes use the other parts only when they are called
    return [route for route in _fastapi(nothing).router.routes if isinstance(route, Route)]
