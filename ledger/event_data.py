"""The `data` of events as types, of which the published JSON Schemas are made. Readers get more fields in later releases: the types are open."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta

Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
Id: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time: TypeAlias = Annotated[str, Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})]
# A time as PostgreSQL gives it; answers write it in the same form.
Instant: TypeAlias = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC.")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
# An id of an event, and the numbers of a place.
EventIdText: TypeAlias = Annotated[
    str, Meta(pattern=r"^evt_[a-z0-9_-]+_[1-9][0-9]*_[0-9a-f]{8}$", examples=["evt_acme_42_1f2e3d4c"])
]
FromOne: TypeAlias = Annotated[int, Meta(ge=1)]

# Written as a call, because `from` is a keyword of Python.
Change = TypedDict("Change", {"path": str, "from": NotRequired[Any], "to": NotRequired[Any]})
Change.__doc__ = "One path that changed, with its value before (absent: there was none) and after (absent: there is none)."


class ScimUser(TypedDict):
    """A SCIM user (RFC 7643) as stored, without `groups`, `password` and `meta`; other attributes as the IdP sent them."""

    schemas: list[str]
    id: Id
    userName: str
    active: bool
    externalId: NotRequired[str]
    displayName: NotRequired[str]


class ScimGroup(TypedDict):
    """A SCIM group (RFC 7643) as stored, without `members` and `meta`; other attributes as the IdP sent them."""

    schemas: list[str]
    id: Id
    displayName: str
    externalId: NotRequired[str]


class MappedUser(TypedDict):
    """The user in words that are the same for every IdP, mapped by the profile of the directory; what is absent is left out.

    Text, as profiles of a release map it; a profile of your own that maps an attribute of another type gives that type.
    """

    id: Id
    user_name: str
    active: bool
    external_id: NotRequired[str]
    email: NotRequired[str]
    given_name: NotRequired[str]
    family_name: NotRequired[str]
    display_name: NotRequired[str]
    title: NotRequired[str]
    department: NotRequired[str]
    manager_id: NotRequired[str]
    employee_number: NotRequired[str]
    roles: NotRequired[list[str]]
    custom: NotRequired[dict[str, Any]]


class UserData(TypedDict):
    """A user after the event (of `user.deleted`: before it), and what changed. Only events of early releases have no `user`."""

    object: ScimUser
    changes: list[Change]
    user: NotRequired[MappedUser]


class GroupData(TypedDict):
    """A group after the event (of `group.deleted`: before it), and what changed."""

    object: ScimGroup
    changes: list[Change]


class GroupReference(TypedDict):
    """The group. With `expand=group` also its names as of the event, or why there are none."""

    id: Id
    display_name: NotRequired[str]
    external_id: NotRequired[str]
    withheld: NotRequired[bool]
    erased: NotRequired[bool]
    unreadable: NotRequired[bool]


class MemberReference(GroupReference):
    """The member. With `expand=member` likewise; `user_name` of a user."""

    type: Literal["User", "Group"]
    user_name: NotRequired[str]


class MembershipData(TypedDict):
    """A direct membership. `effective`: whether the event changes the access of the member."""

    group: GroupReference
    member: MemberReference
    effective: bool


class DirectoryFacts(TypedDict):
    id: Id
    slug: str


class DirectoryWithProfile(DirectoryFacts):
    profile: str


class DirectoryAct(DirectoryWithProfile):
    reason: str


class ClockAccepted(DirectoryFacts):
    """`clock`: the time of the database; `frozen_at`: the time that writes get until the clock has caught up."""

    reason: str
    clock: Time
    frozen_at: Time


class SchemaRegistered(DirectoryFacts):
    """`schema`: the URN of the extension."""

    schema: str
    resource_type: str


class RateLimitChanged(DirectoryFacts):
    """The limit of SCIM requests that an operator set; without `per_second` and `burst` it is that of the profile again."""

    per_second: NotRequired[FromOne]
    burst: NotRequired[FromOne]


class TokenFacts(TypedDict):
    id: Id
    name: str


class TokenIssued(TokenFacts):
    """`seal`: the HMAC of the token's row; `supersedes`: the token that it replaces."""

    role: str
    directories: list[str]
    types: list[str]
    bodies: bool
    expires_at: Time
    consumers: list[str]
    seal: str
    supersedes: NotRequired[Id]


class TokenRotated(TokenFacts):
    superseded_by: Id
    expires_at: Time


class TokenBound(TokenFacts):
    seal: str


class TokenExpiring(TokenFacts):
    """`days`: the warning that this is, of 30, 7 and 1 days before the expiry."""

    expires_at: Time
    days: FromOne


class TokenRevoked(TokenFacts):
    reason: NotRequired[str]


class ClientFacts(TypedDict):
    """A client of OAuth 2.0. `directory`: the slug of the one that it writes to."""

    id: Id
    name: str
    directory: str


class ClientCreated(ClientFacts):
    """`auth`: `secret` or `jwt`; `seal`: the HMAC of the client's row. A client of `jwt` has its keys inline or at a URL."""

    auth: str
    seal: str
    jwks: NotRequired[dict[str, Any]]
    jwks_uri: NotRequired[str]


class ClientRotated(ClientFacts):
    """`former_until`: until when the secret before this one works; `seal`: the HMAC of the row with the new secret."""

    former_until: Time
    seal: str


class ClientRevoked(ClientFacts):
    reason: NotRequired[str]


class KeyEpochFacts(TypedDict):
    """A key epoch. `root_key`: the name of its root key at `provider`."""

    epoch: int
    provider: str
    root_key: str
    key_id: str


class KeyRewrapped(KeyEpochFacts):
    """What was moved into the epoch: wrapped keys and sealed texts."""

    keys: int
    notes: int


class NamedConsumer(TypedDict):
    id: Id
    name: str


class ConsumerTerms(NamedConsumer):
    """What the consumer gets, and how. `url_host`: the host of a webhook; the rest of its address may be secret."""

    directories: list[str]
    types: list[str]
    mode: str
    ordering: str
    batch_max: FromOne
    url_host: NotRequired[str]


class ConsumerCreated(ConsumerTerms):
    """`start_position`: the position after which it reads."""

    start_position: Count


class ConsumerUpdated(ConsumerTerms):
    before: ConsumerTerms


class ConsumerAct(NamedConsumer):
    reason: NotRequired[str]


class ConsumerSought(NamedConsumer):
    """`position`: the position after which it reads on."""

    position: Count
    reason: str


class SecretRotated(NamedConsumer):
    overlap_seconds: Count


class ConsumerForked(NamedConsumer):
    """`common`: the last seq that both logs are known to have, by directory. `gone`: at most 1 000 ids of the `gone_count` lost events."""

    common_position: Count
    common: dict[str, Count]
    gone_count: Count
    gone: list[EventIdText]


class ForkClosed(NamedConsumer):
    reason: str


class DeliveryBlocked(NamedConsumer):
    event_id: EventIdText
    attempts: Count
    last_error: str | None


class DeliveryAct(NamedConsumer):
    event_id: EventIdText
    reason: str


class ReplayFacts(TypedDict):
    id: Id
    name: str
    consumer: str


class ReplayStarted(ReplayFacts):
    """`count`: the events of the run; `superseded`: the grants that it leaves out because a later event took them back."""

    from_position: FromOne
    to_position: Count
    count: Count
    superseded: Count
    reason: str


class ReplayProgress(ReplayFacts):
    done: Count
    total: Count


class ReplayFailed(ReplayProgress):
    """`reason` is a fixed word."""

    reason: str


class SurgeFacts(TypedDict):
    id: Id
    directory: str


class SurgeLimited(SurgeFacts):
    per_hour: Count
    action: Literal["alarm", "hold"]


class SurgeDetected(SurgeLimited):
    revocations_last_hour: Count
    seq: FromOne


class SurgeReleased(SurgeFacts):
    through_seq: Count
    reason: str


class HeldSubject(TypedDict):
    """The user or group that a hold keeps from being erased."""

    type: Literal["User", "Group"]
    id: Id


class HoldFacts(TypedDict):
    id: Id
    directory: str
    subject: HeldSubject


class HoldPlaced(HoldFacts):
    """`until`: when the hold ends by itself; null if it does not. The matter is kept beside the log, so that it can be erased."""

    until: Time | None


class HoldReleased(HoldFacts):
    pass


class CommitRange(TypedDict):
    """The events of one command, which are atomic."""

    first_seq: FromOne
    size: FromOne


class Subject(TypedDict):
    """The resource that the event is about; the group for memberships."""

    type: str
    id: Id


class Envelope(TypedDict):
    """One event. The schema of each type says more of `type`, `cause`, `subject` and `data`."""

    object: Literal["event"]
    id: Annotated[EventIdText, Meta(description="Never reused, not even after a restore. Deliveries repeat: apply each id once.")]
    type: str
    directory: Annotated[str, Meta(description="The slug of the directory.")]
    seq: Annotated[FromOne, Meta(description="The number in the directory: from 1, without gaps, in commit order.")]
    position: Annotated[FromOne, Meta(description="The number in the whole ledger.")]
    commit: CommitRange
    rv: Annotated[FromOne, Meta(description="The number in the stream of the subject.")]
    time: Annotated[Time, Meta(description="When the commit was made; never decreasing in a directory.")]
    cause: str
    actor: Annotated[str, Meta(description="Who wrote: `tok_<id>` of a token, `cli_<id>` of an OAuth 2.0 client, or `sys`.")]
    request_id: Annotated[str, Meta(description="The `X-Request-Id` of the request.", extra_json_schema={"format": "uuid"})]
    traceparent: NotRequired[
        Annotated[
            str,
            Meta(
                description="The W3C trace context of the request, if it had one.", pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$"
            ),
        ]
    ]
    profile: Annotated[str, Meta(description="The profile that the request was read with, such as `okta@1`.")]
    subject: Subject
    data: Any
    held: NotRequired[Annotated[bool, Meta(description="True: the surge brake would hold its delivery. Otherwise left out.")]]
