-- make_progress --
-- How far the side tables are: per directory the last seq applied. Committed with the rows it speaks of.
create table if not exists rebuild.progress (directory int primary key, seq bigint not null);

-- progress --
-- Where an interrupted rebuild goes on.
select directory, seq from rebuild.progress;

-- record_progress --
-- In the transaction of the rows it speaks of.
insert into rebuild.progress (directory, seq) values ($1, $2) on conflict (directory) do update set seq = excluded.seq;

-- tables_in_rebuild --
-- What an interrupted run left.
select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'rebuild' and c.relkind = 'r' and c.relname <> 'progress';

-- tables_in --
-- What a schema holds, for whoever drops it.
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1::text and c.relkind = 'r';

-- live_indexes --
-- The definitions that the side tables need before they can serve.
select tablename::text, indexname::text, indexdef from pg_indexes where schemaname = 'ledger' and tablename = any($1::text[]);

-- table_settings --
-- Storage settings of the live tables that have any.
select c.relname::text, c.reloptions from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and c.relname = any($1::text[]) and c.reloptions is not null;

-- rebuilt_indexes --
-- What an interrupted run has indexed already.
select indexname::text from pg_indexes where schemaname = 'rebuild';

-- heads --
-- The last seq of every directory.
select d.id, coalesce(c.s, 0) from ledger.directories d
left join lateral (select seq + size - 1 s from ledger.commits where directory = d.id order by seq desc limit 1) c on true order by d.id;

-- events_with_keys --
-- A stretch of one directory's log with what the read models need of it.
select e.seq, e.type, e.rv, e.etag_rv, e.obj, e.mem, e.leaf, e.leaf_hash, b.ct, k.wrapped
from ledger.events e
left join ledger.bodies b on b.directory = e.directory and b.seq = e.seq
left join ledger.subject_keys k on k.obj = e.obj and b.ct is not null
where e.directory = $1 and e.seq > $2 and e.seq <= $3 order by e.seq;

-- existing_created --
-- When the resources began that a batch changes, for rows that are written anew; unqualified: the side tables.
select u.directory, u.id, u.created_at from unnest($1::int4[], $2::uuid[]) k(d, i) join users u on u.directory = k.d and u.id = k.i
union all
select g.directory, g.id, g.created_at from unnest($1::int4[], $2::uuid[]) k(d, i) join groups g on g.directory = k.d and g.id = k.i;

-- server_clock --
-- Milliseconds, to say how long the directories were locked.
select extract(epoch from clock_timestamp())::float8 * 1000;

-- commit_differences --
-- Commits whose row does not agree with the number and types of the events it groups.
select c.seq from ledger.commits c
left join lateral (
    select count(*) n, bit_or(1::bigint << e.type) mask from ledger.events e
    where e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size) e on true
where c.directory = $1 and (e.n is distinct from c.size or e.mask is distinct from c.types) limit 20;

-- commits_between --
-- The commit rows that begin in a stretch of the log, to be held against the leaves of their events.
select seq, size, at, req from ledger.commits where directory = $1 and seq > $2 and seq <= $3 order by seq;

-- tokens_gone --
-- Tokens that the log says were issued, and that have no row; 18: token.issued.
select distinct e.obj from ledger.events e where e.directory = $1 and e.type = 18 and not exists (select from ledger.tokens t where t.id = e.obj) limit 20;

-- position_holes --
-- Where the dense order of the ledger is broken; nothing on a sound one.
select p.position + p.size from (select position, size, lead(position) over (order by position) following from ledger.commits) p
where p.following is not null and p.following <> p.position + p.size limit 20;

-- taken_back --
-- Which grants a later event took back, up to a head: edges removed or revoked, users deactivated or deleted. And all of a directory that
-- was closed since, whenever: that is for ever, and what a run has not sent by then it need not send.
select k.n from unnest($1::int4[], $2::int8[], $3::uuid[], $4::uuid[], $5::int8[]) with ordinality k(d, s, o, m, h, n)
where case when k.m is not null
    then exists (select from events e where e.directory = k.d and e.mem = k.m and e.seq > k.s and e.seq <= k.h and e.obj = k.o and e.type in (11, 12))
    else exists (select from events e where e.obj = k.o and e.directory = k.d and e.seq > k.s and e.seq <= k.h and e.type in (2, 4, 5)) end
   or exists (select from directory_states t where t.directory = k.d and t.closed_seq > k.s);

-- grant_flags --
-- Leaves of grants, to tell which of them gave access.
select e.directory, e.seq, e.leaf from unnest($1::int4[], $2::int8[]) k(d, s) join events e on e.directory = k.d and e.seq = k.s;

-- replay_by_id --
-- One run with how far it is.
select r.id, r.sealed_name, r.consumer, c.name, r.from_position, r.to_position, r.head, r.types, r.directories, r.subjects, r.rate_per_second, r.superseded,
       r.sealed_reason, r.state, r.total, r.skipped, r.created_at, r.ended_at, coalesce(p.done, 0), coalesce(p.through, r.from_position), coalesce(p.ahead, '{}'), p.at, r.failure
from replays r join consumers c on c.id = r.consumer
left join lateral (select done, through, ahead, at from replay_progress where replay = r.id order by id desc limit 1) p on true
where r.id = $1;

-- replays_of --
-- The runs of a consumer, newest first; of all where $1 is null.
select r.id, r.sealed_name, r.consumer, c.name, r.from_position, r.to_position, r.head, r.types, r.directories, r.subjects, r.rate_per_second, r.superseded,
       r.sealed_reason, r.state, r.total, r.skipped, r.created_at, r.ended_at, coalesce(p.done, 0), coalesce(p.through, r.from_position), coalesce(p.ahead, '{}'), p.at, r.failure
from replays r join consumers c on c.id = r.consumer
left join lateral (select done, through, ahead, at from replay_progress where replay = r.id order by id desc limit 1) p on true
where ($1::int4 is null or r.consumer = $1) and ($2::bool is false or r.state in ('running', 'paused')) order by r.created_at desc limit $3;

-- due_in_run --
-- In the transaction that records replay.started: what failed in vain before, of these positions, is tried again with a schedule that begins anew.
update open_deliveries set state = 2, attempts = 0, next_at = null, asked_s = null
where consumer = $1 and position = any($2::int8[]) and state in (2, 3) and replay is null;

-- insert_replay --
-- In the transaction that records replay.started.
insert into replays (id, sealed_name, consumer, from_position, to_position, head, types, directories, subjects, rate_per_second, superseded, sealed_reason, state, total, skipped)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'running', $13, $14);

-- set_replay_state --
-- Paused, running again, cancelled, finished or failed.
update replays set state = $2, ended_at = case when $2 in ('cancelled', 'finished', 'failed') then clock_timestamp() end, failure = $3 where id = $1;

-- replay_unchanged --
-- Whether a run is still in the state that was read.
select from replays where id = $1 and state = $2;

-- forget_replay --
-- What a cancelled run still wanted to send again. Events that are open by themselves stay.
delete from open_deliveries where replay = $1;

-- drop_superseded --
-- In the transaction that resumes a run: what failed of it and lets somebody in, although a later event took that back while it rested and
-- was delivered, is no part of it any more.
delete from open_deliveries o using events g
where o.replay = $1 and g.directory = o.directory and g.seq = o.seq and g.type in (0, 3, 10, 13)
  and position(case when g.mem is null then '\x22616374697665223a74727565'::bytea else '\x22656666223a74727565'::bytea end in g.leaf) > 0
  and exists (select from replays where id = $1 and superseded = 'skip')
  and (exists (select from events e where g.mem is not null and e.directory = g.directory and e.mem = g.mem and e.obj = g.obj and e.seq > g.seq
               and e.type in (11, 12))
    or exists (select from events e where g.mem is null and e.directory = g.directory and e.obj = g.obj and e.seq > g.seq and e.type in (2, 4, 5))
    or exists (select from directory_states t where t.directory = g.directory and t.closed_seq > g.seq));
