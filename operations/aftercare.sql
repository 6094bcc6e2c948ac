-- try_aftercare --
-- The lock of the process that completes receipts. It ends with the connection, if not before.
select pg_try_advisory_lock(9, 0);

-- end_aftercare --
-- Releases it.
select pg_advisory_unlock(9, 0);

-- looked_up --
-- What was found about erasures.
update erasures e set recipients = v.r::json, mentions = v.m::json from unnest($1::uuid[], $2::text[], $3::text[]) v(i, r, m) where e.id = v.i;

-- complete --
-- The receipts are complete. What the server refused stays on them.
update erasures set vacuumed_at = case when $2 then clock_timestamp() end, wal_switched_at = case when $3 then clock_timestamp() end, refused = $4,
       completed_at = clock_timestamp()
where id = any($1::uuid[]);

-- switch_wal --
-- Closes the current segment of the write-ahead log.
select pg_switch_wal();
