-- begin_idempotent --
-- Takes the key; no row if it is taken. Here and below the commit does not wait for a synchronous standby: a later commit of the
-- request does, and a standby that has it has this row too. With a hanging standby the key would stay taken by a refused request.
insert into idempotent_requests (owner, key, fingerprint, request) values ($1, $2, $3, $4) on conflict do nothing
returning set_config('synchronous_commit', 'local', true);

-- idempotent_request --
-- The request that has the key: whether it must have ended by now, its answer, and whether it committed anything.
select i.fingerprint, i.request, i.over or i.begun_at < clock_timestamp() - make_interval(secs => $3), i.answer,
       exists (select from commits c where c.req = i.request)
from idempotent_requests i where i.owner = $1 and i.key = $2;

-- lower_idempotent --
-- For a request that began before the clock was set back: count the time until it must have ended from now, not from the future.
update idempotent_requests set begun_at = clock_timestamp() where owner = $1 and key = $2 and begun_at > clock_timestamp() and not over
returning set_config('synchronous_commit', 'local', true);

-- patience --
-- The lock timeout of this transaction, in milliseconds.
select set_config('lock_timeout', $1, true);

-- no_write_under_way --
-- A lost transaction may still hold the locks of its directories, or wait for them. This waits for all that hold or await one now,
-- in the order in which writers take them (the ledger's lock is taken after these).
select pg_advisory_xact_lock_shared(1, d) from (
    select distinct objid::int4 d from pg_locks where locktype = 'advisory' and classid = 1 and objsubid = 2
      and database = (select oid from pg_database where datname = current_database()) order by 1 offset 0) ordered;

-- no_commit_under_way --
-- A commit that waits for a synchronous standby holds the ledger's lock, and its rows are not visible yet.
select pg_advisory_xact_lock_shared(2, 0);

-- committed --
-- Whether a request committed anything.
select exists (select from commits where req = $1);

-- take_over_idempotent --
-- Takes the key from a request that ended and committed nothing. If two requests try it, one gets the key.
update idempotent_requests set request = $4, begun_at = clock_timestamp(), over = false where owner = $1 and key = $2 and request = $3 and answer is null
returning set_config('synchronous_commit', 'local', true);

-- finish_idempotent --
-- Stores the answer.
update idempotent_requests set answer = $4 where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- end_idempotent --
-- Frees the key of a refused request for another attempt, unless the request committed something.
update idempotent_requests set over = true where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- prune_idempotent --
-- Deletes keys that are older than their promised time, a limited number at once.
delete from idempotent_requests where ctid = any(array(
    select ctid from idempotent_requests where begun_at < clock_timestamp() - make_interval(hours => $1) limit $2));
