"""The text of /metrics, as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from api.metrics import exposition, named_exposition, observe


def test_a_scrape_has_each_figure_once_and_no_series_of_when_it_was_created() -> None:
    observe("GET", "/v1/events", 200, 0.01)
    text = (exposition(0, 7) + named_exposition()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert "ledger_http_requests" in families
    names = [sample.name for family in families.values() for sample in family.samples]
    assert not [name for name in names if name.endswith("_created")]
    samples = [(sample.name, tuple(sorted(sample.labels.items()))) for family in families.values() for sample in family.samples]
    assert len(samples) == len(set(samples))
