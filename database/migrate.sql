-- try_migrating --
-- Only one migration runs at a time. The lock ends with the session.
select pg_try_advisory_lock(7302001);

-- migrations_applied --
-- The applied migrations. `to_jsonb`, because older databases do not have the column `serves`.
select number, checksum, (to_jsonb(m) ->> 'serves')::int from migrations m order by number;

-- note_release --
-- Held by one session of each process while it serves ($1: its newest migration), so that a newer release sees which releases run.
select pg_advisory_lock_shared(6, $1);

-- older_processes --
-- Processes of releases older than $1 that serve this database.
select pid from pg_locks
where locktype = 'advisory' and granted and classid = 6 and objsubid = 2 and objid::int8 < $1::int4
  and database = (select oid from pg_database where datname = current_database());

-- broken_indexes --
-- Invalid indexes that an interrupted CREATE INDEX CONCURRENTLY left.
select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and not i.indisvalid;
