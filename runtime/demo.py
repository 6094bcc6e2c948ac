"""`scim-ledger demo`: two identity providers, one leaver, one application that sleeps through it, and everything recomputed."""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ledger.events import (
    BY_TOPIC,
    DIRECTORY,
    DIRECTORY_CREATED,
    USER_DEACTIVATED,
    Fact,
)
from replay.rebuild import RebuildRefusedError, Result, rebuild
from replay.stored_events import Finding
from replay.verify import verify
from runtime import embedded
from runtime.bootstrap import DATABASE, Urls, configured_urls
from runtime.demo_idps import Entra, Okta, Person
from runtime.demo_service import Client, DemoError, UnreachableError, client_of, own_service
from runtime.machine_database import main_settings
from runtime.root_key import read_kek
from runtime.settings import Settings
from runtime.upkeep import all_directories

EXIT_FINDING, EXIT_UNREACHABLE = 1, 3
GIVEN: Final = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Margaret", "Dennis", "Radia", "Ken")
FAMILY: Final = ("Reed", "Okafor", "Lindqvist", "Tanaka", "Moreau")
OKTA_USERS: Final = 30  # of the 50 users; Entra ID creates the others
OKTA_GROUPS: Final = ("Engineering", "Payroll", "Support", "Sales", "On-call")
ENTRA_GROUPS: Final = ("Field", "Contractors", "Audit")
PAGE_EVENTS: Final = 10  # events in a page of the application, few so that several pages are shown


def demo() -> None:
    """Run the demo. Exits with 1 if a check fails, with 3 if no service answers at LEDGER_URL."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        with _service(console, main_settings()) as (settings, client):
            Story(console, settings, client).tell()
    except DemoError as broken:
        print(broken, file=sys.stderr)
        raise SystemExit(EXIT_UNREACHABLE if isinstance(broken, UnreachableError) else EXIT_FINDING) from broken


@contextlib.contextmanager
def _service(console: Console, settings: Settings) -> Generator[tuple[Settings, Client]]:
    if settings.url:
        Client(settings.url.rstrip("/")).call("", "GET", "/readyz")
        client = client_of(settings, settings.url)
        console.print(f"Using the service at {settings.url}.")
        yield settings, client
        return
    console.print("Starting a service of the demo's own, with an embedded PostgreSQL in a temporary directory …")
    with own_service(settings) as (own, client):
        client.call("", "GET", "/readyz")
        console.print(f"It serves at {client.base_url} until the demo ends.")
        yield own, client


@dataclass(slots=True)
class Application:
    """An application that reads the feed by cursor and computes access from the events alone."""

    client: Client
    after: str | None = None
    covered_to: int = 0
    access: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])  # (directory, group, member)

    def read(self, limit: int, types: str = "*") -> dict[str, Any]:
        """Read the next page and keep its cursor."""
        place = f"&after={self.after}" if self.after else ""
        path = f"/v1/events?directory={self.client.directory}&limit={limit}&types={types}{place}"
        page = self.client.call("consumer", "GET", path).body
        if page["covered"]["from_position"] != self.covered_to + 1:
            raise DemoError(f"A page begins at {page['covered']['from_position']}, the one before ended at {self.covered_to}.")
        self.after, self.covered_to = page["list_metadata"]["after"], page["covered"]["to_position"]
        for event in page["data"]:
            self._apply(event)
        return page

    def read_to_the_end(self, types: str = "*") -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while True:
            page = self.read(1_000, types)
            events += page["data"]
            if not page["has_more"]:
                return events

    def _apply(self, event: dict[str, Any]) -> None:
        change = access_change(event)
        if change is None:
            return
        begins, directory, group, member = change
        if group is None or member is None:
            self.access = {edge for edge in self.access if edge[0] != directory}
        elif begins:
            self.access.add((directory, group, member))
        else:
            self.access.discard((directory, group, member))


def access_change(event: dict[str, Any]) -> tuple[bool, str, str | None, str | None] | None:
    """What an event does to access: (begins, directory, group, member), or None (docs/consumers.md, "From events to access").

    Without a group: all of the directory ends.
    """
    kind, directory, data = BY_TOPIC[event["type"]], event["directory"], event["data"]
    if kind.subject == DIRECTORY and Fact.ENDS_ALL_ACCESS in kind.facts:
        return False, directory, None, None
    if not kind.membership or (Fact.GRANTS_ACCESS in kind.facts and not data["effective"]):
        return None
    return Fact.GRANTS_ACCESS in kind.facts, directory, data["group"]["id"], data["member"]["id"]


class Story:
    """The chapters in order. Later chapters use ids that earlier ones found."""

    def __init__(self, console: Console, settings: Settings, client: Client) -> None:
        self._console = console
        self._settings = settings
        self._client = client
        self._okta, self._entra = Okta(client), Entra(client)
        self._application = Application(client)
        tag = secrets.token_hex(3)  # unique, so that the demo can run again on the same ledger
        self._people = [Person(given, family, tag) for family in FAMILY for given in GIVEN]
        self._users: list[str] = []
        self._groups: dict[str, str] = {}
        self._summary: list[tuple[str, str]] = []

    def tell(self) -> None:
        """Run all chapters. Raises DemoError if a promise does not hold."""
        self._application.read_to_the_end(DIRECTORY_CREATED.topic)  # skip the log up to the start of the demo
        begin = self._application.covered_to
        self._provision()
        self._move()
        before, after = self._offboard()
        self._outage()
        self._lost_work()
        self._replay()
        self._as_of(before, after)
        self._compare()
        self._summary.insert(0, ("events written", str(self._application.covered_to - begin)))
        self._say_summary()

    # -- chapters -----------------------------------------------------------

    def _provision(self) -> None:
        self._chapter("Provisioning: 50 users and 8 groups")
        self._users = [self._okta.create_user(person) for person in self._people[:OKTA_USERS]]
        self._users += [self._entra.create_user(person) for person in self._people[OKTA_USERS:]]
        for place, name in enumerate(OKTA_GROUPS):
            self._groups[name] = self._okta.create_group(name, self._users[place * 6 : place * 6 + 8])
        for place, name in enumerate(ENTRA_GROUPS):
            start = OKTA_USERS + place * 6
            self._groups[name] = self._entra.create_group(name, self._users[start : start + 8])
        events = self._application.read_to_the_end()
        self._say(f"Okta wrote {OKTA_USERS} users and {len(OKTA_GROUPS)} groups: a filter and a POST each, then group push.")
        entra = len(self._users) - OKTA_USERS
        self._say(
            f'Entra ID wrote {entra} users and {len(ENTRA_GROUPS)} groups: "Add" with a list of values, one member at a time.'
        )
        self._say(
            f"An application read {len(events)} events by cursor and knows {len(self._application.access)} grants of access."
        )
        self._summary.append(("users, groups", f"{len(self._users)}, {len(self._groups)}"))

    def _move(self) -> None:
        self._chapter("Moves: profiles and memberships change")
        groups, users = self._groups, self._users
        self._okta.update_user(users[1], self._people[1], "Team lead")
        self._okta.push_group(groups["Payroll"], remove=users[6:8])
        self._okta.push_group(groups["Sales"], add=users[6:8])
        self._okta.replace_group(groups["Support"], "Support", users[12:16])
        self._entra.update_user(users[31], "Consultant", "Audit")
        self._entra.remove_member(groups["Field"], users[31])
        self._entra.add_member(groups["Audit"], users[31])
        silent = self._entra.add_member(groups["Audit"], users[31])
        self._events(self._application.read_to_the_end())
        if silent.seq is not None:
            raise DemoError("Adding a member twice made an event.")
        self._say("Okta: PUT of a user, remove and add by group push, PUT of a group with the members that stay.")
        self._say('Entra ID: "Replace" by path, "Remove" with a list of values. Adding the same member again made no event.')

    def _offboard(self) -> tuple[int, int]:
        """Offboard a user. Returns the seq before it and the seq of it."""
        leaver, person = self._users[OKTA_USERS + 6], self._people[OKTA_USERS + 6]
        self._chapter(f"Offboarding: {person.name} leaves")
        seq = self._entra.deactivate_user(leaver).seq
        events = [event for event in self._application.read_to_the_end() if _last_seq(event) == seq]
        self._events(events)
        if seq is None or len(events) < 2 or events[-1]["type"] != USER_DEACTIVATED.topic:
            raise DemoError("The end of access and the deactivation are not one commit.")
        before = events[0]["seq"] - 1
        self._say(
            f'Entra ID sent active "False". One commit, seq {before + 1} to {seq}: access ended with the deactivation, not after it.'
        )
        if self._access(leaver, "seq:head") or any(member == leaver for _, _, member in self._application.access):
            raise DemoError("The leaver still has access.")
        self._say("The audit says: no access now. The application, from the events alone, says the same.")
        self._summary.append(("offboarding", f"one commit of {len(events)} events, residual access none"))
        return before, seq

    def _outage(self) -> None:
        self._chapter("An outage: the application stops reading")
        asleep = self._application.covered_to
        leaver = self._users[3]
        self._okta.deactivate_user(leaver)
        self._okta.push_group(self._groups["Sales"], remove=self._users[6:8])
        self._okta.push_group(self._groups["On-call"], add=self._users[6:14])
        last = self._entra.remove_member(self._groups["Audit"], self._users[31]).seq
        self._say(f"It stopped after seq {asleep}. Meanwhile the log went on to seq {last}: somebody left, others moved.")
        table = Table("page", "covered", "events", "still behind", box=None)
        pages = 0
        more = True
        while more:
            page = self._application.read(PAGE_EVENTS)
            pages, more = pages + 1, page["has_more"]
            covered, behind = page["covered"], page["head_position"] - page["covered"]["to_position"]
            table.add_row(
                str(pages), f"{covered['from_position']} to {covered['to_position']}", str(len(page["data"])), str(behind)
            )
        self._console.print(table)
        gap = f"seq {asleep + 1} to {self._application.covered_to}"
        self._say(f"The gap was {gap}; it is closed: each page began where the one before ended, so nothing was missed.")
        self._summary.append(("outage", f"gap {gap}, caught up in {pages} pages"))

    def _lost_work(self) -> None:
        """A consumer acknowledges events, then loses them: show the gap and replay."""
        name = f"demo-{secrets.token_hex(3)}"
        self._chapter("Lost work: a consumer goes back to where its backup is")
        place = f"/v1/consumers/{name}"
        start = f"seq:{max(self._application.covered_to - 20, 1)}"
        self._client.call("operator", "PUT", place, {"directories": [self._client.directory], "start": start})
        page = self._client.call("consumer", "GET", f"{place}/events?limit=1000").body
        self._client.call("consumer", "POST", f"{place}/ack", {"through": page["list_metadata"]["after"]})
        status = self._client.call("operator", "GET", place).body
        ids = [event["id"] for event in page["data"]]
        self._say(f"The consumer {name} read {len(ids)} events and acknowledged them; it is {status['lag_events']} behind.")
        backup = {"to": ids[len(ids) // 2 - 1], "reason": "its disk failed; the backup is older"}
        planned = self._client.call("operator", "POST", f"{place}/seek", {**backup, "dry_run": True}).body
        self._say(f"Its disk fails. What would going back to its backup mean? {planned['delivered_again']} events come again.")
        self._client.call("operator", "POST", f"{place}/seek", backup)
        again = self._client.call("consumer", "GET", f"{place}/events?limit=1000").body
        if [event["id"] for event in again["data"]] != ids[len(ids) // 2 :] or planned["delivered_again"] != len(again["data"]):
            raise DemoError("What came again is not what was planned.")
        self._client.call("consumer", "POST", f"{place}/ack", {"through": again["list_metadata"]["after"]})
        found = self._client.call("operator", "GET", f"{place}/audit").body
        self._client.call("operator", "DELETE", place)
        if found["holes"] or found["acknowledged"] != found["expected"]:
            raise DemoError(f"The audit of the consumer found holes: {found['holes']}")
        self._say(
            f"The same events came, in order. Recomputed from the log it acknowledged {found['acknowledged']} of {found['expected']}: no hole."
        )
        self._summary.append(("lost work", f"{planned['delivered_again']} events planned, the same delivered again, no hole"))

    def _replay(self) -> None:
        self._chapter("Replay: the read models anew from the log, then the check of everything")
        urls = _reachable_database(self._settings)
        if urls is None:
            self._say("The database of this service is not reachable from here; `scim-ledger replay` runs beside the service.")
            return
        result, findings, total = asyncio.run(_rebuild_and_verify(urls, self._settings))
        self._say(f"Rebuilt users, groups, memberships and states from {result.events} events and swapped them in while serving.")
        if result.drifted or findings:
            raise DemoError(
                f"Differences: {', '.join(result.drifted)} {'; '.join(f'{f.place}: {f.problem}' for f in findings[:3])}"
            )
        self._say(f"Verified {total} events and the read models that follow from them: no difference.")
        self._summary.append(("replay", f"{result.events} events rebuilt and verified, no difference"))

    def _as_of(self, before: int, after: int) -> None:
        leaver, person = self._users[OKTA_USERS + 6], self._people[OKTA_USERS + 6]
        self._chapter(f"An auditor asks: what could {person.name} reach?")
        then, now = self._access(leaver, f"seq:{before}"), self._access(leaver, f"seq:{after}")
        self._say(f"As of seq {before}, before the offboarding: {', '.join(then)}.")
        self._say(f"As of seq {after}, the offboarding: {', '.join(now) or 'nothing'}.")
        if now or not then:
            raise DemoError("The answers are not those of before and after.")
        self._summary.append(("as of", f"{len(then)} groups before the offboarding, none after"))

    def _compare(self) -> None:
        """Compare the application's state with the answers of the service."""
        for group in self._groups.values():
            path = f"/v1/audit/{self._client.directory}/groups/{group}/members?effective=true"
            told = {row["id"] for row in self._client.call("auditor", "GET", path).body["data"]}
            if told != {member for _, held, member in self._application.access if held == group}:
                raise DemoError(f"The application and the service disagree about group {group}.")
        self._summary.append(("application", "knows the same members of all 8 groups as the service"))

    # -- telling ------------------------------------------------------------

    def _access(self, user: str, as_of: str) -> list[str]:
        path = f"/v1/audit/{self._client.directory}/users/{user}/access?as_of={as_of}"
        return sorted(row["display"] for row in self._client.call("auditor", "GET", path).body["data"])

    def _chapter(self, title: str) -> None:
        self._console.print()
        self._console.rule(title, align="left")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _events(self, events: Sequence[dict[str, Any]]) -> None:
        table = Table("seq", "commit", "event", "cause", "access changes", box=None)
        for event in events:
            ends_all = bool(BY_TOPIC[event["type"]].facts & Fact.ENDS_ALL_ACCESS)
            effective = {True: "yes", False: "no", None: ""}[ends_all or event["data"].get("effective")]
            commit = f"{event['commit']['first_seq']}+{event['commit']['size'] - 1}"
            table.add_row(str(event["seq"]), commit, event["type"], event["cause"], effective)
        self._console.print(table)

    def _say_summary(self) -> None:
        self._chapter("Summary")
        table = Table(box=None, show_header=False)
        for what, result in self._summary:
            table.add_row(what, result)
        self._console.print(table)


def _last_seq(event: dict[str, Any]) -> int:
    """The last seq of the commit that an event belongs to."""
    return event["commit"]["first_seq"] + event["commit"]["size"] - 1


def _reachable_database(settings: Settings) -> Urls | None:
    """The database of the service, if it can be reached from here; the demo never starts one beside a service."""
    urls = configured_urls(settings)
    if urls is not None:
        return urls
    cluster = embedded.running(settings.data_dir.absolute() / "postgres")
    return Urls(cluster.url("ledger_app", DATABASE), cluster.url("ledger_owner", DATABASE)) if cluster else None


async def _rebuild_and_verify(urls: Urls, settings: Settings) -> tuple[Result, list[Finding], int]:
    kek = await read_kek(urls.serve, settings)
    directories = await all_directories(urls, kek)
    try:
        result = await rebuild(urls.migrate, kek, _unseen, lambda _text: None)
    except RebuildRefusedError as refused:
        raise DemoError(str(refused)) from refused
    findings, total, _ = await verify(urls.migrate, kek, directories, _unseen)
    return result, findings, total


def _unseen(_done: int, _total: int) -> None:
    """The demo narrates instead of showing progress."""
