-- list_requests --
-- Requests, newest first, before a given id.
select r.id, d.slug, r.at, r.method, r.route, r.shape, r.status, r.scim_type, r.detail, r.profile, r.tolerances, r.events, r.duration_us,
       r.request_id, r.token, r.mistake, r.times, exists (select from clients c where c.id = r.token)
from requests r join directories d on d.id = r.directory
where ($1::int4[] is null or r.directory = any($1)) and r.id < $2 and ($3::bool is null or (r.status >= 400) = $3)
  and ($4::int2 is null or r.status = $4) order by r.id desc limit $5;

-- doctor_looked --
-- Of the newest $3 requests of a directory, which are all that its health report looks at: the id of the first in the last $2 hours,
-- which is the lower bound ($2) of the queries below; the time of the oldest, if there were more in these hours; the time of the newest.
select coalesce(min(id) filter (where at > now() - make_interval(hours => $2)), 9223372036854775807),
       case when count(*) = $3 and bool_and(at > now() - make_interval(hours => $2)) then min(at) end, max(at)
from (select id, at from requests where directory = $1 and mistake is null order by id desc limit $3) newest;

-- doctor_last_change --
-- When the IdP last changed anything ($2: event types that IdPs make, as bits). Read from the log, which is never pruned.
select timestamptz 'epoch' + at * interval '1 microsecond' from commits where directory = $1 and types & $2 <> 0 order by seq desc limit 1;

-- doctor_closed_at --
-- When a directory was closed, in µs; no row, or null, if it was not.
select closed_at from directory_states where directory = $1;

-- doctor_mistakes --
-- Requests with a mistake in the URL or the token in the last $2 hours, of the newest $3 entries, most frequent first.
select mistake, token, sum(times), max(at)
from (select mistake, token, times, at from requests where directory = $1 and mistake is not null order by id desc limit $3) newest
where at > now() - make_interval(hours => $2) group by mistake, token order by 3 desc, 4 desc limit 20;

-- doctor_operations --
-- Requests, errors and 429s per operation of a directory in the last hours.
select method, route, count(*), count(*) filter (where status >= 400 and status <> 429), count(*) filter (where status = 429),
       percentile_cont(0.5) within group (order by duration_us)::int8, max(at)
from requests where directory = $1 and id >= $2 and mistake is null group by method, route order by 3 desc;

-- doctor_refusals --
-- Why requests were refused, most frequent first: grouped by the hash of the sentence; the newest request of each group is shown.
select r.status, r.scim_type, r.detail, r.request_id, g.n, g.last
from (select status, scim_type, reason, count(*) n, max(at) as last, max(id) newest from requests
      where directory = $1 and id >= $2 and mistake is null and status >= 400
      group by status, scim_type, reason order by 4 desc limit 10) g
join requests r on r.id = g.newest order by g.n desc, g.newest desc;

-- doctor_tolerances --
-- Which deviations the IdP relies on.
select tolerance, count(*) from requests, unnest(tolerances) tolerance
where directory = $1 and id >= $2 and mistake is null group by tolerance order by 2 desc;

-- doctor_busiest --
-- The busiest minute.
select max(n) from (select count(*) n from requests where directory = $1 and id >= $2 and mistake is null group by date_trunc('minute', at)) minutes;

-- doctor_spikes --
-- Minutes with many times the requests of the median minute (of those that had any).
with minutes as (select date_trunc('minute', at) as began, count(*) n from requests
                 where directory = $1 and id >= $2 and mistake is null group by 1),
     ordinary as (select percentile_cont(0.5) within group (order by n) n from minutes)
select m.began, m.n, round((m.n / o.n)::numeric, 1)::float8 from minutes m, ordinary o where m.n >= $3 and m.n >= o.n * $4 order by m.n desc limit 5;

-- doctor_retries --
-- Retry storms: the same request refused again and again.
select method, route, status, count(*), min(at), max(at) from requests
where directory = $1 and id >= $2 and mistake is null and at > now() - make_interval(hours => 1) and status >= 400
group by method, route, status having count(*) >= 20 order by 4 desc limit 5;

-- doctor_tokens --
-- Age and use of the directory's SCIM tokens, and their successors after a rotation.
select id, name, created_at, expires_at, revoked_at, last_used_at, superseded_by from tokens where role = 'scim' and $1 = any(directories) order by created_at;

-- doctor_clients --
-- Age and use of the directory's OAuth 2.0 clients.
select id, name, created_at, revoked_at, last_used_at from clients where directory = $1 order by created_at;

-- token_ever --
-- A token by hash, revoked and expired ones included; also an access token of an OAuth 2.0 client, for a day after its end.
select id, role, name, directories, types, bodies, null::uuid from tokens where hash = $1
union all select a.id, 'scim', c.name, array[d.slug], '{*}', true, c.id
from access_tokens a join clients c on c.id = a.client join directories d on d.id = c.directory where a.hash = $1;
