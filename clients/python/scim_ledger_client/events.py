"""The events of the provisioning ledger, made from its JSON Schemas by `make docs`. Ignore types and fields that you do not know."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class Envelope(TypedDict):
    """What all events have."""

    object: Literal["event"]
    id: str
    directory: str
    seq: int
    position: int
    commit: CommitRange
    rv: int
    time: str
    cause: Cause
    actor: str
    request_id: str
    traceparent: NotRequired[str]
    profile: str
    held: NotRequired[bool]


class UserCreatedEvent(Envelope):
    """`user.created`, see docs/events.md."""

    type: Literal["user.created"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable


class UserUpdatedEvent(Envelope):
    """`user.updated`, see docs/events.md."""

    type: Literal["user.updated"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable


class UserDeactivatedEvent(Envelope):
    """`user.deactivated`, see docs/events.md."""

    type: Literal["user.deactivated"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable


class UserReactivatedEvent(Envelope):
    """`user.reactivated`, see docs/events.md."""

    type: Literal["user.reactivated"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable


class UserDeletedEvent(Envelope):
    """`user.deleted`, see docs/events.md."""

    type: Literal["user.deleted"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable | NoData


class UserErasedEvent(Envelope):
    """`user.erased`, see docs/events.md."""

    type: Literal["user.erased"]
    subject: UserSubject
    data: UserData | Withheld | Erased | Unreadable | NoData


class GroupCreatedEvent(Envelope):
    """`group.created`, see docs/events.md."""

    type: Literal["group.created"]
    subject: GroupSubject
    data: GroupData | Withheld | Erased | Unreadable


class GroupUpdatedEvent(Envelope):
    """`group.updated`, see docs/events.md."""

    type: Literal["group.updated"]
    subject: GroupSubject
    data: GroupData | Withheld | Erased | Unreadable


class GroupDeletedEvent(Envelope):
    """`group.deleted`, see docs/events.md."""

    type: Literal["group.deleted"]
    subject: GroupSubject
    data: GroupData | Withheld | Erased | Unreadable | NoData


class GroupErasedEvent(Envelope):
    """`group.erased`, see docs/events.md."""

    type: Literal["group.erased"]
    subject: GroupSubject
    data: GroupData | Withheld | Erased | Unreadable | NoData


class GroupMemberAddedEvent(Envelope):
    """`group.member_added`, see docs/events.md."""

    type: Literal["group.member_added"]
    subject: GroupSubject
    data: MembershipData


class GroupMemberRemovedEvent(Envelope):
    """`group.member_removed`, see docs/events.md."""

    type: Literal["group.member_removed"]
    subject: GroupSubject
    data: MembershipData


class GroupMemberAccessRevokedEvent(Envelope):
    """`group.member_access_revoked`, see docs/events.md."""

    type: Literal["group.member_access_revoked"]
    subject: GroupSubject
    data: MembershipData


class GroupMemberAccessRestoredEvent(Envelope):
    """`group.member_access_restored`, see docs/events.md."""

    type: Literal["group.member_access_restored"]
    subject: GroupSubject
    data: MembershipData


class DirectoryCreatedEvent(Envelope):
    """`directory.created`, see docs/events.md."""

    type: Literal["directory.created"]
    subject: DirectorySubject
    data: DirectoryWithProfileData | Withheld | Erased | Unreadable


class DirectoryProfileChangedEvent(Envelope):
    """`directory.profile_changed`, see docs/events.md."""

    type: Literal["directory.profile_changed"]
    subject: DirectorySubject
    data: DirectoryWithProfileData | Withheld | Erased | Unreadable


class DirectoryClosedEvent(Envelope):
    """`directory.closed`, see docs/events.md."""

    type: Literal["directory.closed"]
    subject: DirectorySubject
    data: DirectoryActData | Withheld | Erased | Unreadable


class DirectoryDeletedEvent(Envelope):
    """`directory.deleted`, see docs/events.md."""

    type: Literal["directory.deleted"]
    subject: DirectorySubject
    data: DirectoryFactsData | Withheld | Erased | Unreadable


class TokenIssuedEvent(Envelope):
    """`token.issued`, see docs/events.md."""

    type: Literal["token.issued"]
    subject: TokenSubject
    data: TokenIssuedData | Withheld | Erased | Unreadable


class TokenRotatedEvent(Envelope):
    """`token.rotated`, see docs/events.md."""

    type: Literal["token.rotated"]
    subject: TokenSubject
    data: TokenRotatedData | Withheld | Erased | Unreadable


class TokenRevokedEvent(Envelope):
    """`token.revoked`, see docs/events.md."""

    type: Literal["token.revoked"]
    subject: TokenSubject
    data: TokenRevokedData | Withheld | Erased | Unreadable


class ConsumerCreatedEvent(Envelope):
    """`consumer.created`, see docs/events.md."""

    type: Literal["consumer.created"]
    subject: ConsumerSubject
    data: ConsumerCreatedData | Withheld | Erased | Unreadable


class ConsumerUpdatedEvent(Envelope):
    """`consumer.updated`, see docs/events.md."""

    type: Literal["consumer.updated"]
    subject: ConsumerSubject
    data: ConsumerUpdatedData | Withheld | Erased | Unreadable


class ConsumerDeletedEvent(Envelope):
    """`consumer.deleted`, see docs/events.md."""

    type: Literal["consumer.deleted"]
    subject: ConsumerSubject
    data: ConsumerActData | Withheld | Erased | Unreadable


class ConsumerPausedEvent(Envelope):
    """`consumer.paused`, see docs/events.md."""

    type: Literal["consumer.paused"]
    subject: ConsumerSubject
    data: ConsumerActData | Withheld | Erased | Unreadable


class ConsumerResumedEvent(Envelope):
    """`consumer.resumed`, see docs/events.md."""

    type: Literal["consumer.resumed"]
    subject: ConsumerSubject
    data: ConsumerActData | Withheld | Erased | Unreadable


class ConsumerDisabledEvent(Envelope):
    """`consumer.disabled`, see docs/events.md."""

    type: Literal["consumer.disabled"]
    subject: ConsumerSubject
    data: ConsumerActData | Withheld | Erased | Unreadable


class ConsumerSoughtEvent(Envelope):
    """`consumer.sought`, see docs/events.md."""

    type: Literal["consumer.sought"]
    subject: ConsumerSubject
    data: ConsumerSoughtData | Withheld | Erased | Unreadable


class ConsumerSecretRotatedEvent(Envelope):
    """`consumer.secret_rotated`, see docs/events.md."""

    type: Literal["consumer.secret_rotated"]
    subject: ConsumerSubject
    data: SecretRotatedData | Withheld | Erased | Unreadable


class DeliveryBlockedEvent(Envelope):
    """`delivery.blocked`, see docs/events.md."""

    type: Literal["delivery.blocked"]
    subject: ConsumerSubject
    data: DeliveryBlockedData | Withheld | Erased | Unreadable


class DeliveryRetriedEvent(Envelope):
    """`delivery.retried`, see docs/events.md."""

    type: Literal["delivery.retried"]
    subject: ConsumerSubject
    data: DeliveryActData | Withheld | Erased | Unreadable


class DeliveryParkedEvent(Envelope):
    """`delivery.parked`, see docs/events.md."""

    type: Literal["delivery.parked"]
    subject: ConsumerSubject
    data: DeliveryActData | Withheld | Erased | Unreadable


class DeliverySkippedEvent(Envelope):
    """`delivery.skipped`, see docs/events.md."""

    type: Literal["delivery.skipped"]
    subject: ConsumerSubject
    data: DeliveryActData | Withheld | Erased | Unreadable


class ReplayStartedEvent(Envelope):
    """`replay.started`, see docs/events.md."""

    type: Literal["replay.started"]
    subject: ReplaySubject
    data: ReplayStartedData | Withheld | Erased | Unreadable


class ReplayPausedEvent(Envelope):
    """`replay.paused`, see docs/events.md."""

    type: Literal["replay.paused"]
    subject: ReplaySubject
    data: ReplayProgressData | Withheld | Erased | Unreadable


class ReplayResumedEvent(Envelope):
    """`replay.resumed`, see docs/events.md."""

    type: Literal["replay.resumed"]
    subject: ReplaySubject
    data: ReplayProgressData | Withheld | Erased | Unreadable


class ReplayCancelledEvent(Envelope):
    """`replay.cancelled`, see docs/events.md."""

    type: Literal["replay.cancelled"]
    subject: ReplaySubject
    data: ReplayProgressData | Withheld | Erased | Unreadable


class ReplayFinishedEvent(Envelope):
    """`replay.finished`, see docs/events.md."""

    type: Literal["replay.finished"]
    subject: ReplaySubject
    data: ReplayProgressData | Withheld | Erased | Unreadable


class DirectorySurgeLimitedEvent(Envelope):
    """`directory.surge_limited`, see docs/events.md."""

    type: Literal["directory.surge_limited"]
    subject: SurgeSubject
    data: SurgeLimitedData | Withheld | Erased | Unreadable


class DirectorySurgeDetectedEvent(Envelope):
    """`directory.surge_detected`, see docs/events.md."""

    type: Literal["directory.surge_detected"]
    subject: SurgeSubject
    data: SurgeDetectedData | Withheld | Erased | Unreadable


class DirectorySurgeReleasedEvent(Envelope):
    """`directory.surge_released`, see docs/events.md."""

    type: Literal["directory.surge_released"]
    subject: SurgeSubject
    data: SurgeReleasedData | Withheld | Erased | Unreadable


class DirectoryPausedEvent(Envelope):
    """`directory.paused`, see docs/events.md."""

    type: Literal["directory.paused"]
    subject: DirectorySubject
    data: DirectoryActData | Withheld | Erased | Unreadable


class DirectoryResumedEvent(Envelope):
    """`directory.resumed`, see docs/events.md."""

    type: Literal["directory.resumed"]
    subject: DirectorySubject
    data: DirectoryActData | Withheld | Erased | Unreadable


class TokenBoundEvent(Envelope):
    """`token.bound`, see docs/events.md."""

    type: Literal["token.bound"]
    subject: TokenSubject
    data: TokenBoundData | Withheld | Erased | Unreadable


class ConsumerForkedEvent(Envelope):
    """`consumer.forked`, see docs/events.md."""

    type: Literal["consumer.forked"]
    subject: ConsumerSubject
    data: ConsumerForkedData | Withheld | Erased | Unreadable


class ConsumerForkClosedEvent(Envelope):
    """`consumer.fork_closed`, see docs/events.md."""

    type: Literal["consumer.fork_closed"]
    subject: ConsumerSubject
    data: ForkClosedData | Withheld | Erased | Unreadable


class ReplayFailedEvent(Envelope):
    """`replay.failed`, see docs/events.md."""

    type: Literal["replay.failed"]
    subject: ReplaySubject
    data: ReplayFailedData | Withheld | Erased | Unreadable


class DirectoryClockAcceptedEvent(Envelope):
    """`directory.clock_accepted`, see docs/events.md."""

    type: Literal["directory.clock_accepted"]
    subject: DirectorySubject
    data: ClockAcceptedData | Withheld | Erased | Unreadable


class DirectorySchemaRegisteredEvent(Envelope):
    """`directory.schema_registered`, see docs/events.md."""

    type: Literal["directory.schema_registered"]
    subject: DirectorySubject
    data: SchemaRegisteredData | Withheld | Erased | Unreadable


class ClientCreatedEvent(Envelope):
    """`client.created`, see docs/events.md."""

    type: Literal["client.created"]
    subject: ClientSubject
    data: ClientCreatedData | Withheld | Erased | Unreadable


class ClientRotatedEvent(Envelope):
    """`client.rotated`, see docs/events.md."""

    type: Literal["client.rotated"]
    subject: ClientSubject
    data: ClientRotatedData | Withheld | Erased | Unreadable


class ClientRevokedEvent(Envelope):
    """`client.revoked`, see docs/events.md."""

    type: Literal["client.revoked"]
    subject: ClientSubject
    data: ClientRevokedData | Withheld | Erased | Unreadable


class TokenExpiringEvent(Envelope):
    """`token.expiring`, see docs/events.md."""

    type: Literal["token.expiring"]
    subject: TokenSubject
    data: TokenExpiringData | Withheld | Erased | Unreadable


class DirectoryRateLimitChangedEvent(Envelope):
    """`directory.rate_limit_changed`, see docs/events.md."""

    type: Literal["directory.rate_limit_changed"]
    subject: DirectorySubject
    data: RateLimitChangedData | Withheld | Erased | Unreadable


class KeyRotatedEvent(Envelope):
    """`key.rotated`, see docs/events.md."""

    type: Literal["key.rotated"]
    subject: KeySubject
    data: KeyEpochFactsData | Withheld | Erased | Unreadable


class KeyRewrappedEvent(Envelope):
    """`key.rewrapped`, see docs/events.md."""

    type: Literal["key.rewrapped"]
    subject: KeySubject
    data: KeyRewrappedData | Withheld | Erased | Unreadable


class HoldPlacedEvent(Envelope):
    """`hold.placed`, see docs/events.md."""

    type: Literal["hold.placed"]
    subject: HoldSubject
    data: HoldPlacedData | Withheld | Erased | Unreadable


class HoldReleasedEvent(Envelope):
    """`hold.released`, see docs/events.md."""

    type: Literal["hold.released"]
    subject: HoldSubject
    data: HoldReleasedData | Withheld | Erased | Unreadable


class KeyDestroyedEvent(Envelope):
    """`key.destroyed`, see docs/events.md."""

    type: Literal["key.destroyed"]
    subject: KeySubject
    data: KeyEpochFactsData | Withheld | Erased | Unreadable


# Why an event happened; later releases may add causes.
Cause: TypeAlias = Literal[
    "idp", "user_deactivated", "user_reactivated", "user_deleted", "group_deleted", "directory_closed", "user_erased", "operator"
]

# One path that changed, with its value before (absent: there was none) and after (absent: there is none).
Change = TypedDict("Change", {"from": NotRequired[Any], "path": str, "to": NotRequired[Any]})


class ClientCreated(TypedDict):
    """`auth`: `secret` or `jwt`; `seal`: the HMAC of the client's row. A client of `jwt` has its keys inline or at a URL."""

    auth: str
    directory: str
    id: str
    jwks: NotRequired[dict[str, Any]]
    jwks_uri: NotRequired[str]
    name: str
    seal: str


class ClientCreatedData(TypedDict):
    object: ClientCreated
    changes: list[Change]


class ClientRevoked(TypedDict):
    directory: str
    id: str
    name: str
    reason: NotRequired[str]


class ClientRevokedData(TypedDict):
    object: ClientRevoked
    changes: list[Change]


class ClientRotated(TypedDict):
    """`former_until`: until when the secret before this one works; `seal`: the HMAC of the row with the new secret."""

    directory: str
    former_until: str
    id: str
    name: str
    seal: str


class ClientRotatedData(TypedDict):
    object: ClientRotated
    changes: list[Change]


class ClientSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Client"]
    id: str


class ClockAccepted(TypedDict):
    """`clock`: the time of the database; `frozen_at`: the time that writes get until the clock has caught up."""

    clock: str
    frozen_at: str
    id: str
    reason: str
    slug: str


class ClockAcceptedData(TypedDict):
    object: ClockAccepted
    changes: list[Change]


class CommitRange(TypedDict):
    """The events of one command, which are atomic."""

    first_seq: int
    size: int


class ConsumerAct(TypedDict):
    id: str
    name: str
    reason: NotRequired[str]


class ConsumerActData(TypedDict):
    object: ConsumerAct
    changes: list[Change]


class ConsumerCreated(TypedDict):
    """`start_position`: the position after which it reads."""

    batch_max: int
    directories: list[str]
    id: str
    mode: str
    name: str
    ordering: str
    start_position: int
    types: list[str]
    url_host: NotRequired[str]


class ConsumerCreatedData(TypedDict):
    object: ConsumerCreated
    changes: list[Change]


class ConsumerForked(TypedDict):
    """`common`: the last seq that both logs are known to have, by directory. `gone`: at most 1 000 ids of the `gone_count` lost events."""

    common: dict[str, int]
    common_position: int
    gone: list[str]
    gone_count: int
    id: str
    name: str


class ConsumerForkedData(TypedDict):
    object: ConsumerForked
    changes: list[Change]


class ConsumerSought(TypedDict):
    """`position`: the position after which it reads on."""

    id: str
    name: str
    position: int
    reason: str


class ConsumerSoughtData(TypedDict):
    object: ConsumerSought
    changes: list[Change]


class ConsumerSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Consumer"]
    id: str


class ConsumerTerms(TypedDict):
    """What the consumer gets, and how. `url_host`: the host of a webhook; the rest of its address may be secret."""

    batch_max: int
    directories: list[str]
    id: str
    mode: str
    name: str
    ordering: str
    types: list[str]
    url_host: NotRequired[str]


class ConsumerUpdated(TypedDict):
    batch_max: int
    before: ConsumerTerms
    directories: list[str]
    id: str
    mode: str
    name: str
    ordering: str
    types: list[str]
    url_host: NotRequired[str]


class ConsumerUpdatedData(TypedDict):
    object: ConsumerUpdated
    changes: list[Change]


class DeliveryAct(TypedDict):
    event_id: str
    id: str
    name: str
    reason: str


class DeliveryActData(TypedDict):
    object: DeliveryAct
    changes: list[Change]


class DeliveryBlocked(TypedDict):
    attempts: int
    event_id: str
    id: str
    last_error: str | None
    name: str


class DeliveryBlockedData(TypedDict):
    object: DeliveryBlocked
    changes: list[Change]


class DirectoryAct(TypedDict):
    id: str
    profile: str
    reason: str
    slug: str


class DirectoryActData(TypedDict):
    object: DirectoryAct
    changes: list[Change]


class DirectoryFacts(TypedDict):
    id: str
    slug: str


class DirectoryFactsData(TypedDict):
    object: DirectoryFacts
    changes: list[Change]


class DirectorySubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Directory"]
    id: str


class DirectoryWithProfile(TypedDict):
    id: str
    profile: str
    slug: str


class DirectoryWithProfileData(TypedDict):
    object: DirectoryWithProfile
    changes: list[Change]


class Erased(TypedDict):
    """The resource was erased, with the attributes of all its events."""

    erased: Literal[True]


class ForkClosed(TypedDict):
    id: str
    name: str
    reason: str


class ForkClosedData(TypedDict):
    object: ForkClosed
    changes: list[Change]


class GroupData(TypedDict):
    """A group after the event (of `group.deleted`: before it), and what changed."""

    changes: list[Change]
    object: ScimGroup


class GroupReference(TypedDict):
    """The group. With `expand=group` also its names as of the event, or why there are none."""

    display_name: NotRequired[str]
    erased: NotRequired[bool]
    external_id: NotRequired[str]
    id: str
    unreadable: NotRequired[bool]
    withheld: NotRequired[bool]


class GroupSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Group"]
    id: str


class HeldSubject(TypedDict):
    """The user or group that a hold keeps from being erased."""

    id: str
    type: Literal["Group", "User"]


class HoldPlaced(TypedDict):
    """`until`: when the hold ends by itself; null if it does not. The matter is kept beside the log, so that it can be erased."""

    directory: str
    id: str
    subject: HeldSubject
    until: str | None


class HoldPlacedData(TypedDict):
    object: HoldPlaced
    changes: list[Change]


class HoldReleased(TypedDict):
    directory: str
    id: str
    subject: HeldSubject


class HoldReleasedData(TypedDict):
    object: HoldReleased
    changes: list[Change]


class HoldSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Hold"]
    id: str


class KeyEpochFacts(TypedDict):
    """A key epoch. `root_key`: the name of its root key at `provider`."""

    epoch: int
    key_id: str
    provider: str
    root_key: str


class KeyEpochFactsData(TypedDict):
    object: KeyEpochFacts
    changes: list[Change]


class KeyRewrapped(TypedDict):
    """What was moved into the epoch: wrapped keys and sealed texts."""

    epoch: int
    key_id: str
    keys: int
    notes: int
    provider: str
    root_key: str


class KeyRewrappedData(TypedDict):
    object: KeyRewrapped
    changes: list[Change]


class KeySubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Key"]
    id: str


class MappedUser(TypedDict):
    """The user in words that are the same for every IdP, mapped by the profile of the directory; what is absent is left out.

    Text, as profiles of a release map it; a profile of your own that maps an attribute of another type gives that type.
    """

    active: bool
    custom: NotRequired[dict[str, Any]]
    department: NotRequired[str]
    display_name: NotRequired[str]
    email: NotRequired[str]
    employee_number: NotRequired[str]
    external_id: NotRequired[str]
    family_name: NotRequired[str]
    given_name: NotRequired[str]
    id: str
    manager_id: NotRequired[str]
    roles: NotRequired[list[str]]
    title: NotRequired[str]
    user_name: str


class MemberReference(TypedDict):
    """The member. With `expand=member` likewise; `user_name` of a user."""

    display_name: NotRequired[str]
    erased: NotRequired[bool]
    external_id: NotRequired[str]
    id: str
    type: Literal["Group", "User"]
    unreadable: NotRequired[bool]
    user_name: NotRequired[str]
    withheld: NotRequired[bool]


class MembershipData(TypedDict):
    """A direct membership. `effective`: whether the event changes the access of the member."""

    effective: bool
    group: GroupReference
    member: MemberReference


class NoData(TypedDict):
    """The end of a resource whose attributes could not be opened any more."""


class RateLimitChanged(TypedDict):
    """The limit of SCIM requests that an operator set; without `per_second` and `burst` it is that of the profile again."""

    burst: NotRequired[int]
    id: str
    per_second: NotRequired[int]
    slug: str


class RateLimitChangedData(TypedDict):
    object: RateLimitChanged
    changes: list[Change]


class ReplayFailed(TypedDict):
    """`reason` is a fixed word."""

    consumer: str
    done: int
    id: str
    name: str
    reason: str
    total: int


class ReplayFailedData(TypedDict):
    object: ReplayFailed
    changes: list[Change]


class ReplayProgress(TypedDict):
    consumer: str
    done: int
    id: str
    name: str
    total: int


class ReplayProgressData(TypedDict):
    object: ReplayProgress
    changes: list[Change]


class ReplayStarted(TypedDict):
    """`count`: the events of the run; `superseded`: the grants that it leaves out because a later event took them back."""

    consumer: str
    count: int
    from_position: int
    id: str
    name: str
    reason: str
    superseded: int
    to_position: int


class ReplayStartedData(TypedDict):
    object: ReplayStarted
    changes: list[Change]


class ReplaySubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Replay"]
    id: str


class SchemaRegistered(TypedDict):
    """`schema`: the URN of the extension."""

    id: str
    resource_type: str
    schema: str
    slug: str


class SchemaRegisteredData(TypedDict):
    object: SchemaRegistered
    changes: list[Change]


class ScimGroup(TypedDict):
    """A SCIM group (RFC 7643) as stored, without `members` and `meta`; other attributes as the IdP sent them."""

    displayName: str
    externalId: NotRequired[str]
    id: str
    schemas: list[str]


class ScimUser(TypedDict):
    """A SCIM user (RFC 7643) as stored, without `groups`, `password` and `meta`; other attributes as the IdP sent them."""

    active: bool
    displayName: NotRequired[str]
    externalId: NotRequired[str]
    id: str
    schemas: list[str]
    userName: str


class SecretRotated(TypedDict):
    id: str
    name: str
    overlap_seconds: int


class SecretRotatedData(TypedDict):
    object: SecretRotated
    changes: list[Change]


class SurgeDetected(TypedDict):
    action: Literal["alarm", "hold"]
    directory: str
    id: str
    per_hour: int
    revocations_last_hour: int
    seq: int


class SurgeDetectedData(TypedDict):
    object: SurgeDetected
    changes: list[Change]


class SurgeLimited(TypedDict):
    action: Literal["alarm", "hold"]
    directory: str
    id: str
    per_hour: int


class SurgeLimitedData(TypedDict):
    object: SurgeLimited
    changes: list[Change]


class SurgeReleased(TypedDict):
    directory: str
    id: str
    reason: str
    through_seq: int


class SurgeReleasedData(TypedDict):
    object: SurgeReleased
    changes: list[Change]


class SurgeSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Surge"]
    id: str


class TokenBound(TypedDict):
    id: str
    name: str
    seal: str


class TokenBoundData(TypedDict):
    object: TokenBound
    changes: list[Change]


class TokenExpiring(TypedDict):
    """`days`: the warning that this is, of 30, 7 and 1 days before the expiry."""

    days: int
    expires_at: str
    id: str
    name: str


class TokenExpiringData(TypedDict):
    object: TokenExpiring
    changes: list[Change]


class TokenIssued(TypedDict):
    """`seal`: the HMAC of the token's row; `supersedes`: the token that it replaces."""

    bodies: bool
    consumers: list[str]
    directories: list[str]
    expires_at: str
    id: str
    name: str
    role: str
    seal: str
    supersedes: NotRequired[str]
    types: list[str]


class TokenIssuedData(TypedDict):
    object: TokenIssued
    changes: list[Change]


class TokenRevoked(TypedDict):
    id: str
    name: str
    reason: NotRequired[str]


class TokenRevokedData(TypedDict):
    object: TokenRevoked
    changes: list[Change]


class TokenRotated(TypedDict):
    expires_at: str
    id: str
    name: str
    superseded_by: str


class TokenRotatedData(TypedDict):
    object: TokenRotated
    changes: list[Change]


class TokenSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["Token"]
    id: str


class Unreadable(TypedDict):
    """The stored attributes cannot be opened, because they or their key were damaged."""

    unreadable: Literal[True]


class UserData(TypedDict):
    """A user after the event (of `user.deleted`: before it), and what changed. Only events of early releases have no `user`."""

    changes: list[Change]
    object: ScimUser
    user: NotRequired[MappedUser]


class UserSubject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: Literal["User"]
    id: str


class Withheld(TypedDict):
    """The token may not read attributes."""

    withheld: Literal[True]


# Any event; `type` tells which.
Event: TypeAlias = (
    UserCreatedEvent
    | UserUpdatedEvent
    | UserDeactivatedEvent
    | UserReactivatedEvent
    | UserDeletedEvent
    | UserErasedEvent
    | GroupCreatedEvent
    | GroupUpdatedEvent
    | GroupDeletedEvent
    | GroupErasedEvent
    | GroupMemberAddedEvent
    | GroupMemberRemovedEvent
    | GroupMemberAccessRevokedEvent
    | GroupMemberAccessRestoredEvent
    | DirectoryCreatedEvent
    | DirectoryProfileChangedEvent
    | DirectoryClosedEvent
    | DirectoryDeletedEvent
    | TokenIssuedEvent
    | TokenRotatedEvent
    | TokenRevokedEvent
    | ConsumerCreatedEvent
    | ConsumerUpdatedEvent
    | ConsumerDeletedEvent
    | ConsumerPausedEvent
    | ConsumerResumedEvent
    | ConsumerDisabledEvent
    | ConsumerSoughtEvent
    | ConsumerSecretRotatedEvent
    | DeliveryBlockedEvent
    | DeliveryRetriedEvent
    | DeliveryParkedEvent
    | DeliverySkippedEvent
    | ReplayStartedEvent
    | ReplayPausedEvent
    | ReplayResumedEvent
    | ReplayCancelledEvent
    | ReplayFinishedEvent
    | DirectorySurgeLimitedEvent
    | DirectorySurgeDetectedEvent
    | DirectorySurgeReleasedEvent
    | DirectoryPausedEvent
    | DirectoryResumedEvent
    | TokenBoundEvent
    | ConsumerForkedEvent
    | ConsumerForkClosedEvent
    | ReplayFailedEvent
    | DirectoryClockAcceptedEvent
    | DirectorySchemaRegisteredEvent
    | ClientCreatedEvent
    | ClientRotatedEvent
    | ClientRevokedEvent
    | TokenExpiringEvent
    | DirectoryRateLimitChangedEvent
    | KeyRotatedEvent
    | KeyRewrappedEvent
    | HoldPlacedEvent
    | HoldReleasedEvent
    | KeyDestroyedEvent
)
