"""Commands: one intended change each. What a command touches decides which others may share its batch (docs/architecture.md)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

from ledger.clocks import Clock
from ledger.events import ACTIVE, Draft
from scim.errors import PreconditionFailed, TooMany
from scim.patch import Patch
from scim.schema import GROUP, USER, ResourceType

EDGES_SHARED_MAX = 1_000  # a command with more edges runs in a transaction of its own
COMMIT_EVENTS_MAX = 200_000
UNKNOWN_ENOUGH = 10  # members that nobody has: a refusal names so many, and once there are more nothing further is looked up


Statement = tuple[LiteralString, tuple[Any, ...]]  # SQL of ours, and its parameters


@dataclass(frozen=True, slots=True)
class Tags:
    """The entity tags of a condition: representation versions, or any existing one (`*`)."""

    versions: frozenset[int] = frozenset()
    any: bool = False

    def name(self, etag_rv: int) -> bool:
        return self.any or etag_rv in self.versions


@dataclass(frozen=True, slots=True)
class Condition:
    """If-Match and If-None-Match of a write (RFC 9110 §13.1); None where the request has no such header."""

    match: Tags | None = None
    none_match: Tags | None = None

    def check(self, etag_rv: int) -> None:
        """Raises PreconditionFailed (412) unless the resource has a version that is wanted (RFC 7644 §3.14)."""
        if self.match is not None and not self.match.name(etag_rv):
            raise PreconditionFailed
        if self.none_match is not None and self.none_match.name(etag_rv):
            raise PreconditionFailed("If-None-Match: the resource exists in a version that is named there. Leave the header out.")


# Read once: a group may have 100 000. What cannot be an id stays the text that it is, to be named in the refusal.
MemberIds: TypeAlias = tuple[UUID | str, ...]


@dataclass(frozen=True, slots=True)
class CreateUser:
    id: UUID
    document: dict[str, Any]
    key: str  # folded userName


@dataclass(frozen=True, slots=True)
class ReplaceUser:
    id: UUID
    document: dict[str, Any]
    key: str
    condition: Condition | None = None
    kind: ResourceType = USER  # with the extensions of its directory


@dataclass(frozen=True, slots=True)
class PatchUser:
    id: UUID
    patch: Patch
    names: tuple[str, ...] = ()  # folded userNames the patch may set, so that uniqueness can be read beforehand
    condition: Condition | None = None
    kind: ResourceType = USER


@dataclass(frozen=True, slots=True)
class DeleteUser:
    id: UUID
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class CreateGroup:
    id: UUID
    document: dict[str, Any]
    key: str  # folded displayName
    members: MemberIds  # as submitted; must be ids of users or groups


@dataclass(frozen=True, slots=True)
class ReplaceGroup:
    id: UUID
    document: dict[str, Any]
    key: str
    members: MemberIds
    condition: Condition | None = None
    kind: ResourceType = GROUP


@dataclass(frozen=True, slots=True)
class PatchGroup:
    id: UUID
    patch: Patch
    condition: Condition | None = None
    kind: ResourceType = GROUP


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    id: UUID
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """An administrative act: events decided elsewhere, with the rows that belong to them, in one commit."""

    drafts: tuple[Draft, ...]
    statements: tuple[Statement, ...] = ()
    # Of an act that changes what a directory is: the states it leads out of, as they stand in the transaction. In any other it does
    # nothing, so that the same act twice, or at once from two sides, makes one event. Such an act is alone in its transaction.
    leaves: frozenset[str] = frozenset()
    # Of an act on something that was read before: a question that gives a row as long as it is still what was read. Asked in the
    # transaction; where it gives none, OvertakenError refuses the act. So the same act asked for twice at once happens once.
    stands: Statement | None = None
    accepts_clock: bool = False  # the same: it does nothing but where the clock is behind the directory's last event

    def counts(self, directory: str, clock: Clock) -> bool:
        """Whether there is something to do, as the directory stands."""
        return (not self.leaves or directory in self.leaves) and (not self.accepts_clock or clock == "behind")


@dataclass(frozen=True, slots=True)
class CleanUp:
    """A piece of what is left of a closed directory, to be taken away; with nothing of it left, `last` ends the log."""

    directory: UUID
    slug: str
    memberships: tuple[tuple[UUID, UUID, str], ...] = ()  # (group, member, type of the member)
    users: tuple[UUID, ...] = ()
    groups: tuple[UUID, ...] = ()
    last: bool = False


Command = (
    CreateUser
    | ReplaceUser
    | PatchUser
    | DeleteUser
    | CreateGroup
    | ReplaceGroup
    | PatchGroup
    | DeleteGroup
    | RecordFacts
    | CleanUp
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a command must see before it is decided, and what it may not share a batch with.

    `reads` and `writes` are touch keys: two commands conflict when one writes what the other reads or writes. A command that
    is `whole` shares a batch with none of its directory: keys of its members, which may be 100 000, would be for nothing.
    """

    names: tuple[str, ...] = ()
    user: UUID | None = None
    group: UUID | None = None
    document: bool = True  # whether the group's attributes are needed, or only its tail
    edges: tuple[UUID, ...] = ()  # members whose edge with `group` is decided
    members: tuple[UUID, ...] = ()  # ids that must exist
    whole: bool = False  # all edges of the resource: it fans out and runs in a transaction of its own
    heavy: bool = False  # its documents are large: it runs so too, in a worker thread, without the edges
    reads: frozenset[object] = frozenset()
    writes: frozenset[object] = frozenset()

    @property
    def alone(self) -> bool:
        """Whether it runs in a transaction of its own, beside those that others share."""
        return self.whole or self.heavy


def of_the_idp(command: Command) -> bool:
    """Whether an IdP asked for it; the rest is what operators and the ledger itself do, which is never held up."""
    return not isinstance(command, RecordFacts | CleanUp)


def parse_id(text: str) -> UUID | None:
    """Give the id of a resource, or None where the text cannot be one of ours."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def as_members(texts: Iterable[str]) -> MemberIds:
    """The members of a group as a command has them."""
    return tuple(parse_id(text) or text for text in texts)


def _known(members: MemberIds) -> tuple[UUID, ...]:
    return tuple(member for member in members if isinstance(member, UUID))


def _ids(texts: tuple[str, ...]) -> tuple[UUID, ...]:
    return tuple(found for found in map(parse_id, texts) if found is not None)


def too_many_events(events: int) -> TooMany:
    """What a change is refused with that would make more than COMMIT_EVENTS_MAX."""
    return TooMany(f"This change would make {events} events; at most {COMMIT_EVENTS_MAX} fit in one. Split it.")


def needs_of(command: Command) -> Needs:
    """Say what a command needs; pure, so that batching is decided before any IO.

    Raises TooMany for a new group whose members are more than the events of a commit, whoever they are.
    """
    match command:
        case CreateUser():
            return Needs(names=(command.key,), writes=frozenset({("name", command.key)}))
        case ReplaceUser() | PatchUser():
            names = (command.key,) if isinstance(command, ReplaceUser) else command.names
            writes = {("user", command.id), *(("name", name) for name in names)}
            return Needs(names=names, user=command.id, writes=frozenset(writes))
        case DeleteUser():
            return Needs(user=command.id, writes=frozenset({("user", command.id)}))
        case CreateGroup():
            members = _known(command.members)
            if len(command.members) >= COMMIT_EVENTS_MAX and (events := 1 + len(set(command.members))) > COMMIT_EVENTS_MAX:
                raise too_many_events(events)
            whole = len(members) > EDGES_SHARED_MAX
            return Needs(members=members, whole=whole, reads=frozenset() if whole else frozenset(("user", m) for m in members))
        case ReplaceGroup():
            return Needs(group=command.id, members=_known(command.members), whole=True, writes=frozenset({("group", command.id)}))
        case DeleteGroup():
            return Needs(group=command.id, whole=True, writes=frozenset({("group", command.id)}))
        case PatchGroup():
            return _group_patch_needs(command)
        case CleanUp():
            return Needs(whole=True)
        case _:
            # What is decided with a directory's state must see what the commands before it made of it, and they not its own.
            return Needs(whole=bool(command.leaves) or command.accepts_clock or command.stands is not None)


def _group_patch_needs(command: PatchGroup) -> Needs:
    added: list[str] = []
    touched: list[str] = []
    whole = False
    for operation in command.patch.member_operations:
        ids = [member for member, _ in operation.members]
        touched += ids
        if operation.kind == "add":
            added += ids
        whole = whole or operation.kind in {"clear", "remove_where"}
    edges = tuple(dict.fromkeys(_ids(tuple(touched))))
    whole = whole or len(edges) > EDGES_SHARED_MAX
    keyed = () if whole else edges
    writes: set[object] = {("edge", command.id, member) for member in keyed}
    reads: set[object] = {("user", member) for member in keyed}
    (writes if whole or command.patch.operations else reads).add(("group", command.id))
    return Needs(
        group=command.id, document=bool(command.patch.operations), edges=edges, members=_ids(tuple(added)), whole=whole,
        reads=frozenset(reads), writes=frozenset(writes),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UserState:
    """A user as the decisions see it. `groups` is None until all its memberships were loaded; `document` is empty where it is damaged."""

    id: UUID
    document: dict[str, Any]
    active: bool
    key: str
    rv: int
    etag_rv: int
    created_at: int
    updated_at: int
    in_groups: bool
    groups: tuple[UUID, ...] | None = None


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group as the decisions see it; `document` is empty where only edges are decided, or it is damaged."""

    id: UUID
    document: dict[str, Any]
    etag_rv: int
    created_at: int
    updated_at: int
    members: Mapping[UUID, str] | None = None  # all members with their type, when loaded
    parents: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Last:
    """The last state of a resource of a closed directory; `document` is None where its body or key is gone or damaged."""

    document: dict[str, Any] | None
    key: str = ""


@dataclass(slots=True)
class DirectoryState:
    """What the decisions of one directory's commands in a batch look at."""

    directory: str = ACTIVE  # what it is: active, paused, closed, deleted
    clock: Clock = "running"  # what its events take their time from

    users: dict[UUID, UserState] = field(default_factory=dict[UUID, UserState])
    groups: dict[UUID, GroupState] = field(default_factory=dict[UUID, GroupState])
    edges: set[tuple[UUID, UUID]] = field(default_factory=set[tuple[UUID, UUID]])  # (group, member) that are open
    members: dict[UUID, tuple[str, bool]] = field(default_factory=dict[UUID, tuple[str, bool]])  # id -> (type, active)
    names: dict[str, UUID] = field(default_factory=dict[str, UUID])  # folded userName -> the user that has it
    tails: dict[UUID, tuple[int, int]] = field(default_factory=dict[UUID, tuple[int, int]])  # obj -> (rv, etag_rv)
    cut: bool = False  # of very many members not all were looked up: more than UNKNOWN_ENOUGH of the first are nobody
    stands: bool = True  # of an act, which is alone: whether what it was decided upon is still so
    left: dict[UUID, Last] = field(default_factory=dict[UUID, Last])  # of a closed directory, those that a piece asks for
