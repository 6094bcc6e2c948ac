"""Large bodies of one directory are processed one after the other: the parsed objects take up to thirty times the bytes of the
body.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

from api.scim.http import Call
from ledger.turns import LARGE_BYTES, Turns
from runtime.identifiers import uuid7


def _call(turns: Turns, directory: int, size: int) -> Call:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b" " * size}

    call = Call("POST", ["Groups"], "acme", {b"content-type": b"application/json"}, {}, uuid7(), receive)
    known: Any = SimpleNamespace(id=directory)
    call.turns, call.found_directory = turns, known
    return call


async def _arrived(*tasks: "asyncio.Task[Any]") -> list[bool]:
    for _ in range(10):  # each task awaits the event loop a few times, and nothing else
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def test_large_bodies_of_a_directory_come_one_after_the_other_and_delay_no_other_directory() -> None:
    async def run() -> None:
        nothing: Any = None
        turns = Turns(nothing, 1)
        first, second, other = (_call(turns, directory, LARGE_BYTES + 1) for directory in (1, 1, 2))
        small = _call(turns, 1, LARGE_BYTES)
        tasks = [asyncio.create_task(call.content(2**30)) for call in (first, second, other, small)]
        assert await _arrived(*tasks) == [True, False, True, True]
        assert [call.large for call in (first, second, other, small)] == [True, True, True, False]
        await first.held.aclose()
        assert (await _arrived(*tasks))[1]

    asyncio.run(run())
