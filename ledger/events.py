"""The event types and the two shapes an event has inside the process. Stored bytes are in leaf.py and sealing.py."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any, Final, NamedTuple
from uuid import UUID

from ledger.event_data import (
    ClientCreated,
    ClientRevoked,
    ClientRotated,
    ClockAccepted,
    ConsumerAct,
    ConsumerCreated,
    ConsumerForked,
    ConsumerSought,
    ConsumerUpdated,
    DeliveryAct,
    DeliveryBlocked,
    DirectoryAct,
    DirectoryFacts,
    DirectoryWithProfile,
    ForkClosed,
    HoldPlaced,
    HoldReleased,
    KeyEpochFacts,
    KeyRewrapped,
    RateLimitChanged,
    ReplayFailed,
    ReplayProgress,
    ReplayStarted,
    SchemaRegistered,
    SecretRotated,
    SurgeDetected,
    SurgeLimited,
    SurgeReleased,
    TokenBound,
    TokenExpiring,
    TokenIssued,
    TokenRevoked,
    TokenRotated,
)
from ledger.ids import DirectoryNumber, Seq

USER, GROUP, DIRECTORY, TOKEN = "User", "Group", "Directory", "Token"
CLIENT, CONSUMER, HOLD, KEY, REPLAY, SURGE = "Client", "Consumer", "Hold", "Key", "Replay", "Surge"
MEMBER_TYPES: Final = {USER: 0, GROUP: 1}  # memberships.mt and states.ot
MEMBER_TYPE_NAMES: Final = {number: name for name, number in MEMBER_TYPES.items()}


class Fact(Flag):
    """Facts about an event type. Delivery order, the surge brake, replays and `replay verify` depend on them."""

    MEMBERSHIP = auto()  # about group `obj` and member `mem`
    DERIVED = auto()  # follows from another event of the commit; does not move the resource's ETag
    # created, deactivated, reactivated, deleted or erased: later membership events of the resource wait for it
    LIFECYCLE = auto()
    ENDS_RESOURCE = auto()  # the last event of its resource, except for an erasure
    GRANTS_ACCESS = auto()  # gives somebody access
    ENDS_ALL_ACCESS = auto()  # of one user, or of all users of a directory
    ENDS_SOME_ACCESS = auto()  # of a user through one group
    REVOCATION = auto()  # `revocation_seconds` measures the time until consumers acknowledge it
    SURGE = auto()  # the surge brake counts its users
    BY_OPERATOR = auto()  # about a user or group, but caused by an operator, never by the IdP


class Effect(Enum):
    """The effect of an event type on the tables of current state."""

    NOTHING = auto()
    CHANGES = auto()  # creates its resource or changes its attributes
    ENDS = auto()  # deletes its resource
    ADDS_MEMBER = auto()
    REMOVES_MEMBER = auto()
    MOVES_DIRECTORY = auto()  # changes the state of the directory


NO_FACT: Final = Fact(0)


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event. `topic` and `number` are stored for ever; `subject` is the type of the resource that the event is about.

    A new event type is defined only here. All code that depends on its meaning uses `effect` and `facts`, which have no default.
    `about` is the type of `data.object` (event_data.py), for the published schemas; users and groups have theirs by their subject.
    """

    topic: str
    number: int  # events.type, and the bit of commits.types: below 63
    subject: str
    effect: Effect
    facts: Fact
    about: type | None = None
    version: int = 1  # incremented together with an upcaster in eventsourcing_recorder.py
    bit: int = field(init=False)
    membership: bool = field(init=False)  # computed once, because it is read for each event of a commit

    def __post_init__(self) -> None:
        object.__setattr__(self, "bit", 1 << self.number)
        object.__setattr__(self, "membership", Fact.MEMBERSHIP in self.facts)


USER_CREATED = EventType("user.created", 0, USER, Effect.CHANGES, Fact.LIFECYCLE | Fact.GRANTS_ACCESS)
USER_UPDATED = EventType("user.updated", 1, USER, Effect.CHANGES, NO_FACT)
USER_DEACTIVATED = EventType(
    "user.deactivated", 2, USER, Effect.CHANGES, Fact.LIFECYCLE | Fact.ENDS_ALL_ACCESS | Fact.REVOCATION | Fact.SURGE
)
USER_REACTIVATED = EventType("user.reactivated", 3, USER, Effect.CHANGES, Fact.LIFECYCLE | Fact.GRANTS_ACCESS)
USER_DELETED = EventType(
    "user.deleted",
    4,
    USER,
    Effect.ENDS,
    Fact.LIFECYCLE | Fact.ENDS_RESOURCE | Fact.ENDS_ALL_ACCESS | Fact.REVOCATION | Fact.SURGE,
)
USER_ERASED = EventType(
    "user.erased", 5, USER, Effect.NOTHING, Fact.LIFECYCLE | Fact.ENDS_RESOURCE | Fact.ENDS_ALL_ACCESS | Fact.BY_OPERATOR
)
GROUP_CREATED = EventType("group.created", 6, GROUP, Effect.CHANGES, Fact.LIFECYCLE)
GROUP_UPDATED = EventType("group.updated", 7, GROUP, Effect.CHANGES, NO_FACT)
GROUP_DELETED = EventType("group.deleted", 8, GROUP, Effect.ENDS, Fact.LIFECYCLE | Fact.ENDS_RESOURCE | Fact.ENDS_SOME_ACCESS)
GROUP_ERASED = EventType("group.erased", 9, GROUP, Effect.NOTHING, Fact.LIFECYCLE | Fact.ENDS_RESOURCE | Fact.BY_OPERATOR)
MEMBER_ADDED = EventType("group.member_added", 10, GROUP, Effect.ADDS_MEMBER, Fact.MEMBERSHIP | Fact.GRANTS_ACCESS)
MEMBER_REMOVED = EventType(
    "group.member_removed", 11, GROUP, Effect.REMOVES_MEMBER, Fact.MEMBERSHIP | Fact.ENDS_SOME_ACCESS | Fact.SURGE
)
ACCESS_REVOKED = EventType(
    "group.member_access_revoked", 12, GROUP, Effect.NOTHING, Fact.MEMBERSHIP | Fact.DERIVED | Fact.ENDS_SOME_ACCESS | Fact.SURGE
)
ACCESS_RESTORED = EventType(
    "group.member_access_restored", 13, GROUP, Effect.NOTHING, Fact.MEMBERSHIP | Fact.DERIVED | Fact.GRANTS_ACCESS
)
DIRECTORY_CREATED = EventType("directory.created", 14, DIRECTORY, Effect.NOTHING, NO_FACT, DirectoryWithProfile)
DIRECTORY_PROFILE_CHANGED = EventType("directory.profile_changed", 15, DIRECTORY, Effect.NOTHING, NO_FACT, DirectoryWithProfile)
DIRECTORY_CLOSED = EventType(
    "directory.closed", 16, DIRECTORY, Effect.MOVES_DIRECTORY, Fact.ENDS_ALL_ACCESS | Fact.REVOCATION, DirectoryAct
)
DIRECTORY_DELETED = EventType("directory.deleted", 17, DIRECTORY, Effect.MOVES_DIRECTORY, NO_FACT, DirectoryFacts)
TOKEN_ISSUED = EventType("token.issued", 18, TOKEN, Effect.NOTHING, NO_FACT, TokenIssued)
TOKEN_ROTATED = EventType("token.rotated", 19, TOKEN, Effect.NOTHING, NO_FACT, TokenRotated)
TOKEN_REVOKED = EventType("token.revoked", 20, TOKEN, Effect.NOTHING, NO_FACT, TokenRevoked)
CONSUMER_CREATED = EventType("consumer.created", 21, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerCreated)
CONSUMER_UPDATED = EventType("consumer.updated", 22, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerUpdated)
CONSUMER_DELETED = EventType("consumer.deleted", 23, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerAct)
CONSUMER_PAUSED = EventType("consumer.paused", 24, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerAct)
CONSUMER_RESUMED = EventType("consumer.resumed", 25, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerAct)
CONSUMER_DISABLED = EventType("consumer.disabled", 26, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerAct)
CONSUMER_SOUGHT = EventType("consumer.sought", 27, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerSought)
CONSUMER_SECRET_ROTATED = EventType("consumer.secret_rotated", 28, CONSUMER, Effect.NOTHING, NO_FACT, SecretRotated)
DELIVERY_BLOCKED = EventType("delivery.blocked", 29, CONSUMER, Effect.NOTHING, NO_FACT, DeliveryBlocked)
DELIVERY_RETRIED = EventType("delivery.retried", 30, CONSUMER, Effect.NOTHING, NO_FACT, DeliveryAct)
DELIVERY_PARKED = EventType("delivery.parked", 31, CONSUMER, Effect.NOTHING, NO_FACT, DeliveryAct)
DELIVERY_SKIPPED = EventType("delivery.skipped", 32, CONSUMER, Effect.NOTHING, NO_FACT, DeliveryAct)
REPLAY_STARTED = EventType("replay.started", 33, REPLAY, Effect.NOTHING, NO_FACT, ReplayStarted)
REPLAY_PAUSED = EventType("replay.paused", 34, REPLAY, Effect.NOTHING, NO_FACT, ReplayProgress)
REPLAY_RESUMED = EventType("replay.resumed", 35, REPLAY, Effect.NOTHING, NO_FACT, ReplayProgress)
REPLAY_CANCELLED = EventType("replay.cancelled", 36, REPLAY, Effect.NOTHING, NO_FACT, ReplayProgress)
REPLAY_FINISHED = EventType("replay.finished", 37, REPLAY, Effect.NOTHING, NO_FACT, ReplayProgress)
DIRECTORY_SURGE_LIMITED = EventType("directory.surge_limited", 38, SURGE, Effect.NOTHING, NO_FACT, SurgeLimited)
DIRECTORY_SURGE_DETECTED = EventType("directory.surge_detected", 39, SURGE, Effect.NOTHING, NO_FACT, SurgeDetected)
DIRECTORY_SURGE_RELEASED = EventType("directory.surge_released", 40, SURGE, Effect.NOTHING, NO_FACT, SurgeReleased)
DIRECTORY_PAUSED = EventType("directory.paused", 41, DIRECTORY, Effect.MOVES_DIRECTORY, NO_FACT, DirectoryAct)
DIRECTORY_RESUMED = EventType("directory.resumed", 42, DIRECTORY, Effect.MOVES_DIRECTORY, NO_FACT, DirectoryAct)
TOKEN_BOUND = EventType("token.bound", 43, TOKEN, Effect.NOTHING, NO_FACT, TokenBound)
TOKEN_EXPIRING = EventType("token.expiring", 56, TOKEN, Effect.NOTHING, NO_FACT, TokenExpiring)
CONSUMER_FORKED = EventType("consumer.forked", 44, CONSUMER, Effect.NOTHING, NO_FACT, ConsumerForked)
CONSUMER_FORK_CLOSED = EventType("consumer.fork_closed", 45, CONSUMER, Effect.NOTHING, NO_FACT, ForkClosed)
REPLAY_FAILED = EventType("replay.failed", 46, REPLAY, Effect.NOTHING, NO_FACT, ReplayFailed)
DIRECTORY_CLOCK_ACCEPTED = EventType("directory.clock_accepted", 50, DIRECTORY, Effect.NOTHING, NO_FACT, ClockAccepted)
DIRECTORY_SCHEMA_REGISTERED = EventType("directory.schema_registered", 51, DIRECTORY, Effect.NOTHING, NO_FACT, SchemaRegistered)
DIRECTORY_RATE_LIMIT_CHANGED = EventType("directory.rate_limit_changed", 57, DIRECTORY, Effect.NOTHING, NO_FACT, RateLimitChanged)
CLIENT_CREATED = EventType("client.created", 53, CLIENT, Effect.NOTHING, NO_FACT, ClientCreated)
CLIENT_ROTATED = EventType("client.rotated", 54, CLIENT, Effect.NOTHING, NO_FACT, ClientRotated)
CLIENT_REVOKED = EventType("client.revoked", 55, CLIENT, Effect.NOTHING, NO_FACT, ClientRevoked)
KEY_ROTATED = EventType("key.rotated", 58, KEY, Effect.NOTHING, NO_FACT, KeyEpochFacts)
KEY_REWRAPPED = EventType("key.rewrapped", 59, KEY, Effect.NOTHING, NO_FACT, KeyRewrapped)
KEY_DESTROYED = EventType("key.destroyed", 62, KEY, Effect.NOTHING, NO_FACT, KeyEpochFacts)
HOLD_PLACED = EventType("hold.placed", 60, HOLD, Effect.NOTHING, NO_FACT, HoldPlaced)
HOLD_RELEASED = EventType("hold.released", 61, HOLD, Effect.NOTHING, NO_FACT, HoldReleased)

EVENT_TYPES: Final = tuple(
    sorted((kind for kind in list(vars().values()) if isinstance(kind, EventType)), key=lambda kind: kind.number)
)
BY_TOPIC: Final = {kind.topic: kind for kind in EVENT_TYPES}
BY_NUMBER: Final = {kind.number: kind for kind in EVENT_TYPES}


def numbers(fact: Fact) -> frozenset[int]:
    """The numbers of the event types that have a fact."""
    return frozenset(kind.number for kind in EVENT_TYPES if fact in kind.facts)


ERASURES: Final = (USER_ERASED.number, GROUP_ERASED.number)


def bits(fact: Fact) -> int:
    """The event types that have a fact, as bits of commits.types."""
    return sum(kind.bit for kind in EVENT_TYPES if fact in kind.facts)


# What `types` may name: each event type, each family, everything.
TYPE_PATTERNS: Final = ("*", *dict.fromkeys(f"{kind.topic.split('.')[0]}.*" for kind in EVENT_TYPES), *BY_TOPIC)


def type_mask(patterns: Iterable[str]) -> int | None:
    """Turn patterns such as `user.*`, `group.created` or `*` into bits of commits.types; None if a pattern matches no event type."""
    mask = 0
    for pattern in patterns:
        if pattern == "*":
            found = -1
        elif pattern.endswith(".*"):
            found = sum(kind.bit for kind in EVENT_TYPES if kind.topic.startswith(pattern[:-1]))
        else:
            found = BY_TOPIC[pattern].bit if pattern in BY_TOPIC else 0
        if not found:
            return None
        mask |= found
    return mask


# Values of `cause`, why an event happened (docs/events.md, "One event").
IDP: Final = "idp"
USER_WAS_DEACTIVATED: Final = "user_deactivated"
USER_WAS_REACTIVATED: Final = "user_reactivated"
USER_WAS_DELETED: Final = "user_deleted"
GROUP_WAS_DELETED: Final = "group_deleted"
DIRECTORY_WAS_CLOSED: Final = "directory_closed"
USER_WAS_ERASED: Final = "user_erased"
OPERATOR: Final = "operator"
CAUSES: Final = (
    IDP, USER_WAS_DEACTIVATED, USER_WAS_REACTIVATED, USER_WAS_DELETED, GROUP_WAS_DELETED, DIRECTORY_WAS_CLOSED, USER_WAS_ERASED, OPERATOR,
)  # fmt: skip

# directory_states.state. Closed: all access has ended and the clean-up is running. Deleted: the clean-up is finished.
ACTIVE: Final = "active"
PAUSED: Final = "paused"
CLOSED: Final = "closed"
DELETED: Final = "deleted"
DIRECTORY_STATES: Final = (ACTIVE, PAUSED, CLOSED, DELETED)


class Body(NamedTuple):
    """The attributes of an event, sealed and stored apart from the leaf."""

    object: dict[str, Any]
    changes: list[dict[str, Any]]
    key: str = ""  # casefolded userName or displayName
    user: dict[str, Any] | None = None  # user events: the user mapped by the profile, the same for every IdP


class Draft(NamedTuple):
    """A decided event without numbers and time."""

    kind: EventType
    obj: UUID
    ot: str
    cause: str = IDP
    mem: UUID | None = None
    mt: str | None = None
    eff: bool | None = None
    active: bool | None = None
    body: Body | None = None
    moves_etag: bool = True


class Macs(NamedTuple):
    """HMACs of a resource's searchable values, 16 bytes each: what look-ups compare (docs/concepts.md, "Personal data")."""

    name: bytes  # userName of a user, displayName of a group
    external_id: bytes | None = None
    display_name: bytes | None = None
    emails: tuple[bytes, ...] = ()


class Recorded(NamedTuple):
    """A numbered event as the read models see it: structure and HMACs, no attributes."""

    directory: DirectoryNumber
    seq: Seq
    kind: EventType
    obj: UUID
    rv: int
    etag_rv: int
    at: int  # µs since the epoch
    mem: UUID | None = None
    mt: str | None = None
    active: bool | None = None
    macs: Macs | None = None


class Stored(NamedTuple):
    """The rows of one event in the tables of the log."""

    recorded: Recorded
    leaf: bytes
    leaf_hash: bytes
    ct: bytes | None = None
