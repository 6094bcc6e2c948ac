-- delete_requests_about --
-- Entries of the journal with a text about these subjects.
delete from requests r using unnest($1::uuid[]) v(o) where r.subject = v.o;

-- forget_answers_about --
-- What receivers answered to events of these subjects, and the same answer where it stands with the other events of its batch: it was
-- sealed once. Looked up by the places of the events, because exceptions may be many.
update open_deliveries o set answer = null
from (
    select d.consumer, d.answer
    from unnest($1::int4[], $2::uuid[]) v(d, o)
    cross join lateral (select seq from events where obj = v.o union select seq from events where directory = v.d and mem = v.o) e
    cross join lateral (select position, seq from commits where directory = v.d and seq <= e.seq order by seq desc limit 1) k
    cross join consumers c
    cross join lateral (
        select consumer, answer from open_deliveries where consumer = c.id and position = k.position + (e.seq - k.seq) and answer is not null offset 0
    ) d
    group by 1, 2
) about
where o.consumer = about.consumer and o.answer = about.answer;

-- forget_matters_about --
-- The matter of holds that kept them from being erased until now.
update holds h set sealed_matter = null from unnest($1::uuid[]) v(o) where h.obj = v.o and h.sealed_matter is not null;

-- become_eraser --
-- Only this role deletes bodies and keys; until the end of the transaction at most.
select set_config('role', 'ledger_eraser', true);

-- delete_bodies_of --
-- The ciphertexts, which have no further use without the key, and of which no cipher is safe for ever.
delete from bodies b using (
    select v.d, e.seq from unnest($1::int4[], $2::uuid[]) v(d, o)
    cross join lateral (select seq from events where obj = v.o and mem is null offset 0) e
) k
where b.directory = k.d and b.seq = k.seq;

-- delete_keys_of --
-- The wrapped keys.
delete from subject_keys k using unnest($1::uuid[]) v(o) where k.obj = v.o;

-- become_oneself --
-- The serving role again, whoever logged in.
select set_config('role', 'ledger_app', true);

-- insert_erasures --
-- The rows of the receipts, under the lock of the ledger: their numbers are in the order of commits.
insert into erasures (id, directory, obj, ot, seq, sealed_reason, counts)
select i, d, o, t, s, r, c::json from unnest($1::uuid[], $2::int4[], $3::uuid[], $4::int2[], $5::int8[], $6::bytea[], $7::text[]) v(i, d, o, t, s, r, c);
