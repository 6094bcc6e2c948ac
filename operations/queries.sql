-- begin_idempotent --
-- Takes the key, or gives nothing where somebody has it.
insert into idempotent_requests (owner, key, fingerprint, request) values ($1, $2, $3, $4) on conflict do nothing returning 1;

-- idempotent_request --
-- Who has the key: which request, whether it must have ended, with which answer, and whether it committed anything.
select i.fingerprint, i.request, i.over or i.begun_at < clock_timestamp() - make_interval(secs => $3), i.answer,
       exists (select from commits c where c.req = i.request)
from idempotent_requests i where i.owner = $1 and i.key = $2;

-- take_over_idempotent --
-- From a request that ended and did nothing; of two who try, one gets it.
update idempotent_requests set request = $4, begun_at = clock_timestamp(), over = false where owner = $1 and key = $2 and request = $3 and answer is null
returning 1;

-- finish_idempotent --
-- The answer, once there is one.
update idempotent_requests set answer = $4 where owner = $1 and key = $2 and request = $3;

-- end_idempotent --
-- What was refused may be tried again under the same key, unless it committed something all the same.
update idempotent_requests set over = true where owner = $1 and key = $2 and request = $3;

-- prune_idempotent --
-- What is older than a client may rely on, in bounded pieces.
delete from idempotent_requests where ctid = any(array(
    select ctid from idempotent_requests where begun_at < clock_timestamp() - make_interval(hours => $1) limit $2));
