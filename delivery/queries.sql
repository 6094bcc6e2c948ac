-- consumer_named --
-- A consumer by its name. The secret of before is given only while it still signs.
select id, uuid, name, mode, ordering, directories, types, batch_max, sealed_url, retry_schedule, secret,
       case when secret_before_until > clock_timestamp() then secret_before end, state, epoch, version, created_at
from consumers where name = $1 and deleted_at is null;

-- consumers_all --
-- Every consumer there is.
select id, uuid, name, mode, ordering, directories, types, batch_max, sealed_url, retry_schedule, secret,
       case when secret_before_until > clock_timestamp() then secret_before end, state, epoch, version, created_at
from consumers where deleted_at is null order by name;

-- consumer_unchanged --
-- Whether a consumer is still the one that was read.
select from consumers where id = $1 and version = $2;

-- next_consumer_id --
-- Reserved before the commit, because the consumer's first event and rows carry it. A gap is harmless.
select nextval(pg_get_serial_sequence('ledger.consumers', 'id'))::int;

-- insert_consumer --
-- In the transaction that records consumer.created; a name in use is refused by the index.
insert into consumers (id, uuid, name, mode, ordering, directories, types, batch_max, sealed_url, retry_schedule, secret)
overriding system value values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- insert_epoch --
-- From where it reads under which filter.
insert into consumer_epochs (consumer, epoch, start, directories, types, leaf) values ($1, $2, $3, $4, $5,
    (select v.leaf_hash from (select position, directory, seq, size from commits where position <= $3 order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + ($3 - s.position) where $3 < s.position + s.size));

-- filters_of --
-- Every filter that consumers have or had.
select distinct consumer, directories, types from consumer_epochs where consumer = any($1::int4[]);

-- left_over --
-- What consumers still deliver whatever their filter says now: directories and types (bits) of exceptions, and of runs that have not ended.
select o.consumer, o.directory, bit_or(1::bigint << e.type)
from open_deliveries o join events e on e.directory = o.directory and e.seq = o.seq where o.consumer = any($1::int4[]) group by 1, 2
union all
select r.consumer, d, r.types from replays r cross join lateral unnest(r.directories) d
where r.consumer = any($1::int4[]) and r.state in ('running', 'paused');

-- update_consumer --
-- In the transaction that records consumer.updated.
update consumers set ordering = $2, directories = $3, types = $4, batch_max = $5, sealed_url = $6, retry_schedule = $7, version = version + 1
where id = $1;

-- set_consumer_state --
-- Active, paused or disabled.
update consumers set state = $2, version = version + 1 where id = $1;

-- rotate_secret --
-- The old one goes on signing for a while, so that a receiver may change when it likes.
update consumers set secret_before = secret, secret_before_until = clock_timestamp() + make_interval(secs => $3), secret = $2,
                     version = version + 1 where id = $1;

-- delete_consumer --
-- The row stays for the audit; the name becomes free.
update consumers set deleted_at = clock_timestamp(), state = 'disabled', version = version + 1 where id = $1;

-- lock_consumer --
-- Before a change of the consumer's place. Recording of deliveries takes it shared.
select pg_advisory_xact_lock(3, $1);

-- try_lock_consumer --
-- The same without waiting.
select pg_try_advisory_xact_lock(3, $1);

-- share_consumers --
-- Taken before the guard is read, in a statement of its own, so that the guard's snapshot does not predate it. The second lock is against
-- recordings of the same: one that was given up and waits for a synchronous standby is followed by no second session that waits.
select pg_advisory_xact_lock_shared(3, c), pg_advisory_xact_lock(7, c) from (select c from unnest($1::int4[]) c order by c offset 0) ordered;

-- carry_open --
-- Places still open at or below $2 become rows, so that they are delivered although another epoch begins.
insert into open_deliveries (consumer, position, directory, seq, state)
select $1, p, c.directory, c.seq + (p - c.position), 1
from (select open from checkpoints k join consumers s on s.id = k.consumer and s.epoch = k.epoch
      where k.consumer = $1 order by k.id desc limit 1) newest
cross join lateral unnest(newest.open) p
cross join lateral (select position, directory, seq from commits where position <= p order by position desc limit 1) c
where p <= $2 on conflict do nothing;

-- close_epoch --
-- What was open stands in rows now.
insert into checkpoints (consumer, epoch, low, through, leaf)
select k.consumer, k.epoch, k.through, k.through, k.leaf from checkpoints k join consumers s on s.id = k.consumer and s.epoch = k.epoch
where k.consumer = $1 order by k.id desc limit 1;

-- leave_open --
-- Before a seek to $2: what lies behind it and is open, has a row, or was given up, was never acknowledged. The newest epoch that passed it says so for ever.
insert into checkpoints (consumer, epoch, low, through, leaf, open)
select e.consumer, e.epoch, k.low, k.through, k.leaf, array(
    select p from unnest(k.open) p where p > $2 or e.epoch < c.epoch
    union
    select o.position from (
        select consumer, position, replay from open_deliveries union all select consumer, position, replay from skips) o
    where o.consumer = c.id and o.position > $2 and o.replay is null and o.position > e.start and o.position <= k.through
      and not exists (select from consumer_epochs n join checkpoints l on l.consumer = n.consumer and l.epoch = n.epoch
                      where n.consumer = c.id and n.epoch > e.epoch and o.position > n.start and o.position <= l.through)
    order by 1)
from consumers c join consumer_epochs e on e.consumer = c.id
cross join lateral (select low, through, open, leaf from checkpoints where consumer = e.consumer and epoch = e.epoch order by id desc limit 1) k
where c.id = $1;

-- begin_epoch_here --
-- The same place under another filter.
with moved as (update consumers set epoch = epoch + 1, version = version + 1 where id = $1 returning id, epoch)
insert into consumer_epochs (consumer, epoch, start, leaf, directories, types)
select m.id, m.epoch, k.through, k.leaf, $2, $3 from moved m cross join lateral (
    (select through, leaf, 1 from checkpoints where consumer = $1 and epoch = m.epoch - 1 order by id desc limit 1) union all
    (select start, leaf, 2 from consumer_epochs where consumer = $1 and epoch = m.epoch - 1) order by 3 limit 1) k;

-- begin_epoch_at --
-- A seek.
with moved as (update consumers set epoch = epoch + 1, version = version + 1 where id = $1 returning id, epoch)
insert into consumer_epochs (consumer, epoch, start, directories, types, sealed_reason, leaf) select m.id, m.epoch, $2, $3, $4, $5,
    (select v.leaf_hash from (select position, directory, seq, size from commits where position <= $2 order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + ($2 - s.position) where $2 < s.position + s.size)
from moved m;

-- forget_open_after --
-- What lies behind the place of a seek is read again from the log.
delete from open_deliveries where consumer = $1 and position > $2;

-- wake_consumers --
-- Tells those who deliver to look at the consumers again; they look every second anyway.
select pg_notify('ledger_consumers', '');

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

-- untold --
-- Blocked ones whose event is not in the log: the process or the database ended between the two.
select position from open_deliveries where consumer = $1 and state = 3 and not told order by position;

-- note_told --
-- In the commit of delivery.blocked. Where another process told it meanwhile the column refuses the null, and with it the second event.
update open_deliveries set told = nullif(not told, false) where consumer = $1 and position = $2 and state = 3;

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

-- retry_open --
-- An operator's retry: due at once, whatever any clock says, with a schedule that begins again. A parked one comes back. Where $3 says that it is a grant and a later
-- event took it back meanwhile, the column refuses the null, and with it the act.
update open_deliveries o set state = 2, next_at = null, asked_s = null, told = false, attempts = case when $3 and exists (
    select from events g where g.directory = o.directory and g.seq = o.seq and (
        exists (select from events e where g.mem is not null and e.directory = g.directory and e.mem = g.mem and e.obj = g.obj and e.seq > g.seq
                and e.type in (11, 12))
        or exists (select from events e where g.mem is null and e.directory = g.directory and e.obj = g.obj and e.seq > g.seq and e.type in (2, 4, 5))
        or exists (select from directory_states t where t.directory = g.directory and t.closed_seq > g.seq))) then null else 0 end
where consumer = $1 and position = $2;

-- park_open --
-- Set aside in sight: it holds up nothing, and stays until an operator brings it back or skips it.
update open_deliveries set state = 5, next_at = null, sealed_reason = $3 where consumer = $1 and position = $2;

-- skip_open --
-- Never to be delivered; the reason stays, sealed. Of what a run repeats only the repetition is given up, unless the event itself was.
with gone as (delete from open_deliveries where consumer = $1 and position = $2 returning consumer, position, replay)
insert into skips (consumer, position, sealed_reason, replay) select consumer, position, $3, replay from gone
on conflict (consumer, position) do update set sealed_reason = excluded.sealed_reason, at = excluded.at,
    replay = case when skips.replay is not null then excluded.replay end;

-- touch_consumer --
-- Something about its exceptions changed: whoever delivers reads them again.
update consumers set version = version + 1 where id = $1;

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

-- revocation_seconds --
-- Percentiles of the time from the commit to a consumer's acknowledgement, of the last 30 days.
select consumer, percentile_cont(0.5) within group (order by s), percentile_cont(0.99) within group (order by s)
from (select consumer, greatest(extract(epoch from at)::float8 - happened / 1e6, 0) s from revocation_acks
      where consumer = any($1::int4[]) and at > now() - interval '30 days') v group by consumer;

-- revocations_acked_after --
-- What came since the last scrape, for the histogram. Not the last second: numbers are given before they commit.
select r.id, c.name, greatest(extract(epoch from r.at)::float8 - r.happened / 1e6, 0)::float8
from revocation_acks r join consumers c on c.id = r.consumer where r.id > $1 and r.at < now() - interval '1 second' order by r.id limit $2;

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

-- pace_of --
-- What whoever delivers for a consumer sees of it; nothing where nobody does. A minute is more than any lease that is renewed, two
-- are further ahead than any: that was before the clock was set back.
select limited_by, answer_s::float8, record_s::float8, events_s::float8 from consumer_leases
where consumer = $1 and until > clock_timestamp() - interval '1 minute' and until < clock_timestamp() + interval '2 minutes';

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

-- misplaced --
-- Consumers whose place is not in the log as it now is: another event stands there, or none. $1: one of them, or all.
select c.id, p.through from consumers c
join consumer_epochs e on e.consumer = c.id and e.epoch = c.epoch
left join lateral (select through, leaf from checkpoints where consumer = c.id and epoch = c.epoch order by id desc limit 1) k on true
cross join lateral (select coalesce(k.through, e.start) as through, case when k.through is null then e.leaf else k.leaf end as leaf) p
left join lateral (select v.leaf_hash from (select position, directory, seq, size from commits where position <= p.through order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + (p.through - s.position) where p.through < s.position + s.size) v on true
where c.deleted_at is null and ($1::int4 is null or c.id = $1) and p.through > 0 and (v.leaf_hash is null or v.leaf_hash <> p.leaf)
order by c.id;

-- last_standing --
-- The last place of a consumer, of its newest $2, at which the log still holds what stood there.
select max(k.through) from (select through, leaf from checkpoints where consumer = $1 and leaf is not null order by epoch desc, id desc limit $2) k
where k.leaf = (select v.leaf_hash from (select position, directory, seq, size from commits where position <= k.through order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + (k.through - s.position) where k.through < s.position + s.size);

-- leaves_at --
-- What stands at positions: leaf hashes.
select p, v.leaf_hash from unnest($1::int8[]) p cross join lateral (
    select v.leaf_hash from (select position, directory, seq, size from commits where position <= p order by position desc limit 1) s
    join events v on v.directory = s.directory and v.seq = s.seq + (p - s.position) where p < s.position + s.size) v;

-- cut_epochs --
-- No epoch passed more than the log and the one that was read have in common, up to $2.
insert into checkpoints (consumer, epoch, low, through, leaf, open)
select e.consumer, e.epoch, least(k.low, $2), $2,
       (select v.leaf_hash from (select position, directory, seq, size from commits where position <= $2 order by position desc limit 1) s
        join events v on v.directory = s.directory and v.seq = s.seq + ($2 - s.position) where $2 < s.position + s.size),
       array(select p from unnest(k.open) p where p <= $2 order by 1)
from consumer_epochs e
cross join lateral (select low, through, open from checkpoints where consumer = e.consumer and epoch = e.epoch order by id desc limit 1) k
where e.consumer = $1 and k.through > $2;

-- forget_skips_read_again --
-- What an operator gave up behind the place where the epoch just begun starts, as far as its filter takes it ($2: types as bits; $3: the
-- directory that `*` leaves out): it is read from there again. Of the rest the skip stays the last word.
delete from skips s using consumers c join consumer_epochs n on n.consumer = c.id and n.epoch = c.epoch
where c.id = $1 and s.consumer = $1 and s.position > n.start and exists (
    select from (select directory, seq, position from commits where position <= s.position order by position desc limit 1) k
    join directories d on d.id = k.directory
    join events e on e.directory = k.directory and e.seq = k.seq + (s.position - k.position)
    where (d.slug = any(n.directories) or ('*' = any(n.directories) and d.slug <> $3)) and (1::bigint << e.type) & $2 <> 0);

-- forget_skips_after --
-- What an operator gave up behind a place, where the log does not hold it any more.
delete from skips where consumer = $1 and position > $2;

-- forget_replayed_after --
-- What runs delivered of a log that is gone.
delete from replayed where consumer = $1 and position > $2;

-- begin_epoch_after_fork --
-- At what both logs have. $5 is the epoch that was seen: of two who see the same fork the second is refused by the key.
with moved as (update consumers set epoch = $5 + 1, version = version + 1 where id = $1)
insert into consumer_epochs (consumer, epoch, start, directories, types, leaf) values ($1, $5 + 1, $2, $3, $4,
    (select v.leaf_hash from (select position, directory, seq, size from commits where position <= $2 order by position desc limit 1) s
     join events v on v.directory = s.directory and v.seq = s.seq + ($2 - s.position) where $2 < s.position + s.size));

-- add_fork --
-- In the commit of consumer.forked. Where one is open already, each report says up to where its process knows both logs to be the same: the
-- greatest of what holds for all of them. A position holds no more where nothing stands there that was committed before the fork was told
-- (the log lost its end once more, or went on), or where the report has something gone at or below it ($7: the first, or null).
insert into consumer_forks (consumer, common_position, common, gone, gone_count, places_lost) values ($1, $2, $3::jsonb, $4, $5, $6)
on conflict (consumer) where closed_at is null do update set (common_position, common) = (
        select m.p, (
            select coalesce(jsonb_object_agg(u.slug, coalesce(t.s, 0)), '{}') from jsonb_object_keys(consumer_forks.common || excluded.common) u(slug)
            left join directories d on d.slug = u.slug
            left join lateral (
                select seq + least(size - 1, m.p - position) as s from commits where directory = d.id and position <= m.p order by seq desc limit 1) t on true)
        from (
            select coalesce(max(k.p), least(consumer_forks.common_position, excluded.common_position)) as p
            from (values (consumer_forks.common_position), (excluded.common_position)) k(p)
            cross join lateral (select position, size, at from commits where position <= k.p order by position desc limit 1) c
            where k.p < c.position + c.size and c.at < extract(epoch from consumer_forks.since) * 1000000 and k.p < coalesce($7, k.p + 1)) m),
    gone = (consumer_forks.gone || array(select g from unnest(excluded.gone) g where g <> all(consumer_forks.gone)))[1:1000],
    gone_count = consumer_forks.gone_count + excluded.gone_count
                 - (select count(*) from unnest(excluded.gone) g where g = any(consumer_forks.gone)),
    places_lost = greatest(consumer_forks.places_lost, excluded.places_lost);

-- close_fork --
-- In the commit of consumer.fork_closed.
update consumer_forks set closed_at = clock_timestamp(), sealed_reason = $2 where consumer = $1 and closed_at is null;

-- forks_of --
-- Of consumers, the newest last.
select consumer, since, common_position, common::text, gone, greatest(gone_count, places_lost), closed_at from consumer_forks where consumer = any($1::int4[]) order by id;

-- thin_checkpoints --
-- Of the checkpoints that have come to an age of $2 seconds since the last time, the last of each $3 seconds stays ($1 is the number of this step).
-- Whole steps of time only, at most $4 rows of each epoch. Gives how many were looked at in the epoch with most of them, and how many are gone.
with stretch as (
    select e.consumer, e.epoch, k.id, date_bin(make_interval(secs => $3), k.at, '2000-01-01Z') as step
    from consumer_epochs e left join thinned t on t.consumer = e.consumer and t.epoch = e.epoch and t.step = $1::int2
    cross join lateral (
        select id, at from checkpoints where consumer = e.consumer and epoch = e.epoch and id > coalesce(t.through, 0)
          and at < date_bin(make_interval(secs => $3), now() - make_interval(secs => $2), '2000-01-01Z')
        order by id limit $4) k),
marked as (select consumer, epoch, id, step, lead(step) over (partition by consumer, epoch order by id) as following from stretch),
gone as (
    delete from checkpoints k using marked m where m.following = m.step and k.consumer = m.consumer and k.epoch = m.epoch and k.id = m.id
    returning k.id),
noted as (
    insert into thinned (consumer, epoch, step, through) select consumer, epoch, $1::int2, max(id) from stretch group by consumer, epoch
    on conflict (consumer, epoch, step) do update set through = excluded.through)
select coalesce((select max(n) from (select count(*) as n from stretch group by consumer, epoch) v), 0), (select count(*) from gone);

-- position_at_time --
-- An instant as a place for a reader of directories ($2, or null: all, but none of $3): the last position before which nothing of theirs
-- is from then or later, and the last position at or below which all of theirs from before it is. Time never runs backwards in a directory, so
-- each is asked alone; between directories it may, where the clock was set, and then the two differ.
select f.before, greatest(f.before, f.through) from (
    select least((select coalesce(max(position + size - 1), 0) from (select position, size from commits order by position desc limit 1) t),
                 coalesce(min(c.position) - 1, 9223372036854775807)) as before, max(b.through) as through
    from directories d
    left join lateral (select position from commits where directory = d.id and at >= $1 order by at, seq limit 1) c on true
    left join lateral (
        select position + size - 1 as through from commits where directory = d.id and at < $1 order by at desc, seq desc limit 1) b on true
    where ($2::int4[] is null or d.id = any($2)) and d.id <> all($3::int4[])) f;

-- places_at --
-- Directory and seq of positions.
select p, c.directory, c.seq + (p - c.position) from unnest($1::int8[]) p
cross join lateral (select position, directory, seq from commits where position <= p order by position desc limit 1) c;

-- previous_matching --
-- The last event of a filter in a directory before a seq, with its position: what was delivered there before. $4 is the consumer.
select e.seq, c.position + (e.seq - c.seq) from events e
cross join lateral (select position, seq from commits where directory = $1 and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq < $2 and (1::bigint << e.type) & $3 <> 0
  and not exists (select from skips s where s.consumer = $4 and s.position = c.position + (e.seq - c.seq) and s.replay is null)
  and not exists (select from open_deliveries o where o.consumer = $4 and o.position = c.position + (e.seq - c.seq))
order by e.seq desc limit 1;

-- epoch_start --
-- Where a consumer's epoch began.
select start from consumer_epochs where consumer = $1 and epoch = $2;

-- matching_between --
-- Events of a filter in one directory between two seqs (exclusive), for a rewind; not what an operator skipped or parked. $6 is the consumer.
select e.seq, e.type, e.obj, e.mem, c.at, c.position + (e.seq - c.seq), c.seq, c.types from events e
cross join lateral (select position, seq, at, types from commits where directory = $1 and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq > $2 and e.seq < $3 and (1::bigint << e.type) & $4 <> 0
  and not exists (select from skips s where s.consumer = $6 and s.position = c.position + (e.seq - c.seq) and s.replay is null)
  and not exists (select from open_deliveries o where o.consumer = $6 and o.position = c.position + (e.seq - c.seq) and o.state = 5)
order by e.seq limit $5;

-- position_of_seq --
-- The position of an event by directory and seq.
select c.position + ($2 - c.seq) from (select position, seq, size from commits where directory = $1 and seq <= $2 order by seq desc limit 1) c
where $2 < c.seq + c.size;

-- seq_at_position --
-- The last seq of a directory at or before a position.
select least(c.seq + c.size - 1, c.seq + ($2 - c.position)) from commits c where c.directory = $1 and c.position <= $2 order by c.seq desc limit 1;

-- matching_after --
-- How many events of a filter lie in (after, through], capped, and when the oldest was made.
select count(*), min(at) from (
    select c.at from commits c
    join events e on e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size and (1::bigint << e.type) & $4 <> 0
    where c.position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and c.position <= $2
      and c.directory = any($3::int4[]) and c.types & $4 <> 0 and c.position + (e.seq - c.seq) > $1 and c.position + (e.seq - c.seq) <= $2
    order by c.position limit $5) v;

-- positions_matching --
-- Events of a filter in (after, through], with what the order depends on. A page must not cost what lies behind it: no more commits are
-- looked at than a page has events, and one, of which all may lie before it; each other has one at least, but of a subject. Ordered as the
-- commits are read, so that reading ends with the page: a commit may have 100 000 events.
select c.position + (e.seq - c.seq), e.directory, e.seq, e.type, e.obj, e.mem, c.at
from (
    select position, directory, seq, size, at from commits
    where position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and position <= $2
      and directory = any($3::int4[]) and types & $4 <> 0
    order by position limit case when $6::uuid[] is null then $5 + 1 end) c
join events e on e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size and (1::bigint << e.type) & $4 <> 0
where c.position + (e.seq - c.seq) > $1 and c.position + (e.seq - c.seq) <= $2
  and ($6::uuid[] is null or e.obj = any($6) or e.mem = any($6))
order by c.position, e.seq limit $5;

-- epochs_of --
-- Everything a consumer ever read: each epoch with its last checkpoint.
select e.epoch, e.start, coalesce(k.through, e.start), coalesce(k.open, '{}'), e.directories, e.types, e.at, e.sealed_reason
from consumer_epochs e
left join lateral (select through, open from checkpoints where consumer = e.consumer and epoch = e.epoch order by id desc limit 1) k on true
where e.consumer = $1 order by e.epoch;

-- skips_of --
-- What an operator decided not to deliver; with the run whose repetition it was.
select position, sealed_reason, at, replay from skips where consumer = $1 order by position;

-- replayed_of --
-- What runs delivered and the place of a consumer does not speak for.
select position from replayed where consumer = $1;

-- open_counts --
-- Exceptions by state, for status and metrics.
select consumer, state, count(*) from open_deliveries where consumer = any($1::int4[]) group by consumer, state;

-- oldest_failing --
-- What a consumer is stuck on: the oldest that was tried in vain, blocked before retried.
select position, directory, seq, state, attempts, extract(epoch from since)::float8, extract(epoch from next_at)::float8, error, answer, sealed_reason, replay,
       extract(epoch from tried_at)::float8, asked_s::float8
from open_deliveries where consumer = $1 and state in (2, 3) order by (state = 3) desc, position limit 1;

-- oldest_open_time --
-- When the oldest exception that is not parked was committed.
select min(c.at) from (select directory, seq from open_deliveries where consumer = $1 and state <> 5 order by position limit 1) o
cross join lateral (select at from commits where directory = o.directory and seq <= o.seq order by seq desc limit 1) c;

-- surge_limits_all --
-- The directories whose operator said something about surges, and which of them were closed.
select l.directory, l.per_hour, l.action, l.released, t.closed_seq is not null from surge_limits l
left join directory_states t on t.directory = l.directory;

-- set_surge_limit --
-- In the transaction that records the event.
insert into surge_limits (directory, per_hour, action) values ($1, $2, $3)
on conflict (directory) do update set per_hour = excluded.per_hour, action = excluded.action;

-- release_surge --
-- In the transaction that records the event: everything up to $2 may go.
insert into surge_limits (directory, per_hour, action, released) values ($1, $3, $4, $2)
on conflict (directory) do update set released = greatest(surge_limits.released, excluded.released);

-- losses_between --
-- Commits of a directory that end somebody's access, the newest first: first seq, time, users who lose some, groups that a group loses with
-- everybody inside. Of an edge only where it gave access. At most $4 events, the newest, each commit with the lowest seq of them; those of
-- a time of exactly $3 only below the seq $5, which is where the page before ended. 6164: user.deactivated, user.deleted,
-- group.member_removed, group.member_access_revoked, as in the index. Last, when it was made: where the clock was behind the log, commits have
-- the time of the one before (docs/decisions/0038), and the id of a request (a UUIDv7) still says when that came.
select commit, at, array_agg(distinct who) filter (where not whole), array_agg(distinct who) filter (where whole), min(seq),
       case when substr(req::text, 15, 1) = '7' and at - 60000000 > ('x' || translate(left(req::text, 13), '-', ''))::bit(48)::int8 * 1000
            then ('x' || translate(left(req::text, 13), '-', ''))::bit(48)::int8 * 1000 else at end
from (
    select c.seq as commit, c.at, c.req, e.seq, e.who, e.whole from commits c
    cross join lateral (
        select e.seq, coalesce(e.mem, e.obj) as who, position('\x226d74223a2247726f757022'::bytea in e.leaf) > 0 as whole from events e
        where e.directory = c.directory and e.seq >= c.seq and e.seq < case when c.at < $3 then c.seq + c.size else least(c.seq + c.size, $5) end
          and e.type in (2, 4, 11, 12)
          and (e.mem is null or position('\x22656666223a74727565'::bytea in e.leaf) > 0)
        order by e.seq desc limit $4) e
    where c.directory = $1 and c.at > $2 and c.at <= $3 and c.types & 6164 <> 0 and (c.at < $3 or c.seq < $5)
    order by c.at desc, c.seq desc, e.seq desc limit $4  -- as in the index, so that a page reads no more than itself
) ended group by commit, at, req order by commit desc;

-- by_index_alone --
-- Of this transaction. A bitmap of a giant commit would be made anew for each page of it.
select set_config('enable_bitmapscan', 'off', true);

-- edges_inside --
-- Memberships of groups as of a seq: which of the groups, the member, whether it is a group. Of each at most $6, after the place where the
-- page before ended ($4, $5): a group has one edge of each from_seq.
select g.n, m.mem, m.mt = 1, m.to_seq, m.from_seq
from unnest($3::uuid[], $4::int8[], $5::int8[]) with ordinality g(grp, t, f, n)
cross join lateral (
    select mem, mt, to_seq, from_seq from memberships
    where directory = $1 and grp = g.grp and to_seq > $2 and from_seq <= $2 and (to_seq, from_seq) > (g.t, g.f)
    order by to_seq, from_seq limit $6) m
order by g.n, m.to_seq, m.from_seq;

-- active_at --
-- Which of these users were active as of a seq.
select u from unnest($3::uuid[]) u
where (select s.active from states s where s.directory = $1 and s.obj = u and s.to_seq > $2 and s.from_seq <= $2 limit 1);

-- losses_lately --
-- Directories where access ended in the hour until now, with the newest commit, and when that hour began. A closed one is left out: its end
-- was no accident.
select d.id, c.seq, h.since from directories d
cross join (select (extract(epoch from clock_timestamp()) * 1000000)::int8 - $1 as since) h
cross join lateral (
    select seq from commits where directory = d.id and at > h.since and types & 6164 <> 0 order by at desc, seq desc limit 1) c
where not exists (select from directory_states where directory = d.id and closed_seq is not null);

-- surge_alarmed_lately --
-- Which surges were told already; the seq where that was before the clock was set back, and so speaks of no more than it saw.
select directory, case when at > clock_timestamp() then seq end from surge_alarms where at > clock_timestamp() - make_interval(secs => $1);

-- insert_surge_alarm --
-- In the transaction that records the event.
insert into surge_alarms (directory, seq) values ($1, $2) on conflict do nothing;

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

-- thin_replay_progress --
-- Only the newest of each run is needed. Not looked at again: runs that ended an hour ago.
delete from replay_progress p using (
    select n.replay, n.id from replays r cross join lateral (select replay, id from replay_progress where replay = r.id order by id desc limit 1) n
    where r.ended_at is null or r.ended_at > now() - interval '1 hour') newest
where p.replay = newest.replay and p.id < newest.id;

-- seqs_at_position --
-- The last seq of each directory at a position of the ledger.
select d.id, t.s from directories d
cross join lateral (select seq + size - 1 as s from commits where directory = d.id and position <= $1 order by seq desc limit 1) t;

-- try_watch --
-- The role of telling of surges and thinning out, taken for a moment by one process.
select pg_try_advisory_lock(4, 0);

-- end_watch --
-- Given back.
select pg_advisory_unlock(4, 0);

-- clock --
-- The database's, in µs: what events are stamped with.
select (extract(epoch from clock_timestamp()) * 1000000)::int8;

-- times_at --
-- When the commits at positions were made (µs).
select c.at from unnest($1::int8[]) p cross join lateral (select at from commits where position <= p order by position desc limit 1) c;

-- gaps_between --
-- Where one commit does not begin behind the one before it.
select expected, position - 1 from (
    select position, lag(position + size) over (order by position) as expected from commits
    where position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and position <= $2) v
where expected is not null and expected <> position limit 20;

-- notes_left --
-- Whether an earlier release left something in clear.
select exists (select from unsealed_notes);

-- take_notes_left --
-- What is to be sealed, in this transaction: the table is empty after it.
select kind, owner, position, content from take_unsealed_notes();

-- seal_urls --
-- $2 is nothing here: all five take the same. One that was given anew meanwhile stays.
update consumers c set sealed_url = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where c.uuid = v.o and c.sealed_url is null;

-- seal_parked --
-- Why deliveries were set aside.
update open_deliveries d set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) join consumers c on c.uuid = v.o
where d.consumer = c.id and d.position = v.p and d.sealed_reason is null;

-- seal_skipped --
-- Why deliveries were given up.
update skips d set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) join consumers c on c.uuid = v.o
where d.consumer = c.id and d.position = v.p and d.sealed_reason is null;

-- seal_replay_names --
-- What runs are called.
update replays r set sealed_name = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where r.id = v.o and r.sealed_name is null;

-- seal_replay_reasons --
-- Why they were started.
update replays r set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where r.id = v.o and r.sealed_reason is null;
