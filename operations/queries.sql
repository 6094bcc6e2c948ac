-- begin_idempotent --
-- Takes the key, or gives nothing where somebody has it. Here and below the row does not wait for a synchronous standby: what the request
-- commits later does, and a standby that has that has this too. Where the standby hangs, the key would be taken by a request that was refused.
insert into idempotent_requests (owner, key, fingerprint, request) values ($1, $2, $3, $4) on conflict do nothing
returning set_config('synchronous_commit', 'local', true);

-- idempotent_request --
-- Who has the key: which request, whether it must have ended, with which answer, and whether it committed anything.
select i.fingerprint, i.request, i.over or i.begun_at < clock_timestamp() - make_interval(secs => $3), i.answer,
       exists (select from commits c where c.req = i.request)
from idempotent_requests i where i.owner = $1 and i.key = $2;

-- lower_idempotent --
-- Begun before the clock was set back: it must have ended so and so long after somebody first asked, not when the clock has caught up.
update idempotent_requests set begun_at = clock_timestamp() where owner = $1 and key = $2 and begun_at > clock_timestamp() and not over
returning set_config('synchronous_commit', 'local', true);

-- patience --
-- How long a lock is waited for in this transaction, in milliseconds.
select set_config('lock_timeout', $1, true);

-- no_write_under_way --
-- A transaction that was lost on its way to COMMIT holds the locks of its directories, or waits for them: whatever holds or awaits one now is
-- waited for, in the order of the writers, which take the lock of the ledger after these.
select pg_advisory_xact_lock_shared(1, d) from (
    select distinct objid::int4 d from pg_locks where locktype = 'advisory' and classid = 1 and objsubid = 2
      and database = (select oid from pg_database where datname = current_database()) order by 1 offset 0) ordered;

-- no_commit_under_way --
-- A commit that was given up while it waited for a synchronous standby holds the lock of the ledger, and nobody sees it until it is there.
select pg_advisory_xact_lock_shared(2, 0);

-- committed --
-- Whether a request committed anything.
select exists (select from commits where req = $1);

-- take_over_idempotent --
-- From a request that ended and did nothing; of two who try, one gets it.
update idempotent_requests set request = $4, begun_at = clock_timestamp(), over = false where owner = $1 and key = $2 and request = $3 and answer is null
returning set_config('synchronous_commit', 'local', true);

-- finish_idempotent --
-- The answer, once there is one.
update idempotent_requests set answer = $4 where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- end_idempotent --
-- What was refused may be tried again under the same key, unless it committed something all the same.
update idempotent_requests set over = true where owner = $1 and key = $2 and request = $3 returning set_config('synchronous_commit', 'local', true);

-- prune_idempotent --
-- What is older than a client may rely on, in bounded pieces.
delete from idempotent_requests where ctid = any(array(
    select ctid from idempotent_requests where begun_at < clock_timestamp() - make_interval(hours => $1) limit $2));

-- list_requests --
-- Newest first, before a given id.
select r.id, d.slug, r.at, r.method, r.route, r.shape, r.status, r.scim_type, r.detail, r.profile, r.tolerances, r.events, r.duration_us,
       r.request_id, r.token
from requests r join directories d on d.id = r.directory
where ($1::int4[] is null or r.directory = any($1)) and r.id < $2 and ($3::bool is null or (r.status >= 400) = $3)
  and ($4::int2 is null or r.status = $4) order by r.id desc limit $5;

-- doctor_looked --
-- Of the newest $3 requests of a directory, which is all that its doctor looks at: the first of the last $2 hours, which is the bound ($2) of
-- the others below; the time of the oldest, where more came in these hours; when the newest came.
select coalesce(min(id) filter (where at > now() - make_interval(hours => $2)), 9223372036854775807),
       case when count(*) = $3 and bool_and(at > now() - make_interval(hours => $2)) then min(at) end, max(at)
from (select id, at from requests where directory = $1 order by id desc limit $3) newest;

-- doctor_last_change --
-- When the IdP last changed anything ($2: the types that it makes, as bits): of the log, which is not pruned, and finds it however many requests
-- came since that changed nothing.
select timestamptz 'epoch' + at * interval '1 microsecond' from commits where directory = $1 and types & $2 <> 0 order by seq desc limit 1;

-- doctor_operations --
-- Requests, errors and 429s per operation of a directory in the last hours.
select method, route, count(*), count(*) filter (where status >= 400 and status <> 429), count(*) filter (where status = 429),
       percentile_cont(0.5) within group (order by duration_us)::int8, max(at)
from requests where directory = $1 and id >= $2 group by method, route order by 3 desc;

-- doctor_refusals --
-- Why requests were refused, most frequent first: counted by the mark of the sentence, shown by the newest that has it.
select r.status, r.scim_type, r.detail, r.request_id, g.n, g.last
from (select status, scim_type, reason, count(*) n, max(at) as last, max(id) newest from requests
      where directory = $1 and id >= $2 and status >= 400
      group by status, scim_type, reason order by 4 desc limit 10) g
join requests r on r.id = g.newest order by g.n desc, g.newest desc;

-- doctor_tolerances --
-- Which deviations the IdP relies on.
select tolerance, count(*) from requests, unnest(tolerances) tolerance
where directory = $1 and id >= $2 group by tolerance order by 2 desc;

-- doctor_busiest --
-- The busiest minute.
select max(n) from (select count(*) n from requests where directory = $1 and id >= $2 group by date_trunc('minute', at)) minutes;

-- doctor_spikes --
-- Minutes with many times the requests of an ordinary one (the median of the minutes that had any).
with minutes as (select date_trunc('minute', at) as began, count(*) n from requests
                 where directory = $1 and id >= $2 group by 1),
     ordinary as (select percentile_cont(0.5) within group (order by n) n from minutes)
select m.began, m.n, round((m.n / o.n)::numeric, 1)::float8 from minutes m, ordinary o where m.n >= $3 and m.n >= o.n * $4 order by m.n desc limit 5;

-- doctor_retries --
-- The same request refused again and again: a retry storm.
select method, route, status, count(*), min(at), max(at) from requests
where directory = $1 and id >= $2 and at > now() - make_interval(hours => 1) and status >= 400
group by method, route, status having count(*) >= 20 order by 4 desc limit 5;

-- doctor_tokens --
-- Age and use of the directory's SCIM tokens.
select id, name, created_at, expires_at, revoked_at, last_used_at from tokens where role = 'scim' and $1 = any(directories) order by created_at;

-- token_ever --
-- Whose token it is or was, revoked and expired ones included.
select id, role, name, directories, types, bodies from tokens where hash = $1;
