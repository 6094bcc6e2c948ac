-- locks_in_the_way --
-- Sessions that hold the write path's advisory locks (class 1 a directory, class 2 the ledger), without the service's own writers:
-- those have the service's application name, log in as it does or as the owner of the log, and their transaction is young.
-- Also sessions that hold or wait for a table lock that conflicts with writes (LOCK TABLE, CREATE INDEX, VACUUM FULL), once their
-- transaction has lasted a second, as far as this role may see that: writes queue behind both.
select distinct a.pid, a.usename::text, left(a.application_name, 64), case when l.locktype = 'advisory' and l.classid = 1 then l.objid::int4 end
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where ((l.locktype = 'advisory' and l.granted and l.objsubid = 2 and (l.classid = 1 or (l.classid = 2 and l.objid = 0)))
    or (l.locktype = 'relation' and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and l.relation in (select oid from pg_class where relnamespace = 'ledger'::regnamespace and relkind in ('r', 'p'))
        and coalesce(a.xact_start < clock_timestamp() - interval '1 second', true)))
  and l.database = (select oid from pg_database where datname = current_database())
  and not (a.application_name = $1 and coalesce(a.xact_start > clock_timestamp() - make_interval(secs => $2), true)
           and a.usename in (session_user, (select tableowner from pg_tables where schemaname = 'ledger' and tablename = 'commits')));
