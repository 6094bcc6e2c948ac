-- try_rebuilding --
-- Only one rebuild runs at a time. The lock ends with the session.
select pg_try_advisory_lock(3, 0);

-- make_progress --
-- The last applied seq of each directory, committed together with the rows of the shadow tables.
create table if not exists rebuild.progress (directory int primary key, seq bigint not null);

-- progress --
-- Where an interrupted rebuild resumes.
select directory, seq from rebuild.progress;

-- record_progress --
-- In the transaction that applies the rows.
insert into rebuild.progress (directory, seq) values ($1, $2) on conflict (directory) do update set seq = excluded.seq;

-- tables_in_rebuild --
-- The tables that an interrupted run left.
select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'rebuild' and c.relkind = 'r' and c.relname <> 'progress';

-- tables_in --
-- The tables of a schema, to drop them one by one.
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1::text and c.relkind = 'r';

-- live_indexes --
-- The index definitions that the shadow tables need before the swap.
select tablename::text, indexname::text, indexdef from pg_indexes where schemaname = 'ledger' and tablename = any($1::text[]);

-- table_settings --
-- Storage settings of the live tables that have any.
select c.relname::text, c.reloptions from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and c.relname = any($1::text[]) and c.reloptions is not null;

-- rebuilt_indexes --
-- The indexes that an interrupted run has made already.
select indexname::text from pg_indexes where schemaname = 'rebuild';

-- heads --
-- The last seq of every directory.
select d.id, coalesce(c.s, 0) from ledger.directories d
left join lateral (select seq + size - 1 s from ledger.commits where directory = d.id order by seq desc limit 1) c on true order by d.id;

-- events_with_keys --
-- A stretch of one directory's log, with the bodies and keys that the read models need.
select e.seq, e.type, e.rv, e.etag_rv, e.obj, e.mem, e.leaf, e.leaf_hash, b.ct, k.wrapped
from ledger.events e
left join ledger.bodies b on b.directory = e.directory and b.seq = e.seq
left join ledger.subject_keys k on k.obj = e.obj and b.ct is not null
where e.directory = $1 and e.seq > $2 and e.seq <= $3 order by e.seq;

-- versions_before --
-- The versions of the events before the first event of each resource in a stretch.
select k.o, e.rv, e.etag_rv from unnest($1::int4[], $2::uuid[], $3::int4[]) k(d, o, r)
join ledger.events e on e.obj = k.o and e.rv = k.r and e.directory = k.d where e.seq <= $4;

-- server_clock --
-- The server's time in milliseconds, to measure how long the directories were locked.
select extract(epoch from clock_timestamp())::float8 * 1000;

-- commit_differences --
-- Commits whose row does not agree with number and types of their events.
select c.seq from ledger.commits c
left join lateral (
    select count(*) n, bit_or(1::bigint << e.type) mask from ledger.events e
    where e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size) e on true
where c.directory = $1 and (e.n is distinct from c.size or e.mask is distinct from c.types) limit 20;

-- commits_between --
-- The commit rows that begin in a stretch of the log, to compare them with the leaves.
select seq, size, at, req from ledger.commits where directory = $1 and seq > $2 and seq <= $3 order by seq;

-- tokens_gone --
-- Tokens with an event token.issued (18) but without a row.
select distinct e.obj from ledger.events e where e.directory = $1 and e.type = 18 and not exists (select from ledger.tokens t where t.id = e.obj) limit 20;

-- position_holes --
-- Places where positions are not dense.
select p.position + p.size from (select position, size, lead(position) over (order by position) following from ledger.commits) p
where p.following is not null and p.following <> p.position + p.size limit 20;
