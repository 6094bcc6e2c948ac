-- mark --
-- What tells whether a list is still the same: the table, which a rebuild replaces, and the newest commit of the directory, seq, request
-- and operation; and the last event before a moment.
select to_regclass($3::text)::oid::int8, seq + size - 1, req, op, coalesce(
    (select seq + size - 1 from commits where directory = $1 and at < $2 order by at desc, seq desc limit 1), 0
) from commits where directory = $1 order by seq desc limit 1;

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

-- count_changed_users --
-- Users that were created before a moment and modified since.
select count(*) from users where directory = $1 and created_at between $2 and $3 and created_at < $4 and updated_at >= $4;

-- next_changed_users --
-- The page of these.
select created_at, id from users
where directory = $1 and created_at between $2 and $3 and created_at < $4 and updated_at >= $4 and (created_at, id) > ($5, $6::uuid)
order by created_at, id offset $7 limit $8;

-- users_changed_since --
-- The same, all of them, by the events since that moment: for few events. A user's row names the event that changed it last.
-- `offset 0` keeps the order of the tables: the planner would read all users and look for an event of each.
select u.created_at, u.id
from (select obj, seq from events where directory = $1 and seq > $2 and mem is null offset 0) e
cross join lateral (select * from users where directory = $1 and id = e.obj offset 0) u
where u.body_seq = e.seq and u.created_at between $3 and $4 and u.created_at < $5
order by u.created_at, u.id;

-- count_users_within --
-- totalResults of a filter that says only bounds.
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
