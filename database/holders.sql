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
