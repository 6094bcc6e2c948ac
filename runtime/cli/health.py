"""The health of a directory for people: what to do, worst first, then the figures that it follows from."""

from collections.abc import Sequence
from typing import Any, Final

from runtime.cli.printing import GAP, cell, print_rows, print_text

OPERATIONS_SHOWN: Final = 6  # the others are in --json
REASONS_SHOWN: Final = 3
ENDED: Final = {
    "closed": "Closed since {since}: all access through it has ended, its tokens are revoked, and its IdP is answered 401. It is never opened again.",
    "deleted": "Closed since {since}, and cleaned up: its tokens are revoked, and its IdP is answered 401. It is never opened again.",
}  # a pause is told by the advice


def print_health(report: dict[str, Any]) -> None:
    """Print a report of `directory doctor`. Mistakes in URLs and tokens are in the advice, unless somebody has mended them."""
    last, changed = (cell(report[name]) for name in ("last_request", "last_change"))
    state = ENDED.get(report["state"])
    if state is not None:
        print_text(f"{report['directory']}: {state.format(since=cell(report['state_since']))}")
    print(f"{report['directory']} ({report['profile']}): " + (f"last request {last}" if last else "no request yet"))
    print(f"last change {changed}" if changed else "no change yet")
    for line in report["advice"]:
        print_text(line, "! ", GAP)
    since = cell(report["since"])
    span = f"since {since}, the newest of more" if since else f"of the last {report['hours']} hours"
    _print_operations(report["operations"], span)
    _print_refusals(report, span)
    tolerated = [f"{row['tolerance']} ({row['requests']}): {row['meaning']}" for row in report["tolerances"]]
    _print_some(f"tolerances {span}", tolerated, "--json")
    mended = [row for row in report["mistakes"] if not any(line.startswith(row["meaning"]) for line in report["advice"])]
    _print_some(f"mended {span}", [f"{row['mistake']} ({row['count']}), last {cell(row['last'])}" for row in mended], "--json")


def _print_operations(operations: Sequence[dict[str, Any]], span: str) -> None:
    if not operations:
        return
    print(f"\noperations {span}")
    print_rows(
        [
            {
                "operation": f"{row['method']} {row['path']}",
                "requests": row["requests"],
                "errors": row["errors"],
                "429": row["too_many_requests"],
                "p50_ms": f"{row['p50_us'] / 1000:.1f}",
                "last": row["last"],
            }
            for row in operations[:OPERATIONS_SHOWN]
        ]
    )
    _print_rest(len(operations) - OPERATIONS_SHOWN, "--json")


def _print_refusals(report: dict[str, Any], span: str) -> None:
    """Each reason with its fix; a fix that several reasons have is printed once."""
    told: set[str | None] = {None}
    reasons: list[str] = []
    for row in report["refusals"]:
        what = " ".join(str(part) for part in (row["status"], row["scim_type"]) if part)
        fix = f" What to do: {row['fix']}" if row["fix"] not in told else ""
        told.add(row["fix"])
        reasons.append(f"{what} ({row['count']}, last {cell(row['last'])}): {row['detail'] or 'no detail'}{fix}")
    _print_some(f"refusals {span}", reasons, f"scim-ledger requests list --directory {report['directory']} --refused")


def _print_some(title: str, lines: Sequence[str], others: str) -> None:
    if not lines:
        return
    print(f"\n{title}")
    for line in lines[:REASONS_SHOWN]:
        print_text(line, rest=GAP)
    _print_rest(len(lines) - REASONS_SHOWN, others)


def _print_rest(count: int, where: str) -> None:
    if count > 0:
        print(f"and {count} more: {where}")
