-- without_standby --
-- The journal is no part of the log: it does not wait for a synchronous standby. Where that hangs, every batch that was given up and tried
-- again would leave a session behind in the server, until there is none left for anybody.
select set_config('synchronous_commit', 'local', true);

-- insert_requests --
-- One batch of the journal.
insert into requests (directory, at, method, route, shape, status, scim_type, detail, reason, profile, tolerances, events, duration_us, request_id, token,
                      mistake, times)
select d, to_timestamp(a / 1e6), m, r, s, st, t, de, re, p, coalesce(string_to_array(nullif(tol, ''), ','), '{}'), e, du, rq, tk, mi, ti
from unnest($1::int4[], $2::int8[], $3::text[], $4::text[], $5::bytea[], $6::int2[], $7::text[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::int4[], $13::int4[], $14::uuid[], $15::uuid[], $16::text[], $17::int4[])
     v(d, a, m, r, s, st, t, de, re, p, tol, e, du, rq, tk, mi, ti);

-- prune_requests --
-- What is older than the journal keeps, in bounded pieces: only its first rows are looked at, however many there are.
delete from requests where id in (
    select id from (select id, at from requests order by id limit $2) oldest where at < now() - make_interval(days => $1));
