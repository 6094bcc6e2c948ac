/** The events of the provisioning ledger, made from its JSON Schemas by `make docs`. Ignore types and fields that you do not know. */

/** What all events have. */
export interface Envelope {
  object: "event";
  /** Never reused, not even after a restore. Deliveries repeat: apply each id once. */
  id: string;
  /** The slug of the directory. */
  directory: string;
  /** The number in the directory: from 1, without gaps, in commit order. */
  seq: number;
  /** The number in the whole ledger. */
  position: number;
  commit: CommitRange;
  /** The number in the stream of the subject. */
  rv: number;
  /** When the commit was made; never decreasing in a directory. */
  time: string;
  cause: Cause;
  /** Who wrote: `tok_<id>` of a token, `cli_<id>` of an OAuth 2.0 client, or `sys`. */
  actor: string;
  /** The `X-Request-Id` of the request. */
  request_id: string;
  /** The W3C trace context of the request, if it had one. */
  traceparent?: string;
  /** The profile that the request was read with, such as `okta@1`. */
  profile: string;
  /** True: the surge brake would hold its delivery. Otherwise left out. */
  held?: boolean;
}

/** `user.created`, see docs/events.md. */
export interface UserCreatedEvent extends Envelope {
  type: "user.created";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable;
}

/** `user.updated`, see docs/events.md. */
export interface UserUpdatedEvent extends Envelope {
  type: "user.updated";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable;
}

/** `user.deactivated`, see docs/events.md. */
export interface UserDeactivatedEvent extends Envelope {
  type: "user.deactivated";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable;
}

/** `user.reactivated`, see docs/events.md. */
export interface UserReactivatedEvent extends Envelope {
  type: "user.reactivated";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable;
}

/** `user.deleted`, see docs/events.md. */
export interface UserDeletedEvent extends Envelope {
  type: "user.deleted";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable | NoData;
}

/** `user.erased`, see docs/events.md. */
export interface UserErasedEvent extends Envelope {
  type: "user.erased";
  subject: UserSubject;
  data: UserData | Withheld | Erased | Unreadable | NoData;
}

/** `group.created`, see docs/events.md. */
export interface GroupCreatedEvent extends Envelope {
  type: "group.created";
  subject: GroupSubject;
  data: GroupData | Withheld | Erased | Unreadable;
}

/** `group.updated`, see docs/events.md. */
export interface GroupUpdatedEvent extends Envelope {
  type: "group.updated";
  subject: GroupSubject;
  data: GroupData | Withheld | Erased | Unreadable;
}

/** `group.deleted`, see docs/events.md. */
export interface GroupDeletedEvent extends Envelope {
  type: "group.deleted";
  subject: GroupSubject;
  data: GroupData | Withheld | Erased | Unreadable | NoData;
}

/** `group.erased`, see docs/events.md. */
export interface GroupErasedEvent extends Envelope {
  type: "group.erased";
  subject: GroupSubject;
  data: GroupData | Withheld | Erased | Unreadable | NoData;
}

/** `group.member_added`, see docs/events.md. */
export interface GroupMemberAddedEvent extends Envelope {
  type: "group.member_added";
  subject: GroupSubject;
  data: MembershipData;
}

/** `group.member_removed`, see docs/events.md. */
export interface GroupMemberRemovedEvent extends Envelope {
  type: "group.member_removed";
  subject: GroupSubject;
  data: MembershipData;
}

/** `group.member_access_revoked`, see docs/events.md. */
export interface GroupMemberAccessRevokedEvent extends Envelope {
  type: "group.member_access_revoked";
  subject: GroupSubject;
  data: MembershipData;
}

/** `group.member_access_restored`, see docs/events.md. */
export interface GroupMemberAccessRestoredEvent extends Envelope {
  type: "group.member_access_restored";
  subject: GroupSubject;
  data: MembershipData;
}

/** `directory.created`, see docs/events.md. */
export interface DirectoryCreatedEvent extends Envelope {
  type: "directory.created";
  subject: DirectorySubject;
  data: DirectoryWithProfileData | Withheld | Erased | Unreadable;
}

/** `directory.profile_changed`, see docs/events.md. */
export interface DirectoryProfileChangedEvent extends Envelope {
  type: "directory.profile_changed";
  subject: DirectorySubject;
  data: DirectoryWithProfileData | Withheld | Erased | Unreadable;
}

/** `directory.closed`, see docs/events.md. */
export interface DirectoryClosedEvent extends Envelope {
  type: "directory.closed";
  subject: DirectorySubject;
  data: DirectoryActData | Withheld | Erased | Unreadable;
}

/** `directory.deleted`, see docs/events.md. */
export interface DirectoryDeletedEvent extends Envelope {
  type: "directory.deleted";
  subject: DirectorySubject;
  data: DirectoryFactsData | Withheld | Erased | Unreadable;
}

/** `token.issued`, see docs/events.md. */
export interface TokenIssuedEvent extends Envelope {
  type: "token.issued";
  subject: TokenSubject;
  data: TokenIssuedData | Withheld | Erased | Unreadable;
}

/** `token.rotated`, see docs/events.md. */
export interface TokenRotatedEvent extends Envelope {
  type: "token.rotated";
  subject: TokenSubject;
  data: TokenRotatedData | Withheld | Erased | Unreadable;
}

/** `token.revoked`, see docs/events.md. */
export interface TokenRevokedEvent extends Envelope {
  type: "token.revoked";
  subject: TokenSubject;
  data: TokenRevokedData | Withheld | Erased | Unreadable;
}

/** `consumer.created`, see docs/events.md. */
export interface ConsumerCreatedEvent extends Envelope {
  type: "consumer.created";
  subject: ConsumerSubject;
  data: ConsumerCreatedData | Withheld | Erased | Unreadable;
}

/** `consumer.updated`, see docs/events.md. */
export interface ConsumerUpdatedEvent extends Envelope {
  type: "consumer.updated";
  subject: ConsumerSubject;
  data: ConsumerUpdatedData | Withheld | Erased | Unreadable;
}

/** `consumer.deleted`, see docs/events.md. */
export interface ConsumerDeletedEvent extends Envelope {
  type: "consumer.deleted";
  subject: ConsumerSubject;
  data: ConsumerActData | Withheld | Erased | Unreadable;
}

/** `consumer.paused`, see docs/events.md. */
export interface ConsumerPausedEvent extends Envelope {
  type: "consumer.paused";
  subject: ConsumerSubject;
  data: ConsumerActData | Withheld | Erased | Unreadable;
}

/** `consumer.resumed`, see docs/events.md. */
export interface ConsumerResumedEvent extends Envelope {
  type: "consumer.resumed";
  subject: ConsumerSubject;
  data: ConsumerActData | Withheld | Erased | Unreadable;
}

/** `consumer.disabled`, see docs/events.md. */
export interface ConsumerDisabledEvent extends Envelope {
  type: "consumer.disabled";
  subject: ConsumerSubject;
  data: ConsumerActData | Withheld | Erased | Unreadable;
}

/** `consumer.sought`, see docs/events.md. */
export interface ConsumerSoughtEvent extends Envelope {
  type: "consumer.sought";
  subject: ConsumerSubject;
  data: ConsumerSoughtData | Withheld | Erased | Unreadable;
}

/** `consumer.secret_rotated`, see docs/events.md. */
export interface ConsumerSecretRotatedEvent extends Envelope {
  type: "consumer.secret_rotated";
  subject: ConsumerSubject;
  data: SecretRotatedData | Withheld | Erased | Unreadable;
}

/** `delivery.blocked`, see docs/events.md. */
export interface DeliveryBlockedEvent extends Envelope {
  type: "delivery.blocked";
  subject: ConsumerSubject;
  data: DeliveryBlockedData | Withheld | Erased | Unreadable;
}

/** `delivery.retried`, see docs/events.md. */
export interface DeliveryRetriedEvent extends Envelope {
  type: "delivery.retried";
  subject: ConsumerSubject;
  data: DeliveryActData | Withheld | Erased | Unreadable;
}

/** `delivery.parked`, see docs/events.md. */
export interface DeliveryParkedEvent extends Envelope {
  type: "delivery.parked";
  subject: ConsumerSubject;
  data: DeliveryActData | Withheld | Erased | Unreadable;
}

/** `delivery.skipped`, see docs/events.md. */
export interface DeliverySkippedEvent extends Envelope {
  type: "delivery.skipped";
  subject: ConsumerSubject;
  data: DeliveryActData | Withheld | Erased | Unreadable;
}

/** `replay.started`, see docs/events.md. */
export interface ReplayStartedEvent extends Envelope {
  type: "replay.started";
  subject: ReplaySubject;
  data: ReplayStartedData | Withheld | Erased | Unreadable;
}

/** `replay.paused`, see docs/events.md. */
export interface ReplayPausedEvent extends Envelope {
  type: "replay.paused";
  subject: ReplaySubject;
  data: ReplayProgressData | Withheld | Erased | Unreadable;
}

/** `replay.resumed`, see docs/events.md. */
export interface ReplayResumedEvent extends Envelope {
  type: "replay.resumed";
  subject: ReplaySubject;
  data: ReplayProgressData | Withheld | Erased | Unreadable;
}

/** `replay.cancelled`, see docs/events.md. */
export interface ReplayCancelledEvent extends Envelope {
  type: "replay.cancelled";
  subject: ReplaySubject;
  data: ReplayProgressData | Withheld | Erased | Unreadable;
}

/** `replay.finished`, see docs/events.md. */
export interface ReplayFinishedEvent extends Envelope {
  type: "replay.finished";
  subject: ReplaySubject;
  data: ReplayProgressData | Withheld | Erased | Unreadable;
}

/** `directory.surge_limited`, see docs/events.md. */
export interface DirectorySurgeLimitedEvent extends Envelope {
  type: "directory.surge_limited";
  subject: SurgeSubject;
  data: SurgeLimitedData | Withheld | Erased | Unreadable;
}

/** `directory.surge_detected`, see docs/events.md. */
export interface DirectorySurgeDetectedEvent extends Envelope {
  type: "directory.surge_detected";
  subject: SurgeSubject;
  data: SurgeDetectedData | Withheld | Erased | Unreadable;
}

/** `directory.surge_released`, see docs/events.md. */
export interface DirectorySurgeReleasedEvent extends Envelope {
  type: "directory.surge_released";
  subject: SurgeSubject;
  data: SurgeReleasedData | Withheld | Erased | Unreadable;
}

/** `directory.paused`, see docs/events.md. */
export interface DirectoryPausedEvent extends Envelope {
  type: "directory.paused";
  subject: DirectorySubject;
  data: DirectoryActData | Withheld | Erased | Unreadable;
}

/** `directory.resumed`, see docs/events.md. */
export interface DirectoryResumedEvent extends Envelope {
  type: "directory.resumed";
  subject: DirectorySubject;
  data: DirectoryActData | Withheld | Erased | Unreadable;
}

/** `token.bound`, see docs/events.md. */
export interface TokenBoundEvent extends Envelope {
  type: "token.bound";
  subject: TokenSubject;
  data: TokenBoundData | Withheld | Erased | Unreadable;
}

/** `consumer.forked`, see docs/events.md. */
export interface ConsumerForkedEvent extends Envelope {
  type: "consumer.forked";
  subject: ConsumerSubject;
  data: ConsumerForkedData | Withheld | Erased | Unreadable;
}

/** `consumer.fork_closed`, see docs/events.md. */
export interface ConsumerForkClosedEvent extends Envelope {
  type: "consumer.fork_closed";
  subject: ConsumerSubject;
  data: ForkClosedData | Withheld | Erased | Unreadable;
}

/** `replay.failed`, see docs/events.md. */
export interface ReplayFailedEvent extends Envelope {
  type: "replay.failed";
  subject: ReplaySubject;
  data: ReplayFailedData | Withheld | Erased | Unreadable;
}

/** `directory.clock_accepted`, see docs/events.md. */
export interface DirectoryClockAcceptedEvent extends Envelope {
  type: "directory.clock_accepted";
  subject: DirectorySubject;
  data: ClockAcceptedData | Withheld | Erased | Unreadable;
}

/** `directory.schema_registered`, see docs/events.md. */
export interface DirectorySchemaRegisteredEvent extends Envelope {
  type: "directory.schema_registered";
  subject: DirectorySubject;
  data: SchemaRegisteredData | Withheld | Erased | Unreadable;
}

/** `client.created`, see docs/events.md. */
export interface ClientCreatedEvent extends Envelope {
  type: "client.created";
  subject: ClientSubject;
  data: ClientCreatedData | Withheld | Erased | Unreadable;
}

/** `client.rotated`, see docs/events.md. */
export interface ClientRotatedEvent extends Envelope {
  type: "client.rotated";
  subject: ClientSubject;
  data: ClientRotatedData | Withheld | Erased | Unreadable;
}

/** `client.revoked`, see docs/events.md. */
export interface ClientRevokedEvent extends Envelope {
  type: "client.revoked";
  subject: ClientSubject;
  data: ClientRevokedData | Withheld | Erased | Unreadable;
}

/** `token.expiring`, see docs/events.md. */
export interface TokenExpiringEvent extends Envelope {
  type: "token.expiring";
  subject: TokenSubject;
  data: TokenExpiringData | Withheld | Erased | Unreadable;
}

/** `directory.rate_limit_changed`, see docs/events.md. */
export interface DirectoryRateLimitChangedEvent extends Envelope {
  type: "directory.rate_limit_changed";
  subject: DirectorySubject;
  data: RateLimitChangedData | Withheld | Erased | Unreadable;
}

/** `key.rotated`, see docs/events.md. */
export interface KeyRotatedEvent extends Envelope {
  type: "key.rotated";
  subject: KeySubject;
  data: KeyEpochFactsData | Withheld | Erased | Unreadable;
}

/** `key.rewrapped`, see docs/events.md. */
export interface KeyRewrappedEvent extends Envelope {
  type: "key.rewrapped";
  subject: KeySubject;
  data: KeyRewrappedData | Withheld | Erased | Unreadable;
}

/** `hold.placed`, see docs/events.md. */
export interface HoldPlacedEvent extends Envelope {
  type: "hold.placed";
  subject: HoldSubject;
  data: HoldPlacedData | Withheld | Erased | Unreadable;
}

/** `hold.released`, see docs/events.md. */
export interface HoldReleasedEvent extends Envelope {
  type: "hold.released";
  subject: HoldSubject;
  data: HoldReleasedData | Withheld | Erased | Unreadable;
}

/** `key.destroyed`, see docs/events.md. */
export interface KeyDestroyedEvent extends Envelope {
  type: "key.destroyed";
  subject: KeySubject;
  data: KeyEpochFactsData | Withheld | Erased | Unreadable;
}

/** Why an event happened; later releases may add causes. */
export type Cause = "idp" | "user_deactivated" | "user_reactivated" | "user_deleted" | "group_deleted" | "directory_closed" | "user_erased" | "operator";

/** One path that changed, with its value before (absent: there was none) and after (absent: there is none). */
export interface Change {
  from?: unknown;
  path: string;
  to?: unknown;
}

/** `auth`: `secret` or `jwt`; `seal`: the HMAC of the client's row. A client of `jwt` has its keys inline or at a URL. */
export interface ClientCreated {
  auth: string;
  directory: string;
  id: string;
  jwks?: Record<string, unknown>;
  jwks_uri?: string;
  name: string;
  seal: string;
}

export interface ClientCreatedData {
  object: ClientCreated;
  changes: Array<Change>;
}

export interface ClientRevoked {
  directory: string;
  id: string;
  name: string;
  reason?: string;
}

export interface ClientRevokedData {
  object: ClientRevoked;
  changes: Array<Change>;
}

/** `former_until`: until when the secret before this one works; `seal`: the HMAC of the row with the new secret. */
export interface ClientRotated {
  directory: string;
  /** RFC 3339, UTC. */
  former_until: string;
  id: string;
  name: string;
  seal: string;
}

export interface ClientRotatedData {
  object: ClientRotated;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface ClientSubject {
  type: "Client";
  id: string;
}

/** `clock`: the time of the database; `frozen_at`: the time that writes get until the clock has caught up. */
export interface ClockAccepted {
  /** RFC 3339, UTC. */
  clock: string;
  /** RFC 3339, UTC. */
  frozen_at: string;
  id: string;
  reason: string;
  slug: string;
}

export interface ClockAcceptedData {
  object: ClockAccepted;
  changes: Array<Change>;
}

/** The events of one command, which are atomic. */
export interface CommitRange {
  first_seq: number;
  size: number;
}

export interface ConsumerAct {
  id: string;
  name: string;
  reason?: string;
}

export interface ConsumerActData {
  object: ConsumerAct;
  changes: Array<Change>;
}

/** `start_position`: the position after which it reads. */
export interface ConsumerCreated {
  batch_max: number;
  directories: Array<string>;
  id: string;
  mode: string;
  name: string;
  ordering: string;
  start_position: number;
  types: Array<string>;
  url_host?: string;
}

export interface ConsumerCreatedData {
  object: ConsumerCreated;
  changes: Array<Change>;
}

/** `common`: the last seq that both logs are known to have, by directory. `gone`: at most 1 000 ids of the `gone_count` lost events. */
export interface ConsumerForked {
  common: Record<string, number>;
  common_position: number;
  gone: Array<string>;
  gone_count: number;
  id: string;
  name: string;
}

export interface ConsumerForkedData {
  object: ConsumerForked;
  changes: Array<Change>;
}

/** `position`: the position after which it reads on. */
export interface ConsumerSought {
  id: string;
  name: string;
  position: number;
  reason: string;
}

export interface ConsumerSoughtData {
  object: ConsumerSought;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface ConsumerSubject {
  type: "Consumer";
  id: string;
}

/** What the consumer gets, and how. `url_host`: the host of a webhook; the rest of its address may be secret. */
export interface ConsumerTerms {
  batch_max: number;
  directories: Array<string>;
  id: string;
  mode: string;
  name: string;
  ordering: string;
  types: Array<string>;
  url_host?: string;
}

export interface ConsumerUpdated {
  batch_max: number;
  before: ConsumerTerms;
  directories: Array<string>;
  id: string;
  mode: string;
  name: string;
  ordering: string;
  types: Array<string>;
  url_host?: string;
}

export interface ConsumerUpdatedData {
  object: ConsumerUpdated;
  changes: Array<Change>;
}

export interface DeliveryAct {
  event_id: string;
  id: string;
  name: string;
  reason: string;
}

export interface DeliveryActData {
  object: DeliveryAct;
  changes: Array<Change>;
}

export interface DeliveryBlocked {
  attempts: number;
  event_id: string;
  id: string;
  last_error: string | null;
  name: string;
}

export interface DeliveryBlockedData {
  object: DeliveryBlocked;
  changes: Array<Change>;
}

export interface DirectoryAct {
  id: string;
  profile: string;
  reason: string;
  slug: string;
}

export interface DirectoryActData {
  object: DirectoryAct;
  changes: Array<Change>;
}

export interface DirectoryFacts {
  id: string;
  slug: string;
}

export interface DirectoryFactsData {
  object: DirectoryFacts;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface DirectorySubject {
  type: "Directory";
  id: string;
}

export interface DirectoryWithProfile {
  id: string;
  profile: string;
  slug: string;
}

export interface DirectoryWithProfileData {
  object: DirectoryWithProfile;
  changes: Array<Change>;
}

/** The resource was erased, with the attributes of all its events. */
export interface Erased {
  erased: true;
}

export interface ForkClosed {
  id: string;
  name: string;
  reason: string;
}

export interface ForkClosedData {
  object: ForkClosed;
  changes: Array<Change>;
}

/** A group after the event (of `group.deleted`: before it), and what changed. */
export interface GroupData {
  changes: Array<Change>;
  object: ScimGroup;
}

/** The group. With `expand=group` also its names as of the event, or why there are none. */
export interface GroupReference {
  display_name?: string;
  erased?: boolean;
  external_id?: string;
  id: string;
  unreadable?: boolean;
  withheld?: boolean;
}

/** The resource that the event is about; the group for memberships. */
export interface GroupSubject {
  type: "Group";
  id: string;
}

/** The user or group that a hold keeps from being erased. */
export interface HeldSubject {
  id: string;
  type: "Group" | "User";
}

/** `until`: when the hold ends by itself; null if it does not. The matter is kept beside the log, so that it can be erased. */
export interface HoldPlaced {
  directory: string;
  id: string;
  subject: HeldSubject;
  until: string | null;
}

export interface HoldPlacedData {
  object: HoldPlaced;
  changes: Array<Change>;
}

export interface HoldReleased {
  directory: string;
  id: string;
  subject: HeldSubject;
}

export interface HoldReleasedData {
  object: HoldReleased;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface HoldSubject {
  type: "Hold";
  id: string;
}

/** A key epoch. `root_key`: the name of its root key at `provider`. */
export interface KeyEpochFacts {
  epoch: number;
  key_id: string;
  provider: string;
  root_key: string;
}

export interface KeyEpochFactsData {
  object: KeyEpochFacts;
  changes: Array<Change>;
}

/** What was moved into the epoch: wrapped keys and sealed texts. */
export interface KeyRewrapped {
  epoch: number;
  key_id: string;
  keys: number;
  notes: number;
  provider: string;
  root_key: string;
}

export interface KeyRewrappedData {
  object: KeyRewrapped;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface KeySubject {
  type: "Key";
  id: string;
}

/** The user in words that are the same for every IdP, mapped by the profile of the directory; what is absent is left out.

Text, as profiles of a release map it; a profile of your own that maps an attribute of another type gives that type. */
export interface MappedUser {
  active: boolean;
  custom?: Record<string, unknown>;
  department?: string;
  display_name?: string;
  email?: string;
  employee_number?: string;
  external_id?: string;
  family_name?: string;
  given_name?: string;
  id: string;
  manager_id?: string;
  roles?: Array<string>;
  title?: string;
  user_name: string;
}

/** The member. With `expand=member` likewise; `user_name` of a user. */
export interface MemberReference {
  display_name?: string;
  erased?: boolean;
  external_id?: string;
  id: string;
  type: "Group" | "User";
  unreadable?: boolean;
  user_name?: string;
  withheld?: boolean;
}

/** A direct membership. `effective`: whether the event changes the access of the member. */
export interface MembershipData {
  effective: boolean;
  group: GroupReference;
  member: MemberReference;
}

/** The end of a resource whose attributes could not be opened any more. */
export type NoData = Record<string, never>;

/** The limit of SCIM requests that an operator set; without `per_second` and `burst` it is that of the profile again. */
export interface RateLimitChanged {
  burst?: number;
  id: string;
  per_second?: number;
  slug: string;
}

export interface RateLimitChangedData {
  object: RateLimitChanged;
  changes: Array<Change>;
}

/** `reason` is a fixed word. */
export interface ReplayFailed {
  consumer: string;
  done: number;
  id: string;
  name: string;
  reason: string;
  total: number;
}

export interface ReplayFailedData {
  object: ReplayFailed;
  changes: Array<Change>;
}

export interface ReplayProgress {
  consumer: string;
  done: number;
  id: string;
  name: string;
  total: number;
}

export interface ReplayProgressData {
  object: ReplayProgress;
  changes: Array<Change>;
}

/** `count`: the events of the run; `superseded`: the grants that it leaves out because a later event took them back. */
export interface ReplayStarted {
  consumer: string;
  count: number;
  from_position: number;
  id: string;
  name: string;
  reason: string;
  superseded: number;
  to_position: number;
}

export interface ReplayStartedData {
  object: ReplayStarted;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface ReplaySubject {
  type: "Replay";
  id: string;
}

/** `schema`: the URN of the extension. */
export interface SchemaRegistered {
  id: string;
  resource_type: string;
  schema: string;
  slug: string;
}

export interface SchemaRegisteredData {
  object: SchemaRegistered;
  changes: Array<Change>;
}

/** A SCIM group (RFC 7643) as stored, without `members` and `meta`; other attributes as the IdP sent them. */
export interface ScimGroup {
  displayName: string;
  externalId?: string;
  id: string;
  schemas: Array<string>;
  [attribute: string]: unknown;
}

/** A SCIM user (RFC 7643) as stored, without `groups`, `password` and `meta`; other attributes as the IdP sent them. */
export interface ScimUser {
  active: boolean;
  displayName?: string;
  externalId?: string;
  id: string;
  schemas: Array<string>;
  userName: string;
  [attribute: string]: unknown;
}

export interface SecretRotated {
  id: string;
  name: string;
  overlap_seconds: number;
}

export interface SecretRotatedData {
  object: SecretRotated;
  changes: Array<Change>;
}

export interface SurgeDetected {
  action: "alarm" | "hold";
  directory: string;
  id: string;
  per_hour: number;
  revocations_last_hour: number;
  seq: number;
}

export interface SurgeDetectedData {
  object: SurgeDetected;
  changes: Array<Change>;
}

export interface SurgeLimited {
  action: "alarm" | "hold";
  directory: string;
  id: string;
  per_hour: number;
}

export interface SurgeLimitedData {
  object: SurgeLimited;
  changes: Array<Change>;
}

export interface SurgeReleased {
  directory: string;
  id: string;
  reason: string;
  through_seq: number;
}

export interface SurgeReleasedData {
  object: SurgeReleased;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface SurgeSubject {
  type: "Surge";
  id: string;
}

export interface TokenBound {
  id: string;
  name: string;
  seal: string;
}

export interface TokenBoundData {
  object: TokenBound;
  changes: Array<Change>;
}

/** `days`: the warning that this is, of 30, 7 and 1 days before the expiry. */
export interface TokenExpiring {
  days: number;
  /** RFC 3339, UTC. */
  expires_at: string;
  id: string;
  name: string;
}

export interface TokenExpiringData {
  object: TokenExpiring;
  changes: Array<Change>;
}

/** `seal`: the HMAC of the token's row; `supersedes`: the token that it replaces. */
export interface TokenIssued {
  bodies: boolean;
  consumers: Array<string>;
  directories: Array<string>;
  /** RFC 3339, UTC. */
  expires_at: string;
  id: string;
  name: string;
  role: string;
  seal: string;
  supersedes?: string;
  types: Array<string>;
}

export interface TokenIssuedData {
  object: TokenIssued;
  changes: Array<Change>;
}

export interface TokenRevoked {
  id: string;
  name: string;
  reason?: string;
}

export interface TokenRevokedData {
  object: TokenRevoked;
  changes: Array<Change>;
}

export interface TokenRotated {
  /** RFC 3339, UTC. */
  expires_at: string;
  id: string;
  name: string;
  superseded_by: string;
}

export interface TokenRotatedData {
  object: TokenRotated;
  changes: Array<Change>;
}

/** The resource that the event is about; the group for memberships. */
export interface TokenSubject {
  type: "Token";
  id: string;
}

/** The stored attributes cannot be opened, because they or their key were damaged. */
export interface Unreadable {
  unreadable: true;
}

/** A user after the event (of `user.deleted`: before it), and what changed. Only events of early releases have no `user`. */
export interface UserData {
  changes: Array<Change>;
  object: ScimUser;
  user?: MappedUser;
}

/** The resource that the event is about; the group for memberships. */
export interface UserSubject {
  type: "User";
  id: string;
}

/** The token may not read attributes. */
export interface Withheld {
  withheld: true;
}

/** Any event; `type` tells which. */
export type LedgerEvent =
  | UserCreatedEvent
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
  | KeyDestroyedEvent;

/** The name of an event type. */
export type EventType = LedgerEvent["type"];
