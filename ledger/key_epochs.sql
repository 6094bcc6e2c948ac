-- ledger --
-- The ledger's id, and the id of its key-encryption key of epoch 1.
select id, kek_id from ledger;

-- insert_ledger --
-- At the first start. If two processes do it at once, one wins and both read its row.
insert into ledger (id, kek_id) values ($1, $2) on conflict do nothing;

-- epochs --
-- All epochs, the first one first.
select epoch, kek_id, provider, root, wrapped, made_at, active_at, rewrapped_at, destroyed_at from key_epochs order by epoch;

-- insert_epoch --
-- A new epoch. Of several processes that make the first one at once, one wins.
insert into key_epochs (epoch, kek_id, provider, root, wrapped, active_at)
values ($1, $2, $3, $4, $5, case when $6::bool then clock_timestamp() end) on conflict do nothing;

-- domain_keys --
-- The keys of MACs, wrapped.
select domain, wrapped from domain_keys;

-- insert_domain_keys --
-- Keys of MACs that are not there yet.
insert into domain_keys (domain, wrapped) select * from unnest($1::bytea[], $2::bytea[]) on conflict do nothing;

-- knows_up_to --
-- Held by one session of each process: it does not know epoch $1 yet. `key rotate` waits until nobody holds it.
select pg_advisory_lock_shared(11, $1);

-- knows_more --
-- The process has loaded epoch $1.
select pg_advisory_unlock_shared(11, $1);

-- seals_in --
-- Held by one session of each process: it seals in epoch $1. `key destroy` waits until nobody holds it.
select pg_advisory_lock_shared(12, $1);

-- sealed_in --
-- The process seals no longer in epoch $1.
select pg_advisory_unlock_shared(12, $1);
