"""The text of /metrics, as Prometheus reads it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from api.delivery_metrics import delivery_figures, observe_attempt
from api.exposition import merged, text_of, text_of_process
from api.ledger_figures import named_families, nameless_families
from api.metrics import ConsumerSeconds, observe, serving_figures
from delivery.attempts import Attempt
from operations.figures import ConsumerFigures, TokenFigures

PROCESSES = ("serve-1", "serve-2", "deliver-1")


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample with its labels; fails if one comes twice, or a family does."""
    families = list(text_string_to_metric_families(text.decode()))
    assert len(families) == len({family.name for family in families})
    found = [((s.name, tuple(sorted(s.labels.items()))), s.value) for family in families for s in family.samples]
    assert len(found) == len({key for key, _ in found})
    return dict(found)


def test_a_scrape_has_each_figure_once_and_no_series_of_when_it_was_created() -> None:
    observe("GET", "/v1/events", 200, 0.01)
    observe_attempt(Attempt("app", "accepted", 0.01, 2, [0.02, 0.5]))
    texts = [text for process in PROCESSES[:2] for text in serving_figures(process)] + [*delivery_figures(PROCESSES[2])]
    found = samples(merged([*texts, text_of(nameless_families(dict.fromkeys(PROCESSES, True), 7) + named_families([], [], []))]))
    assert not [name for name, _ in found if name.endswith("_created")]
    assert {value for (name, _), value in found.items() if name == "ledger_head_position"} == {7.0}
    asked = [dict(labels)["process"] for name, labels in found if name == "ledger_http_requests_total"]
    assert sorted(set(asked)) == ["serve-1", "serve-2"], "a delivery process answers no requests"
    assert {dict(labels)["process"] for name, labels in found if name == "process_resident_memory_bytes"} == set(PROCESSES)


def test_a_delivery_process_names_consumers_only_in_its_second_text() -> None:
    observe_attempt(Attempt("named", "http_5xx", 0.01, 0, ()))
    nameless, named = delivery_figures("deliver-1")
    assert (b"named" in nameless, b'outcome="http_5xx",process="deliver-1"' in named) == (False, True)


@given(st.lists(st.dictionaries(st.text(), st.integers(0, 9), max_size=3), max_size=4))
def test_texts_that_are_merged_have_the_samples_of_all_whatever_labels_say(processes: list[dict[str, int]]) -> None:
    texts, expected = list[bytes](), dict[tuple[str, tuple[tuple[str, str], ...]], float]()
    for number, counts in enumerate(processes):
        registry = CollectorRegistry()
        counter, gauge = Counter("c", "Counts", ["word"], registry=registry), Gauge("g", "", registry=registry)
        gauge.set(number)
        for word, count in counts.items():
            counter.labels(word).inc(count)
            expected["c_total", (("process", str(number)), ("word", word))] = count
        expected["g", (("process", str(number)),)] = number
        texts.append(text_of_process(str(number), [registry]))
    found = {key: value for key, value in samples(merged(texts)).items() if not key[0].endswith("_created")}
    assert found == expected


@given(st.lists(st.floats(0, 1e6)))
def test_a_histogram_counts_each_value_up_to_its_bounds(values: list[float]) -> None:
    histogram = ConsumerSeconds("h", "Seconds", (0.5, 10, 1_000))
    for value in values:
        histogram.observe("app", value)
    found = samples(text_of(histogram.collect()))
    for bound in (0.5, 10.0, 1_000.0, float("inf")):
        shown = "+Inf" if bound == float("inf") else str(bound)
        labels = (("consumer", "app"), ("le", shown))
        assert found.get(("h_bucket", labels), 0) == sum(value <= bound for value in values)
    assert found.get(("h_count", (("consumer", "app"),)), 0) == len(values)


def test_figures_of_the_ledger_disappear_with_what_they_are_about() -> None:
    consumer = ConsumerFigures("app", "active", 3, 1.5, {"blocked": 2}, 0, forked=True)
    found = samples(text_of(named_families([consumer], [], [TokenFigures("scim", "okta", 59.6)])))
    assert found["ledger_consumer_state", (("consumer", "app"), ("state", "active"))] == 1
    assert found["ledger_consumer_exceptions", (("consumer", "app"), ("state", "blocked"))] == 2
    assert found["ledger_token_expires_seconds", (("name", "okta"), ("role", "scim"))] == 60
    assert samples(text_of(named_families([], [], []))) == {}
