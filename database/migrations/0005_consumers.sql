-- consumers: named readers whose place the ledger keeps. No event is copied for any of them: a consumer is a place in the log plus its exceptions.
create table consumers (
    id                  int primary key generated always as identity,
    uuid                uuid not null unique,
    name                text not null check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    mode                text not null check (mode in ('pull', 'webhook')),
    ordering            text not null check (ordering in ('directory', 'subject')),
    directories         text[] not null,
    types               text[] not null,
    batch_max           int not null check (batch_max between 1 and 100),
    url                 text,
    retry_schedule      int[] not null,
    secret              bytea,                  -- sealed with the key-encryption key
    secret_before       bytea,                  -- still signs until secret_before_until
    secret_before_until timestamptz,
    state               text not null default 'active' check (state in ('active', 'paused', 'disabled')),
    epoch               int not null default 1, -- of consumer_epochs
    version             int not null default 1, -- moves with every change, so that whoever delivers reads it again
    created_at          timestamptz not null default clock_timestamp(),
    deleted_at          timestamptz
);
create unique index consumers_name on consumers (name) where deleted_at is null;

-- consumer_epochs: from where a consumer reads under which filter. A seek or another filter begins a new one; the old ones stay for the audit.
create table consumer_epochs (
    consumer    int not null references consumers,
    epoch       int not null,
    start       bigint not null,                -- everything after this position
    directories text[] not null,
    types       text[] not null,
    reason      text not null,
    at          timestamptz not null default clock_timestamp(),
    primary key (consumer, epoch)
);

-- checkpoints: how far a consumer is, appended (a row updated in place degrades under an old snapshot) and thinned out.
-- Everything up to `through` is settled but the positions in `open` and the rows of open_deliveries. low is the last position without one in `open` below.
create table checkpoints (
    consumer int not null,
    epoch    int not null,
    id       bigint generated always as identity,
    low      bigint not null,
    through  bigint not null,
    open     bigint[] not null default '{}',
    at       timestamptz not null default clock_timestamp(),
    primary key (consumer, epoch, id)
);

-- open_deliveries: the exceptions. state: 1 waits behind another, 2 tried and to be tried again, 3 blocked, 4 held by the brake, 5 parked.
create table open_deliveries (
    consumer  int not null,
    position  bigint not null,
    directory int not null,
    seq       bigint not null,
    state     smallint not null,
    attempts  int not null default 0,
    since     timestamptz,                      -- the first failure
    next_at   timestamptz,
    error     text,                             -- a word of ours: http_500, timeout
    answer    bytea,                            -- what the receiver said, sealed: it may name persons
    reason    text,                             -- an operator's, of a parked one
    replay    uuid,
    told      boolean not null default false,   -- of a blocked one: whether delivery.blocked stands in the log
    primary key (consumer, position)
);

-- skips: what an operator decided never to deliver. The event delivery.skipped says the same.
create table skips (
    consumer int not null,
    position bigint not null,
    reason   text not null,
    at       timestamptz not null default clock_timestamp(),
    primary key (consumer, position)
);

-- revocation_acks: when a consumer acknowledged that somebody's access ended. Kept for ever: it is evidence.
create table revocation_acks (
    id        bigint generated always as identity unique,
    consumer  int not null,
    directory int not null,
    seq       bigint not null,
    happened  bigint not null,                  -- µs, the commit's
    at        timestamptz not null default clock_timestamp(),
    primary key (consumer, directory, seq)
);

-- consumer_leases: who delivers for a consumer. fence grows with each holder; what an earlier one reports is not recorded.
create table consumer_leases (
    consumer int primary key,
    holder   uuid not null,
    fence    bigint not null,
    until    timestamptz not null
);
create table delivery_workers (
    id      uuid primary key,
    seen_at timestamptz not null
);

-- replays: deliveries sent again on purpose. replay_progress is appended like checkpoints:
-- all planned ones up to `through` are done, and those in `ahead`.
create table replays (
    id              uuid primary key,
    name            text not null,
    consumer        int not null references consumers,
    from_position   bigint not null,
    to_position     bigint not null,
    head            bigint not null,            -- what had been taken back up to here is left out
    types           bigint not null,            -- bits
    directories     int[],
    subjects        uuid[],
    rate_per_second int,
    superseded      text not null check (superseded in ('skip', 'include')),
    reason          text not null,
    state           text not null check (state in ('running', 'paused', 'cancelled', 'finished')),
    total           bigint not null,
    skipped         bigint not null,
    created_at      timestamptz not null default clock_timestamp(),
    ended_at        timestamptz
);
create index replays_of_consumer on replays (consumer, created_at);
create table replay_progress (
    replay  uuid not null,
    id      bigint generated always as identity,
    done    bigint not null,
    through bigint not null,
    ahead   bigint[] not null default '{}',
    at      timestamptz not null default clock_timestamp(),
    primary key (replay, id)
);

-- surge_limits: how many revocations of a directory in an hour are ordinary; surge_alarms: when more came.
create table surge_limits (
    directory int primary key references directories,
    per_hour  int not null check (per_hour >= 0),
    action    text not null check (action in ('alarm', 'hold')),
    released  bigint not null default 0         -- the last seq that an operator let go in spite of it
);
create index commits_revoking on commits (directory, at, seq) where types & 20 <> 0;  -- 20: user.deactivated, user.deleted
create table surge_alarms (
    directory int not null,
    seq       bigint not null,
    at        timestamptz not null default clock_timestamp(),
    primary key (directory, seq)
);

-- Which named consumers a token of role consumer may use.
alter table tokens add consumers text[] not null default '{*}';
