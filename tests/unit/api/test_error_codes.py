"""Each code of an error has a section on the page that the service ships, and the `type` of a problem leads there."""

import re
from html.parser import HTMLParser

import orjson

from api.error_codes import CODES, ERRORS_PAGE, page, type_of
from api.problems import ProblemError, document
from runtime.protocol import FULL, Refusal
from runtime.protocol import _document as refused


class Sections(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_each_code_has_a_section_and_a_meaning() -> None:
    found = Sections()
    found.feed(page())
    assert found.ids == [code for _, code, _ in CODES]
    assert len(set(found.ids)) == len(found.ids)
    assert all(len(meaning) > 8 for _, _, meaning in CODES)
    assert not found.tags & {"script", "style", "link", "img"}


def test_the_page_has_no_link_to_pages_that_the_service_does_not_ship() -> None:
    assert not re.search(r"\.md|\]\(|`", page())


def test_the_type_of_a_problem_is_its_section() -> None:
    problem = orjson.loads(document(ProblemError(404, "not_found", "x"), "1"))
    assert problem["type"] == f"{ERRORS_PAGE}#not_found" == type_of("not_found")
    assert isinstance(FULL, Refusal)
    assert orjson.loads(refused(FULL, scim=False)[1])["type"] == type_of(FULL.code)
