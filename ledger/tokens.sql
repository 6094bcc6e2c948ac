-- insert_token --
-- In the transaction that records token.issued.
insert into tokens (id, hash, role, name, directories, types, consumers, bodies, created_by, supersedes, expires_at, created_at, seal)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- supersede_token --
-- In the transaction that records token.rotated. If the token was rotated or revoked at the same moment, the trigger
-- refuses the update and with it the commit.
update tokens set superseded_by = $2, expires_at = $3, seal = $4 where id = $1;

-- revoke_token --
-- Keeps the time of the first revocation.
update tokens set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1;

-- token_without --
-- A row if the token has no event of these types, for acts that may happen only once.
select where not exists (select from events where obj = $1 and type = any($2::int2[]));

-- bind_token --
-- In the transaction that records token.bound. The trigger refuses a second one at the same moment.
update tokens set seal = $2 where id = $1;

-- tokens_by_hash --
-- One look-up for many concurrent requests. Last column: types of the token's events, as bits.
select t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from unnest($1::bytea[]) k(h) join tokens t on t.hash = k.h
where t.revoked_at is null and t.expires_at > clock_timestamp()
  and (t.role <> 'scim' or exists (  -- the IdP's token ends with the closing itself; its revocation is on record a moment later
      select from unnest(t.directories) s cross join lateral (select id from directories where slug = s offset 0) d
      where not exists (select from directory_states where directory = d.id and closed_seq is not null)));

-- tokens_all --
-- For lists. null: any role, any directory.
select t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from tokens t where ($1::uuid is null or t.id = $1) and ($2::text is null or t.role = $2) and ($3::text is null or t.directories && array[$3, '*'])
order by t.created_at, t.id;

-- clock --
-- The time that decides whether a token is expired.
select clock_timestamp();

-- token_events --
-- The events of each token with their sealed bodies, in order.
select e.obj, e.type, e.seq, b.ct, s.wrapped from unnest($2::uuid[]) k(o)
join events e on e.obj = k.o and e.directory = $1
left join bodies b on b.directory = e.directory and b.seq = e.seq
left join subject_keys s on s.obj = e.obj order by e.obj, e.rv;

-- expiring --
-- Active tokens that expire within $1 days, and the tightest warning on record of each, in days.
select id, name, role, created_at, expires_at, warned_days from tokens
where revoked_at is null and superseded_by is null and expires_at > clock_timestamp() and expires_at < clock_timestamp() + make_interval(days => $1)
order by expires_at limit 1000;

-- warned_less --
-- A row if there is no warning of a token as tight as $2 days yet, and it still works.
select where exists (select from tokens where id = $1 and (warned_days is null or warned_days > $2) and revoked_at is null and superseded_by is null);

-- note_warning --
-- In the transaction that records token.expiring.
update tokens set warned_days = $2 where id = $1;
