"""What the client sends, and when it sends it again: against a transport that answers as it is told."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from scim_ledger_client import (
    IncompleteSnapshotError,
    Ledger,
    LostEndError,
    RefusedError,
    Retries,
    UnauthorizedError,
    UnreachableError,
)

PAGE = {
    "object": "list", "data": [{"id": "evt_a_1_00000000"}], "list_metadata": {"after": "c_1"}, "covered": {"from_position": 1, "to_position": 1},
    "head_position": 1, "has_more": False,
}  # fmt: skip
Answer = httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Gives the answers in turn, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ledger(script: Script, waits: list[float], **options: Any) -> Ledger:
    return Ledger("http://ledger/prefix/", "sl_x", transport=script, sleep=waits.append, retries=Retries(attempts=4), **options)


def problem(status: int, code: str = "", **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"code": code, "detail": "d"}, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def test_a_read_is_repeated_after_what_passes_and_waits_as_told() -> None:
    script, waits = (
        Script(
            problem(503, "database_unavailable", retry_after="9"),
            httpx.ConnectError("no"),
            problem(502),
            httpx.Response(200, json=PAGE),
        ),
        [],
    )
    page = ledger(script, waits).page(types=["user.*", "group.created"], wait=5)
    assert (page.after, page.covered_from, page.has_more, len(page.events)) == ("c_1", 1, False, 1)
    assert len(waits) == 3
    assert waits[0] == 9.0
    assert str(script.requests[-1].url) == "http://ledger/prefix/v1/events?types=user.%2A%2Cgroup.created&limit=500&wait=5"
    assert {request.headers["authorization"] for request in script.requests} == {"Bearer sl_x"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 500])
def test_a_refusal_is_not_repeated(status: int) -> None:
    script, waits = Script(problem(status, "some")), []
    with pytest.raises(RefusedError) as caught:
        ledger(script, waits).page()
    assert (caught.value.status, caught.value.code, waits) == (status, "some", [])


def test_the_last_error_is_raised_after_all_attempts() -> None:
    script, waits = Script(*[httpx.ReadTimeout("slow")] * 3, httpx.Response(503, text="<html>")), []
    with pytest.raises(RefusedError, match="HTTP 503 without a problem") as caught:
        ledger(script, waits).page()
    assert caught.value.status == 503
    with pytest.raises(UnreachableError, match=r"^The ledger at ledger did not answer: no\.$"):
        ledger(Script(*[httpx.ConnectError("no")] * 4), waits).page()


def test_each_attempt_of_an_act_has_the_same_idempotency_key_and_each_act_another() -> None:
    done = httpx.Response(200, json={"changed": True})
    script, waits = Script(httpx.ReadTimeout("lost"), problem(409, "idempotency_in_progress"), done, done), []
    consumer = ledger(script, waits).consumer("door")
    consumer.acknowledge("c_1")
    consumer.acknowledge("c_1")
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert (len(set(keys[:3])), keys[3] in keys[:3]) == (1, False)
    assert json.loads(script.requests[0].content) == {"through": "c_1"}


def test_a_token_may_be_a_function_so_that_it_can_be_rotated() -> None:
    tokens = iter(["old", "new"])
    script = Script(httpx.Response(200, json=PAGE), httpx.Response(200, json=PAGE))
    client = Ledger("http://ledger", lambda: next(tokens), transport=script)
    client.page()
    client.page()
    assert [request.headers["authorization"] for request in script.requests] == ["Bearer old", "Bearer new"]


def pulls(
    *answers: Answer, once: bool = True, handle: Callable[[list[Any]], None] | None = None
) -> tuple[Script, list[float], list[Any]]:
    script, waits, handled = Script(*answers), list[float](), list[Any]()
    ledger(script, waits).consumer("door").process(handle or handled.extend, once=once)
    return script, waits, handled


def test_a_page_is_acknowledged_after_it_was_handled() -> None:
    more = httpx.Response(200, json={**PAGE, "has_more": True})
    acked = httpx.Response(200, json={})
    script, _, handled = pulls(more, acked, httpx.Response(200, json=PAGE), acked)
    assert len(handled) == 2
    assert [(request.method, request.url.path.rsplit("/", 1)[1]) for request in script.requests] == [
        ("GET", "events"),
        ("POST", "ack"),
    ] * 2


def test_while_nothing_comes_nothing_is_acknowledged_again() -> None:
    empty, acked = httpx.Response(200, json={**PAGE, "data": []}), httpx.Response(200, json={})
    script, waits = Script(httpx.Response(200, json=PAGE), acked, empty, empty, problem(404, "not_found")), list[float]()
    with pytest.raises(RefusedError, match="not_found"):
        ledger(script, waits).consumer("door").process(lambda _: None)
    assert [request.method for request in script.requests] == ["GET", "POST", "GET", "GET", "GET"]


def test_a_name_is_one_part_of_an_address() -> None:
    script = Script(httpx.Response(200, json=PAGE))
    ledger(script, []).consumer("a/b?c").pull()
    assert script.requests[0].url.raw_path.startswith(b"/prefix/v1/consumers/a%2Fb%3Fc/events?")


def test_what_the_handler_raises_ends_the_loop_without_an_acknowledgement() -> None:
    def fails(events: list[Any]) -> None:
        raise LookupError(len(events))

    script, waits = Script(httpx.Response(200, json=PAGE)), list[float]()
    with pytest.raises(LookupError):
        ledger(script, waits).consumer("door").process(fails)
    assert [request.method for request in script.requests] == ["GET"]


def test_after_a_seek_the_loop_pulls_again_although_the_page_was_the_last() -> None:
    page = httpx.Response(200, json=PAGE)
    script, _, handled = pulls(page, problem(409, "place_moved"), page, httpx.Response(200, json={}))
    assert len(handled) == 2
    assert len(script.requests) == 4


def test_a_paused_consumer_waits_and_with_once_it_is_an_error() -> None:
    with pytest.raises(RefusedError, match="consumer_paused"):
        pulls(problem(409, "consumer_paused"))
    script, waits = Script(problem(409, "consumer_paused"), problem(404, "not_found")), list[float]()
    with pytest.raises(RefusedError, match="not_found"):
        ledger(script, waits).consumer("door").process(print)
    assert waits == [30.0]


def streamed(*blocks: str) -> httpx.Response:
    return httpx.Response(200, text="".join(blocks), headers={"content-type": "text/event-stream"})


def test_a_stream_continues_after_its_last_event_and_ends_with_the_token() -> None:
    first = 'retry: 250\n\nid: c_1\nevent: user.created\ndata: {"id":"a\u2028"}\n\n: still here\n\n'
    script = Script(
        streamed(first), httpx.ReadError("cut"), streamed("id: c_2\nevent: covered\ndata: {}\n\n"), problem(401, "unauthorized")
    )
    waits, found = list[float](), list[tuple[str, Any]]()
    with pytest.raises(UnauthorizedError):
        found.extend((one.after, one.event) for one in ledger(script, waits).stream("c_0", directory="acme"))
    assert found == [("c_1", {"id": "a\u2028"}), ("c_2", None)], "U+2028 ends no line"
    assert [request.headers["last-event-id"] for request in script.requests] == ["c_0", "c_1", "c_1", "c_2"]
    assert waits[0] == 0.25


def test_a_stream_of_a_log_that_lost_its_end_raises() -> None:
    lost = 'event: error\ndata: {"status":409,"code":"cursor_forked","detail":"d"}\n\n'
    with pytest.raises(LostEndError):
        next(ledger(Script(streamed(lost)), []).stream("c_9"))


def lines(*documents: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, text="".join(json.dumps(document) + "\n" for document in documents))


HEAD = {"object": "snapshot", "directory": "acme", "seq": 7, "time": "2026-11-30T20:00:00.000000Z", "after": "c_7"}
USER = {"object": "user", "id": "u", "active": True, "data": {"withheld": True}}


def test_a_snapshot_is_begun_again_until_its_first_line_came() -> None:
    script, waits = (
        Script(problem(503, retry_after="2"), httpx.ConnectError("no"), lines(HEAD, USER, {"object": "end"})),
        list[float](),
    )
    with ledger(script, waits).snapshot("acme") as snapshot:
        assert (snapshot.directory, snapshot.seq, snapshot.after, list(snapshot)) == ("acme", 7, "c_7", [USER])
    assert (len(waits), waits[0]) == (2, 2.0)


@pytest.mark.parametrize(
    "cut", [lines(HEAD, USER), lines(HEAD), httpx.Response(200, text=json.dumps(HEAD) + '\n{"object":"us'), lines()]
)
def test_a_snapshot_without_its_last_line_is_incomplete(cut: httpx.Response) -> None:
    with pytest.raises(IncompleteSnapshotError), ledger(Script(cut), []).snapshot("acme") as snapshot:
        list(snapshot)


def test_what_the_body_of_a_with_statement_raises_is_not_changed() -> None:
    with pytest.raises(httpx.ConnectError), ledger(Script(lines(HEAD)), []).snapshot("acme"):
        raise httpx.ConnectError("of another client")
