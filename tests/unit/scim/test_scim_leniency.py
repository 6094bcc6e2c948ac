"""Tolerances: one entry each, with all its parts; and which of them a request used."""

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
    """The parts are its name, its description in docs/idp, its sentence for the admin of an IdP, and code that asks for it."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", tolerance)
    assert tolerance.name == tolerance.upper()
    assert re.fullmatch(r"[A-Z`].+\.", tolerance.forgives)
    assert re.fullmatch(r"This IdP .+\.", tolerance.sentence)
    assert tolerance.name in asked_in_code()


@pytest.mark.parametrize("tolerance", LISTED)
def test_an_entry_is_enough_for_profiles_and_their_pages(tolerance: Tolerance) -> None:
    """Nothing else has to be written for a new tolerance: the format of profiles, the pages and the journal are made from its
    entry.
    """
    schema = orjson.loads(format_schema())
    assert tolerance in schema["properties"]["tolerances"]["items"]["enum"]
    for name in (text.partition("@")[0] for text in shipped()):
        row = f"| `{tolerance}` | {tolerance.forgives} |"
        page = (PROJECT / "docs" / "idp" / f"{name}.md").read_text(encoding="utf-8")
        assert (row in page) is (tolerance in profile_of(name).tolerances)
    assert sentence_of(str(tolerance)) == tolerance.sentence


def test_no_other_module_has_the_name_of_a_tolerance_as_a_string() -> None:
    """The type checker sees each member of the enum; a string would be another place to change, and nothing would find a misspelt
    one.
    """
    listed = set(map(str, LISTED))
    spelt = [
        f"{path.relative_to(PROJECT)}:{node.lineno} {node.value}"
        for path in CODE
        if any(f'"{name}"' in (text := path.read_text(encoding="utf-8")) for name in listed)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and node.value in listed
    ]
    assert spelt == []


def test_no_two_entries_have_the_same_text() -> None:
    assert len({t.forgives for t in Tolerance}) == len({t.sentence for t in Tolerance}) == len(Tolerance)


def test_a_tolerance_of_another_release_has_a_sentence_too() -> None:
    """A journal may be read by another release than the one that wrote it."""
    assert sentence_of("of_tomorrow") == "This IdP relies on of_tomorrow."


def test_only_an_allowed_tolerance_is_noted() -> None:
    leniency = Leniency(frozenset({Tolerance.OP_CASE, Tolerance.DOTTED_KEYS}))
    assert leniency.would_allow(Tolerance.OP_CASE)
    assert not leniency.used
    assert not leniency.allows(Tolerance.EMPTY_STRINGS)
    assert not leniency.used
    assert leniency.allows(Tolerance.OP_CASE)
    assert leniency.used == {"op_case"}


def test_a_deviation_that_shows_later_is_noted_then() -> None:
    leniency = Leniency(frozenset({Tolerance.OP_CASE}))
    leniency.note(TEST_OBJECT, Tolerance.OP_CASE)
    assert ",".join(sorted(leniency.used)) == "op_case,test_object"


def test_a_request_without_tolerances() -> None:
    assert not any(Leniency().would_allow(tolerance) for tolerance in Tolerance)


def test_requests_of_one_directory_do_not_share_the_used_tolerances() -> None:
    forgiven = profile_of("entra").tolerances
    first, second = Leniency(forgiven), Leniency(forgiven)
    assert first.allows(Tolerance.OP_CASE)
    assert not second.used


def test_every_older_urn_is_recognised_by_its_beginning() -> None:
    """Only names with such a beginning are compared with the older URNs, because nearly no name has one."""
    older = [urn for rt in (USER, GROUP, either(USER, GROUP)) for urn, _ in respelling._current_urns(rt)]
    assert older
    assert all(urn.startswith(respelling._OLD_BEGINNING) for urn in older)
