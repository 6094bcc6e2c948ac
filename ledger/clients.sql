-- insert_client --
-- In the transaction that records client.created.
insert into clients (id, directory, name, auth, secret_hash, jwks, jwks_uri, created_by, created_at, seal)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- rotate_client --
-- In the transaction that records client.rotated.
update clients set secret_hash = $2, former_hash = $3, former_until = $4, rotations = $5, rotated_at = $6, seal = $7 where id = $1;

-- client_rotated_times --
-- A row if the client is not revoked and was rotated just so often: a rotation from what was read before it would bring an old secret back.
select from clients where id = $1 and rotations = $2 and revoked_at is null;

-- revoke_client --
-- Keeps the time of the first revocation.
update clients set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1;

-- client_without --
-- A row if the client has no event of these types, for acts that may happen only once.
select where not exists (select from events where obj = $1 and type = any($2::int2[]));

-- clients_all --
-- For lists. null: any. The last two columns: types of the client's events as bits, and how often the log says that it was rotated.
select c.id, d.slug, c.name, c.auth, c.secret_hash, c.former_hash, c.former_until, c.jwks, c.jwks_uri, c.created_by, c.rotations, c.created_at,
       c.rotated_at, c.revoked_at, c.last_used_at, c.seal, l.facts, l.rotated
from clients c join directories d on d.id = c.directory cross join lateral (select bit_or(1::bigint << e.type) facts, count(*) filter (where e.type = 54) rotated from events e where e.obj = c.id) l
where ($1::uuid is null or c.id = $1) and ($2::text is null or d.slug = $2) order by c.created_at, c.id;

-- client_by_id --
-- The client that authenticates at the token endpoint of its directory, which is not closed.
select c.id, d.slug, c.name, c.auth, c.secret_hash, c.former_hash, c.former_until, c.jwks, c.jwks_uri, c.created_by, c.rotations, c.created_at,
       c.rotated_at, c.revoked_at, c.last_used_at, c.seal, l.facts, l.rotated
from clients c join directories d on d.id = c.directory cross join lateral (select bit_or(1::bigint << e.type) facts, count(*) filter (where e.type = 54) rotated from events e where e.obj = c.id) l
where c.id = $1 and d.slug = $2 and c.revoked_at is null and not exists (select from directory_states s where s.directory = d.id and s.closed_seq is not null);

-- access_by_hash --
-- One look-up for many concurrent requests. An access token ends with its client and with its directory.
select a.id, a.hash, a.expires_at, a.seal, c.id, d.slug, c.name, c.auth, c.secret_hash, c.former_hash, c.former_until, c.jwks, c.jwks_uri, c.created_by, c.rotations, c.created_at,
       c.rotated_at, c.revoked_at, c.last_used_at, c.seal, l.facts, l.rotated
from unnest($1::bytea[]) k(h) join access_tokens a on a.hash = k.h join clients c on c.id = a.client join directories d on d.id = c.directory
cross join lateral (select bit_or(1::bigint << e.type) facts, count(*) filter (where e.type = 54) rotated from events e where e.obj = c.id) l
where a.expires_at > clock_timestamp() and c.revoked_at is null and not exists (select from directory_states s where s.directory = d.id and s.closed_seq is not null);

-- insert_access --
-- Losing it is harmless, because its client asks for another: it does not wait for a synchronous standby.
insert into access_tokens (id, hash, client, expires_at, seal) values ($1, $2, $3, $4, $5) returning set_config('synchronous_commit', 'local', true);

-- insert_access_once --
-- The access token and the assertion that it was given for. No row if the assertion was used before, or if too many are remembered.
with used as (
    insert into client_assertions as a (client, jti, expires_at)
    select $3, $6, $7 where (select count(*) from client_assertions where client = $3) < $8
    on conflict (client, jti) do update set expires_at = excluded.expires_at where a.expires_at < clock_timestamp() returning client)
insert into access_tokens (id, hash, client, expires_at, seal) select $1, $2, client, $4, $5 from used returning id;

-- assertion_used --
-- A row if the assertion is remembered: then it was used; else too many of its client are.
select from client_assertions where client = $1 and jti = $2;

-- prune_access_tokens --
-- A day after their end, so that until then the journal can tell whose they were.
delete from access_tokens where ctid = any(array(
    select ctid from access_tokens where expires_at < clock_timestamp() - interval '1 day' limit $1));

-- prune_surplus_access_tokens --
-- The oldest of a client that has more than $1.
delete from access_tokens where id = any(array(
    select id from (select id, row_number() over (partition by client order by expires_at desc) n from access_tokens) r where n > $1 limit $2));

-- prune_assertions --
-- Those that have expired: they are refused for that.
delete from client_assertions where ctid = any(array(select ctid from client_assertions where expires_at < clock_timestamp() limit $1));

-- client_events --
-- The events of a client that carry its seal, by their types, with their sealed bodies, in order.
select e.seq, b.ct, s.wrapped from events e
left join bodies b on b.directory = e.directory and b.seq = e.seq
left join subject_keys s on s.obj = e.obj where e.directory = $1 and e.obj = $2 and e.type = any($3::int2[]) order by e.rv;
