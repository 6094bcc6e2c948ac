"""Check a stretch of a directory's log: each event against its leaf, its ciphertext and its neighbours. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from ledger.events import BY_TOPIC, Fact
from ledger.ids import Seq
from proofs.leaf import INTEGER_MAX, REQUIRED, LeafError, check_leaf, leaf_hash
from replay.stored_events import Finding, Leaf, Origin, StoredEvent

Versions = Mapping[UUID, tuple[int, int]]  # rv and etag_rv of a resource
Commits = Mapping[Seq, tuple[int, int, str]]  # first seq -> size, at, req of the commit row


class Stretch(NamedTuple):
    """The events of one directory in (after, to], and the state before them.

    `before` is the event at `after`. `versions` are those of resources that were created earlier. `erased`: the resources with events here
    whose bodies an erasure deleted.
    """

    after: Seq
    to: Seq
    before: StoredEvent | None
    events: Sequence[StoredEvent]
    versions: Versions
    commits: Commits
    erased: frozenset[UUID] = frozenset()

    @property
    def erased_bodies(self) -> int:
        """How many events have no body any more because of an erasure."""
        return sum(event.ct is None and event.obj in self.erased and b'"ct":' in event.leaf for event in self.events)


def check(origin: Origin, stretch: Stretch) -> tuple[list[Finding], list[Leaf]]:
    """The findings, and the leaves of the events (usable only without findings)."""
    checked = _Check(origin, stretch)
    for event in stretch.events:
        checked.event(event)
    if checked.seq != stretch.to:
        checked.report(stretch.to, f"the log has a hole: seq {checked.seq + 1} is missing")
    # A commit row that remains here has no first event: somebody inserted it.
    checked.findings += [
        Finding(f"{origin.slug} commit at seq {seq}", "no event begins a commit here") for seq in checked.commits
    ]
    return checked.findings, checked.leaves


class _Check:
    """The state that the next event must continue."""

    def __init__(self, origin: Origin, stretch: Stretch) -> None:
        self.findings: list[Finding] = []
        self.leaves: list[Leaf] = []
        self.seq = stretch.after
        self.commits = dict(stretch.commits)
        self._slug, self._directory = origin.slug, str(origin.uuid)
        self._versions = dict(stretch.versions)
        self._at = 0
        self._erased = stretch.erased
        self._commit: tuple[Any, ...] | None = None  # tx, txn, at, req of the current commit; None if unknown
        if stretch.before is not None:
            self._continue(stretch.before)

    def report(self, seq: Seq, problem: str) -> None:
        self.findings.append(Finding(f"{self._slug} seq {seq}", problem))

    def _continue(self, before: StoredEvent) -> None:
        try:
            leaf = read_leaf(before.leaf)
        except LeafError:  # reported as a finding at its place
            return
        self._at, self._commit = leaf["at"], _commit_of(leaf)

    def event(self, event: StoredEvent) -> None:
        if event.seq != self.seq + 1:
            self.report(event.seq, f"the log has a hole: seq {self.seq + 1} is missing")
        self.seq = event.seq
        try:
            leaf = read_leaf(event.leaf)
        except LeafError as broken:
            self.report(event.seq, f"the leaf is not canonical: {broken}")
            return
        self.leaves.append(leaf)
        if leaf_hash(event.leaf) != event.leaf_hash:
            self.report(event.seq, "the leaf does not have its stored hash")
        if not _agrees(self._directory, event, leaf):
            for problem in _differences(self._directory, event, leaf, erased=event.obj in self._erased):
                self.report(event.seq, problem)
        self._check_versions(event, leaf)
        self._check_commit(event, leaf)
        if leaf["at"] < self._at:
            self.report(event.seq, "time runs backwards")
        self._at = leaf["at"]

    def _check_versions(self, event: StoredEvent, leaf: Leaf) -> None:
        rv, etag_rv = self._versions.get(event.obj, _NEW)
        if event.rv != rv + 1:
            self.report(event.seq, f"rv {event.rv} follows rv {rv} of the same resource")
        expected = etag_rv if leaf["type"] in _DERIVED else event.rv
        if event.etag_rv != expected:
            self.report(event.seq, f"column etag_rv is {event.etag_rv}, {expected} follows from the events")
        self._versions[event.obj] = (event.rv, event.etag_rv)

    def _check_commit(self, event: StoredEvent, leaf: Leaf) -> None:
        """All leaves of a commit, and its row, must agree on its first seq, size, time and request."""
        told = _commit_of(leaf)
        if event.seq == leaf["tx"]:
            row = self.commits.pop(event.seq, None)
            if row is None:
                self.report(event.seq, "its commit has no row")
            elif row != told[1:]:
                names = [name for name, a, b in zip(("size", "at", "req"), row, told[1:], strict=True) if a != b]
                self.report(event.seq, f"the commit row's {', '.join(names)} differ from the leaf's")
            self._commit = told
        elif self._commit is not None and told != self._commit:
            self.report(event.seq, "its commit is another than that of the event before it")


_NEW: Final = (0, 0)
_DERIVED: Final = frozenset(kind.topic for kind in BY_TOPIC.values() if Fact.DERIVED in kind.facts)


def _commit_of(leaf: Leaf) -> tuple[Any, ...]:
    return leaf["tx"], leaf["txn"], leaf["at"], leaf["req"]


def read_leaf(raw: bytes) -> Leaf:
    """Parse a leaf. Raises LeafError if `raw` is not in canonical form.

    If orjson reproduces `raw` byte for byte, and names and types are those of an earlier canonical leaf, it is canonical. That takes a
    tenth of the time of check_leaf, which checks all other leaves.
    """
    try:
        fields = orjson.loads(raw)
        if type(fields) is dict:
            shape = (*fields, *map(type, fields.values()))  # pyright: ignore[reportUnknownArgumentType]
            if shape in _SHAPES and all(abs(fields[name]) <= INTEGER_MAX for name in _INTEGERS):
                if orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) == raw:
                    return fields
            else:
                check_leaf(raw)
                _SHAPES.add(shape)
                return fields
    except ValueError:  # LeafError, and the errors of orjson
        pass
    return check_leaf(raw)


_SHAPES: Final = set[tuple[Any, ...]]()  # names and types of checked leaves: one entry for each combination of optional fields
_INTEGERS: Final = tuple(name for name, kind in REQUIRED.items() if kind is int)


def _agrees(directory: str, event: StoredEvent, leaf: Leaf) -> bool:
    """Whether `_differences` would find nothing. Written out for speed."""
    kind = BY_TOPIC.get(leaf["type"])
    if (
        kind is None
        or leaf["seq"] != event.seq
        or leaf["rv"] != event.rv
        or kind.number != event.type
        or leaf["dir"] != directory
    ):
        return False
    if leaf["obj"] != str(event.obj) or leaf.get("mem") != (None if event.mem is None else str(event.mem)):
        return False
    if event.ct is None:
        return "ct" not in leaf
    return event.wrapped is not None and leaf.get("ct") == hashlib.sha256(event.ct).hexdigest()


def _differences(directory: str, event: StoredEvent, leaf: Leaf, *, erased: bool) -> list[str]:
    """The columns that differ from the leaf. The body of an `erased` resource is missing by right."""
    kind = BY_TOPIC.get(leaf["type"])
    pairs = {
        "directory": (directory, leaf["dir"]),
        "seq": (event.seq, leaf["seq"]),
        "type": (event.type, kind.number if kind else None),
        "rv": (event.rv, leaf["rv"]),
        "obj": (str(event.obj), leaf["obj"]),
        "mem": (str(event.mem) if event.mem else None, leaf.get("mem")),
    }
    found = [f"column {name} is {column}, the leaf says {said}" for name, (column, said) in pairs.items() if column != said]
    if event.ct is not None and hashlib.sha256(event.ct).hexdigest() != leaf.get("ct"):
        found.append("the sealed body is not the one the leaf commits to")
    if "ct" in leaf and event.ct is None and not erased:
        found.append("its sealed body is missing, and no event says that it was erased")
    elif event.ct is not None and event.wrapped is None:
        found.append("the key of its sealed body is missing")
    return found
