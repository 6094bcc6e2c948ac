-- frozen_sessions --
-- Sessions of our name and login, within a transaction that holds an advisory lock, that have waited for their process for $2 seconds.
-- Within a pipeline the state is `active` while the server waits; `state_change` is then when its last statement began.
select a.pid, a.state_change, coalesce(a.client_addr::text, 'local') from pg_stat_activity a
where a.datname = current_database() and a.application_name = $1 and a.usename = session_user and a.pid <> pg_backend_pid()
  and a.xact_start is not null and a.wait_event_type = 'Client' and a.state_change < clock_timestamp() - make_interval(secs => $2)
  and exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.granted);

-- end_session --
-- Only while it still waits since the same moment: its number may be another session's by now.
select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1 and state_change = $2 and xact_start is not null and wait_event_type = 'Client';

-- read_only --
-- Whether this session can write; a session keeps the default that it was opened with.
select pg_is_in_recovery() or current_setting('transaction_read_only')::bool;

-- settings_off --
-- Which of these settings are off.
select name from pg_settings where name = any($1::text[]) and setting = 'off' order by name;

-- server --
-- Version, encoding, and for how many sessions that are no superuser's there is room. The reserve of the server is taken off.
select current_setting('server_version_num')::int4, pg_encoding_to_char(encoding)::text,
       current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4, datname::text
from pg_database where datname = current_database();
