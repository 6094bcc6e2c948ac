-- try_migrating --
-- Two migrations never run at once. Goes with the session.
select pg_try_advisory_lock(7302001);

-- migrations_applied --
-- What the schema is, of any release: the column `serves` is as young as the migrations that say it.
select number, checksum, (to_jsonb(m) ->> 'serves')::int from migrations m order by number;

-- note_release --
-- Held by one session of each process for as long as it serves ($1: its newest migration), so that a newer one knows who runs beside it.
select pg_advisory_lock_shared(6, $1);

-- older_processes --
-- Processes of releases older than $1 that serve this database.
select pid from pg_locks
where locktype = 'advisory' and granted and classid = 6 and objsubid = 2 and objid::int8 < $1::int4
  and database = (select oid from pg_database where datname = current_database());

-- broken_indexes --
-- What an interrupted CREATE INDEX CONCURRENTLY left.
select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and not i.indisvalid;
