-- try_rebuilding --
-- Only one rebuild runs at a time. The lock ends with the session.
select pg_try_advisory_lock(3, 0);

-- make_progress --
-- The last applied seq of each directory, committed together with the rows of the shadow tables.
create table if not exists rebuild.progress (directory int primary key, seq bigint not null);

-- progress --
-- Where an interrupted rebuild resumes.
select directory, seq from rebuild.progress;

-- tables_in_rebuild --
-- The tables that an interrupted run left.
select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'rebuild' and c.relkind = 'r' and c.relname <> 'progress';

-- tables_in --
-- The tables of a schema, to drop them one by one.
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1::text and c.relkind = 'r';

-- indexes_of --
-- The indexes of tables in a schema, with their definitions.
select tablename::text, indexname::text, indexdef from pg_indexes where schemaname = $1::text and tablename = any($2::text[]);

-- server_clock --
-- The server's time in milliseconds, to measure how long the directories were locked.
select extract(epoch from clock_timestamp())::float8 * 1000;
