"""A list is read on through pages that a filter leaves empty, and stops at its limit."""

import httpx
import pytest

from runtime.cli.client import ROWS_PAGE, Service

ROWS = [1, 2, None, None, 3, None, 4, 5]  # None: a row that a filter leaves out


def answer(request: httpx.Request) -> httpx.Response:
    """A page that looks at two rows at most; `after` is how many were looked at."""
    query = request.url.params
    begun = int(query.get("after", "0"))
    assert ("from" in query) is (begun == 0), "the first page alone has a place to begin"
    looked_at = ROWS[begun : begun + min(2, int(query.get("limit", ROWS_PAGE)))]
    end = begun + len(looked_at)
    data = [row for row in looked_at if row]
    return httpx.Response(
        200, json={"object": "list", "data": data, "list_metadata": {"after": str(end)}, "has_more": end < len(ROWS)}
    )


@pytest.mark.parametrize(
    ("limit", "found", "more"), [(1, [1], True), (2, [1, 2], True), (3, [1, 2, 3], True), (5, [1, 2, 3, 4, 5], False), (None, [1, 2, 3, 4, 5], False)]
)  # fmt: skip
def test_as_many_pages_as_are_needed(limit: int | None, found: list[int], more: bool) -> None:
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://ledger.test") as http:
        listed = Service(http, "here").listed("events list", limit=limit, query={"from": "beginning"})
    assert (listed["data"], listed["has_more"]) == (found, more)
    assert listed["list_metadata"]["after"] == str(ROWS.index(found[-1]) + 1)
