"""Filters are remembered by their texts, which have values; once somebody was erased they are forgotten."""

from scim import filter_parser, redaction
from scim.schema import USER

TEXT = 'userName eq "ada@example.com"'


def test_filters_are_forgotten() -> None:
    first = filter_parser.parse_filter(TEXT, USER)
    assert filter_parser.parse_filter(TEXT, USER) is first, "remembered"
    assert redaction.redacted_filter(TEXT, USER) == "userName eq ?"
    filter_parser.forget_filters()
    redaction.forget_redacted()
    again = filter_parser.parse_filter(TEXT, USER)
    assert again is not first
    assert again == first
