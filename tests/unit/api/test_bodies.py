"""Bodies are limited while they are received."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from api.bodies import BodyTooLargeError, limited
from api.problems import problem_of


class Sender:
    """A client's body as the server passes it on; it counts how much of it was read."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self.taken = 0

    async def receive(self) -> Any:
        part = next(self._parts, None)
        if part is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.taken += len(part)
        return {"type": "http.request", "body": part, "more_body": True}


def read(sender: Sender, bytes_max: int, *headers: tuple[bytes, bytes]) -> bytes:
    async def whole() -> bytes:
        receive = limited(sender.receive, {"headers": [(b"host", b"a"), *headers]}, bytes_max)
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        return body

    return asyncio.run(whole())


def test_a_body_up_to_the_limit_is_read() -> None:
    assert read(Sender([b"x" * 600, b"y" * 400]), 1_000) == b"x" * 600 + b"y" * 400
    assert read(Sender([b"x" * 1_000]), 1_000, (b"content-length", b"1000")) == b"x" * 1_000


def test_a_body_that_announces_too_much_is_not_read_at_all() -> None:
    sender = Sender([b"x"])
    with pytest.raises(BodyTooLargeError):
        read(sender, 1_000, (b"content-length", b"1001"))
    assert sender.taken == 0


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked")], [(b"content-length", b"5")]])
def test_a_body_is_read_no_further_than_its_limit(headers: list[tuple[bytes, bytes]]) -> None:
    sender = Sender([b"x" * 100] * 1_000_000)
    with pytest.raises(BodyTooLargeError):
        read(sender, 1_000, *headers)
    assert sender.taken == 1_100


def test_a_body_that_was_refused_stays_refused() -> None:
    async def story() -> None:
        receive = limited(Sender([b"x" * 2_000, b"y"]).receive, {"headers": []}, 1_000)
        for _ in range(3):
            with pytest.raises(BodyTooLargeError):
                await receive()

    asyncio.run(story())


def test_the_refusal_is_a_problem_that_names_the_limit() -> None:
    problem = problem_of(BodyTooLargeError(1_000))
    assert (problem.status, problem.code) == (413, "too_large")
    assert "1000 bytes" in problem.detail
