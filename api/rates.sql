-- take_requests --
-- Take up to $4 requests of a directory that may send $2 a second and $3 at once: how many were taken, and the seconds until one may be.
-- No row if the directory has none yet.
with held as (select spent, at from sent_requests where directory = $1 for update),
     now_left as (
         select greatest(spent - greatest(extract(epoch from t.now - at), 0) * $2::float8, 0) as spent, greatest(at, t.now) as at
         from held, (select clock_timestamp() as now) t),
     granted as (select least($4::float8, greatest(floor($3::float8 - spent), 0)) as n, spent, at from now_left),
     stored as (
         update sent_requests set spent = granted.spent + granted.n, at = granted.at
         from granted where directory = $1 and granted.n > 0)
select n::int, greatest((spent + 1 - $3::float8) / $2::float8, 0)::float8 from granted;

-- begin_requests --
-- The row of a directory that has none.
insert into sent_requests (directory, spent, at) values ($1, 0, clock_timestamp()) on conflict do nothing;
