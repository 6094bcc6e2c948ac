"""The event types and the two shapes an event has inside the process. Stored bytes are in leaf.py and sealing.py."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

USER, GROUP, DIRECTORY, TOKEN = "User", "Group", "Directory", "Token"
CONSUMER, REPLAY, SURGE = "Consumer", "Replay", "Surge"
MEMBER_TYPES: Final = {USER: 0, GROUP: 1}  # memberships.mt and states.ot
MEMBER_TYPE_NAMES: Final = {number: name for name, number in MEMBER_TYPES.items()}


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event. `topic` and `number` are stored for ever; `version` grows with an upcaster in records.py."""

    topic: str
    number: int  # events.type, and the bit of commits.types
    version: int = 1
    membership: bool = False

    @property
    def bit(self) -> int:
        return 1 << self.number


USER_CREATED = EventType("user.created", 0)
USER_UPDATED = EventType("user.updated", 1)
USER_DEACTIVATED = EventType("user.deactivated", 2)
USER_REACTIVATED = EventType("user.reactivated", 3)
USER_DELETED = EventType("user.deleted", 4)
USER_ERASED = EventType("user.erased", 5)
GROUP_CREATED = EventType("group.created", 6)
GROUP_UPDATED = EventType("group.updated", 7)
GROUP_DELETED = EventType("group.deleted", 8)
GROUP_ERASED = EventType("group.erased", 9)
MEMBER_ADDED = EventType("group.member_added", 10, membership=True)
MEMBER_REMOVED = EventType("group.member_removed", 11, membership=True)
ACCESS_REVOKED = EventType("group.member_access_revoked", 12, membership=True)
ACCESS_RESTORED = EventType("group.member_access_restored", 13, membership=True)
DIRECTORY_CREATED = EventType("directory.created", 14)
DIRECTORY_PROFILE_CHANGED = EventType("directory.profile_changed", 15)
DIRECTORY_CLOSED = EventType("directory.closed", 16)
DIRECTORY_DELETED = EventType("directory.deleted", 17)
TOKEN_ISSUED = EventType("token.issued", 18)
TOKEN_ROTATED = EventType("token.rotated", 19)
TOKEN_REVOKED = EventType("token.revoked", 20)
CONSUMER_CREATED = EventType("consumer.created", 21)
CONSUMER_UPDATED = EventType("consumer.updated", 22)
CONSUMER_DELETED = EventType("consumer.deleted", 23)
CONSUMER_PAUSED = EventType("consumer.paused", 24)
CONSUMER_RESUMED = EventType("consumer.resumed", 25)
CONSUMER_DISABLED = EventType("consumer.disabled", 26)
CONSUMER_SOUGHT = EventType("consumer.sought", 27)
CONSUMER_SECRET_ROTATED = EventType("consumer.secret_rotated", 28)
DELIVERY_BLOCKED = EventType("delivery.blocked", 29)
DELIVERY_RETRIED = EventType("delivery.retried", 30)
DELIVERY_PARKED = EventType("delivery.parked", 31)
DELIVERY_SKIPPED = EventType("delivery.skipped", 32)
REPLAY_STARTED = EventType("replay.started", 33)
REPLAY_PAUSED = EventType("replay.paused", 34)
REPLAY_RESUMED = EventType("replay.resumed", 35)
REPLAY_CANCELLED = EventType("replay.cancelled", 36)
REPLAY_FINISHED = EventType("replay.finished", 37)
DIRECTORY_SURGE_LIMITED = EventType("directory.surge_limited", 38)
DIRECTORY_SURGE_DETECTED = EventType("directory.surge_detected", 39)
DIRECTORY_SURGE_RELEASED = EventType("directory.surge_released", 40)
DIRECTORY_PAUSED = EventType("directory.paused", 41)
DIRECTORY_RESUMED = EventType("directory.resumed", 42)
TOKEN_BOUND = EventType("token.bound", 43)
CONSUMER_FORKED = EventType("consumer.forked", 44)
CONSUMER_FORK_CLOSED = EventType("consumer.fork_closed", 45)
REPLAY_FAILED = EventType("replay.failed", 46)
DIRECTORY_CLOCK_ACCEPTED = EventType("directory.clock_accepted", 50)

EVENT_TYPES: Final = (
    USER_CREATED, USER_UPDATED, USER_DEACTIVATED, USER_REACTIVATED, USER_DELETED, USER_ERASED,
    GROUP_CREATED, GROUP_UPDATED, GROUP_DELETED, GROUP_ERASED,
    MEMBER_ADDED, MEMBER_REMOVED, ACCESS_REVOKED, ACCESS_RESTORED,
    DIRECTORY_CREATED, DIRECTORY_PROFILE_CHANGED, DIRECTORY_CLOSED, DIRECTORY_DELETED,
    TOKEN_ISSUED, TOKEN_ROTATED, TOKEN_REVOKED,
    CONSUMER_CREATED, CONSUMER_UPDATED, CONSUMER_DELETED, CONSUMER_PAUSED, CONSUMER_RESUMED, CONSUMER_DISABLED, CONSUMER_SOUGHT,
    CONSUMER_SECRET_ROTATED, DELIVERY_BLOCKED, DELIVERY_RETRIED, DELIVERY_PARKED, DELIVERY_SKIPPED,
    REPLAY_STARTED, REPLAY_PAUSED, REPLAY_RESUMED, REPLAY_CANCELLED, REPLAY_FINISHED,
    DIRECTORY_SURGE_LIMITED, DIRECTORY_SURGE_DETECTED, DIRECTORY_SURGE_RELEASED,
    DIRECTORY_PAUSED, DIRECTORY_RESUMED, TOKEN_BOUND,
    CONSUMER_FORKED, CONSUMER_FORK_CLOSED, REPLAY_FAILED, DIRECTORY_CLOCK_ACCEPTED,
)  # fmt: skip
BY_TOPIC: Final = {kind.topic: kind for kind in EVENT_TYPES}
BY_NUMBER: Final = {kind.number: kind for kind in EVENT_TYPES}

# Why an event happened (CONTRACT §4).
IDP: Final = "idp"
USER_WAS_DEACTIVATED: Final = "user_deactivated"
USER_WAS_REACTIVATED: Final = "user_reactivated"
USER_WAS_DELETED: Final = "user_deleted"
GROUP_WAS_DELETED: Final = "group_deleted"
DIRECTORY_WAS_CLOSED: Final = "directory_closed"
OPERATOR: Final = "operator"

# What a directory is: directory_states.state. Closed: all access has ended, the clean-up is under way; deleted: it is through.
ACTIVE: Final = "active"
PAUSED: Final = "paused"
CLOSED: Final = "closed"
DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True)
class Body:
    """The attributes of an event: what is sealed apart from the leaf."""

    object: dict[str, Any]
    changes: list[dict[str, Any]]
    key: str = ""  # folded userName or displayName
    user: dict[str, Any] | None = None  # mapped, the same for every IdP; of user events


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that was decided but has no number yet."""

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


@dataclass(frozen=True, slots=True)
class Macs:
    """The blind keys of a resource's searchable values (DESIGN §6), 16 bytes each."""

    name: bytes  # userName of a user, displayName of a group
    external_id: bytes | None = None
    display_name: bytes | None = None
    emails: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A numbered event as the read models see it: structure and blind keys, no attribute."""

    directory: int
    seq: int
    kind: EventType
    obj: UUID
    rv: int
    etag_rv: int
    at: int  # µs since the epoch
    mem: UUID | None = None
    mt: str | None = None
    active: bool | None = None
    macs: Macs | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What one event adds to the tables of the log."""

    recorded: Recorded
    leaf: bytes
    leaf_hash: bytes
    ct: bytes | None = field(default=None)
