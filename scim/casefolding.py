"""Caseless matching of text (Unicode chapter 3.13): NFC, then casefold, for whatever a client sends."""

import re
import unicodedata
from itertools import pairwise
from typing import Final


def casefold(text: str) -> str:
    """The form in which case-insensitive values are compared and kept as keys: NFC, then casefold."""
    return text.lower() if text.isascii() else _composed(text).casefold()


# Combining marks, with those few characters that are none and stand for several. All lie below; a test looks at every character.
MARKS: Final = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.combining(c)) + "\u0f73\u0f75\u0f81"
MARKS_TOGETHER: Final = (
    32  # behind each other that are put in order; no language has more than a few (UAX #15 "Stream-Safe Text Format")
)
_MARKS: Final = frozenset(MARKS)
_RUN: Final = re.compile(f"[{MARKS}]{{{MARKS_TOGETHER}}}")


def _composed(text: str) -> str:
    """NFC, in pieces where marks follow each other without end: to put n of them in order takes n² steps that nothing interrupts.

    A run that is longer than two pieces has a whole one behind some multiple of its length: the rest of the text is not looked at.
    """
    places = range(MARKS_TOGETHER, len(text) + 1, MARKS_TOGETHER)
    cuts = [end for end in places if text[end - 1] in _MARKS and _RUN.match(text, end - MARKS_TOGETHER)]
    if not cuts:
        return unicodedata.normalize("NFC", text)
    return "".join(unicodedata.normalize("NFC", text[start:end]) for start, end in pairwise([0, *cuts, len(text)]))
