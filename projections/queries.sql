-- close_states --
-- Ends the open interval of a resource where its next state begins.
-- The rows are looked up one by one, by ctid: as a plain join, a plan made while there are few rows reads every open interval of the
-- ledger. The ctids are stable because the transaction holds the directory's lock.
update states s set to_seq = v.q from unnest($1::int4[], $2::uuid[], $3::int8[]) v(d, o, q)
cross join lateral (select ctid from states where directory = v.d and obj = v.o and to_seq = 9223372036854775807 offset 0) open
where s.ctid = open.ctid;

-- insert_states --
-- New intervals: open, or already ended if one batch changes a resource twice.
insert into states (directory, obj, ot, active, body_seq, from_seq, to_seq)
select * from unnest($1::int4[], $2::uuid[], $3::int2[], $4::bool[], $5::int8[], $6::int8[], $7::int8[]);

-- close_memberships --
-- Ends open memberships where they were removed; by ctid, as in close_states.
update memberships m set to_seq = v.q from unnest($1::int4[], $2::uuid[], $3::uuid[], $4::int8[]) v(d, g, m, q)
cross join lateral (
    select ctid from memberships where directory = v.d and grp = v.g and mem = v.m and to_seq = 9223372036854775807 offset 0
) open
where m.ctid = open.ctid;

-- insert_memberships --
-- New memberships: open, or already ended if one batch adds and removes one.
insert into memberships (directory, grp, mem, mt, from_seq, to_seq)
select * from unnest($1::int4[], $2::uuid[], $3::uuid[], $4::int2[], $5::int8[], $6::int8[]);

-- delete_users --
-- Only the current row; the past stands in states and in the log.
delete from users u using unnest($1::int4[], $2::uuid[]) v(d, i) where u.directory = v.d and u.id = v.i;

-- delete_groups --
-- Only the current row; the past stands in states and in the log.
delete from groups g using unnest($1::int4[], $2::uuid[]) v(d, i) where g.directory = v.d and g.id = v.i;

-- update_users --
-- An update that changes no indexed column stays HOT and writes no index entries.
update users u set active = v.active, body_seq = v.body_seq, rv = v.rv, etag_rv = v.etag_rv, updated_at = v.updated_at,
       user_name_mac = v.name, external_id_mac = v.external, display_name_mac = v.display, email_macs = v.emails::bytea[]
from unnest($1::int4[], $2::uuid[], $3::bool[], $4::int8[], $5::int4[], $6::int4[], $7::int8[], $8::int8[], $9::bytea[], $10::bytea[],
            $11::bytea[], $12::text[])
     v(d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails)
where u.directory = v.d and u.id = v.i;

-- insert_users --
-- New users. The unique index users_user_name refuses a userName that is taken.
insert into users (directory, id, active, body_seq, rv, etag_rv, created_at, updated_at, user_name_mac, external_id_mac,
                   display_name_mac, email_macs)
select d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails::bytea[]
from unnest($1::int4[], $2::uuid[], $3::bool[], $4::int8[], $5::int4[], $6::int4[], $7::int8[], $8::int8[], $9::bytea[], $10::bytea[],
            $11::bytea[], $12::text[])
     v(d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails);

-- rewrite_users --
-- Replaces the rows of users ($1, $2) by their state after the batch; only the creation time is kept.
-- count(*) makes all deletes happen before the first insert: otherwise a userName that moves to another user would exist twice.
with old as (
    delete from users u using unnest($1::int4[], $2::uuid[]) k(d, i) where u.directory = k.d and u.id = k.i returning u.directory, u.id, u.created_at
)
insert into users (directory, id, active, body_seq, rv, etag_rv, created_at, updated_at, user_name_mac, external_id_mac,
                   display_name_mac, email_macs)
select v.d, v.i, v.active, v.body_seq, v.rv, v.etag_rv, coalesce(old.created_at, v.created_at), v.updated_at, v.name, v.external, v.display,
       v.emails::bytea[]
from unnest($3::int4[], $4::uuid[], $5::bool[], $6::int8[], $7::int4[], $8::int4[], $9::int8[], $10::int8[], $11::bytea[], $12::bytea[],
            $13::bytea[], $14::text[])
     v(d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails)
cross join (select count(*) from old) deleted
left join old on old.directory = v.d and old.id = v.i;

-- rewrite_groups --
-- Replaces rows of groups in the same way.
with old as (
    delete from groups g using unnest($1::int4[], $2::uuid[]) k(d, i) where g.directory = k.d and g.id = k.i returning g.directory, g.id, g.created_at
)
insert into groups (directory, id, body_seq, created_at, display_name_mac, external_id_mac)
select v.d, v.i, v.body_seq, coalesce(old.created_at, v.created_at), v.name, v.external
from unnest($3::int4[], $4::uuid[], $5::int8[], $6::int8[], $7::bytea[], $8::bytea[]) v(d, i, body_seq, created_at, name, external)
cross join (select count(*) from old) deleted
left join old on old.directory = v.d and old.id = v.i;

-- update_groups --
-- Attributes only. A membership change does not update the row of the group.
update groups g set body_seq = v.body_seq, display_name_mac = v.name, external_id_mac = v.external
from unnest($1::int4[], $2::uuid[], $3::int8[], $4::int8[], $5::bytea[], $6::bytea[]) v(d, i, body_seq, created_at, name, external)
where g.directory = v.d and g.id = v.i;

-- insert_groups --
-- New groups. Two groups may have the same displayName.
insert into groups (directory, id, body_seq, created_at, display_name_mac, external_id_mac)
select * from unnest($1::int4[], $2::uuid[], $3::int8[], $4::int8[], $5::bytea[], $6::bytea[]);

-- upsert_directory_states --
-- Directories that were paused, resumed, closed or deleted. closed_seq and closed_at stay when the directory is deleted.
insert into directory_states (directory, state, since, closed_seq, closed_at)
select d, state, since, nullif(closed_seq, 0), nullif(closed_at, 0)
from unnest($1::int4[], $2::text[], $3::int8[], $4::int8[], $5::int8[]) v(d, state, since, closed_seq, closed_at)
on conflict (directory) do update set state = excluded.state, since = excluded.since,
       closed_seq = coalesce(excluded.closed_seq, directory_states.closed_seq),
       closed_at = coalesce(excluded.closed_at, directory_states.closed_at);

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
-- $3 bytes, at least the first one: a page of the largest users would have 200 MiB.
select n, id, body_seq, etag_rv, created_at, updated_at, case when total <= $3 or total = size then ct end, wrapped, active from (
    select k.n, u.id, u.body_seq, u.etag_rv, u.created_at, u.updated_at, b.ct, s.wrapped, u.active, octet_length(b.ct) size,
           sum(octet_length(b.ct)) over (order by k.n) total
    from unnest($2::uuid[]) with ordinality k(i, n)
    join users u on u.directory = $1 and u.id = k.i
    join bodies b on b.directory = u.directory and b.seq = u.body_seq
    join subject_keys s on s.obj = u.id
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
    join groups g on g.directory = $1 and g.id = k.i
    join bodies b on b.directory = g.directory and b.seq = g.body_seq
    join subject_keys s on s.obj = g.id
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
select k.m, u.id, 1::int8 from unnest($2::bytea[]) k(m) join users u on u.directory = $1 and u.user_name_mac = k.m;

-- owners_of_external_ids --
-- For each externalId one user that has it, and how many have it. Key by key: a plan for a join, made while there are few rows, reads all users.
select k.m, o.id, o.many from unnest($2::bytea[]) k(m)
cross join lateral (
    select (array_agg(id order by id))[1], count(*) from users where directory = $1 and external_id_mac = k.m
) o(id, many)
where o.many > 0;

-- ids_among --
-- The ids that are users or groups of the directory.
select k.i from unnest($2::uuid[]) k(i) join users u on u.directory = $1 and u.id = k.i
union all
select k.i from unnest($2::uuid[]) k(i) join groups g on g.directory = $1 and g.id = k.i;

-- group_ids_by_key --
-- Candidates of an equality filter on groups: those that have any of the HMACs.
select id from groups where directory = $1 and display_name_mac = any($2::bytea[])
union select id from groups where directory = $1 and external_id_mac = any($3::bytea[])
union select grp from memberships where directory = $1 and mem = any($4::uuid[]) and to_seq >= 9223372036854775807
union select id from groups where directory = $1 and id = any($5::uuid[]);

-- count_users --
-- totalResults without a filter.
select count(*) from users where directory = $1;

-- count_groups --
-- totalResults without a filter.
select count(*) from groups where directory = $1;

-- count_users_within --
-- totalResults of a filter that says only bounds.
select count(*) from users
where directory = $1 and ($2::bool is null or active = $2) and created_at between $3 and $4 and updated_at between $5 and $6;

-- count_groups_within --
-- totalResults of a filter that says only bounds.
select count(*) from groups where directory = $1 and created_at between $2 and $3;

-- page_of_users_within --
-- The page of such a filter, by time of creation.
select id from users
where directory = $1 and ($2::bool is null or active = $2) and created_at between $3 and $4 and updated_at between $5 and $6
order by created_at, id offset $7 limit $8;

-- page_of_groups_within --
-- The page of such a filter, by time of creation.
select id from groups where directory = $1 and created_at between $2 and $3 order by created_at, id offset $4 limit $5;

-- page_of_users --
-- By time of creation, so that a client that pages while users are created misses nobody.
select id from users where directory = $1 order by created_at, id offset $2 limit $3;

-- page_of_groups --
-- A page of groups, by time of creation.
select id from groups where directory = $1 order by created_at, id offset $2 limit $3;

-- users_after --
-- The same order by keyset, with the bounds that a filter implies; for scans.
select created_at, id from users
where directory = $1 and (created_at, id) > ($2, $3::uuid) and ($4::bool is null or active = $4)
  and created_at between $5 and $6 and updated_at between $7 and $8
order by created_at, id limit $9;

-- groups_after --
-- The same order by keyset, with the bounds that a filter implies; for scans.
select created_at, id from groups
where directory = $1 and (created_at, id) > ($2, $3::uuid) and created_at between $4 and $5 order by created_at, id limit $6;

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

-- open_groups --
-- All groups of users, direct or through member groups: the sealed body with the name, and the direct members since when.
-- `union` removes repeated edges, so circles end, and at most $3 edges are followed. The body is returned once for each group, and only
-- if it is small; the others are read one by one.
with recursive e(d, mem, grp, from_seq) as (
    select k.d, m.mem, m.grp, m.from_seq from unnest($1::int4[], $2::uuid[]) k(d, i)
    cross join lateral (select * from memberships where directory = k.d and mem = k.i and to_seq >= 9223372036854775807 offset 0) m
    union
    select e.d, m.mem, m.grp, m.from_seq from e
    cross join lateral (select * from memberships where directory = e.d and mem = e.grp and to_seq >= 9223372036854775807 offset 0) m
)
select h.d, h.grp, b.body_seq, case when octet_length(b.ct) <= $4 then b.ct end, b.wrapped, h.mems, h.seqs
from (select d, grp, array_agg(mem) mems, array_agg(from_seq) seqs from (select * from e limit $3) e group by d, grp) h
cross join lateral (
    select g.body_seq, b.ct, s.wrapped from groups g
    join bodies b on b.directory = g.directory and b.seq = g.body_seq
    join subject_keys s on s.obj = g.id
    where g.directory = h.d and g.id = h.grp offset 0
) b;

-- point_at_time --
-- The end of the last commit with at <= T.
select seq + size - 1, at from commits where directory = $1 and at <= $2 order by at desc, seq desc limit 1;

-- frozen_stretches --
-- For each acceptance of a clock that was behind: the clock's time then, from the UUIDv7 of the request, and the time that events got
-- until the clock passed it (µs). From the events about the directory itself, which are few.
select ('x' || translate(left(k.req::text, 13), '-', ''))::bit(48)::int8 * 1000, k.at
from events e
cross join lateral (select req, at from commits where directory = $1 and seq = e.seq offset 0) k
where e.obj = $2 and e.type = 50;

-- point_at_seq --
-- The end of the commit that a seq belongs to.
select seq + size - 1, at from commits where directory = $1 and seq <= $2 order by seq desc limit 1;

-- state_at --
-- A resource as of a seq: type, activity, place of its body, creation. Here and below all users are inactive from closed_seq of their
-- directory on, without an interval for each.
select s.ot, s.active and not exists (select from directory_states where directory = $1 and closed_seq <= $3), s.body_seq, b.ct, k.wrapped, e.etag_rv, c.at,
       (select f.at from commits f where f.directory = $1 and f.seq <= (select min(from_seq) from states where directory = $1 and obj = $2)
        order by f.seq desc limit 1)
from states s
left join bodies b on b.directory = s.directory and b.seq = s.body_seq
left join subject_keys k on k.obj = s.obj
cross join lateral (select etag_rv from events where directory = s.directory and seq = s.body_seq offset 0) e
cross join lateral (select at from commits where directory = s.directory and seq <= s.body_seq order by seq desc limit 1) c
where s.directory = $1 and s.obj = $2 and s.from_seq <= $3 and s.to_seq > $3;

-- sealed_at --
-- Resources as of a seq, in the requested order: place, id, body_seq, ct, key. Bodies are read up to $4 bytes, at least the first one.
-- Erased resources have no body and are left out.
select n, obj, body_seq, case when total <= $4 or total = size then ct end, wrapped from (
    select k.n, s.obj, s.body_seq, b.ct, y.wrapped, octet_length(b.ct) size, sum(octet_length(b.ct)) over (order by k.n) total
    from unnest($2::uuid[]) with ordinality k(i, n)
    cross join lateral (
        select * from states where directory = $1 and obj = k.i and to_seq > $3 and from_seq <= $3 offset 0
    ) s
    join bodies b on b.directory = $1 and b.seq = s.body_seq
    join subject_keys y on y.obj = s.obj
) p order by n;

-- states_after --
-- All resources of a type as of a seq, by id: the population.
select s.obj, s.active and not exists (select from directory_states where directory = $1 and closed_seq <= $3), s.body_seq from states s
where s.directory = $1 and s.ot = $2 and s.from_seq <= $3 and s.to_seq > $3 and s.obj > $4 order by s.obj limit $5;

-- members_at --
-- Direct members of groups as of a seq, with their activity then.
select m.grp, m.mem, m.mt,
       coalesce(s.active, false) and not exists (select from directory_states where directory = $1 and closed_seq <= $3), m.from_seq
from unnest($2::uuid[]) k(g)
cross join lateral (select * from memberships where directory = $1 and grp = k.g and to_seq > $3 and from_seq <= $3 offset 0) m
left join lateral (
    select active from states where directory = $1 and obj = m.mem and to_seq > $3 and from_seq <= $3 offset 0
) s on true;

-- groups_at --
-- Groups that have these direct members as of a seq.
select m.mem, m.grp, m.from_seq from unnest($2::uuid[]) k(i)
cross join lateral (select * from memberships where directory = $1 and mem = k.i and to_seq > $3 and from_seq <= $3 offset 0) m;

-- membership_diff --
-- Memberships that exist at only one of two points: -1 at the first, 1 at the second.
select grp, mem, mt, case when from_seq <= $2 and to_seq > $2 then -1 else 1 end, from_seq, to_seq from memberships
where directory = $1 and ($4::uuid is null or grp = $4) and ($5::uuid is null or mem = $5)
  and (from_seq <= $2 and to_seq > $2) <> (from_seq <= $3 and to_seq > $3)
order by grp, mem, from_seq limit $6;

-- state_diff --
-- Resources that were created or deleted, or changed activity or attributes between two points. Closing the directory makes its
-- active users inactive.
with ended as (select coalesce((select closed_seq from directory_states where directory = $1 and closed_seq <= $3), 9223372036854775807) q)
select coalesce(a.obj, b.obj), coalesce(a.ot, b.ot), a.active and (a.ot = 1 or q > $2), b.active and (b.ot = 1 or q > $3), a.body_seq,
       case when b.ot = 0 and b.active and q <= $3 then greatest(b.body_seq, q) else b.body_seq end
from ended,
     (select * from states where directory = $1 and from_seq <= $2 and to_seq > $2 and ($4::uuid is null or obj = $4)) a
     full join (select * from states where directory = $1 and from_seq <= $3 and to_seq > $3 and ($4::uuid is null or obj = $4)) b on a.obj = b.obj
where a.body_seq is distinct from b.body_seq or (a.ot = 0 and a.active and q > $2 and q <= $3)
order by 2, 1 limit $5;

-- bodies_of --
-- Sealed bodies by seq, with sizes and the keys of their resources. Bodies longer than $3 bytes are not read.
select b.seq, e.obj, octet_length(b.ct), case when octet_length(b.ct) <= $3 then b.ct end, k.wrapped from unnest($2::int8[]) v(q)
join bodies b on b.directory = $1 and b.seq = v.q
join events e on e.directory = b.directory and e.seq = b.seq
join subject_keys k on k.obj = e.obj;

-- long_bodies --
-- Sealed bodies that were too long for bodies_of.
select b.seq, b.ct from unnest($2::int8[]) v(q)
cross join lateral (select * from bodies b where b.directory = $1 and b.seq = v.q offset 0) b;

-- members_packed --
-- The direct members of a group as of a seq, packed in one row: the ids in order, and a digit for each: type + 2 if active. Nobody is
-- active if the directory was closed by then.
select coalesce(string_agg(m.mem::text, '' order by m.mem), ''),
       coalesce(string_agg((m.mt + case when coalesce(s.active, false) and not closed then 2 else 0 end)::text, '' order by m.mem), '')
from (select exists (select from directory_states where directory = $1 and closed_seq <= $3) as closed offset 0) d
cross join (select mem, mt from memberships where directory = $1 and grp = $2 and to_seq > $3 and from_seq <= $3 offset 0) m
left join lateral (
    select active from states where directory = $1 and obj = m.mem and to_seq > $3 and from_seq <= $3 offset 0
) s on true;

-- ever_existed --
-- Whether an id ever was a resource of the directory, to tell a deleted one from an unknown id.
select 1 from states where directory = $1 and obj = $2 and ot = $3 limit 1;
