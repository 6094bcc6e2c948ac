-- share_consumers --
-- Taken before the guard is read, in a statement of its own, so that the guard's snapshot does not predate it. The second lock is against
-- recordings of the same: one that was given up and waits for a synchronous standby is followed by no second session that waits.
select pg_advisory_xact_lock_shared(3, c), pg_advisory_xact_lock(7, c) from (select c from unnest($1::int4[]) c order by c offset 0) ordered;

-- places --
-- How far consumers are: the newest checkpoint of the current epoch, or its start; where and when that epoch began; and what stood there.
select c.id, c.epoch, coalesce(k.low, e.start), coalesce(k.through, e.start), coalesce(k.open, '{}'), coalesce(k.at, e.at), e.start, e.at,
       case when k.through is null then e.leaf else k.leaf end
from unnest($1::int4[]) i join consumers c on c.id = i
join consumer_epochs e on e.consumer = c.id and e.epoch = c.epoch
left join lateral (select low, through, open, at, leaf from checkpoints where consumer = c.id and epoch = c.epoch order by id desc limit 1) k on true;

-- guard --
-- Whose lease still holds, in the epoch that the deliveries belong to, and in the log that they were read from: what stood where the
-- reading ended stands there still.
select k.c from unnest($1::int4[], $2::int8[], $3::int4[], $4::int8[], $5::bytea[]) k(c, f, e, p, h)
join consumer_leases l on l.consumer = k.c and l.fence = k.f join consumers c on c.id = k.c and c.epoch = k.e
where k.p = 0 or k.h = (select v.leaf_hash from (select position, directory, seq, size from commits where position <= k.p order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + (k.p - s.position) where k.p < s.position + s.size);

-- move_checkpoints --
-- Within a second the newest is moved in place, at most 50 times; then another begins. By ctid: joined by its key, a plan made while there are
-- few looks at every checkpoint of the epoch. Open places as text, because an array of arrays must be rectangular.
with v as (select c, e, l, t, o, (select x.leaf_hash from (select position, directory, seq, size from commits where position <= t order by position desc limit 1) s
    join events x on x.directory = s.directory and x.seq = s.seq + (t - s.position) where t < s.position + s.size) as h
    from unnest($1::int4[], $2::int4[], $3::int8[], $4::int8[], $5::text[]) k(c, e, l, t, o)),
moved as (
    update checkpoints k set low = v.l, through = v.t, leaf = v.h, open = v.o::bigint[], at = clock_timestamp(), moves = k.moves + 1
    from v cross join lateral (select ctid, begun, moves from checkpoints where consumer = v.c and epoch = v.e order by id desc limit 1) n
    where k.ctid = n.ctid and n.begun > clock_timestamp() - interval '1 second' and n.moves < 50
    returning k.consumer)
insert into checkpoints (consumer, epoch, low, through, leaf, open)
select c, e, l, t, h, o::bigint[] from v where not exists (select from moved m where m.consumer = v.c);

-- move_pull_checkpoint --
-- An acknowledgement, in place like those of deliveries: never backwards within an epoch.
with place as (select (select x.leaf_hash from (select position, directory, seq, size from commits where position <= $2 order by position desc limit 1) s
    join events x on x.directory = s.directory and x.seq = s.seq + ($2 - s.position) where $2 < s.position + s.size) as h),
newest as (select ctid, through, begun, moves from checkpoints where consumer = $1 and epoch = $3 order by id desc limit 1),
moved as (
    update checkpoints k set low = $2, through = $2, leaf = p.h, open = '{}', at = clock_timestamp(), moves = k.moves + 1 from newest n, place p
    where k.ctid = n.ctid and $2 > n.through and n.begun > clock_timestamp() - interval '1 second' and n.moves < 50
      and exists (select from consumers where id = $1 and epoch = $3)
    returning k.through),
begun as (
    insert into checkpoints (consumer, epoch, low, through, leaf)
    select c.id, c.epoch, $2, $2, p.h from consumers c cross join place p
    where c.id = $1 and c.epoch = $3 and not exists (select from moved)
      and $2 > coalesce((select through from newest), (select start from consumer_epochs where consumer = $1 and epoch = $3))
    returning through)
select through from moved union all select through from begun;

-- delete_open --
-- Exceptions that were settled. What an operator gave up while it was under way, and was accepted, was not given up.
with accepted as (delete from skips s using unnest($1::int4[], $2::int8[]) k(c, p) where s.consumer = k.c and s.position = k.p)
delete from open_deliveries o using unnest($1::int4[], $2::int8[]) k(c, p) where o.consumer = k.c and o.position = k.p;

-- insert_replayed --
-- What a run delivered and the consumer's place does not speak for. What was given up before is not any more.
with delivered as (select c, p from unnest($1::int4[], $2::int8[]) k(c, p)),
accepted as (delete from skips s using delivered where s.consumer = c and s.position = p)
insert into replayed (consumer, position) select c, p from delivered on conflict do nothing;

-- insert_open --
-- Exceptions that began; of a run only while it is open (it may have been cancelled while the delivery was under way).
insert into open_deliveries (consumer, position, directory, seq, state, attempts, since, next_at, error, answer, replay, tried_at, asked_s)
select c, p, d, s, st, a, to_timestamp(si), to_timestamp(n), e, an, r, to_timestamp(tr), q
from unnest($1::int4[], $2::int8[], $3::int4[], $4::int8[], $5::int2[], $6::int4[], $7::float8[], $8::float8[], $9::text[], $10::bytea[], $11::uuid[],
            $12::float8[], $13::float8[]) v(c, p, d, s, st, a, si, n, e, an, r, tr, q)
left join lateral (select id from replays where id = r and state in ('running', 'paused') limit 1) run on true
where r is null or run.id is not null
on conflict (consumer, position) do update set state = excluded.state, attempts = excluded.attempts, since = excluded.since,
    next_at = excluded.next_at, error = excluded.error, answer = excluded.answer, replay = excluded.replay, tried_at = excluded.tried_at,
    asked_s = excluded.asked_s;

-- update_open --
-- Exceptions that went on. One that an operator skipped or parked meanwhile stays so.
update open_deliveries o set state = st, attempts = a, since = coalesce(o.since, to_timestamp(si)), next_at = to_timestamp(n), error = e,
                             answer = an, replay = r, tried_at = to_timestamp(tr), asked_s = q
from unnest($1::int4[], $2::int8[], $3::int2[], $4::int4[], $5::float8[], $6::float8[], $7::text[], $8::bytea[], $9::uuid[], $10::float8[],
            $11::float8[]) v(c, p, st, a, si, n, e, an, r, tr, q)
where o.consumer = v.c and o.position = v.p and o.state <> 5;

-- open_page --
-- Exceptions of one state, after a position.
select position, directory, seq, state, attempts, extract(epoch from since)::float8, extract(epoch from next_at)::float8, error, answer, sealed_reason, replay,
       extract(epoch from tried_at)::float8, asked_s::float8
from open_deliveries where consumer = $1 and state = any($2::int2[]) and position > $3 order by position limit $4;

-- open_at --
-- One exception.
select position, directory, seq, state, attempts, extract(epoch from since)::float8, extract(epoch from next_at)::float8, error, answer, sealed_reason, replay,
       extract(epoch from tried_at)::float8, asked_s::float8
from open_deliveries where consumer = $1 and directory = $2 and seq = $3;

-- insert_revocation_acks --
-- Evidence that an end of access was acknowledged; the first acknowledgement counts. One of another time at that seq speaks of an event
-- that is no longer in the log.
insert into revocation_acks (consumer, directory, seq, happened) select c, d, s, h from unnest($1::int4[], $2::int4[], $3::int8[], $4::int8[]) v(c, d, s, h)
on conflict (consumer, directory, seq) do update set happened = excluded.happened, at = excluded.at where revocation_acks.happened <> excluded.happened;

-- ack_revocations --
-- The same for a consumer that pulls, of everything between two positions.
insert into revocation_acks (consumer, directory, seq, happened)
select $1, e.directory, e.seq, c.at from commits c
join events e on e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size and e.type = any($4::int2[])
where c.position >= coalesce((select position from commits where position <= $2 order by position desc limit 1), 0) and c.position <= $3
  and c.position + (e.seq - c.seq) > $2 and c.position + (e.seq - c.seq) <= $3 and c.types & 65556 <> 0 and c.directory = any($5::int4[])
on conflict (consumer, directory, seq) do update set happened = excluded.happened, at = excluded.at where revocation_acks.happened <> excluded.happened;

-- oldest_failing --
-- What a consumer is stuck on: the oldest that was tried in vain, blocked before retried.
select position, directory, seq, state, attempts, extract(epoch from since)::float8, extract(epoch from next_at)::float8, error, answer, sealed_reason, replay,
       extract(epoch from tried_at)::float8, asked_s::float8
from open_deliveries where consumer = $1 and state in (2, 3) order by (state = 3) desc, position limit 1;

-- move_replay_progress --
-- Only the newest of a run is needed: moved in place 50 times, then another begins.
with v as (select * from unnest($1::uuid[], $2::int8[], $3::int8[], $4::text[]) v(r, d, t, o)),
moved as (
    update replay_progress p set done = v.d, through = v.t, ahead = v.o::bigint[], at = clock_timestamp(), moves = p.moves + 1
    from v cross join lateral (select ctid, moves from replay_progress where replay = v.r order by id desc limit 1) n
    where p.ctid = n.ctid and n.moves < 50
    returning p.replay)
insert into replay_progress (replay, done, through, ahead)
select r, d, t, o::bigint[] from v where not exists (select from moved m where m.replay = v.r);
