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
