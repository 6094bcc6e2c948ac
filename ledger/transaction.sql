-- try_lock_directories --
-- Only one transaction at a time gives numbers in a directory. This form never waits, so a giant commit of another process that
-- holds one directory does not delay the others of the batch.
select d, pg_try_advisory_xact_lock(1, d) from (select d from unnest($1::int4[]) d order by d offset 0) ordered;

-- lock_directories --
-- The waiting form. The locks are taken in id order, so that two transactions cannot deadlock.
select d, pg_advisory_xact_lock(1, d) from (select d from unnest($1::int4[]) d order by d offset 0) ordered;

-- live_tokens --
-- Checked inside the write transaction: a revoked token writes nothing, even if it is still cached. Last column: types of its events.
select t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from unnest($1::uuid[]) wanted(id) join tokens t on t.id = wanted.id
where t.revoked_at is null and t.expires_at > clock_timestamp();

-- live_access --
-- The same for access tokens of OAuth 2.0 clients.
select a.id, a.hash, a.expires_at, a.seal, c.id, d.slug, c.name, c.auth, c.secret_hash, c.former_hash, c.former_until, c.jwks, c.jwks_uri, c.created_by, c.rotations, c.created_at,
       c.rotated_at, c.revoked_at, c.last_used_at, c.seal, l.facts, l.rotated
from unnest($1::uuid[]) wanted(id) join access_tokens a on a.id = wanted.id join clients c on c.id = a.client join directories d on d.id = c.directory
cross join lateral (select bit_or(1::bigint << e.type) facts, count(*) filter (where e.type = 54) rotated from events e where e.obj = c.id) l
where a.expires_at > clock_timestamp() and c.revoked_at is null;

-- insert_events --
-- The log itself; the primary key and events_rv refuse a number that is given twice. With it sealed attributes, apart from the log so that a
-- person can be erased, and the wrapped keys of new resources; a second key for the same resource is refused. One statement, because each
-- costs both sides as much as several rows.
with sealed as (
    insert into bodies (directory, seq, ct) select * from unnest($10::int4[], $11::int8[], $12::bytea[])
), born as (
    insert into subject_keys (obj, directory, wrapped) select * from unnest($13::uuid[], $14::int4[], $15::bytea[])
)
insert into events (directory, seq, type, rv, etag_rv, obj, mem, leaf_hash, leaf)
select * from unnest($1::int4[], $2::int8[], $3::int2[], $4::int4[], $5::int4[], $6::uuid[], $7::uuid[], $8::bytea[], $9::bytea[]);

-- sign --
-- Does nothing, but shows that the session is alive.
select 1;

-- lock_ledger --
-- Held until COMMIT has finished: positions are dense and in commit order because only one transaction at a time is past this line.
select pg_advisory_xact_lock(2, 0);

-- insert_commits --
-- off is the number of events in this batch before the commit. The last position is read after the lock, in a snapshot of its own.
-- The notification only wakes readers of the feed, who then read the log; PostgreSQL sends it at COMMIT.
with placed as (
    insert into commits (position, directory, seq, size, types, at, req, op, trace)
    select t.p + v.off, v.d, v.s, v.n, v.ty, v.a, v.r, v.o, v.tr
    from (select coalesce((select position + size from commits order by position desc limit 1), 1) p) t,
         unnest($1::int8[], $2::int4[], $3::int8[], $4::int4[], $5::int8[], $6::int8[], $7::uuid[], $8::int4[],
                $9::bytea[]) v(off, d, s, n, ty, a, r, o, tr)
)
select pg_notify('ledger', 'wake');
