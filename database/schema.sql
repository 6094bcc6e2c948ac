-- The whole schema after all migrations, for readers. The service never runs this file; it applies database/migrations/.
-- A test (tests/postgres/test_schema.py) makes one database from this file and one from the migrations, and compares their catalogs and
-- grants. A change that adds a migration also changes this file.
--
-- 1 the log   2 directories, profiles, schemas, tokens, clients   3 read models   4 consumers and their deliveries   5 replays of deliveries
-- 6 the surge brake   7 requests   8 the schema itself
--
-- There are two roles. The owner of the schema migrates and rebuilds. ledger_app serves; its rights are below each table
-- (database/grants.sql grants them again after each migration). Columns are in their order in the table, so later additions are last.

create schema ledger;
grant usage on schema ledger to ledger_app;
set search_path to ledger;


-- 1 The log --------------------------------------------------------------------------------------------------------------------------
-- Append-only, by grant and by trigger. Every table is keyed by directory. No row is updated by many transactions.

-- commits: one row for each command that changed something. In commit order and without gaps, `position` numbers the events of the
-- ledger, and `seq` those of a directory. A commit has `size` events, from `position` and `seq` on.
create table commits (
    position  bigint primary key,
    directory int not null,
    seq       bigint not null,
    size      int not null check (size > 0),
    types     bigint not null,                  -- bits of the event types in it, so that a filtered page skips commits without reading events
    at        bigint not null,                  -- µs since the epoch, by the database's clock
    req       uuid not null,                    -- after a lost connection (req, op) shows whether the COMMIT succeeded
    op        int not null,                     -- the operation of a bulk request
    trace     bytea                             -- the W3C trace context of the request, if it had one; not part of the proofs
);
create unique index commits_seq on commits (directory, seq);
create unique index commits_request on commits (req, op);
create index commits_at on commits (directory, at, seq);
create index commits_ending_access on commits (directory, at, seq) where types & 6164 <> 0;  -- user.deactivated, user.deleted, group.member_removed, group.member_access_revoked
create index commits_revoking on commits (directory, at, seq) where types & 20 <> 0;  -- for processes of earlier releases
grant select, insert on commits to ledger_app;

-- events: `leaf` is hashed byte for byte. All other columns repeat parts of it for indexes; `replay verify` compares them.
create table events (
    directory int not null,
    seq       bigint not null,
    type      smallint not null,                -- the number of ledger/events.py
    rv        int not null,                     -- version of the resource, from 1
    etag_rv   int not null,                     -- the version in its ETag
    obj       uuid not null,                    -- the resource
    mem       uuid,                             -- of a membership event: the member; obj is the group
    leaf_hash bytea not null,
    leaf      bytea not null,
    primary key (directory, seq)
);
create unique index events_rv on events (obj, rv);
create index events_mem on events (directory, mem, seq) where mem is not null;
grant select, insert on events to ledger_app;

-- bodies: sealed attributes. Separate from the log, so that a person can be erased and the log can still be verified.
create table bodies (
    directory int not null,
    seq       bigint not null,
    ct        bytea not null,
    primary key (directory, seq)
) with (toast_tuple_target = 8160);
alter table bodies alter ct set storage external;  -- ciphertext does not compress
grant select, insert on bodies to ledger_app;

-- subject_keys: the wrapped key that seals the bodies of one resource. Erasing a person deletes it.
create table subject_keys (
    obj       uuid primary key,
    directory int not null,
    wrapped   bytea not null
);
grant select, insert on subject_keys to ledger_app;

-- ledger: one row, made at the first start. kek_id is the id of the key-encryption key, which wraps all other keys.
create table ledger (
    one        bool primary key default true check (one),
    id         uuid not null,
    kek_id     bytea not null,
    created_at timestamptz not null default clock_timestamp()
);
grant select, insert on ledger to ledger_app;

-- key_epochs: the key-encryption keys, each wrapped by a root key that stands outside the database. `wrapped` is null once the epoch is
-- destroyed, and its root key is destroyed too, so that the row in an older backup cannot be opened.
create table key_epochs (
    epoch        int primary key check (epoch > 0),
    kek_id       bytea not null,
    provider     text not null check (provider in ('file', 'env', 'pkcs11', 'aws-kms', 'vault')),
    root         text not null,                 -- which of the provider's keys
    wrapped      bytea,
    made_at      timestamptz not null default clock_timestamp(),
    active_at    timestamptz,                   -- since when it seals; null until all processes have it
    rewrapped_at timestamptz,                   -- when nothing of earlier epochs was left
    destroyed_at timestamptz
);
grant select, insert on key_epochs to ledger_app;
grant update (active_at, rewrapped_at, destroyed_at) on key_epochs to ledger_app;

-- domain_keys: the keys of MACs by domain, wrapped as keys of resources are. They stay the same in all epochs.
create table domain_keys (
    domain  bytea primary key,
    wrapped bytea not null
);
grant select, insert on domain_keys to ledger_app;

-- keep_epochs: the serving role makes the first epoch; what it inserts later is ignored, because a row that nobody can open would prevent
-- every start.
create function keep_epochs() returns trigger language plpgsql as $$
begin
    if current_user = 'ledger_app' and exists (select from ledger.key_epochs) then
        return null;
    end if;
    return new;
end $$;
create trigger first_only before insert on key_epochs for each row execute function keep_epochs();
create trigger first_only before insert on domain_keys for each row execute function keep_epochs();
alter table key_epochs enable always trigger first_only;
alter table domain_keys enable always trigger first_only;

-- These triggers refuse changes even for a superuser and with session_replication_role = replica (ENABLE ALWAYS); grants would not.
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

-- refuse_erasure: only the role ledger_eraser deletes bodies and keys, which ledger_app becomes for these two statements of an erasure.
create function refuse_erasure() returns trigger language plpgsql as $$
begin
    if current_user <> 'ledger_eraser' then
        raise exception '% is deleted from by ledger_eraser alone: % refused', tg_table_name, tg_op using errcode = 'restrict_violation';
    end if;
    return null;
end $$;
create trigger erased_only before delete on bodies for each statement execute function refuse_erasure();
create trigger erased_only before delete or truncate on subject_keys for each statement execute function refuse_erasure();
alter table bodies enable always trigger erased_only;
alter table subject_keys enable always trigger erased_only;
grant usage on schema ledger to ledger_eraser;
grant select (directory, seq, obj, mem) on events to ledger_eraser;
grant select (directory, seq), delete on bodies to ledger_eraser;
grant select (obj, directory), delete on subject_keys to ledger_eraser;


-- 2 Directories, profiles, schemas, tokens, clients -----------------------------------------------------------------------------------

-- directories: one IdP connection each.
create table directories (
    id         int primary key generated always as identity,
    uuid       uuid not null unique,
    slug       text not null unique check (slug ~ '^(_system|[a-z0-9][a-z0-9-]{0,62})$'),
    profile    text not null,                   -- name@version
    index_key  bytea not null,                  -- wrapped; the key of the HMACs in its read models
    created_at timestamptz not null default clock_timestamp(),
    closed_at  timestamptz                      -- never set; for releases that read it
);
grant select, insert on directories to ledger_app;
grant update (profile, closed_at) on directories to ledger_app;
grant usage on sequence directories_id_seq to ledger_app;

-- profiles: profiles of operators, besides those of the release. Never changed or removed, because stored events name them.
create table profiles (
    name       text primary key,                -- name@version
    document   json not null,
    created_at timestamptz not null default now()
);
grant select, insert on profiles to ledger_app;

-- extension_schemas: registered by an operator for a directory (RFC 7643 §7). Never changed or removed, because stored data refers to them.
create table extension_schemas (
    id            bigint primary key generated always as identity,
    directory     int not null references directories,
    resource_type text not null check (resource_type in ('User', 'Group')),
    urn           text not null,                -- casefolded
    document      json not null,
    unique (directory, urn)
);
grant select, insert on extension_schemas to ledger_app;
grant usage on sequence extension_schemas_id_seq to ledger_app;

-- tokens: only the SHA-256 is stored. The scope: directories, event types, consumers, and whether bodies are readable.
create table tokens (
    id            uuid primary key,
    hash          bytea not null unique,
    role          text not null check (role in ('scim', 'consumer', 'operator', 'auditor', 'admin')),
    name          text not null,
    directories   text[] not null,
    types         text[] not null default '{*}',
    bodies        bool not null default true,
    created_at    timestamptz not null default clock_timestamp(),
    expires_at    timestamptz not null,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    consumers     text[] not null default '{*}', -- the consumers that a token of role consumer may use
    created_by    text,                         -- the actor, as in leaves; null if no event names it
    supersedes    uuid,
    superseded_by uuid,                         -- set by a rotation, which also sets an earlier expires_at
    seal          bytea,                        -- HMAC over the rights in the row, with a key that only the service has. Null: sealed at the next start
    last_used_place bytea,                      -- route and network of the last use, sealed
    warned_days   smallint,                     -- the tightest token.expiring on record, in days
    refused_at    timestamptz                   -- when it was last sent after its end
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
grant select, insert on tokens to ledger_app;
grant update (revoked_at, last_used_at, expires_at, superseded_by, seal, last_used_place, warned_days, refused_at) on tokens to ledger_app;  -- a trigger allows only changes that reduce rights

-- keep_token: the rights of a token can only be reduced. The owner of the table can disable the trigger; the seal and the events show it then.
create function keep_token() returns trigger language plpgsql as $$
begin
    if (new.id, new.hash, new.role, new.name, new.directories, new.types, new.consumers, new.bodies, new.created_at, new.created_by, new.supersedes)
       is distinct from
       (old.id, old.hash, old.role, old.name, old.directories, old.types, old.consumers, old.bodies, old.created_at, old.created_by, old.supersedes)
       or new.expires_at > old.expires_at
       or (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
       or (coalesce(old.superseded_by::text, old.revoked_at::text) is not null and new.superseded_by is distinct from old.superseded_by)
       or (old.seal is not null and new.seal is distinct from old.seal and new.superseded_by is not distinct from old.superseded_by)
       or (old.last_used_at is not null and (new.last_used_at is null or new.last_used_at < old.last_used_at))
    then
        raise exception 'a token only ever gets less: this change of % is refused', old.id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger only_less before update on tokens for each row execute function keep_token();
create trigger append_only before delete or truncate on tokens for each statement execute function refuse_change();
alter table tokens enable always trigger only_less;
alter table tokens enable always trigger append_only;

-- clients: of OAuth 2.0 (RFC 6749), each of one directory. A secret, of which only the SHA-256 is stored, or public keys (RFC 7523).
create table clients (
    id           uuid primary key,
    directory    int not null references directories,
    name         text not null,
    auth         text not null check (auth in ('secret', 'jwt')),
    secret_hash  bytea,                         -- SHA-256; null for a client with keys
    former_hash  bytea,                         -- of the secret before the last rotation
    former_until timestamptz,                   -- until when that one works
    jwks         text,                          -- its public keys, or
    jwks_uri     text,                          -- where they are
    created_by   text,
    rotations    int not null default 0,        -- as many as events client.rotated
    created_at   timestamptz not null,
    rotated_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    seal         bytea not null,                -- HMAC over the rights in the row, with a key that only the service has
    last_used_place bytea                       -- route and network of the last use, sealed
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
create index clients_of_directory on clients (directory);
grant select, insert on clients to ledger_app;
grant update (secret_hash, former_hash, former_until, rotations, rotated_at, seal, revoked_at, last_used_at, last_used_place) on clients to ledger_app;  -- a trigger allows only rotations and the end

-- keep_client: whom a client belongs to and its keys never change, its secret only with a further rotation, and it is revoked once.
create function keep_client() returns trigger language plpgsql as $$
begin
    if (new.id, new.directory, new.name, new.auth, new.jwks, new.jwks_uri, new.created_by, new.created_at)
       is distinct from
       (old.id, old.directory, old.name, old.auth, old.jwks, old.jwks_uri, old.created_by, old.created_at)
       or (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
       or ((new.secret_hash, new.former_hash, new.former_until, new.rotated_at, new.seal)
           is distinct from
           (old.secret_hash, old.former_hash, old.former_until, old.rotated_at, old.seal)
           and (new.rotations <> old.rotations + 1 or old.revoked_at is not null))
       or new.rotations not in (old.rotations, old.rotations + 1)
       or (old.last_used_at is not null and (new.last_used_at is null or new.last_used_at < old.last_used_at))
    then
        raise exception 'a client keeps what it is: this change of % is refused', old.id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger kept before update on clients for each row execute function keep_client();
create trigger append_only before delete or truncate on clients for each statement execute function refuse_change();
alter table clients enable always trigger kept;
alter table clients enable always trigger append_only;

-- access_tokens: what clients get for an hour. Deleted a day after their end.
create table access_tokens (
    id         uuid primary key,
    hash       bytea not null unique,
    client     uuid not null references clients,
    expires_at timestamptz not null,
    seal       bytea not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index access_tokens_expire on access_tokens (expires_at);
grant select, insert, delete on access_tokens to ledger_app;

-- client_assertions: the SHA-256 of the `jti` of each assertion that was used, until it expires, so that none is used twice.
create table client_assertions (
    client     uuid not null references clients,
    jti        bytea not null,
    expires_at timestamptz not null,
    primary key (client, jti)
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index client_assertions_expire on client_assertions (expires_at);
grant select, insert, delete on client_assertions to ledger_app;
grant update (expires_at) on client_assertions to ledger_app;

-- erasures: what was erased, with its receipt. An erasure deletes the bodies and the key of one user or group; its leaves stay.
create table erasures (
    id              uuid primary key,
    number          bigint generated always as identity unique,  -- in the order of commits, because it is given under the lock of the ledger
    directory       int not null references directories,
    obj             uuid not null unique,
    ot              smallint not null,                -- 0 user, 1 group
    seq             bigint not null,                  -- of user.erased or group.erased
    sealed_reason   bytea,
    counts          json not null,                    -- what was deleted and what stays
    recipients      json,                             -- who was sent the subject; null until it was looked up
    mentions        json,                             -- which other resources name it; null until it was looked up
    vacuumed_at     timestamptz,                      -- the tables were vacuumed
    wal_switched_at timestamptz,                      -- the WAL segment with the deleted rows was closed
    refused         text,                             -- what the server did not allow: a fixed word
    completed_at    timestamptz                       -- the receipt is complete
);
create index erasures_of_directory on erasures (directory, number);
create index erasures_open on erasures (number) where completed_at is null;
grant select, insert on erasures to ledger_app;
grant update (recipients, mentions, vacuumed_at, wal_switched_at, refused, completed_at) on erasures to ledger_app;

-- holds: legal holds. While one is open, its user or group is not erased.
create table holds (
    id            uuid primary key,
    directory     int not null references directories,
    obj           uuid not null,
    ot            smallint not null,
    sealed_matter bytea,
    until         timestamptz,                        -- past it the hold counts as released; null: until somebody releases it
    placed_at     timestamptz not null default clock_timestamp(),
    placed_by     text not null,                      -- the actor, as in leaves
    released_at   timestamptz,
    released_by   text
);
create index holds_of_directory on holds (directory, placed_at, id);
create index holds_of_subject on holds (obj);
grant select, insert on holds to ledger_app;
grant update (sealed_matter, released_at, released_by) on holds to ledger_app;


-- 3 Read models ----------------------------------------------------------------------------------------------------------------------
-- Written in each commit, and can be rebuilt from the events. They have only pointers and HMACs, no attributes.

-- users: body_seq is the event with the newest body.
create table users (
    directory        int not null,
    id               uuid not null,
    active           bool not null,
    body_seq         bigint not null,
    rv               int not null,
    etag_rv          int not null,
    created_at       bigint not null,           -- µs since the epoch
    updated_at       bigint not null,
    user_name_mac    bytea not null,
    external_id_mac  bytea,
    display_name_mac bytea,
    email_macs       bytea[],
    primary key (directory, id)
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
create unique index users_user_name on users (directory, user_name_mac);
create index users_external_id on users (directory, external_id_mac) where external_id_mac is not null;
create index users_display_name on users (directory, display_name_mac) where display_name_mac is not null;
create index users_emails on users using gin (email_macs);
create index users_listed on users (directory, created_at, id) include (active);
grant select, insert, update, delete on users to ledger_app;

-- groups: a membership change does not update this row; a group's rv and etag_rv are with its newest event.
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
grant select, insert, update, delete on groups to ledger_app;

-- memberships: direct edges as half-open seq intervals; to_seq = max bigint while open.
create table memberships (
    directory int not null,
    grp       uuid not null,
    mem       uuid not null,
    mt        smallint not null,                -- 0 User, 1 Group
    from_seq  bigint not null,
    to_seq    bigint not null default 9223372036854775807
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
create unique index memberships_open on memberships (directory, grp, mem) where to_seq = 9223372036854775807;
create index memberships_of_group on memberships (directory, grp, to_seq, from_seq) include (mem, mt);
create index memberships_of_member on memberships (directory, mem, to_seq, from_seq) include (grp, mt);
create index memberships_of_groups on memberships (directory, mem) include (grp, from_seq) where mt = 1 and to_seq = 9223372036854775807;  -- groups in groups
grant select, insert, update, delete on memberships to ledger_app;

-- states: existence, activity and newest body of a resource as half-open seq intervals.
create table states (
    directory int not null,
    obj       uuid not null,
    ot        smallint not null,                -- 0 User, 1 Group
    active    bool not null,
    body_seq  bigint not null,
    from_seq  bigint not null,
    to_seq    bigint not null default 9223372036854775807
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
create unique index states_open on states (directory, obj) where to_seq = 9223372036854775807;
create index states_history on states (directory, obj, to_seq, from_seq) include (active, body_seq, ot);
create index states_changed on states (directory, from_seq) include (obj, active) where to_seq = 9223372036854775807 and ot = 0;  -- users by their newest event
grant select, insert, update, delete on states to ledger_app;

-- directory_states: the state of directories that were paused or closed; others have no row and are active. From `closed_seq` on all users
-- of the directory are inactive, without a row for each.
create table directory_states (
    directory  int primary key,
    state      text not null check (state in ('active', 'paused', 'closed', 'deleted')),
    since      bigint not null,                 -- when the state began, in µs since the epoch
    closed_seq bigint,                          -- of its directory.closed
    closed_at  bigint
);
grant select, insert, update, delete on directory_states to ledger_app;


-- 4 Consumers and their deliveries ---------------------------------------------------------------------------------------------------
-- Events are not copied for consumers: the state of a consumer is a place in the log plus its exceptions.

-- consumers: named readers whose place the ledger stores.
create table consumers (
    id                  int primary key generated always as identity,
    uuid                uuid not null unique,
    name                text not null check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    mode                text not null check (mode in ('pull', 'webhook')),
    ordering            text not null check (ordering in ('directory', 'subject')),
    directories         text[] not null,
    types               text[] not null,
    batch_max           int not null check (batch_max between 1 and 100),
    sealed_url          bytea,
    retry_schedule      int[] not null,         -- seconds
    secret              bytea,                  -- sealed with the key-encryption key
    secret_before       bytea,                  -- still signs until secret_before_until
    secret_before_until timestamptz,
    state               text not null default 'active' check (state in ('active', 'paused', 'disabled')),
    epoch               int not null default 1, -- of consumer_epochs
    version             int not null default 1, -- changes with every update, so that delivery processes read the row again
    created_at          timestamptz not null default clock_timestamp(),
    deleted_at          timestamptz
);
create unique index consumers_name on consumers (name) where deleted_at is null;
grant select, insert, update on consumers to ledger_app;
grant usage on sequence consumers_id_seq to ledger_app;

-- consumer_epochs: the start and the filter of each reading of a consumer. A seek or a new filter begins a new one; old rows stay for the audit.
create table consumer_epochs (
    consumer      int not null references consumers,
    epoch         int not null,
    start         bigint not null,              -- the reading covers all events after this position
    directories   text[] not null,
    types         text[] not null,
    at            timestamptz not null default clock_timestamp(),
    leaf          bytea,                        -- the leaf hash at start, to recognise a replaced log. Null at 0, and in old rows
    sealed_reason bytea,                        -- the reason of the seek. Null in rows of earlier releases
    primary key (consumer, epoch)
);
grant select, insert on consumer_epochs to ledger_app;

-- checkpoints: the progress of a consumer. All events up to `through` are settled, except the positions in `open` and the rows of
-- open_deliveries. For a second, at most 50 times, the newest row is updated: with free room on its page that is a HOT update, whose dead
-- versions need no vacuum. Then a new row begins, so that an old snapshot does not make a long chain of versions. Old rows are thinned out.
create table checkpoints (
    consumer int not null,
    epoch    int not null,
    id       bigint generated always as identity,
    low      bigint not null,                   -- the last position below all positions in `open`
    through  bigint not null,
    open     bigint[] not null default '{}',
    at       timestamptz not null default clock_timestamp(),
    leaf     bytea,                             -- the leaf hash at through, as in consumer_epochs
    begun    timestamptz default clock_timestamp(),
    moves    int not null default 0,
    primary key (consumer, epoch, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
grant select, insert, delete on checkpoints to ledger_app;
grant update (low, through, open, at, moves, leaf) on checkpoints to ledger_app;
grant usage on sequence checkpoints_id_seq to ledger_app;

-- thinned: for each epoch and step, the checkpoint up to which the history was thinned out, so that each checkpoint is visited once.
create table thinned (
    consumer int not null,
    epoch    int not null,
    step     smallint not null,
    through  bigint not null,
    primary key (consumer, epoch, step)
) with (fillfactor = 50);
grant select, insert, update on thinned to ledger_app;

-- open_deliveries: the exceptions.
create table open_deliveries (
    consumer      int not null,
    position      bigint not null,
    directory     int not null,
    seq           bigint not null,
    state         smallint not null,            -- 1 waiting, 2 retrying, 3 blocked, 4 held by the surge brake, 5 parked
    attempts      int not null default 0,
    since         timestamptz,                  -- the first failure
    next_at       timestamptz,
    error         text,                         -- a fixed word: http_500, timeout
    answer        bytea,                        -- the receiver's answer, sealed because it may name persons
    sealed_reason bytea,                        -- the reason of a parked delivery
    replay        uuid,                         -- the run that it belongs to
    told          boolean not null default false, -- of a blocked delivery: the event delivery.blocked is written
    tried_at      timestamptz,                  -- when the last attempt failed, by the clock of the process that made it
    asked_s       real,                         -- the receiver's Retry-After, in seconds
    primary key (consumer, position)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
grant select, insert, update, delete on open_deliveries to ledger_app;

-- skips: events that an operator decided never to deliver; there is an event delivery.skipped for each.
create table skips (
    consumer      int not null,
    position      bigint not null,
    sealed_reason bytea,
    at            timestamptz not null default clock_timestamp(),
    replay        uuid,                         -- the run, if the skipped delivery belonged to a replay
    primary key (consumer, position)
);
grant select, insert, delete on skips to ledger_app;
grant update (sealed_reason, at, replay) on skips to ledger_app;  -- an event that comes again after a seek can be skipped again

-- revocation_acks: when a consumer acknowledged an end of access. Kept for ever, as evidence.
create table revocation_acks (
    id        bigint generated always as identity unique,
    consumer  int not null,
    directory int not null,
    seq       bigint not null,
    happened  bigint not null,                  -- µs, the commit's
    at        timestamptz not null default clock_timestamp(),
    primary key (consumer, directory, seq)
);
grant select, insert on revocation_acks to ledger_app;
grant update (happened, at) on revocation_acks to ledger_app;  -- if another event is at that seq after a restore
grant usage on sequence revocation_acks_id_seq to ledger_app;

-- consumer_forks: events that a consumer was sent or acknowledged and that are no longer in the log. Open until an operator closes it.
create table consumer_forks (
    id              bigint primary key generated always as identity,
    consumer        int not null,
    since           timestamptz not null default clock_timestamp(),
    common_position bigint not null,            -- the last position that the old and the new log have in common
    common          jsonb not null,             -- the last common seq, by slug of each directory that lost events
    gone            text[] not null,            -- ids of events, at most 1 000
    gone_count      bigint not null,            -- number of lost events with known ids
    places_lost     bigint not null,            -- number of lost acknowledged positions whose event ids are unknown
    closed_at       timestamptz,
    sealed_reason   bytea                       -- an operator's
);
create unique index consumer_forks_open on consumer_forks (consumer) where closed_at is null;
create index consumer_forks_of on consumer_forks (consumer, id);
grant select, insert on consumer_forks to ledger_app;
grant update (common_position, common, gone, gone_count, places_lost, closed_at, sealed_reason) on consumer_forks to ledger_app;
grant usage on sequence consumer_forks_id_seq to ledger_app;

-- consumer_leases: the process that delivers for a consumer. fence grows with each holder; reports of earlier holders are ignored.
create table consumer_leases (
    consumer   int primary key,
    holder     uuid not null,
    fence      bigint not null,
    until      timestamptz not null,            -- only its changes count; earlier releases compare it with the clock
    lease_s    real,                            -- how long its holder may send after a renewal; null if an earlier release holds it
    limited_by smallint,                        -- what limits the consumer: the numbers of delivery/pace.py
    answer_s   real,                            -- recent means: seconds until the receiver answers, seconds to record, events a second
    record_s   real,
    events_s   real,
    not_before timestamptz                      -- until then nothing is sent, because the receiver answered 429
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
grant select, insert, update on consumer_leases to ledger_app;

-- delivery_workers: delivery processes with signs of life.
create table delivery_workers (
    id      uuid primary key,
    seen_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
grant select, insert, update, delete on delivery_workers to ledger_app;


-- 5 Replays of deliveries ------------------------------------------------------------------------------------------------------------

-- replays: runs that send deliveries again.
create table replays (
    id              uuid primary key,
    sealed_name     bytea,
    consumer        int not null references consumers,
    from_position   bigint not null,
    to_position     bigint not null,
    head            bigint not null,            -- grants that were taken back up to here are left out
    types           bigint not null,            -- bits
    directories     int[],
    subjects        uuid[],
    rate_per_second int,
    superseded      text not null check (superseded in ('skip', 'include')),
    sealed_reason   bytea,
    state           text not null check (state in ('running', 'paused', 'cancelled', 'finished', 'failed')),
    total           bigint not null,
    skipped         bigint not null,
    created_at      timestamptz not null default clock_timestamp(),
    ended_at        timestamptz,
    failure         text                        -- a fixed word: why the run failed
);
create index replays_of_consumer on replays (consumer, created_at);
grant select, insert on replays to ledger_app;
grant update (state, ended_at, sealed_name, sealed_reason, failure) on replays to ledger_app;

-- replay_progress: like checkpoints. All planned deliveries up to `through` are done, and those in `ahead`.
create table replay_progress (
    replay  uuid not null,
    id      bigint generated always as identity,
    done    bigint not null,
    through bigint not null,
    ahead   bigint[] not null default '{}',
    at      timestamptz not null default clock_timestamp(),
    moves   int not null default 0,
    primary key (replay, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
grant select, insert, delete on replay_progress to ledger_app;
grant update (done, through, ahead, at, moves) on replay_progress to ledger_app;
grant usage on sequence replay_progress_id_seq to ledger_app;

-- replayed: events that only a run delivered, because an operator skipped them or sought over them, the filter left them out, or they were
-- before the consumer's start.
create table replayed (
    consumer int not null,
    position bigint not null,
    primary key (consumer, position)
);
grant select, insert, delete on replayed to ledger_app;


-- 6 The surge brake ------------------------------------------------------------------------------------------------------------------

-- surge_limits: the limit of a directory's revocations in an hour.
create table surge_limits (
    directory int primary key references directories,
    per_hour  int not null check (per_hour >= 0),
    action    text not null check (action in ('alarm', 'hold')),
    released  bigint not null default 0         -- the last seq that an operator released
);
grant select, insert on surge_limits to ledger_app;
grant update (per_hour, action, released) on surge_limits to ledger_app;

-- surge_alarms: when a directory exceeded its limit.
create table surge_alarms (
    directory int not null,
    seq       bigint not null,
    at        timestamptz not null default clock_timestamp(),
    primary key (directory, seq)
);
grant select, insert on surge_alarms to ledger_app;


-- 7 Requests -------------------------------------------------------------------------------------------------------------------------

-- requests: the journal of SCIM requests, refused ones included. Not part of the log: no bodies, no values in the clear, pruned by age.
create table requests (
    id          bigint primary key generated always as identity,
    directory   int not null,
    at          timestamptz not null,
    method      text not null,
    route       text not null,                  -- a template, never a path with ids
    shape       bytea,                          -- a filter without its values, sealed
    status      smallint not null,
    scim_type   text,
    detail      bytea,                          -- the sentence of the refusal, sealed because it may quote submitted values
    profile     text not null,
    tolerances  text[] not null,                -- the tolerances that the request used
    events      int not null,                   -- number of its events
    duration_us int not null,
    request_id  uuid not null,
    token       uuid,
    reason      bytea,                          -- keyed hash of the sentence, to count equal ones
    mistake     text,                           -- of requests that were refused for their URL or token: the name of scim/mistakes.py
    times       int not null default 1,         -- the number of requests that the entry counts
    subject     uuid                            -- of an entry with a sealed text: the user or group that it is about, so that an erasure deletes it
) with (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.02);
create index requests_of_directory on requests (directory, id);
create index requests_at on requests using brin (at);
create index requests_of_subject on requests (subject) where subject is not null;
create index requests_mistakes on requests (directory, id) where mistake is not null;
grant select, insert, delete on requests to ledger_app;
grant usage on sequence requests_id_seq to ledger_app;

-- idempotent_requests: answers to POSTs with an Idempotency-Key, so that a repeated request is answered without being carried out again.
create table idempotent_requests (
    owner       uuid not null,                  -- the token that sent it; all zeros: the machine itself
    key         bytea not null,                 -- SHA-256 of the key, because clients may put names into it
    fingerprint bytea not null,                 -- SHA-256 of method, path, query and body, to refuse the key with another request
    request     uuid not null,                  -- the request; its commits show whether it was carried out
    begun_at    timestamptz not null default clock_timestamp(),
    over        boolean not null default false, -- it ended without an answer that is stored
    answer      bytea,                          -- sealed, because it may contain a secret; null while the request runs
    primary key (owner, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
create index idempotent_requests_begun on idempotent_requests (begun_at);
grant select, insert, delete on idempotent_requests to ledger_app;
grant update (request, begun_at, over, answer) on idempotent_requests to ledger_app;

-- rate_limits: how many SCIM requests a directory may send, where an operator set it; without a row its profile says it.
create table rate_limits (
    directory  int primary key references directories,
    per_second int not null check (per_second >= 25),
    burst      int not null check (burst >= per_second)
);
grant select, insert, delete on rate_limits to ledger_app;
grant update (per_second, burst) on rate_limits to ledger_app;

-- sent_requests: how many requests of each directory with a limit count against it, at the time of the newest. Losing it costs nobody
-- anything: a limit begins anew. So it is not logged, and counting waits for no disk.
create unlogged table sent_requests (
    directory int primary key references directories,
    spent     double precision not null,        -- requests of the burst that are used, as of `at`
    at        timestamptz not null
) with (fillfactor = 50);
grant select, insert on sent_requests to ledger_app;
grant update (spent, at) on sent_requests to ledger_app;


-- 8 The schema itself ----------------------------------------------------------------------------------------------------------------

-- migrations: the applied ones. `serves` is the oldest release whose processes may run with it.
create table migrations (
    number     int primary key,
    name       text not null,
    checksum   text not null,
    applied_at timestamptz not null default clock_timestamp(),
    serves     int
);
grant select on migrations to ledger_app;

-- unsealed_notes: free text of operators (URLs of webhooks, names of replays, reasons) that an earlier release stored in the clear. SQL has
-- no key, so a migration moved it here; the next start of the service seals it and truncates the table.
create table unsealed_notes (
    kind     text not null check (kind in ('url', 'parked', 'skipped', 'replay_name', 'replay_reason')),
    owner    uuid not null,                     -- the consumer, or the replay
    position bigint not null default 0,         -- of the delivery that was parked or skipped
    content  text not null
);
grant select, truncate on unsealed_notes to ledger_app;

-- take_unsealed_notes: returns all rows once, in the transaction that seals them. If several processes start together, one gets the rows
-- and the others none. It truncates instead of deleting, so that the file with the text is removed.
create function take_unsealed_notes() returns setof unsealed_notes language plpgsql as $$
begin
    lock table ledger.unsealed_notes in access exclusive mode;
    return query select * from ledger.unsealed_notes;
    truncate ledger.unsealed_notes;
end $$;
