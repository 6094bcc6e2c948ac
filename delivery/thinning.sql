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

-- thin_replay_progress --
-- Only the newest of each run is needed. Not looked at again: runs that ended an hour ago.
delete from replay_progress p using (
    select n.replay, n.id from replays r cross join lateral (select replay, id from replay_progress where replay = r.id order by id desc limit 1) n
    where r.ended_at is null or r.ended_at > now() - interval '1 hour') newest
where p.replay = newest.replay and p.id < newest.id;
