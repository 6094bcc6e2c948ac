-- users_by_id --
-- Current users with their newest sealed body, unless it is longer than $3 bytes: directory, id, active, body_seq, etag_rv, created,
-- updated, ct, key.
select u.directory, u.id, u.active, u.body_seq, u.etag_rv, u.created_at, u.updated_at, case when octet_length(b.ct) <= $3 then b.ct end, s.wrapped
from unnest($1::int4[], $2::uuid[]) k(d, i)
join users u on u.directory = k.d and u.id = k.i
join bodies b on b.directory = u.directory and b.seq = u.body_seq
join subject_keys s on s.obj = u.id;

-- users_page --
-- Current users in the requested order: place, id, body_seq, etag_rv, created, updated, ct, key, active. Sealed bodies are read up to
-- $3 bytes, at least the first one: a page of the largest users would have 200 MiB. `offset 0`, here and below, keeps the look-up row by row:
-- without it, and without statistics of a directory that was just filled, all its users and bodies are read once for each row of the page.
select n, id, body_seq, etag_rv, created_at, updated_at, case when total <= $3 or total = size then ct end, wrapped, active from (
    select k.n, u.id, u.body_seq, u.etag_rv, u.created_at, u.updated_at, b.ct, s.wrapped, u.active, octet_length(b.ct) size,
           sum(octet_length(b.ct)) over (order by k.n) total
    from unnest($2::uuid[]) with ordinality k(i, n)
    cross join lateral (select * from users where directory = $1 and id = k.i offset 0) u
    cross join lateral (select ct from bodies where directory = $1 and seq = u.body_seq offset 0) b
    cross join lateral (select wrapped from subject_keys where obj = u.id offset 0) s
) p order by n;

-- users_by_name --
-- Users by the HMAC of their userName, which is the first column. IdPs ask this before they create a user. Long bodies are not read.
select u.user_name_mac, u.directory, u.id, u.active, u.body_seq, u.etag_rv, u.created_at, u.updated_at, case when octet_length(b.ct) <= $3 then b.ct end, s.wrapped
from unnest($1::int4[], $2::bytea[]) k(d, m)
join users u on u.directory = k.d and u.user_name_mac = k.m
join bodies b on b.directory = u.directory and b.seq = u.body_seq
join subject_keys s on s.obj = u.id;

-- groups_page --
-- Current groups in the same way. lastModified is the time of the event that last moved the ETag. It is looked up by a subquery: a
-- generic plan for a join would read every event of the group.
select n, id, body_seq, etag_rv, created_at, updated_at, case when total <= $3 or total = size then ct end, wrapped, active from (
    select k.n, g.id, g.body_seq, t.etag_rv, g.created_at, c.at updated_at, b.ct, s.wrapped, true active, octet_length(b.ct) size,
           sum(octet_length(b.ct)) over (order by k.n) total
    from unnest($2::uuid[]) with ordinality k(i, n)
    cross join lateral (select * from groups where directory = $1 and id = k.i offset 0) g
    cross join lateral (select ct from bodies where directory = $1 and seq = g.body_seq offset 0) b
    cross join lateral (select wrapped from subject_keys where obj = g.id offset 0) s
    cross join lateral (select etag_rv from events where obj = g.id order by rv desc limit 1) t
    cross join lateral (select seq from events where obj = g.id and rv = t.etag_rv offset 0) e
    cross join lateral (select at from commits where directory = g.directory and seq <= e.seq order by seq desc limit 1) c
) p order by n;

-- user_ids_by_key --
-- Candidates of an equality filter on users: those that have any of the HMACs.
select id from users where directory = $1 and user_name_mac = any($2::bytea[])
union select id from users where directory = $1 and external_id_mac = any($3::bytea[])
union select id from users where directory = $1 and display_name_mac = any($4::bytea[])
union select id from (select directory, id from users where email_macs && $5::bytea[] offset 0) by_email where directory = $1
union select id from users where directory = $1 and id = any($6::uuid[]);

-- owners_of_user_names --
-- The users that have these userNames, by HMAC, and how many have each (at most one; the same columns as for externalIds).
select k.m, u.id, 1::int8 from unnest($2::bytea[]) k(m)
cross join lateral (select id from users where directory = $1 and user_name_mac = k.m offset 0) u;

-- owners_of_external_ids --
-- For each externalId one user that has it, and how many have it. Key by key: a plan for a join, made while there are few rows, reads all users.
select k.m, o.id, o.many from unnest($2::bytea[]) k(m)
cross join lateral (
    select (array_agg(id order by id))[1], count(*) from users where directory = $1 and external_id_mac = k.m
) o(id, many)
where o.many > 0;

-- ids_among --
-- The ids that are users or groups of the directory.
select k.i from unnest($2::uuid[]) k(i) cross join lateral (select from users where directory = $1 and id = k.i offset 0) u
union all
select k.i from unnest($2::uuid[]) k(i) cross join lateral (select from groups where directory = $1 and id = k.i offset 0) g;

-- group_ids_by_key --
-- Candidates of an equality filter on groups: those that have any of the HMACs.
select id from groups where directory = $1 and display_name_mac = any($2::bytea[])
union select id from groups where directory = $1 and external_id_mac = any($3::bytea[])
union select grp from memberships where directory = $1 and mem = any($4::uuid[]) and to_seq >= 9223372036854775807
union select id from groups where directory = $1 and id = any($5::uuid[]);

-- open_members --
-- Members of groups in the order they were added, packed into two texts: as rows a large group would be a million objects.
select k.g, string_agg(m.mem::text, '' order by m.from_seq), string_agg(m.mt::text, '' order by m.from_seq)
from unnest($1::int4[], $2::uuid[]) k(d, g)
cross join lateral (select * from memberships where directory = k.d and grp = k.g and to_seq >= 9223372036854775807 offset 0) m
group by k.g;

-- open_members_among --
-- Of these members only, looked up by member, so that a large group is not read.
select m.grp, string_agg(m.mem::text, '' order by m.from_seq), string_agg(m.mt::text, '' order by m.from_seq)
from unnest($3::uuid[]) k(m)
cross join lateral (select * from memberships where directory = $1 and mem = k.m and to_seq >= 9223372036854775807 offset 0) m
where m.grp = any($2::uuid[]) group by m.grp;

-- users_after --
-- Current users by id, after an id: id, active, body_seq, created. Nobody is active in a directory that was closed.
select u.id, u.active and not exists (select from directory_states where directory = $1 and closed_seq is not null), u.body_seq, u.created_at
from users u where u.directory = $1 and u.id > $2 order by u.id limit $3;

-- users_among --
-- Those of them that have one of these ids.
select u.id, u.active and not exists (select from directory_states where directory = $1 and closed_seq is not null), u.body_seq, u.created_at
from users u where u.directory = $1 and u.id = any($2::uuid[]) and u.id > $3 order by u.id limit $4;

-- groups_after --
-- Current groups by id, after an id.
select g.id, true, g.body_seq, g.created_at from groups g where g.directory = $1 and g.id > $2 order by g.id limit $3;

-- groups_among --
-- Those of them that have one of these ids.
select g.id, true, g.body_seq, g.created_at
from groups g where g.directory = $1 and g.id = any($2::uuid[]) and g.id > $3 order by g.id limit $4;
