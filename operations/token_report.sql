-- born --
-- When the ledger was made.
select created_at from ledger;

-- refused_since --
-- When each of these tokens was last sent after its end, within 30 days: as its row says, and as the journal said before there was that.
select k.t, greatest(r.at, n.refused_at) from unnest($1::uuid[]) k(t)
cross join lateral (select max(at) at from requests where token = k.t and status = 401 and at > clock_timestamp() - interval '30 days') r
left join tokens n on n.id = k.t and n.refused_at > clock_timestamp() - interval '30 days'
where coalesce(r.at, n.refused_at) is not null;

-- secrets_made --
-- When the signing secret of each of these consumers was made: at the newest of these events.
select c.id, (select to_timestamp(k.at / 1e6) from commits k where k.directory = e.directory and k.seq <= e.seq order by k.seq desc limit 1)
from unnest($1::int4[]) n(id) join consumers c on c.id = n.id
cross join lateral (select directory, seq from events where obj = c.uuid and type = any($2::int2[]) order by rv desc limit 1) e;
