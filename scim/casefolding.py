"""Caseless matching of text (Unicode chapter 3.13): NFC, then casefold, within bounded time for any text that a client sends."""

import re
import unicodedata
from itertools import pairwise
from typing import Final


def casefold(text: str) -> str:
    """The form in which case-insensitive values are compared and kept as keys: NFC, then casefold."""
    return text.lower() if text.isascii() else _composed(text).casefold()


# Combining marks, and the three characters that NFC replaces by several of them. None lies above 0x1F000: a test checks every character.
MARKS: Final = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.combining(c)) + "\u0f73\u0f75\u0f81"
# Combining marks in a row that are put in order at once; no language has more than a few (UAX #15 "Stream-Safe Text Format").
MARKS_TOGETHER: Final = 32
_MARKS: Final = frozenset(MARKS)
_RUN: Final = re.compile(f"[{MARKS}]{{{MARKS_TOGETHER}}}")


def _composed(text: str) -> str:
    """The text in NFC. A long run of combining marks is cut into pieces: to put n marks in order takes n² steps in one call.

    Only the places at multiples of MARKS_TOGETHER are checked for a run before them: a run of twice that length has such a place.
    """
    places = range(MARKS_TOGETHER, len(text) + 1, MARKS_TOGETHER)
    cuts = [end for end in places if text[end - 1] in _MARKS and _RUN.match(text, end - MARKS_TOGETHER)]
    if not cuts:
        return unicodedata.normalize("NFC", text)
    return "".join(unicodedata.normalize("NFC", text[start:end]) for start, end in pairwise([0, *cuts, len(text)]))
