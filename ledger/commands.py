"""Commands: one intended change each. What a command touches decides which others may share its batch (docs/architecture.md)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, NamedTuple, TypeAlias
from uuid import UUID

from ledger.clocks import Clock
from ledger.events import ACTIVE, Draft
from scim.errors import PreconditionFailed, TooMany
from scim.patch import Patch
from scim.schema import GROUP, USER, ResourceType

EDGES_SHARED_MAX = 1_000  # a command with more edges runs in a transaction of its own
COMMIT_EVENTS_MAX = 200_000
UNKNOWN_ENOUGH = 10  # unknown members that a refusal names; once more were found, the rest is not looked up


Statement = tuple[LiteralString, tuple[Any, ...]]  # SQL text and its parameters


@dataclass(frozen=True, slots=True)
class Tags:
    """The entity tags of a condition: representation versions, or `*` for any existing resource."""

    versions: frozenset[int] = frozenset()
    any: bool = False

    def name(self, etag_rv: int) -> bool:
        return self.any or etag_rv in self.versions


@dataclass(frozen=True, slots=True)
class Condition:
    """If-Match and If-None-Match of a write (RFC 9110 §13.1); None if the request lacks the header."""

    match: Tags | None = None
    none_match: Tags | None = None

    def check(self, etag_rv: int) -> None:
        """Raises PreconditionFailed (412) if the resource's version does not satisfy the condition (RFC 7644 §3.14)."""
        if self.match is not None and not self.match.name(etag_rv):
            raise PreconditionFailed
        if self.none_match is not None and self.none_match.name(etag_rv):
            raise PreconditionFailed("If-None-Match: the resource exists in a version that is named there. Leave the header out.")


# Parsed once, because a group may have 100 000. A text that cannot be an id stays text, so that the refusal can name it.
MemberIds: TypeAlias = tuple[UUID | str, ...]


@dataclass(frozen=True, slots=True)
class CreateUser:
    id: UUID
    document: dict[str, Any]
    key: str  # casefolded userName


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
    names: tuple[str, ...] = ()  # casefolded userNames that the PATCH may set, to read beforehand who has them
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
    key: str  # casefolded displayName
    members: MemberIds  # as submitted; every one must be the id of a user or group


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
    # For an act that changes the directory's state: the states in which it applies, checked in the transaction. In any other state it
    # is refused with OvertakenError, and decided again. Such an act has a transaction of its own.
    leaves: frozenset[str] = frozenset()
    # For an act on a row that was read before: a query that returns a row if nothing has changed since. It runs in the transaction;
    # if it returns no row, the act is refused with OvertakenError. So of two equal concurrent requests one is carried out.
    stands: Statement | None = None
    subject: UUID | None = None  # the user or group whose holds it changes: locked before `stands` is asked
    accepts_clock: bool = False  # it applies only while the clock is behind the directory's last event

    def counts(self, directory: str, clock: Clock) -> bool:
        """Whether the act applies in this state of the directory and its clock."""
        return (not self.leaves or directory in self.leaves) and (not self.accepts_clock or clock == "behind")


@dataclass(frozen=True, slots=True)
class CleanUp:
    """One piece of the clean-up of a closed directory. `last`: nothing else is left, so the log ends with `directory.deleted`."""

    directory: UUID
    slug: str
    memberships: tuple[tuple[UUID, UUID, str], ...] = ()  # (group, member, type of the member)
    users: tuple[UUID, ...] = ()
    groups: tuple[UUID, ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True)
class Erase:
    """The erasure of a user or group: its bodies and its key are deleted in the commit. One that lives is deleted by the same commit.

    `over_holds`: of an erasure that is done again after a restore, which also lost the release of a hold.
    """

    subject: UUID
    ot: str
    erasure: UUID
    sealed_reason: bytes | None = None
    over_holds: bool = False


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
    | Erase
)


class Needs(NamedTuple):
    """What must be read before a command is decided, and with which commands it conflicts.

    `reads` and `writes` are touch keys: two commands conflict if one writes a key that the other reads or writes. A `whole` command
    shares no batch with others of its directory, so no keys are made of its members, which may be 100 000.
    """

    names: tuple[str, ...] = ()
    user: UUID | None = None
    group: UUID | None = None
    document: bool = True  # whether the group's attributes are needed, or only its rv and etag_rv
    edges: tuple[UUID, ...] = ()  # members whose membership in `group` may change
    members: tuple[UUID, ...] = ()  # ids that must be a user or group
    whole: bool = False  # all memberships of the resource are needed: the command runs in its own transaction
    heavy: bool = False  # its documents are large: the same, in a worker thread, but without the memberships
    reads: frozenset[object] = frozenset()
    writes: frozenset[object] = frozenset()

    @property
    def alone(self) -> bool:
        """Whether the command needs its own transaction, beside the one that others share."""
        return self.whole or self.heavy


def of_the_idp(command: Command) -> bool:
    """Whether the command came from an IdP. Commands of operators and of the ledger itself are not held up by pauses or clocks."""
    return not isinstance(command, RecordFacts | CleanUp | Erase)


def parse_id(text: str) -> UUID | None:
    """Parse the id of a resource; None if the text cannot be one."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def as_members(texts: Iterable[str]) -> MemberIds:
    """The members of a group in the form that commands hold."""
    return tuple(parse_id(text) or text for text in texts)


def _known(members: MemberIds) -> tuple[UUID, ...]:
    return tuple(member for member in members if isinstance(member, UUID))


def _ids(texts: tuple[str, ...]) -> tuple[UUID, ...]:
    return tuple(found for found in map(parse_id, texts) if found is not None)


def too_many_events(events: int) -> TooMany:
    """The error for a change that would make more than COMMIT_EVENTS_MAX events."""
    return TooMany(f"This change would make {events} events; at most {COMMIT_EVENTS_MAX} fit in one. Split it.")


def needs_of(command: Command) -> Needs:
    """Derive what a command needs. Pure, so that the batch is chosen before any IO.

    Raises TooMany for a new group with more members than a commit may have events.
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
        case Erase():
            # A user's erasures share batches: whoever adds the user to a group reads the same key.
            return Needs(whole=command.ot != USER.name, writes=frozenset({("user", command.subject)}))
        case CleanUp():
            return Needs(whole=True)
        case _:
            # A command that depends on the directory's state must see the effect of earlier commands, and they must not see its own.
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
    """A user as the decisions see it. `groups` is None if its memberships were not loaded; `document` is empty if it is damaged."""

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
    """A group as the decisions see it. `document` is empty if only memberships change, or if it is damaged."""

    id: UUID
    document: dict[str, Any]
    etag_rv: int
    created_at: int
    updated_at: int
    members: Mapping[UUID, str] | None = None  # all members with their type, when loaded
    parents: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Last:
    """The last state of a resource of a closed directory; `document` is None if its body or key is missing or damaged."""

    document: dict[str, Any] | None
    key: str = ""


class Erasable(NamedTuple):
    """A user or group as its erasure sees it. `hold`: the first open legal hold. `counts`: what the erasure deletes, and what stays."""

    ot: str
    living: bool
    active: bool
    erased: bool
    hold: UUID | None
    counts: Mapping[str, int]
    groups: tuple[UUID, ...] = ()  # that it is a member of
    members: tuple[UUID, ...] = ()  # of a group


@dataclass(slots=True)
class DirectoryState:
    """The state of a directory that a batch's commands are decided on: only what these commands need."""

    directory: str = ACTIVE  # active, paused, closed or deleted
    clock: Clock = "running"  # where its events get their time from

    users: dict[UUID, UserState] = field(default_factory=dict[UUID, UserState])
    groups: dict[UUID, GroupState] = field(default_factory=dict[UUID, GroupState])
    edges: set[tuple[UUID, UUID]] = field(default_factory=set[tuple[UUID, UUID]])  # (group, member) that are open
    members: dict[UUID, tuple[str, bool]] = field(default_factory=dict[UUID, tuple[str, bool]])  # id -> (type, active)
    names: dict[str, UUID] = field(default_factory=dict[str, UUID])  # casefolded userName -> the user that has it
    tails: dict[UUID, tuple[int, int]] = field(default_factory=dict[UUID, tuple[int, int]])  # obj -> (rv, etag_rv)
    cut: bool = False  # not all members were looked up, because more than UNKNOWN_ENOUGH of the first are unknown
    stands: bool = True  # of an act: whether its `stands` query returned a row
    # of a closed directory: the resources that a clean-up piece deletes
    left: dict[UUID, Last] = field(default_factory=dict[UUID, Last])
    erasable: dict[UUID, Erasable] = field(default_factory=dict[UUID, Erasable])
