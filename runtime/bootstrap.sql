-- ledger_row --
-- The ledger's uuid, and the id of its key-encryption key.
select id, kek_id from ledger;

-- insert_ledger --
-- At the first start. If two processes do it at once, one wins and both read its row.
insert into ledger (id, kek_id) values ($1, $2) on conflict do nothing;
