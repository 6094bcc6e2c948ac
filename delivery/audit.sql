-- positions_matching --
-- Events of a filter in (after, through], with what the order depends on. A page must not cost what lies behind it: no more commits are
-- looked at than a page has events, and one, of which all may lie before it; each other has one at least, but of a subject. Ordered as the
-- commits are read, so that reading ends with the page: a commit may have 100 000 events. `offset 0`: events are looked up commit by commit; as
-- a join, all events of a subject are compared with each commit.
select c.position + (e.seq - c.seq), e.directory, e.seq, e.type, e.obj, e.mem, c.at
from (
    select position, directory, seq, size, at from commits
    where position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and position <= $2
      and directory = any($3::int4[]) and types & $4 <> 0
    order by position limit case when $6::uuid[] is null then $5 + 1 end) c
cross join lateral (
    select directory, seq, type, obj, mem from events
    where directory = c.directory and seq >= c.seq and seq < c.seq + c.size and (1::bigint << type) & $4 <> 0 offset 0) e
where c.position + (e.seq - c.seq) > $1 and c.position + (e.seq - c.seq) <= $2
  and ($6::uuid[] is null or e.obj = any($6) or e.mem = any($6))
order by c.position, e.seq limit $5;

-- few_of_subjects --
-- How many events are about these subjects, or have them as members; counting ends at $3. `offset 0` keeps each look-up apart: as a join,
-- all events would be compared with the subjects where there are no statistics.
select count(*) from (
    select from unnest($2::uuid[]) s(id) cross join lateral (select from events where obj = s.id offset 0) e
    union all
    select from unnest($1::int4[]) d(n) cross join unnest($2::uuid[]) s(id)
        cross join lateral (select from events where directory = d.n and mem = s.id offset 0) e
    limit $3) found;

-- positions_of_subjects --
-- The same as positions_matching for all events of subjects, which are looked up by resource and by member: what else is in the log costs
-- nothing. Each event once, also where its group and its member are both subjects.
select c.position + (e.seq - c.seq), e.directory, e.seq, e.type, e.obj, e.mem, c.at
from (
    select e.* from unnest($5::uuid[]) s(id)
    cross join lateral (select directory, seq, type, obj, mem from events where obj = s.id offset 0) e where e.directory = any($3::int4[])
    union
    select e.* from unnest($3::int4[]) d(n) cross join unnest($5::uuid[]) s(id)
    cross join lateral (select directory, seq, type, obj, mem from events where directory = d.n and mem = s.id offset 0) e) e
cross join lateral (
    select position, seq, size, at from commits where directory = e.directory and seq <= e.seq order by seq desc limit 1) c
where (1::bigint << e.type) & $4 <> 0 and e.seq < c.seq + c.size
  and c.position + (e.seq - c.seq) > $1 and c.position + (e.seq - c.seq) <= $2
order by 1;

-- epochs_of --
-- Everything a consumer ever read: each epoch with its last checkpoint.
select e.start, coalesce(k.through, e.start), coalesce(k.open, '{}'), e.directories, e.types, e.sealed_reason
from consumer_epochs e
left join lateral (select through, open from checkpoints where consumer = e.consumer and epoch = e.epoch order by id desc limit 1) k on true
where e.consumer = $1 order by e.epoch;

-- skips_of --
-- What an operator decided not to deliver; with the run whose repetition it was.
select position, sealed_reason, at, replay from skips where consumer = $1 order by position;

-- replayed_of --
-- What runs delivered and the place of a consumer does not speak for.
select position from replayed where consumer = $1;

-- gaps_between --
-- Where one commit does not begin behind the one before it.
select expected, position - 1 from (
    select position, lag(position + size) over (order by position) as expected from commits
    where position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and position <= $2) v
where expected is not null and expected <> position limit 20;
