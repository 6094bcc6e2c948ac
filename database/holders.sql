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
