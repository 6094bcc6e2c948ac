"""docs/idp is compared with the profile files."""

import json
import re

import pytest
from pydantic import ValidationError

from scim.dry_run import dry_run
from scim.profile import profile_of
from tests.docs.guides import Guide, guides, guides_of
from tests.docs.idp import DOCS, PART, generated, names


@pytest.mark.parametrize("name", names())
def test_the_page_of_a_profile_equals_what_is_generated_from_its_file(name: str) -> None:
    """Regenerate with `make docs`."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert [part[1] for part in PART.findall(text)] == ["guide", "representation", "mapping", "forgiven"]
    assert generated(text, profile_of(name)) == text


def test_the_index_names_every_page() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert generated(text, profile_of("generic")) == text
    assert {page.stem for page in DOCS.glob("*.md")} == {"README", *names()}


@pytest.mark.parametrize("name", names())
def test_each_profile_has_a_guide_that_leads_to_its_address(name: str) -> None:
    for said in guides_of(name):
        pasted = [step.paste for part in said.guide.parts for step in part.steps]
        assert any(text.startswith("https://LEDGER/scim/DIRECTORY/v2") for text in pasted)
    assert guides_of(name)


@pytest.mark.parametrize("name", names())
def test_the_address_in_a_guide_has_one_scheme(name: str) -> None:
    """LEDGER_PUBLIC_URL has its scheme, so `LEDGER` alone cannot be that address."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert "`https://LEDGER` is the public" in " ".join(text.split())
    assert text.count("LEDGER") - text.count("LEDGER_PUBLIC_URL") == text.count("https://LEDGER")


def test_guides_are_about_shipped_profiles() -> None:
    assert {name for guide in guides() for name in guide.profiles} == set(names())


@pytest.mark.parametrize("guide", guides(), ids=lambda guide: guide.title)
def test_a_claim_without_its_page_is_refused(guide: Guide) -> None:
    """Every page that is cited is listed with its address and date, and the other way round."""
    document = guide.model_dump(mode="json")
    document["troubles"][0] |= {"pages": (), "basis": "pages"}
    with pytest.raises(ValidationError):
        Guide.model_validate(document)


def test_the_template_of_onelogin_is_accepted_as_it_stands() -> None:
    """Its macros are replaced by values, as OneLogin does it; an unknown one gives an empty text."""
    codes = [step.code for said in guides_of("onelogin") for part in said.guide.parts for step in part.steps if step.code]
    (template,) = codes
    for active in ("true", ""):
        values = {"{$parameters.scimusername}": "ada", "{$user.active}": active, "{$user.email}": "ada@example.com"}
        body = json.loads(re.sub(r"\{\$[\w.]+\}", lambda macro, values=values: values.get(macro[0], ""), template))
        tried = dry_run(profile_of("onelogin"), {"method": "POST", "path": "/Users", "body": body})
        assert "error" not in tried
        assert tried["user"]["user_name"] == "ada"
