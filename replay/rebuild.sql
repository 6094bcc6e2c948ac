-- try_rebuilding --
-- Of two rebuilds one goes on. Goes with the session.
select pg_try_advisory_lock(3, 0);

-- make_progress --
-- How far the side tables are: per directory the last seq applied. Committed with the rows it speaks of.
create table if not exists rebuild.progress (directory int primary key, seq bigint not null);

-- progress --
-- Where an interrupted rebuild goes on.
select directory, seq from rebuild.progress;

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

-- rebuilt_indexes --
-- What an interrupted run has indexed already.
select indexname::text from pg_indexes where schemaname = 'rebuild';

-- server_clock --
-- Milliseconds, to say how long the directories were locked.
select extract(epoch from clock_timestamp())::float8 * 1000;
