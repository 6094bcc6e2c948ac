-- commits_of_requests --
-- After a lost connection: which of the requests are stored, and where.
select c.req, c.op, c.directory, c.seq, c.size from unnest($1::uuid[], $2::int4[]) k(r, o) join commits c on c.req = k.r and c.op = k.o;

-- wait_for_standby --
-- Writes only to the WAL, so that COMMIT waits until the synchronous standby has this transaction and with it all earlier ones.
select pg_logical_emit_message(true, 'scim-ledger', 'a lost commit was looked up');
