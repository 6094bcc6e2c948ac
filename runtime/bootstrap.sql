-- kek_id --
-- The id of the ledger's key-encryption key.
select kek_id from ledger;

-- insert_ledger --
-- At the first start. If two processes do it at once, one wins and both read its row.
insert into ledger (id, kek_id) values ($1, $2) on conflict do nothing;
