"""Answers as CSV (RFC 4180), for whoever opens them in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from fastapi import Request, Response

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class Csv(Response):
    """Rows of text below a line of names. A cell that a spreadsheet would take for a formula begins with an apostrophe."""

    media_type = "text/csv"

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows([_safe(cell) for cell in row] for row in rows)
        super().__init__(text.getvalue())


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def wants_csv(request: Request) -> bool:
    """Whether the request prefers CSV: it names text/csv in Accept, and not JSON before it."""
    named = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    return "text/csv" in named and "application/json" not in named[: named.index("text/csv")]
