-- set_rate_limit --
-- In the transaction that records directory.rate_limit_changed.
insert into rate_limits (directory, per_second, burst) values ($1, $2, $3)
on conflict (directory) do update set per_second = excluded.per_second, burst = excluded.burst;

-- reset_rate_limit --
-- The limit is that of the profile again.
delete from rate_limits where directory = $1;

-- rate_limit_unchanged --
-- A row if the directory still has the limit that it had when it was read; nulls stand for none.
select from directories d left join rate_limits r on r.directory = d.id
where d.id = $1 and r.per_second is not distinct from $2::int and r.burst is not distinct from $3::int;
