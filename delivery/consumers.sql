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

-- consumers_ever --
-- Every consumer that there is or was.
select id, uuid, name, mode, ordering, directories, types, batch_max, sealed_url, retry_schedule, secret,
       case when secret_before_until > clock_timestamp() then secret_before end, state, epoch, version, created_at
from consumers order by name, id;

-- consumer_unchanged --
-- Whether a consumer is still the one that was read.
select from consumers where id = $1 and version = $2;

-- consumer_reads_on --
-- A row if the consumer was not deleted, nor moved or given another filter since it was read.
select from consumers where id = $1 and epoch = $2 and deleted_at is null;

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

-- touch_consumer --
-- Something about its exceptions changed: whoever delivers reads them again.
update consumers set version = version + 1 where id = $1;

-- forget_skips_read_again --
-- What an operator gave up behind the place where the epoch just begun starts, as far as its filter takes it ($2: types as bits; $3: the
-- directory that `*` leaves out): it is read from there again. Of the rest the skip stays the last word.
delete from skips s using consumers c join consumer_epochs n on n.consumer = c.id and n.epoch = c.epoch
where c.id = $1 and s.consumer = $1 and s.position > n.start and exists (
    select from (select directory, seq, position from commits where position <= s.position order by position desc limit 1) k
    join directories d on d.id = k.directory
    join events e on e.directory = k.directory and e.seq = k.seq + (s.position - k.position)
    where (d.slug = any(n.directories) or ('*' = any(n.directories) and d.slug <> $3)) and (1::bigint << e.type) & $2 <> 0);
