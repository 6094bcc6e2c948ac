-- try_migrating --
-- Only one migration runs at a time. The lock ends with the session.
select pg_try_advisory_lock(7302001);

-- migrations_applied --
-- The applied migrations. `to_jsonb`, because older databases do not have the column `serves`.
select number, checksum, (to_jsonb(m) ->> 'serves')::int from migrations m order by number;

-- note_release --
-- Held by one session of each process while it serves ($1: its newest migration), so that a newer release sees which releases run.
select pg_advisory_lock_shared(6, $1);

-- older_processes --
-- Processes of releases older than $1 that serve this database.
select pid from pg_locks
where locktype = 'advisory' and granted and classid = 6 and objsubid = 2 and objid::int8 < $1::int4
  and database = (select oid from pg_database where datname = current_database());

-- broken_indexes --
-- Invalid indexes that an interrupted CREATE INDEX CONCURRENTLY left.
select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and not i.indisvalid;

-- table_holders --
-- Other sessions that hold a lock on one of these tables, with their transaction, so that two checks can tell whether one stays.
select distinct a.pid, coalesce(a.usename::text, 'autovacuum'), left(a.application_name, 64), l.virtualtransaction
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid()
  and l.database = (select oid from pg_database where datname = current_database())
  and l.relation in (select to_regclass(t)::oid from unnest($1::text[]) t);

-- strangers_with_snapshots --
-- Foreign sessions ($1: the service's application name) with an older snapshot. A dump takes its snapshot before its locks, so it
-- would find a table that was swapped in between empty.
select pid, coalesce(usename::text, ''), left(application_name, 64), '' from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and usesysid is not null and backend_xmin is not null
  and application_name <> $1;

-- frozen_sessions --
-- Sessions of the service (its name and login) that wait for their process: for $2 seconds within a transaction that holds an
-- advisory lock, or for $3 seconds with the lock of a role ($4: the classes of these locks).
-- In a pipeline the state stays `active` while the server waits; `state_change` is then the start of its last statement.
select a.pid, a.state_change, coalesce(a.client_addr::text, 'local') from pg_stat_activity a
where a.datname = current_database() and a.application_name = $1 and a.usename = session_user and a.pid <> pg_backend_pid()
  and a.wait_event_type = 'Client' and a.state_change < clock_timestamp() - make_interval(secs => $2)
  and exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.granted
              and (a.xact_start is not null
                   or l.classid::int4 = any($4::int4[]) and l.objsubid = 2 and a.state_change < clock_timestamp() - make_interval(secs => $3)));

-- end_session --
-- Only if it still waits since the same time: otherwise the pid may belong to another session by now.
select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1 and state_change = $2 and wait_event_type = 'Client';

-- condition --
-- Whether this session is read-only (it keeps the default from its start), whether a commit has waited for a synchronous standby for
-- more than $1 seconds, and which of the settings $2 are off.
select pg_is_in_recovery() or current_setting('transaction_read_only')::bool,
       exists (select from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'
               and state_change < clock_timestamp() - make_interval(secs => $1)),
       array(select name from pg_settings where name = any($2::text[]) and setting = 'off' order by name);

-- server --
-- Version, encoding, and how many more sessions of ordinary logins there is room for, without the server's reserve.
select current_setting('server_version_num')::int4, pg_encoding_to_char(encoding)::text,
       current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4, datname::text
from pg_database where datname = current_database();
