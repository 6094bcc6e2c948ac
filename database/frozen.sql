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
