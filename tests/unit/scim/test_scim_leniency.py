"""Tolerances: one entry each, with all its parts; and what a request relied on."""

import ast
import re
from functools import cache
from pathlib import Path

import orjson
import pytest

from scim import respelling
from scim.filter_parser import either
from scim.leniency import LISTED, TEST_OBJECT, Leniency, Tolerance, sentence_of
from scim.profile import format_schema, profile_of, shipped
from scim.schema import GROUP, USER

PROJECT = Path(__file__).parents[3]
ENTRIES = PROJECT / "scim" / "leniency.py"
PACKAGES = ("runtime", "api", "operations", "replay", "projections", "delivery", "ledger", "scim", "proofs", "database")
CODE = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py") if path != ENTRIES]


@cache
def asked_in_code() -> set[str]:
    """The members of Tolerance that the code names."""
    return set(re.findall(r"\bTolerance\.([A-Z_]+)\b", "".join(path.read_text(encoding="utf-8") for path in CODE)))


@pytest.mark.parametrize("tolerance", Tolerance)
def test_an_entry_has_all_its_parts(tolerance: Tolerance) -> None:
    """Its name, what docs/idp says of it, what the admin of an IdP is told; and code that asks for it."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", tolerance)
    assert tolerance.name == tolerance.upper()
    assert re.fullmatch(r"[A-Z`].+\.", tolerance.forgives)
    assert re.fullmatch(r"This IdP .+\.", tolerance.sentence)
    assert tolerance.name in asked_in_code()


@pytest.mark.parametrize("tolerance", LISTED)
def test_an_entry_is_all_that_profiles_and_their_pages_need(tolerance: Tolerance) -> None:
    """Nothing else is written for a new one: the format of profiles, the pages and the journal are made from its entry."""
    schema = orjson.loads(format_schema())
    assert tolerance in schema["properties"]["tolerances"]["items"]["enum"]
    for name in (text.partition("@")[0] for text in shipped()):
        row = f"| `{tolerance}` | {tolerance.forgives} |"
        page = (PROJECT / "docs" / "idp" / f"{name}.md").read_text(encoding="utf-8")
        assert (row in page) is (tolerance in profile_of(name).tolerances)
    assert sentence_of(str(tolerance)) == tolerance.sentence


def test_no_other_module_spells_a_tolerance() -> None:
    """The type checker sees each name: a string would be another place to change, and a typing error nobody would find."""
    listed = set(map(str, LISTED))
    spelt = [
        f"{path.relative_to(PROJECT)}:{node.lineno} {node.value}"
        for path in CODE
        if any(f'"{name}"' in (text := path.read_text(encoding="utf-8")) for name in listed)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and node.value in listed
    ]
    assert spelt == []


def test_no_two_entries_say_the_same() -> None:
    assert len({t.forgives for t in Tolerance}) == len({t.sentence for t in Tolerance}) == len(Tolerance)


def test_a_tolerance_of_another_release_has_a_sentence_too() -> None:
    """A journal is read by the release that is there, whichever wrote it."""
    assert sentence_of("of_tomorrow") == "This IdP relies on of_tomorrow."


def test_only_what_is_allowed_is_noted() -> None:
    leniency = Leniency(frozenset({Tolerance.OP_CASE, Tolerance.DOTTED_KEYS}))
    assert leniency.would_allow(Tolerance.OP_CASE)
    assert not leniency.used
    assert not leniency.allows(Tolerance.EMPTY_STRINGS)
    assert not leniency.used
    assert leniency.allows(Tolerance.OP_CASE)
    assert leniency.used == {"op_case"}


def test_what_comes_to_light_later_is_noted_then() -> None:
    leniency = Leniency(frozenset({Tolerance.OP_CASE}))
    leniency.note(TEST_OBJECT, Tolerance.OP_CASE)
    assert ",".join(sorted(leniency.used)) == "op_case,test_object"


def test_a_request_that_nobody_is_forgiven_anything_for() -> None:
    assert not any(Leniency().would_allow(tolerance) for tolerance in Tolerance)


def test_requests_of_one_directory_do_not_share_what_they_used() -> None:
    forgiven = profile_of("entra").tolerances
    first, second = Leniency(forgiven), Leniency(forgiven)
    assert first.allows(Tolerance.OP_CASE)
    assert not second.used


def test_every_older_urn_is_recognised_by_its_beginning() -> None:
    """Names are looked at for older URNs only where they begin so, because nearly none does."""
    older = [urn for rt in (USER, GROUP, either(USER, GROUP)) for urn, _ in respelling._current_urns(rt)]
    assert older
    assert all(urn.startswith(respelling._OLD_BEGINNING) for urn in older)
