"""Errors on the command line name commands and options, never routes and fields."""

import pytest

from runtime.cli import consumer
from runtime.cli.verbs import VERBS
from runtime.cli.wording import in_commands


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("GET /v1/tokens lists them.", "`scim-ledger token list` lists them."),
        ("Read on with GET /v1/consumers/{name}/events, which", "Read on with `scim-ledger consumer pull`, which"),
        ("`start` was ignored. POST …/seek moves it.", "`start` was ignored. `scim-ledger consumer seek` moves it."),
        ("POST /v1/consumers/{name}/seek.", "`scim-ledger consumer seek`."),
        ("See GET /v1/directories/acme/profile.", "See GET /v1/directories/acme/profile."),
        ("GET /v1/directories/{d}/profile shows it.", "`scim-ledger directory profile show` shows it."),
        ("DELETE /v1/nothing", "DELETE /v1/nothing"),
        ("`directories` names an unknown directory.", "`--directory` names an unknown directory."),
        ("`types` names an event type", "`--types` names an event type"),
        ("did you mean `user.created`?", "did you mean `user.created`?"),
        ("`role` is not one of scim, consumer.", "`role` is not one of scim, consumer."),
        ('Skip it, or set `superseded` to "include".', "Skip it, or add `--include-superseded`."),
        ("`dry_run` is not true or false.", "`--dry-run` is not true or false."),
    ],
)
def test_a_sentence_of_the_service_in_the_words_of_the_command_line(said: str, shown: str) -> None:
    assert in_commands(said, {"--directory", "--types", "--dry-run"}) == shown


@pytest.mark.parametrize("verb", [verb for verb, route in VERBS.items() if route.template.startswith("/v1/")])
def test_every_route_with_a_verb_is_found(verb: str) -> None:
    method, template = VERBS[verb]
    shown = in_commands(f"{method} {template} does it.", ())
    assert shown.startswith("`scim-ledger "), shown
    assert shown.endswith("` does it.")


def test_the_status_of_a_consumer_names_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    limit = {"what": "failures", "answer_ms": 1.7, "events_per_second": 0.0, "advice": "See GET …/blocked."}
    monkeypatch.setattr("runtime.cli.consumer.ask", lambda _verb, **_named: {"name": "app", "limited_by": limit})
    consumer.show("app")
    assert "limited_by.advice             See `scim-ledger blocked list`." in capsys.readouterr().out
