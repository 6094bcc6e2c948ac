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
