-- mark --
-- What tells whether a list is still the same: the table, which a rebuild replaces, and the newest commit of the directory: seq, request
-- and operation.
select to_regclass($2::text)::oid::int8, seq + size - 1, req, op from commits where directory = $1 order by seq desc limit 1;

-- count_users --
-- totalResults of a list of users without a filter, or with one on the time of creation. The index tells it without the table.
select count(*) from users where directory = $1 and created_at between $2 and $3;

-- next_users --
-- Its page: by time of creation, so that a client that pages while users are created misses nobody.
select created_at, id from users
where directory = $1 and created_at between $2 and $3 and (created_at, id) > ($4, $5::uuid)
order by created_at, id offset $6 limit $7;

-- count_active_users --
-- totalResults of a filter on `active`, from the index alone too; for false, of the inactive ones.
select count(*) from users where directory = $1 and active = $2 and created_at between $3 and $4;

-- next_active_users --
-- The page of these.
select created_at, id from users
where directory = $1 and active = $2 and created_at between $3 and $4 and (created_at, id) > ($5, $6::uuid)
order by created_at, id offset $7 limit $8;

-- count_changes --
-- How many users were last changed between two moments, of these the active or the inactive ones, and how many users there are. The open
-- state of a user begins with its newest event, so the index of open states tells it alone; and the times of a directory never run
-- backwards, so two places in the log are as good as the moments.
with changed(since, until) as materialized (select
    coalesce((select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0),
    coalesce((select seq + size - 1 from commits where directory = $1 and at <= $3 order by at desc, seq desc limit 1), 0)
)
select count(*) filter (where inside), count(*) filter (where inside and ($4::bool is null or active = $4)), count(*)
from (
    select active, from_seq > (select since from changed) and from_seq <= (select until from changed) inside
    from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0
) s;

-- count_few_changed --
-- totalResults of a filter on the time of change, for few changed users.
with changed(since, until) as materialized (select
    coalesce((select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0),
    coalesce((select seq + size - 1 from commits where directory = $1 and at <= $3 order by at desc, seq desc limit 1), 0)
)
select count(*) from (
    select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and ($4::bool is null or active = $4)
      and from_seq > (select since from changed) and from_seq <= (select until from changed)
    offset 0
) s
cross join lateral (select created_at, id from users where directory = $1 and id = s.obj offset 0) u
where created_at between $5 and $6;

-- next_few_changed --
-- Its page: all of these users are looked up, and put in order.
with changed(since, until) as materialized (select
    coalesce((select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0),
    coalesce((select seq + size - 1 from commits where directory = $1 and at <= $3 order by at desc, seq desc limit 1), 0)
)
select created_at, id from (
    select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and ($4::bool is null or active = $4)
      and from_seq > (select since from changed) and from_seq <= (select until from changed)
    offset 0
) s
cross join lateral (select created_at, id from users where directory = $1 and id = s.obj offset 0) u
where created_at between $5 and $6 and (created_at, id) > ($7, $8::uuid)
order by created_at, id offset $9 limit $10;

-- count_by_change --
-- The same for many: all users in order of creation, those that were changed then ($7), or those that were not changed before or after.
-- The smaller set is hashed. `= $7` keeps the planner from making a join of it, which would have to be sorted.
with changed(since, until) as materialized (select
    coalesce((select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0),
    coalesce((select seq + size - 1 from commits where directory = $1 and at <= $3 order by at desc, seq desc limit 1), 0)
)
select count(*) from users
where directory = $1 and ($4::bool is null or active = $4) and created_at between $5 and $6
  and (id in (
      select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and $7
        and from_seq > (select since from changed) and from_seq <= (select until from changed)
      union all select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and not $7 and from_seq <= (select since from changed)
      union all select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and not $7 and from_seq > (select until from changed)
  )) = $7;

-- next_by_change --
-- Its page.
with changed(since, until) as materialized (select
    coalesce((select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0),
    coalesce((select seq + size - 1 from commits where directory = $1 and at <= $3 order by at desc, seq desc limit 1), 0)
)
select created_at, id from users
where directory = $1 and ($4::bool is null or active = $4) and created_at between $5 and $6
  and (id in (
      select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and $7
        and from_seq > (select since from changed) and from_seq <= (select until from changed)
      union all select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and not $7 and from_seq <= (select since from changed)
      union all select obj from states where directory = $1 and to_seq = 9223372036854775807 and ot = 0 and not $7 and from_seq > (select until from changed)
  )) = $7 and (created_at, id) > ($8, $9::uuid)
order by created_at, id offset $10 limit $11;

-- count_users_within --
-- totalResults of a filter that says only bounds, from the table.
select count(*) from users
where directory = $1 and ($2::bool is null or active = $2) and created_at between $3 and $4 and updated_at between $5 and $6;

-- next_users_within --
-- The page of such a filter, and the next users that a scan looks at.
select created_at, id from users
where directory = $1 and ($2::bool is null or active = $2) and created_at between $3 and $4 and updated_at between $5 and $6
  and (created_at, id) > ($7, $8::uuid)
order by created_at, id offset $9 limit $10;

-- count_groups --
-- totalResults of a list of groups without a filter, or with one on the time of creation.
select count(*) from groups where directory = $1 and created_at between $2 and $3;

-- next_groups --
-- Its page, and the next groups that a scan looks at.
select created_at, id from groups
where directory = $1 and created_at between $2 and $3 and (created_at, id) > ($4, $5::uuid)
order by created_at, id offset $6 limit $7;
