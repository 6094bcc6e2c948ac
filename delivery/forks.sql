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

-- fork_is_open --
-- A row if the consumer has a fork that nobody closed.
select from consumer_forks where consumer = $1 and closed_at is null;

-- close_fork --
-- In the commit of consumer.fork_closed.
update consumer_forks set closed_at = clock_timestamp(), sealed_reason = $2 where consumer = $1 and closed_at is null;

-- forks_of --
-- Of consumers, the newest last.
select consumer, since, common_position, common::text, gone, greatest(gone_count, places_lost), closed_at from consumer_forks where consumer = any($1::int4[]) order by id;
