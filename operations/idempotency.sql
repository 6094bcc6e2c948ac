-- begin_idempotent --
-- Takes the key, or gives nothing where somebody has it. Here and below the row does not wait for a synchronous standby: what the request
-- commits later does, and a standby that has that has this too. Where the standby hangs, the key would be taken by a request that was refused.
insert into idempotent_requests (owner, key, fingerprint, request) values ($1, $2, $3, $4) on conflict do nothing
returning set_config('synchronous_commit', 'local', true);

-- idempotent_request --
-- Who has the key: which request, whether it must have ended, with which answer, and whether it committed anything.
select i.fingerprint, i.request, i.over or i.begun_at < clock_timestamp() - make_interval(secs => $3), i.answer,
       exists (select from commits c where c.req = i.request)
from idempotent_requests i where i.owner = $1 and i.key = $2;

-- lower_idempotent --
-- Begun before the clock was set back: it must have ended so and so long after somebody first asked, not when the clock has caught up.
update idempotent_requests set begun_at = clock_timestamp() where owner = $1 and key = $2 and begun_at > clock_timestamp() and not over
returning set_config('synchronous_commit', 'local', true);

-- patience --
-- How long a lock is waited for in this transaction, in milliseconds.
select set_config('lock_timeout', $1, true);

-- no_write_under_way --
-- A transaction that was lost on its way to COMMIT holds the locks of its directories, or waits for them: whatever holds or awaits one now is
-- waited for, in the order of the writers, which take the lock of the ledger after these.
select pg_advisory_xact_lock_shared(1, d) from (
    select distinct objid::int4 d from pg_locks where locktype = 'advisory' and classid = 1 and objsubid = 2
      and database = (select oid from pg_database where datname = current_database()) order by 1 offset 0) ordered;

-- no_commit_under_way --
-- A commit that was given up while it waited for a synchronous standby holds the lock of the ledger, and nobody sees it until it is there.
select pg_advisory_xact_lock_shared(2, 0);

-- committed --
-- Whether a request committed anything.
select exists (select from commits where req = $1);

-- take_over_idempotent --
-- From a request that ended and did nothing; of two who try, one gets it.
update idempotent_requests set request = $4, begun_at = clock_timestamp(), over = false where owner = $1 and key = $2 and request = $3 and answer is null
returning set_config('synchronous_commit', 'local', true);

-- finish_idempotent --
-- The answer, once there is one.
update idempotent_requests set answer = $4 where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- end_idempotent --
-- What was refused may be tried again under the same key, unless it committed something all the same.
update idempotent_requests set over = true where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- prune_idempotent --
-- What is older than a client may rely on, in bounded pieces.
delete from idempotent_requests where ctid = any(array(
    select ctid from idempotent_requests where begun_at < clock_timestamp() - make_interval(hours => $1) limit $2));
