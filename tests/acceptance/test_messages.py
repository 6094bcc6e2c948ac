"""What the service sends as events is what /asyncapi.json says: pages, the stream, and requests to webhooks. Here its schemas are closed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.receiver import Answer, Delivery, Receiver, receiver
from tests.acceptance.test_consumers import Operator, operator, pushing
from tests.event_checks import closed

__all__ = ["operator", "pushing"]


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def document(pushing: Service) -> dict[str, Any]:
    return httpx.get(f"{pushing.base}/asyncapi.json", trust_env=False).json()


def faults(document: dict[str, Any], message: str, payload: Any, part: str = "payload") -> list[str]:
    """What a message has that the document does not say."""
    schemas = {
        name: schema if name == "Problem" else closed(schema) for name, schema in document["components"]["schemas"].items()
    }
    wanted = {**document["components"]["messages"][message][part], "components": {"schemas": schemas}}
    return [fault.message for fault in jsonschema_rs.Draft202012Validator(wanted, validate_formats=True).iter_errors(payload)]


def of_ours(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith(("webhook-", "ledger-"))}


def test_pages_of_the_feed_and_of_a_pull(operator: Operator, document: dict[str, Any]) -> None:
    name = operator.consumer()
    operator.group(operator.user())
    for channel in ("feed", "pull"):
        path = document["channels"][channel]["address"].format(name=name)
        page = operator.app.get(operator.service.base + path).json()
        assert page["data"]
        assert faults(document, "page", page) == []
    assert faults(document, "page", page | {"more": 1}), "the schemas are closed here"


def test_each_message_of_the_stream_has_the_name_of_its_event(operator: Operator, document: dict[str, Any]) -> None:
    operator.deactivate(operator.user())
    seen = set[str]()
    url = operator.service.base + document["channels"]["stream"]["address"]
    with operator.app.stream("GET", url, params={"directory": "acme", "types": "user.*"}) as answer:
        block: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                field, _, value = line.partition(": ")
                block[field] = value
                continue
            if "data" in block:
                assert block["event"] in document["channels"]["stream"]["messages"]
                assert faults(document, block["event"], json.loads(block["data"])) == []
                seen.add(block["event"])
            if "covered" in seen:
                break
            block = {}
    assert {"user.created", "user.deactivated", "covered"} <= seen


@pytest.mark.parametrize("ordering", ["subject", "directory"])
def test_requests_to_a_webhook(operator: Operator, hook: Receiver, document: dict[str, Any], ordering: str) -> None:
    bodies: list[tuple[dict[str, Any], dict[str, str]]] = []

    def take(delivery: Delivery) -> Answer:
        bodies.append((json.loads(delivery.body), of_ours(delivery.headers)))
        return Answer()

    hook.behave = take
    single = operator.consumer(mode="webhook", url=hook.url, ordering=ordering)
    several = operator.consumer(mode="webhook", url=hook.url, ordering=ordering, batch_max=10)
    assert operator.post(f"consumers/{single}/ping").json()["ok"]
    operator.group(*(operator.user() for _ in range(5)))
    for name in (single, several):
        operator.when(name, lambda status: status["lag_events"] == 0)
    kinds = set[str]()
    for body, headers in bodies:
        kind = body["type"] if body["type"] in {"ping", "batch"} else "delivery"
        kinds.add(kind)
        assert faults(document, kind, body) == []
        assert faults(document, kind, headers, "headers") == []
    assert {"ping", "batch", "delivery"} == kinds
