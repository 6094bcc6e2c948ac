-- record_progress --
-- In the transaction that applies the rows.
insert into rebuild.progress (directory, seq) values ($1, $2) on conflict (directory) do update set seq = excluded.seq;

-- table_settings --
-- Storage settings of the live tables that have any.
select c.relname::text, c.reloptions from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'ledger' and c.relname = any($1::text[]) and c.reloptions is not null;

-- heads --
-- The last seq of every directory.
select d.id, coalesce(c.s, 0) from ledger.directories d
left join lateral (select seq + size - 1 s from ledger.commits where directory = d.id order by seq desc limit 1) c on true order by d.id;
