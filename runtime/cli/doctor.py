"""`scim-ledger doctor`: what needs attention, in everything that the caller can see."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.cli.client import Service, service
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, list_of, print_list
from runtime.cli.wording import in_commands
from runtime.exits import FINDING, REFUSED, UNREACHABLE, CommandError

app = new_group("What needs attention.")
Row = dict[str, Any]
# What to do about a delivery that failed before the receiver saw it, by `last_error`.
NOT_ANSWERED: Final[Mapping[str, str]] = {
    "address_refused": "This service refuses the address of its URL, because it is private or loopback: name its network or host in LEDGER_WEBHOOK_ALLOW.",
    "name_not_found": "The host name in its URL has no address.",
    "connection_refused": "Nothing listens at its URL.",
    "tls": "The certificate at its URL is not valid for the host, or its authority is not trusted (SSL_CERT_FILE).",
    "redirect": "The receiver answers with a redirect, which is not followed: scim-ledger consumer update {name} --url",
}
# Findings of the report of credentials that cut somebody off.
CREDENTIALS: Final[Mapping[str, str]] = {
    "expires_soon": "It expires within 30 days",
    "expired_in_use": "It has ended, and somebody still sends it",
}
LIVING: Final = {"active", "paused"}  # a closed directory needs no attention

# What to do about a consumer in each state; None if it continues by itself.
STATES: Final[Mapping[str, str | None]] = {
    "active": None,
    "retrying": None,  # reported by `limited_by` if it lasts too long
    "paused": "It is paused: scim-ledger consumer resume {name}",
    "blocked": "{blocked} deliveries are blocked{last}, and events that depend on them wait. Repair the receiver, then scim-ledger blocked list {name}, "
    "and retry, park or skip each",
    "disabled": "It is disabled, because its receiver said that it is gone (410): delete it, or scim-ledger consumer resume {name}",
}
# What to do about the exceptions that the status counts; None if they continue by themselves.
EXCEPTIONS: Final[Mapping[str, str | None]] = {
    "waiting": None,
    "retrying": None,
    "blocked": None,  # reported with the state
    "held": "{held} deliveries are held by the surge brake: scim-ledger directory surge show DIRECTORY, then surge release, or stop the IdP",
    "parked": "{parked} deliveries are parked: scim-ledger parked list {name}",
}


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Show what needs attention: the service, its consumers, its directories. Exit 1 if there is anything.

    Example: scim-ledger doctor
    """
    with service() as found:
        of_directories = _directories(found)
        rows = [*_service(found), *_consumers(found), *_credentials(found, of_directories), *of_directories]
    if rows or as_json:
        print_list(as_json, list_of(rows))
    else:
        print("Nothing needs attention.")
    if rows:
        raise SystemExit(FINDING)


def _row(about: str, name: str, advice: str) -> dict[str, str]:
    return {"about": about, "name": name, "advice": advice}


def _service(found: Service) -> list[dict[str, str]]:
    try:
        ready = found.ask("doctor")
    except CommandError as broken:
        if broken.code != UNREACHABLE or broken.problem is None:
            raise
        return [_row("service", str(broken.problem.get("part", "")), broken.text)]
    return [_row("service", warning["reason"], warning["says"]) for warning in ready.get("warnings", ())]


def _credentials(found: Service, said: list[dict[str, str]]) -> list[dict[str, str]]:
    """Tokens that stop somebody soon, or have stopped somebody; those of an IdP that its directory names are left out. Admins see the rest in `token report`."""
    try:
        report = found.ask("token report")
    except CommandError as refused:
        if refused.code != REFUSED:
            raise
        return []
    known = " ".join(row["advice"] for row in said)
    return [
        _row("credential", one["subject"]["name"], f"{CREDENTIALS[one['finding']]}: {one['fix']}")
        for one in report["data"]
        if one["finding"] in CREDENTIALS and f"Token {one['subject']['name']} " not in known
    ]


def _directories(found: Service) -> list[dict[str, str]]:
    every = [row for page in found.pages("directory list") for row in page["data"] if not row["slug"].startswith("_")]
    return [
        _row("directory", row["slug"], line)
        for row in every
        if row["state"] in LIVING
        for line in _with_source(row["slug"], found.ask("directory doctor", directory=row["slug"])["advice"])
    ]


def _with_source(slug: str, advice: list[str]) -> list[str]:
    """The advice, and last where its figures and ids are."""
    return [*advice, f"Figures and ids: scim-ledger directory doctor {slug}"] if advice else []


def _consumers(found: Service) -> list[dict[str, str]]:
    every: list[Row] = [row for page in found.pages("consumer list") for row in page["data"]]
    return [_row("consumer", row["name"], line) for row in every for line in of_consumer(row)]


def of_consumer(row: Row) -> list[str]:
    """What to do about a consumer, from its status, worst first."""
    said: list[Callable[[Row], list[str]]] = [_forked, _stopped, _limited, _set_aside]
    return [line for says in said for line in says(row)]


def _forked(row: Row) -> list[str]:
    fork, name = row["forked"], row["name"]
    if not fork:
        return []
    what = f"{fork['gone_count']} events that it was sent are no longer in the log, which was restored"
    undo = f"undo what it made of them (scim-ledger consumer show {name})"
    return [f"{what}: {undo}, then scim-ledger consumer close-fork {name} --reason …"]


def _stopped(row: Row) -> list[str]:
    states = [row["state"]] + (["blocked"] if row["blocked"] and row["state"] != "blocked" else [])
    return [text.format(**row, last=_last_answer(row)) for state in states if (text := STATES[state]) is not None]


def _last_answer(row: Row) -> str:
    error = (row["blocked_on"] or {}).get("last_error")
    if not error:
        return ""
    why = NOT_ANSWERED.get(error, "").format(**row)
    return f" (the last answer to the oldest: {error}{'. ' if why else ''}{why.rstrip('.')})"


def _limited(row: Row) -> list[str]:
    limit = row["limited_by"]
    if not limit:
        return []
    since, advice = f"{row['lag_seconds']:.0f} s behind", in_commands(limit["advice"], ())
    if limit["what"] == "failures":
        return [f"{since}{_last_answer(row)}. {advice} Nothing is lost: everything comes when it is back."]
    return [f"{since}. {advice}"]


def _set_aside(row: Row) -> list[str]:
    return [text.format(**row) for state, text in EXCEPTIONS.items() if row[state] and text is not None]
