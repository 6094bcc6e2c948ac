-- serves: 0010
-- A place in the log carries the leaf hash of the event that stands there: a log that lost its end (an older backup, a standby that
-- lagged) and went on differently is told from the one that was read. Null in rows of earlier releases, and at position 0.
alter table checkpoints add leaf bytea;         -- at through
alter table consumer_epochs add leaf bytea;     -- at start

-- consumer_forks: what a consumer was sent, or acknowledged, and is no longer in the log. Open until an operator closes it.
create table consumer_forks (
    id              bigint primary key generated always as identity,
    consumer        int not null,
    since           timestamptz not null default clock_timestamp(),
    common_position bigint not null,            -- the last position that is known to be in both logs
    common          jsonb not null,             -- the same as a seq, by the slug of each directory that lost something
    gone            text[] not null,            -- ids of events, at most 1 000
    gone_count      bigint not null,            -- of events whose ids a process knew
    places_lost     bigint not null,            -- acknowledged positions, where nobody knows which events stood there
    closed_at       timestamptz,
    sealed_reason   bytea                       -- an operator's
);
create unique index consumer_forks_open on consumer_forks (consumer) where closed_at is null;
create index consumer_forks_of on consumer_forks (consumer, id);

alter table replays drop constraint replays_state_check;
alter table replays add constraint replays_state_check check (state in ('running', 'paused', 'cancelled', 'finished', 'failed'));
alter table replays add failure text;           -- a word of ours: why it failed
