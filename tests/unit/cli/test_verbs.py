"""Each verb of the command line is a route, and each route has a verb (docs/operations.md, "The command line")."""

import re

import pytest
from starlette.routing import Match, Route

from runtime.cli import app
from runtime.cli.nouns import DIRECTORY_NOUNS, NOUNS, Nouns
from runtime.cli.verbs import LOCAL, PART_OF_ANOTHER, VERBS
from tests.served import served
from tests.unit.cli.walk import walked

# Routes that have no verb, and why.
WITHOUT_A_VERB = {
    ("GET", "/healthz"): "whether a process lives is for what keeps it alive; `doctor` asks /readyz",
    ("GET", "/metrics"): "for Prometheus",
    ("GET", "/docs/errors"): "a page for people, to which errors link",
    ("GET", "/openapi.json"): "for programs and people who read the reference",
    ("GET", "/asyncapi.json"): "for programs that generate readers of events",
    ("GET", "/v1/schemas/events"): "for programs that check events, or generate types from them",
    ("GET", "/v1/schemas/events/{event_type}"): "the same for one event type",
    ("POST", "/oauth/{directory}/token"): "for OAuth 2.0 clients, which authenticate themselves",
    ("GET", "/.well-known/oauth-authorization-server/oauth/{directory}"): "for OAuth 2.0 clients, before they authenticate",
    ("GET", "/v1/events/stream"): "the events of `events tail` for programs that hold a connection open",
}


def served_by(method: str, template: str, every: list[Route]) -> Route | None:
    """The route that answers a verb, found by the router itself."""
    path = re.sub(r"\{\w+\}", "x", template)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
    return next((route for route in every if route.matches(scope)[0] is Match.FULL), None)


def test_each_command_has_a_line_in_the_table_of_verbs_or_works_on_the_machine_itself() -> None:
    commands = {" ".join(words) for words, command in walked(app) if not command.hidden}
    assert commands == (set(VERBS) - set(PART_OF_ANOTHER)) | LOCAL
    assert not set(VERBS) & LOCAL


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_a_route(verb: str) -> None:
    assert served_by(*VERBS[verb], served()) is not None, f"{verb} asks {VERBS[verb]}, which is not served"


def test_each_route_has_a_verb() -> None:
    every = served()
    asked = [served_by(*route, every) for route in VERBS.values()]
    unasked = {
        (method, route.path)
        for route in every
        for method in (route.methods or set()) - {"HEAD"}
        if not any(found is route for found in asked)
    }
    assert unasked == set(WITHOUT_A_VERB)


def test_the_comparison_reports_a_missing_verb_and_a_missing_route() -> None:
    """Without this test, a comparison of a list with itself would pass."""
    assert served_by("POST", "/v1/nothing", served()) is None
    assert served_by("DELETE", "/v1/replays/{replay_id}", served()) is None


@pytest.mark.parametrize(("nouns", "above"), [(NOUNS, ()), (DIRECTORY_NOUNS, ("directory",))])
def test_the_summary_of_each_command_is_the_beginning_of_its_help(nouns: Nouns, above: tuple[str, ...]) -> None:
    """`--help` prints a summary of each command without importing it, so it must agree with the help of the imported command."""
    found = {words[: len(above) + 1] for words, _ in walked(app)}
    assert {(*above, word) for word in nouns} <= found
    for noun in nouns.values():
        assert noun.help.endswith(".")


def test_every_verb_that_posts_takes_an_idempotency_key_and_all_take_json() -> None:
    for words, command in walked(app):
        names = {option for parameter in command.params for option in parameter.opts}
        verb = " ".join(words)
        if verb in VERBS and VERBS[verb].method == "POST":
            assert "--idempotency-key" in names, verb
        if verb not in {"serve", "demo", "completion"}:
            assert "--json" in names, verb
