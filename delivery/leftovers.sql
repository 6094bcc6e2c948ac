-- notes_left --
-- Whether an earlier release left something in clear.
select exists (select from unsealed_notes);

-- take_notes_left --
-- What is to be sealed, in this transaction: the table is empty after it.
select kind, owner, position, content from take_unsealed_notes();

-- seal_urls --
-- $2 is nothing here: all five take the same. One that was given anew meanwhile stays.
update consumers c set sealed_url = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where c.uuid = v.o and c.sealed_url is null;

-- seal_parked --
-- Why deliveries were set aside.
update open_deliveries d set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) join consumers c on c.uuid = v.o
where d.consumer = c.id and d.position = v.p and d.sealed_reason is null;

-- seal_skipped --
-- Why deliveries were given up.
update skips d set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) join consumers c on c.uuid = v.o
where d.consumer = c.id and d.position = v.p and d.sealed_reason is null;

-- seal_replay_names --
-- What runs are called.
update replays r set sealed_name = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where r.id = v.o and r.sealed_name is null;

-- seal_replay_reasons --
-- Why they were started.
update replays r set sealed_reason = v.s from unnest($1::uuid[], $2::int8[], $3::bytea[]) v(o, p, s) where r.id = v.o and r.sealed_reason is null;
