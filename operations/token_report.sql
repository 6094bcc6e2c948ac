-- born --
-- When the ledger was made.
select created_at from ledger;

-- refused_since --
-- The last request of each of these tokens that was refused as 401, in the journal (30 days).
select k.t, r.at from unnest($1::uuid[]) k(t)
cross join lateral (select max(at) at from requests where token = k.t and status = 401 and at > clock_timestamp() - interval '30 days') r
where r.at is not null;

-- secrets_made --
-- When the signing secret of each of these consumers was made: at the newest of these events.
select c.id, (select to_timestamp(k.at / 1e6) from commits k where k.directory = e.directory and k.seq <= e.seq order by k.seq desc limit 1)
from unnest($1::int4[]) n(id) join consumers c on c.id = n.id
cross join lateral (select directory, seq from events where obj = c.uuid and type = any($2::int2[]) order by rv desc limit 1) e;
