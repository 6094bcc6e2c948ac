"""docs/idp is compared with the profile files."""

import pytest

from scim.profile import profile_of
from tests.docs.idp import DOCS, PART, generated, names


@pytest.mark.parametrize("name", names())
def test_the_page_of_a_profile_equals_what_is_generated_from_its_file(name: str) -> None:
    """Regenerate with `make docs`."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert [part[1] for part in PART.findall(text)] == ["admin", "representation", "mapping", "forgiven"]
    assert generated(text, profile_of(name)) == text


def test_the_index_names_every_page() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert generated(text, profile_of("generic")) == text
    assert {page.stem for page in DOCS.glob("*.md")} == {"README", *names()}
