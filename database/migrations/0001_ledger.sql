-- The log (append-only), the keys, the core read models. Every table is keyed by directory; there are no hot rows.

-- ledger: one row, made at first start. kek_id names the key-encryption key that wraps every other key.
create table ledger (
    one        bool primary key default true check (one),
    id         uuid not null,
    kek_id     bytea not null,
    created_at timestamptz not null default clock_timestamp()
);

-- directories: one IdP connection each. index_key (wrapped) makes the blind HMAC keys of its read models.
create table directories (
    id         int primary key generated always as identity,
    uuid       uuid not null unique,
    slug       text not null unique check (slug ~ '^(_system|[a-z0-9][a-z0-9-]{0,62})$'),
    profile    text not null,
    index_key  bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    closed_at  timestamptz
);

-- tokens: only a SHA-256 is kept. scope = directories, event types and whether bodies are readable.
create table tokens (
    id           uuid primary key,
    hash         bytea not null unique,
    role         text not null check (role in ('scim', 'consumer', 'operator', 'auditor', 'admin')),
    name         text not null,
    directories  text[] not null,
    types        text[] not null default '{*}',
    bodies       bool not null default true,
    created_at   timestamptz not null default clock_timestamp(),
    expires_at   timestamptz not null,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- commits: one row per command that changed something; position is the dense order of the whole ledger.
-- types is a bit mask over the event type numbers, so that a filtered page skips commits without reading events.
-- (req, op) answers "did my COMMIT arrive?" after a lost connection.
create table commits (
    position  bigint primary key,
    directory int not null,
    seq       bigint not null,
    size      int not null check (size > 0),
    types     bigint not null,
    at        bigint not null,
    req       uuid not null,
    op        int not null
);
create unique index commits_seq on commits (directory, seq);
create unique index commits_request on commits (req, op);
create index commits_at on commits (directory, at, seq);

-- events: leaf is what is hashed, byte for byte; every other column is an index of it and is checked by replay verify.
create table events (
    directory int not null,
    seq       bigint not null,
    type      smallint not null,
    rv        int not null,
    etag_rv   int not null,
    obj       uuid not null,
    mem       uuid,
    leaf_hash bytea not null,
    leaf      bytea not null,
    primary key (directory, seq)
);
create unique index events_rv on events (obj, rv);
create index events_mem on events (directory, mem, seq) where mem is not null;

-- bodies: sealed attributes, apart from the log so that a person can be erased while the log keeps verifying.
create table bodies (
    directory int not null,
    seq       bigint not null,
    ct        bytea not null,
    primary key (directory, seq)
);
alter table bodies alter ct set storage external;  -- ciphertext does not compress
alter table bodies set (toast_tuple_target = 8160);

create table subject_keys (
    obj       uuid primary key,
    directory int not null,
    wrapped   bytea not null
);

-- Read models: rebuilt from the events at will. Pointers and HMAC keys only, no attribute in the clear.
create table users (
    directory        int not null,
    id               uuid not null,
    active           bool not null,
    body_seq         bigint not null,
    rv               int not null,
    etag_rv          int not null,
    created_at       bigint not null,
    updated_at       bigint not null,
    user_name_mac    bytea not null,
    external_id_mac  bytea,
    display_name_mac bytea,
    email_macs       bytea[],
    primary key (directory, id)
) with (fillfactor = 85);
create unique index users_user_name on users (directory, user_name_mac);
create index users_external_id on users (directory, external_id_mac) where external_id_mac is not null;
create index users_display_name on users (directory, display_name_mac) where display_name_mac is not null;
create index users_emails on users using gin (email_macs);
create index users_created on users (directory, created_at, id);

-- groups: a membership change writes no row here; a group's rv and etag_rv stand beside its newest event.
create table groups (
    directory        int not null,
    id               uuid not null,
    body_seq         bigint not null,
    created_at       bigint not null,
    display_name_mac bytea not null,
    external_id_mac  bytea,
    primary key (directory, id)
) with (fillfactor = 85);
create index groups_display_name on groups (directory, display_name_mac);
create index groups_external_id on groups (directory, external_id_mac) where external_id_mac is not null;
create index groups_created on groups (directory, created_at, id);

-- memberships: direct edges as half-open seq intervals; to_seq = max bigint while open. mt: 0 User, 1 Group.
create table memberships (
    directory int not null,
    grp       uuid not null,
    mem       uuid not null,
    mt        smallint not null,
    from_seq  bigint not null,
    to_seq    bigint not null default 9223372036854775807
);
create unique index memberships_open on memberships (directory, grp, mem) where to_seq = 9223372036854775807;
create index memberships_of_group on memberships (directory, grp, to_seq, from_seq) include (mem, mt);
create index memberships_of_member on memberships (directory, mem, to_seq, from_seq) include (grp, mt);

-- states: existence, activity and newest body of a resource as half-open seq intervals. ot: 0 User, 1 Group.
create table states (
    directory int not null,
    obj       uuid not null,
    ot        smallint not null,
    active    bool not null,
    body_seq  bigint not null,
    from_seq  bigint not null,
    to_seq    bigint not null default 9223372036854775807
);
create unique index states_open on states (directory, obj) where to_seq = 9223372036854775807;
create index states_history on states (directory, obj, to_seq, from_seq) include (active, body_seq, ot);

-- Append-only holds even for a superuser and under session_replication_role = replica (ENABLE ALWAYS); grants alone would not.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: % refused', tg_table_name, tg_op using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete or truncate on events for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on commits for each statement execute function refuse_change();
create trigger append_only before update or truncate on bodies for each statement execute function refuse_change();
alter table events enable always trigger append_only;
alter table commits enable always trigger append_only;
alter table bodies enable always trigger append_only;
