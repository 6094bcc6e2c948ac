"""W3C trace contexts from the request of an IdP into the commit, its events and their deliveries; and OpenTelemetry, where it is on."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.acceptance.conftest import Service
from tests.acceptance.receiver import Answer, Receiver, receiver
from tests.conftest import copied

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def header(trace_id: str = TRACE, parent: str = PARENT) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{parent}-01"}


def user(name: str = "") -> dict[str, Any]:
    return {"schemas": [USER], "userName": name or uuid4().hex}


def events_of(service: Service, subject: str) -> list[dict[str, Any]]:
    with service.client("consumer") as client:
        return client.get(f"{service.base}/v1/events", params={"subject": subject, "limit": 100}).json()["data"]


def create(service: Service, headers: dict[str, str]) -> str:
    with service.client("scim") as idp:
        answer = idp.post(f"{service.scim}/Users", json=user(), headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_an_event_has_the_trace_context_of_its_request(service: Service) -> None:
    subject = create(service, header())
    (event,) = events_of(service, subject)
    assert event["traceparent"] == header()["traceparent"]


@pytest.mark.parametrize("sent", [{}, {"traceparent": "00-0-0-01"}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}])
def test_without_a_valid_context_an_event_has_none(service: Service, sent: dict[str, str]) -> None:
    (event,) = events_of(service, create(service, sent))
    assert "traceparent" not in event


def test_every_operation_of_a_bulk_request_has_its_context(service: Service) -> None:
    operations = [{"method": "POST", "path": "/Users", "bulkId": str(n), "data": user()} for n in range(3)]
    with service.client("scim") as idp:
        answer = idp.post(f"{service.scim}/Bulk", json={"schemas": [BULK], "Operations": operations}, headers=header())
    made = [part["location"].rsplit("/", 1)[1] for part in answer.json()["Operations"]]
    assert [event["traceparent"] for one in made for event in events_of(service, one)] == [header()["traceparent"]] * 3


def test_an_act_of_an_admin_has_the_context_of_its_request(service: Service) -> None:
    with service.client("admin") as admin:
        made = admin.post(f"{service.base}/v1/tokens", json={"role": "auditor", "name": "traced"}, headers=header())
        assert made.status_code == 201, made.text
        found = admin.get(f"{service.base}/v1/tokens/{made.json()['id']}").json()["id"]
    with service.client("operator") as operator:
        page = operator.get(
            f"{service.base}/v1/events", params={"directory": "_system", "types": "token.issued", "limit": 1000}
        ).json()
    traces = [
        event.get("traceparent")
        for event in page["data"]
        if event["subject"]["id"] in found.replace("-", "") or event["subject"]["id"] == found
    ]
    assert traces == [header()["traceparent"]]


# -- deliveries, and OpenTelemetry --------------------------------------------


class Collector:
    """A collector of OpenTelemetry: takes OTLP over HTTP, and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.changed = threading.Condition()
        self.port = 0

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        with self.changed:
            for resource in message.resource_spans:
                self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.changed.notify_all()

    def of(self, trace_id: str, count: int) -> dict[str, Span]:
        """The spans of a trace by name, once there are so many."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, 30), [span.name for span in found()]
            return {span.name: span for span in found()}


@contextmanager
def collecting() -> Generator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield collector
        server.shutdown()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, first_started: Any, collector: Collector) -> Iterator[Service]:
    """A service that sends its spans to the collector, each soon after it ended."""
    environment = {
        "LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8",
        "LEDGER_TRACING": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    running = Service(copied(first_started, tmp_path_factory.mktemp("traced") / "ledger"), **environment).start()
    running.note_address()
    yield running
    assert running.stop() == 0


@contextmanager
def consumer(service: Service, **definition: Any) -> Generator[tuple[str, Receiver, httpx.Client]]:
    name = f"traced-{uuid4().hex[:8]}"
    with receiver() as hook, service.client("operator") as operator:
        body = {"mode": "webhook", "url": hook.url, "directories": ["acme"], "start": "now", **definition}
        assert operator.put(f"{service.base}/v1/consumers/{name}", json=body).status_code == 201
        yield name, hook, operator
        operator.delete(f"{service.base}/v1/consumers/{name}")


def test_request_commit_and_delivery_are_one_trace(traced: Service, collector: Collector) -> None:
    trace_id = uuid4().hex
    with consumer(traced, retry_schedule=[0, 1]) as (name, hook, _):
        hook.behave = lambda delivery: Answer(503 if delivery.headers["ledger-attempt"] == "1" else 204)
        subject = create(traced, header(trace_id))
        hook.wait(lambda: len(hook.accepted) == 1)
        spans = collector.of(trace_id, 4)
    request, commit = spans["POST /scim/{directory}/v2/Users"], spans["commit"]
    deliveries = [span for span in collector.spans if span.trace_id.hex() == trace_id and span.name == "deliver"]
    assert request.parent_span_id.hex() == PARENT
    assert commit.parent_span_id == request.span_id
    assert {span.parent_span_id for span in deliveries} == {commit.span_id}
    (event,) = events_of(traced, subject)
    assert event["traceparent"] == f"00-{trace_id}-{commit.span_id.hex()}-01", "later spans go on below the commit"
    received = [delivery.headers["traceparent"].split("-")[1:3] for delivery in hook.deliveries]
    assert sorted(received) == sorted([trace_id, span.span_id.hex()] for span in deliveries), (
        "the receiver goes on below the delivery"
    )
    ends = {a.key: a.value.string_value or a.value.int_value for a in deliveries[0].attributes}
    assert ends == {"ledger.consumer": name, "ledger.events": 1}
    assert sorted((span.status.code, span.status.message) for span in deliveries) == [
        (Status.STATUS_CODE_UNSET, ""),
        (Status.STATUS_CODE_ERROR, "http_5xx"),
    ]
    assert collector.services == {"scim-ledger"}


def test_a_batch_of_several_traces_is_linked_to_each(traced: Service, collector: Collector) -> None:
    first, second = uuid4().hex, uuid4().hex
    (before,) = events_of(traced, create(traced, {}))
    create(traced, header(first))
    create(traced, header(second))
    with consumer(traced, batch_max=10, start=before["id"]) as (_, hook, _):
        hook.wait(lambda: len(hook.accepted) == 2)
        (delivery,) = hook.deliveries
        trace_id = delivery.headers["traceparent"].split("-")[1]
        span = collector.of(trace_id, 1)["deliver"]
    assert {link.trace_id.hex() for link in span.links} == {first, second}
    assert [event["traceparent"].split("-")[1] for event in delivery.events] == [first, second]


def test_a_replay_goes_on_with_the_trace_of_the_event(traced: Service) -> None:
    trace_id = uuid4().hex
    with consumer(traced) as (name, hook, operator):
        seq = 0
        with traced.client("scim") as idp:
            answer = idp.post(f"{traced.scim}/Users", json=user(), headers=header(trace_id))
            seq = int(answer.headers["ledger-seq"])
        hook.wait(lambda: len(hook.accepted) == 1)
        body = {
            "name": f"again-{name}",
            "consumer": name,
            "from": f"seq:{seq}",
            "directories": ["acme"],
            "reason": "to see its trace",
        }
        assert operator.post(f"{traced.base}/v1/replays", json=body).status_code == 202
        hook.wait(lambda: any(delivery.replay for delivery in hook.deliveries))
        again = next(delivery for delivery in hook.deliveries if delivery.replay)
    assert again.headers["traceparent"].split("-")[1] == trace_id


def test_spans_name_nobody(traced: Service, collector: Collector) -> None:
    trace_id, name = uuid4().hex, "Quetzalcoatlus"
    with traced.client("scim") as idp:
        idp.post(f"{traced.scim}/Users", json=user(name + uuid4().hex), headers=header(trace_id))
        idp.get(f"{traced.scim}/Users", params={"filter": f'userName eq "{name}"'}, headers=header(trace_id))
        idp.get(f"{traced.scim}/Users/{name}", headers=header(trace_id))
    collector.of(trace_id, 4)
    assert name not in "".join(map(str, collector.spans))


def test_a_collector_that_is_away_holds_nothing_up(make_service: Any) -> None:
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    service = make_service(LEDGER_TRACING="otlp", **gone)
    assert events_of(service, create(service, header()))
    assert service.stop() == 0
