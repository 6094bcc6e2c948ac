"""The auditor reads the whole log as it grows, knows every answer, and checks at the end of each round whether the answers are
true.
"""

from collections import Counter, defaultdict
from typing import Any, Final

from tests.acceptance.model import Fold
from tests.drills.history import Violation
from tests.drills.load import Acknowledged, Act, Doubts, Ledgered, Parties
from tests.drills.readers import Events, Reader

FOLDED: Final = ("acme", "big")


class FoldByTouch(Fold):
    """Checks after every commit the groups that it touches, and after a round all groups."""

    def __init__(self) -> None:
        super().__init__()
        self._touched: set[str] = set()

    def apply(self, event: dict[str, Any]) -> None:
        self._touched.add(event["subject"]["id"])
        super().apply(event)

    def whole_commit(self) -> None:
        for group in self._touched & set(self.groups):
            for member in self.groups[group]["members"]:
                active = self.users[member]["active"] if member in self.users else member in self.groups
                assert ((group, member) in self.access) is active, f"{member} in {group}"
        self._touched.clear()

    def everything(self) -> None:
        super().whole_commit()


class Log(Reader):
    """The log of all directories, or the ledger's own log: pages have no gaps, seqs are dense, time never decreases, and the
    state of each directory is computed.
    """

    def __init__(self, name: str, parties: Parties, query: str = "") -> None:
        super().__init__(name, parties)
        self.covered = 0  # a position, or the seq of the one directory that is read
        self.seqs: Counter[str] = Counter()
        self._query = query
        self._times: dict[str, str] = {}
        self.folds = {slug: FoldByTouch() for slug in FOLDED}
        self.quiet = 0  # the number of pages without events in a row

    async def run(self) -> None:
        after = ""
        while True:
            instance = await self.instance()
            path = f"/v1/events?limit=1000{self._query}{after and f'&after={after}'}"
            answer = await self.parties.client.ask(instance, "admin", "GET", path, told=False)
            if answer is None or answer.status != 200:
                if answer is not None and answer.status < 500 and answer.status != 429:
                    raise Violation(f"{self.name} was refused: {answer.status} {answer.body}")
                await self.pause()
                continue
            page = answer.body
            if page["covered"]["from_position"] != self.covered + 1:
                raise Violation(f"{self.name}: after {self.covered} a page covers {page['covered']}")
            for event in page["data"]:
                self._follows(event)
                await self.take(event)
            self.covered = max(self.covered, page["covered"]["to_position"])
            after = page["list_metadata"]["after"] or after
            self.quiet = 0 if page["data"] else self.quiet + 1
            if not page["has_more"]:
                await self.pause()

    def _follows(self, event: dict[str, Any]) -> None:
        slug = event["directory"]
        if event["seq"] != self.seqs[slug] + 1:
            raise Violation(f"seq {event['seq']} of {slug} follows {self.seqs[slug]}")
        if event["time"] < self._times.get(slug, ""):
            raise Violation(f"time runs backwards in {slug} at seq {event['seq']}")
        self.seqs[slug], self._times[slug] = event["seq"], event["time"]
        if slug in self.folds:
            try:
                self.folds[slug].apply(event)
            except (AssertionError, KeyError) as broken:
                raise Violation(f"the stream of {slug} breaks its laws at {event['id']}: {broken!r}") from broken


class Auditor:
    """Compares every answer with the log."""

    def __init__(self, log: Log, doubts: Doubts) -> None:
        self._log, self._doubts = log, doubts
        self._at: dict[tuple[str, int], dict[str, Any]] = {}
        self._position = 0
        self._acts: Counter[tuple[str, str]] = Counter()  # by the key that identifies each act
        self.acknowledged = self.unsure = self.events = 0

    def settle(self, events: Events, round_: Ledgered, acts: list[Act], models: list[Any], crowd: Any) -> None:
        """Check a round with all its events; raises Violation."""
        self._dense(events)
        self._at = {(event["directory"], event["seq"]): event for event in events}
        for change in round_.acknowledged:
            self._is_there(change)
        self._nothing_of(round_.undone, events)
        self._acts_once(acts, events)
        self._commits_once(events)
        self._as_the_models_say(models, crowd)
        self.acknowledged += len(round_.acknowledged) + len(acts)
        self.unsure += round_.unsure
        self.events += len(events)

    def _dense(self, events: Events) -> None:
        """Positions of the whole ledger, the ledger's own log included, have no gap and no repetition."""
        for event in sorted(events, key=lambda event: event["position"]):
            if event["position"] != self._position + 1:
                raise Violation(f"position {event['position']} follows {self._position}")
            self._position = event["position"]

    def _is_there(self, change: Acknowledged) -> None:
        event = self._at.get((change.directory, change.seq))
        if event is None:
            raise Violation(f"{change} was acknowledged and is not in the log")
        member = event["data"].get("member", {}).get("id")
        commit = event["commit"]
        if change.seq != commit["first_seq"] + commit["size"] - 1:
            raise Violation(f"{change} is not the end of its commit")
        if change.resource not in {event["subject"]["id"], member}:
            raise Violation(f"{change} was acknowledged; there stands {event['id']} {event['type']} of {event['subject']['id']}")

    def _nothing_of(self, undone: set[str], events: Events) -> None:
        stored = {
            event["data"]["object"].get("userName", event["data"]["object"].get("displayName")) for event in _created(events)
        }
        if wrong := undone & stored:
            raise Violation(f"the answer said that nothing was changed; these are stored: {sorted(wrong)[:5]}")

    def _acts_once(self, acts: list[Act], events: Events) -> None:
        found = self._acts
        for event in events:
            if event["type"] in {"token.issued", "token.revoked"}:
                found[event["type"], event["data"]["object"]["name"]] += 1
            elif event["type"] == "directory.schema_registered":
                found[event["type"], event["data"]["changes"][0]["to"]] += 1
        if twice := [act for act, count in found.items() if count > 1]:
            raise Violation(f"acts that happened more than once: {twice[:5]}")
        for act in acts:
            if not found[act.kind, act.mark]:
                raise Violation(f"{act} was answered and is not in the log")

    def _commits_once(self, events: Events) -> None:
        """A request makes one commit; a Bulk request makes one for each operation, each of a different user."""
        commits: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        names: Counter[str] = Counter()
        for event in events:
            commits[event["request_id"]].add((event["directory"], event["commit"]["first_seq"]))
        for event in _created(events):
            name = event["data"]["object"].get("userName") or event["data"]["object"]["displayName"]
            names[name] += 1
        if twice := [name for name, count in names.items() if count > 1]:
            raise Violation(f"created more than once: {twice[:5]}")
        bulk = {
            event["request_id"]
            for event in _created(events)
            if "@bulk" in event["data"]["object"].get("userName", "")
            or event["data"]["object"].get("userName", "").startswith("crowd")
        }
        if twice := [request for request, found in commits.items() if len(found) > 1 and request not in bulk]:
            raise Violation(f"requests with more than one commit: {twice[:5]}")

    def _as_the_models_say(self, models: list[Any], crowd: Any) -> None:
        for fold in self._log.folds.values():
            try:
                fold.everything()
            except AssertionError as broken:
                raise Violation("who has access does not follow from who is a member and active") from broken
        fold, names = self._log.folds["acme"], self._doubts.names
        unsure = (
            self._doubts.ids
            | {i for i, user in fold.users.items() if user["userName"] in names}
            | {i for i, group in fold.groups.items() if group["displayName"] in names}
        )
        users = {i: user for model in models for i, user in model.users.items()}
        _equal("users", {i: user for i, user in fold.users.items() if i not in unsure}, users)
        groups = {i: (group["displayName"], group["members"] - unsure) for model in models for i, group in model.groups.items()}
        _equal(
            "groups",
            {i: (group["displayName"], group["members"] - unsure) for i, group in fold.groups.items() if i not in unsure},
            groups,
        )
        if crowd.group is not None:
            _equal(
                "the crowd", {crowd.group: self._log.folds["big"].groups[crowd.group]["members"]}, {crowd.group: crowd.members}
            )


def _created(events: Events) -> Events:
    return [event for event in events if event["type"] in {"user.created", "group.created"}]


def _equal(what: str, stored: dict[str, Any], foreseen: dict[str, Any]) -> None:
    if stored != foreseen:
        lost = sorted(set(foreseen) - set(stored))[:3]
        more = sorted(set(stored) - set(foreseen))[:3]
        other = [(i, stored[i], foreseen[i]) for i in stored if i in foreseen and stored[i] != foreseen[i]][:2]
        raise Violation(f"{what}: acknowledged and lost {lost}; stored, and nobody asked for it {more}; different {other}")
