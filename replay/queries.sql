-- try_rebuilding --
-- Of two rebuilds one goes on. Goes with the session.
select pg_try_advisory_lock(3, 0);

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

-- versions_before --
-- The versions that the first events of a stretch say they follow, where there are such events before it.
select k.o, e.rv, e.etag_rv from unnest($1::int4[], $2::uuid[], $3::int4[]) k(d, o, r)
join ledger.events e on e.obj = k.o and e.rv = k.r and e.directory = k.d where e.seq <= $4;

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
