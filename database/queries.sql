-- try_migrating --
-- Two migrations never run at once. Goes with the session.
select pg_try_advisory_lock(7302001);

-- migrations_applied --
-- What the schema is, of any release: the column `serves` is as young as the migrations that say it.
select number, checksum, (to_jsonb(m) ->> 'serves')::int from migrations m order by number;

-- note_release --
-- Held by one session of each process for as long as it serves ($1: its newest migration), so that a newer one knows who runs beside it.
select pg_advisory_lock_shared(6, $1);

-- older_processes --
-- Processes of releases older than $1 that serve this database.
select pid from pg_locks
where locktype = 'advisory' and granted and classid = 6 and objsubid = 2 and objid::int8 < $1::int4
  and database = (select oid from pg_database where datname = current_database());

-- broken_indexes --
-- What an interrupted CREATE INDEX CONCURRENTLY left.
select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and not i.indisvalid;

-- table_holders --
-- Other sessions that hold a lock on one of these tables, each with its transaction: one that is still the same a moment later stays.
select distinct a.pid, coalesce(a.usename::text, 'autovacuum'), left(a.application_name, 64), l.virtualtransaction
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid()
  and l.database = (select oid from pg_database where datname = current_database())
  and l.relation in (select to_regclass(t)::oid from unnest($1::text[]) t);

-- strangers_with_snapshots --
-- Sessions that are none of ours ($1 is our application name) and see this database as it was a while ago: a dump has its snapshot
-- before it has its locks, and would find a table that was exchanged in between empty.
select pid, coalesce(usename::text, ''), left(application_name, 64), '' from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and usesysid is not null and backend_xmin is not null
  and application_name <> $1;

-- frozen_sessions --
-- Sessions of our name and login that have waited for their process: for $2 seconds within a transaction that holds an advisory lock, or
-- for $3 seconds with the lock of a role that one process has at a time ($4: the classes of these locks).
-- Within a pipeline the state is `active` while the server waits; `state_change` is then when its last statement began.
select a.pid, a.state_change, coalesce(a.client_addr::text, 'local') from pg_stat_activity a
where a.datname = current_database() and a.application_name = $1 and a.usename = session_user and a.pid <> pg_backend_pid()
  and a.wait_event_type = 'Client' and a.state_change < clock_timestamp() - make_interval(secs => $2)
  and exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.granted
              and (a.xact_start is not null
                   or l.classid::int4 = any($4::int4[]) and l.objsubid = 2 and a.state_change < clock_timestamp() - make_interval(secs => $3)));

-- end_session --
-- Only while it still waits since the same moment: its number may be another session's by now.
select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1 and state_change = $2 and wait_event_type = 'Client';

-- condition --
-- Whether this session cannot write (it keeps the default that it was opened with), whether a commit has waited for a synchronous standby
-- for longer than $1 seconds, and which of the settings $2 are off.
select pg_is_in_recovery() or current_setting('transaction_read_only')::bool,
       exists (select from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'
               and state_change < clock_timestamp() - make_interval(secs => $1)),
       array(select name from pg_settings where name = any($2::text[]) and setting = 'off' order by name);

-- server --
-- Version, encoding, and for how many sessions that are no superuser's there is room. The reserve of the server is taken off.
select current_setting('server_version_num')::int4, pg_encoding_to_char(encoding)::text,
       current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4, datname::text
from pg_database where datname = current_database();
