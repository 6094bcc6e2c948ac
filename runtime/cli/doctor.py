"""`scim-ledger doctor`: what needs attention, over everything that one may see."""

from typing import Any, Final

from runtime.cli.client import Service, service
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_rows
from runtime.exits import FINDING, UNREACHABLE, CommandError

app = new_group("What needs attention.")
LIVING: Final = {"active", "paused"}  # a closed directory needs nobody
NEEDS_NOBODY: Final = {"active", "retrying"}  # a consumer that goes on by itself


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Say what needs attention: the service, its directories, its consumers. Exit 1 where there is something."""
    with service() as found:
        rows = [*_service(found), *_directories(found), *_consumers(found)]
    if rows or as_json:
        print_rows(as_json, rows)
    else:
        print("Nothing needs attention.")
    if rows:
        raise SystemExit(FINDING)


def _row(about: str, name: str, advice: str) -> dict[str, str]:
    return {"about": about, "name": name, "advice": advice}


def _service(found: Service) -> list[dict[str, str]]:
    try:
        found.ask("doctor")
    except CommandError as broken:
        if broken.code != UNREACHABLE or broken.problem is None:
            raise
        return [_row("service", str(broken.problem.get("part", "")), broken.text)]
    return []


def _directories(found: Service) -> list[dict[str, str]]:
    every = [row for page in found.pages("directory list") for row in page["data"] if not row["slug"].startswith("_")]
    return [
        _row("directory", row["slug"], line)
        for row in every
        if row["state"] in LIVING
        for line in found.ask("directory doctor", directory=row["slug"])["advice"]
    ]


def _consumers(found: Service) -> list[dict[str, str]]:
    every: list[dict[str, Any]] = [row for page in found.pages("consumer list") for row in page["data"]]
    rows = [_row("consumer", row["name"], f"It is {row['state']}.") for row in every if row["state"] not in NEEDS_NOBODY]
    rows += [_row("consumer", row["name"], _forked(row["name"], row["forked"])) for row in every if row["forked"]]
    rows += [
        _row("consumer", row["name"], f"{row['lag_seconds']:.0f} s behind. {row['limited_by']['advice']}")
        for row in every
        if row["limited_by"] and row["limited_by"]["what"] != "failures"  # those are tried again, or blocked and named above
    ]
    return rows + [
        _row("consumer", row["name"], f"{row['parked']} deliveries are parked: scim-ledger parked list {row['name']}")
        for row in every
        if row["parked"]
    ]


def _forked(name: str, fork: dict[str, Any]) -> str:
    return (
        f"{fork['gone_count']} events that it was sent are no longer in the log, which was restored: undo what it made of them "
        f"(scim-ledger consumer show {name}), then scim-ledger consumer close-fork {name} --reason …"
    )
