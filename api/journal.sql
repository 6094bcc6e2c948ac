-- without_standby --
-- The journal is no part of the log: it does not wait for a synchronous standby. Where that hangs, every batch that was given up and tried
-- again would leave a session behind in the server, until there is none left for anybody.
select set_config('synchronous_commit', 'local', true);

-- insert_requests --
-- One batch of the journal. An entry about somebody who was erased since gets no text.
insert into requests (directory, at, method, route, shape, status, scim_type, detail, reason, profile, tolerances, events, duration_us, request_id, token,
                      mistake, times, subject)
select d, to_timestamp(a / 1e6), m, r, case when x.obj is null then s end, st, t, case when x.obj is null then de end,
       case when x.obj is null then re end, p, coalesce(string_to_array(nullif(tol, ''), ','), '{}'), e, du, rq, tk, mi, ti,
       case when x.obj is null then su end
from unnest($1::int4[], $2::int8[], $3::text[], $4::text[], $5::bytea[], $6::int2[], $7::text[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::int4[], $13::int4[], $14::uuid[], $15::uuid[], $16::text[], $17::int4[], $18::uuid[])
     v(d, a, m, r, s, st, t, de, re, p, tol, e, du, rq, tk, mi, ti, su)
left join lateral (select obj from erasures where obj = v.su offset 0) x on true;

-- prune_requests --
-- What is older than the journal keeps, in bounded pieces: only its first rows are looked at, however many there are.
delete from requests where id in (
    select id from (select id, at from requests order by id limit $2) oldest where at < now() - make_interval(days => $1));
