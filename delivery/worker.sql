-- try_lock_consumer --
-- The same without waiting.
select pg_try_advisory_xact_lock(3, $1);

-- claim_lease --
-- Take a consumer that nobody holds, or whose holder gave it back, or let it stand as it was ($4, $5) when this process looked. The fence
-- shuts out whoever held it before.
insert into consumer_leases (consumer, holder, fence, until, lease_s)
select $1, $2, 1, clock_timestamp() + make_interval(secs => $3), $3
on conflict (consumer) do update
    set holder = excluded.holder, fence = consumer_leases.fence + 1, until = excluded.until, lease_s = excluded.lease_s
where consumer_leases.until = '-infinity' or (consumer_leases.fence = $4 and consumer_leases.until::text = $5)
returning fence, coalesce(extract(epoch from not_before), 0)::float8;

-- renew_leases --
-- Of one holder, with what it sees of its consumers; what is missing in the answer was lost. A sign of life promises nothing to anybody, so it
-- does not wait for a synchronous standby: where that hangs, each would leave a session behind that waits.
update consumer_leases l set until = clock_timestamp() + make_interval(secs => $3), lease_s = $3, limited_by = v.l, answer_s = v.a, record_s = v.r,
                             events_s = v.e, not_before = to_timestamp(v.n)
from unnest($2::int4[], $4::int2[], $5::float8[], $6::float8[], $7::float8[], $8::float8[]) v(c, l, a, r, e, n) where l.holder = $1 and l.consumer = v.c
returning l.consumer, set_config('synchronous_commit', 'local', true);

-- release_leases --
-- Given back cleanly: nothing is under way, another may begin at once.
update consumer_leases set until = '-infinity' where holder = $1 and consumer = any($2::int4[]);

-- leases_held --
-- Which consumers somebody delivers for; fence and until change with each sign of life.
select consumer, fence, until::text, lease_s::float8 from consumer_leases where until > '-infinity';

-- beat_worker --
-- One row per delivery process, so that each knows what its share is. A sign of life, as above.
insert into delivery_workers (id, seen_at) values ($1, clock_timestamp()) on conflict (id) do update set seen_at = excluded.seen_at
returning set_config('synchronous_commit', 'local', true);

-- live_workers --
-- Delivery processes, each with a sign of life that changes.
select id, seen_at::text from delivery_workers;

-- forget_worker --
-- On a clean stop, and for those that were killed long ago.
delete from delivery_workers where id = $1 or seen_at < clock_timestamp() - interval '1 hour';

-- try_watch --
-- The role of telling of surges and thinning out, taken for a moment by one process.
select pg_try_advisory_lock(4, 0);

-- end_watch --
-- Given back.
select pg_advisory_unlock(4, 0);
