-- taken_back --
-- The grants that a later event took back, up to a head: memberships removed or revoked, users deactivated or deleted. Also all grants
-- of a directory that was closed at any time, even after the head: its access has ended for ever. `offset 0` makes the planner look for the
-- events of the user or of the member: by directory and seq it would read all that came after the grant, for each grant.
select k.n from unnest($1::int4[], $2::int8[], $3::uuid[], $4::uuid[], $5::int8[]) with ordinality k(d, s, o, m, h, n)
where case when k.m is not null
    then exists (select from (select seq, obj, type from events where directory = k.d and mem = k.m offset 0) e
                 where e.seq > k.s and e.seq <= k.h and e.obj = k.o and e.type in (11, 12))
    else exists (select from (select directory, seq, type from events where obj = k.o offset 0) e
                 where e.directory = k.d and e.seq > k.s and e.seq <= k.h and e.type in (2, 4, 5)) end
   or exists (select from directory_states t where t.directory = k.d and t.closed_seq > k.s);

-- grant_flags --
-- The leaves of grants, which tell whether they gave access.
select e.directory, e.seq, e.leaf from unnest($1::int4[], $2::int8[]) k(d, s) join events e on e.directory = k.d and e.seq = k.s;

-- replay_by_id --
-- One run with its progress.
select r.id, r.sealed_name, r.consumer, c.name, r.from_position, r.to_position, r.head, r.types, r.directories, r.subjects, r.rate_per_second, r.superseded,
       r.sealed_reason, r.state, r.total, r.skipped, r.created_at, r.ended_at, coalesce(p.done, 0), coalesce(p.through, r.from_position), coalesce(p.ahead, '{}'), p.at, r.failure
from replays r join consumers c on c.id = r.consumer
left join lateral (select done, through, ahead, at from replay_progress where replay = r.id order by id desc limit 1) p on true
where r.id = $1;

-- replays_of --
-- The runs of a consumer, or of all consumers if $1 is null; newest first, and behind the run $4 if it is not null.
select r.id, r.sealed_name, r.consumer, c.name, r.from_position, r.to_position, r.head, r.types, r.directories, r.subjects, r.rate_per_second, r.superseded,
       r.sealed_reason, r.state, r.total, r.skipped, r.created_at, r.ended_at, coalesce(p.done, 0), coalesce(p.through, r.from_position), coalesce(p.ahead, '{}'), p.at, r.failure
from replays r join consumers c on c.id = r.consumer
left join lateral (select done, through, ahead, at from replay_progress where replay = r.id order by id desc limit 1) p on true
where ($1::int4 is null or r.consumer = $1) and ($2::bool is false or r.state in ('running', 'paused'))
  and ($4::uuid is null or (r.created_at, r.id) < (select created_at, id from replays where id = $4))
order by r.created_at desc, r.id desc limit $3;

-- due_in_run --
-- In the transaction that records replay.started: blocked and retried deliveries at these positions become due, with a new schedule.
update open_deliveries set state = 2, attempts = 0, next_at = null, asked_s = null
where consumer = $1 and position = any($2::int8[]) and state in (2, 3) and replay is null;

-- insert_replay --
-- In the transaction that records replay.started.
insert into replays (id, sealed_name, consumer, from_position, to_position, head, types, directories, subjects, rate_per_second, superseded, sealed_reason, state, total, skipped)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'running', $13, $14);

-- set_replay_state --
-- Sets the state: paused, running, cancelled, finished or failed.
update replays set state = $2, ended_at = case when $2 in ('cancelled', 'finished', 'failed') then clock_timestamp() end, failure = $3 where id = $1;

-- replay_unchanged --
-- A row if the run still has the state that was read.
select from replays where id = $1 and state = $2;

-- forget_replay --
-- Deletes what a cancelled run had still to send. Deliveries that are open without the run stay.
delete from open_deliveries where replay = $1;

-- drop_superseded --
-- In the transaction that resumes a run: removes its open grants that a later event took back while the run was paused.
delete from open_deliveries o using events g
where o.replay = $1 and g.directory = o.directory and g.seq = o.seq and g.type in (0, 3, 10, 13)
  and position(case when g.mem is null then '\x22616374697665223a74727565'::bytea else '\x22656666223a74727565'::bytea end in g.leaf) > 0
  and exists (select from replays where id = $1 and superseded = 'skip')
  and (exists (select from (select seq, obj, type from events where directory = g.directory and mem = g.mem offset 0) e
               where g.mem is not null and e.obj = g.obj and e.seq > g.seq and e.type in (11, 12))
    or exists (select from (select directory, seq, type from events where obj = g.obj and g.mem is null offset 0) e
               where e.directory = g.directory and e.seq > g.seq and e.type in (2, 4, 5))
    or exists (select from directory_states t where t.directory = g.directory and t.closed_seq > g.seq));
