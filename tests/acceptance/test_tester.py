"""An independent test suite for SCIM, scim2-tester of python-scim, finds no error in a real service."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.acceptance.conftest import Service


def _client(http: httpx.Client) -> Any:
    """The library's client over httpx, which the other tests use too; the library's own engine needs httpx2."""
    from scim2_client.client import BaseSyncSCIMClient  # this import takes a second, in each test process

    class Client(BaseSyncSCIMClient):
        def _stays_under_base_url(self, endpoint: str) -> bool:
            return str(http.build_request("GET", endpoint).url).startswith(str(http.base_url))

        def _parse_json(self, response: Any) -> Any:
            return response.json()

        def request(self, method: str, url: str, **more: Any) -> httpx.Response:
            return http.request(method, url, **more)

    return Client()


def test_scim2_tester_finds_no_error(make_service: Callable[..., Service]) -> None:
    from scim2_tester import Status, check_server

    service = make_service()  # a service of its own: the checks look for their resources on the first page of a list
    headers = {"Authorization": f"Bearer {service.first_run['tokens']['scim']}"}
    with httpx.Client(base_url=service.scim, headers=headers, timeout=30) as http:
        client = _client(http)
        client.discover()
        results = check_server(client)
    assert not [(r.title, r.reason) for r in results if r.status in {Status.ERROR, Status.CRITICAL}]
    assert sum(r.status is Status.SUCCESS for r in results) > 100
