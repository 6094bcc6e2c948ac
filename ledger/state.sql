-- tails --
-- For each directory: the last commit, the database's clock in µs, and the state. Read under the directory's lock, so a pause or a
-- closing is effective from its commit on. If the last commit is ahead of the clock: whether an operator accepted that, from the
-- events about the directory itself, which are few.
select d, c.seq + c.size - 1, c.at, n.now, coalesce(t.state, 'active'),
       case when c.at > n.now then exists (
           select from events e where e.obj = (select o.uuid from directories o where o.id = d) and e.type = 50
           and (select k.at from commits k where k.directory = d and k.seq = e.seq) = c.at) else false end
from unnest($1::int4[]) d
cross join lateral (select (extract(epoch from clock_timestamp()) * 1000000)::int8 as now offset 0) n
left join lateral (select seq, size, at from commits where directory = d order by seq desc limit 1) c on true
left join lateral (select state from directory_states where directory = d offset 0) t on true;

-- names_taken --
-- The users that have these userName keys.
select u.directory, u.user_name_mac, u.id
from unnest($1::int4[], $2::bytea[]) k(d, m) join users u on u.directory = k.d and u.user_name_mac = k.m;

-- users_state --
-- Users with their newest sealed body. `>=` the greatest bigint, here and below, where a member or a group alone is looked up:
-- with `=`, a plan made while the table is small uses memberships_open, which is ordered by edge, and scans the whole directory.
-- A body longer than $3 bytes is not read: the other commands of the batch would wait for it.
select u.directory, u.id, u.active, u.body_seq, u.rv, u.etag_rv, u.created_at, u.updated_at,
       case when octet_length(b.ct) <= $3 then b.ct end, s.wrapped,
       exists (select from memberships m where m.directory = u.directory and m.mem = u.id and m.to_seq >= 9223372036854775807)
from unnest($1::int4[], $2::uuid[]) k(d, i)
join users u on u.directory = k.d and u.id = k.i
join bodies b on b.directory = u.directory and b.seq = u.body_seq
join subject_keys s on s.obj = u.id;

-- groups_state --
-- Groups with the newest rv and etag_rv of their stream, and their newest sealed body if it is not longer than the limit given for each.
select g.directory, g.id, g.body_seq, g.created_at, case when octet_length(b.ct) <= k.most then b.ct end, s.wrapped, t.rv, t.etag_rv
from unnest($1::int4[], $2::uuid[], $3::int4[]) k(d, i, most)
join groups g on g.directory = k.d and g.id = k.i
join bodies b on b.directory = g.directory and b.seq = g.body_seq
join subject_keys s on s.obj = g.id
cross join lateral (select rv, etag_rv from events where obj = g.id order by rv desc limit 1) t;

-- stream_tails --
-- The newest rv and etag_rv of resources.
select k.o, t.rv, t.etag_rv from unnest($1::uuid[]) k(o)
cross join lateral (select rv, etag_rv from events where obj = k.o order by rv desc limit 1) t;

-- wrapped_keys --
-- Wrapped keys by resource.
select s.obj, s.directory, s.wrapped from unnest($1::uuid[]) k(o) join subject_keys s on s.obj = k.o;

-- edges_open --
-- Which of these memberships are open.
-- offset 0 keeps the look-up edge by edge: without it, a plan made while there are few rows reads every open membership of the ledger.
select k.d, k.g, k.m from unnest($1::int4[], $2::uuid[], $3::uuid[]) k(d, g, m)
cross join lateral (select from memberships where directory = k.d and grp = k.g and mem = k.m and to_seq = 9223372036854775807 offset 0) m;

-- members_known --
-- Which of these ids are users (mt 0) or groups (mt 1) of the directory, and whether they are active.
select k.d, k.m, 0, u.active from unnest($1::int4[], $2::uuid[]) k(d, m) join users u on u.directory = k.d and u.id = k.m
union all
select k.d, k.m, 1, true from unnest($1::int4[], $2::uuid[]) k(d, m) join groups g on g.directory = k.d and g.id = k.m;

-- members_of_group --
-- All open memberships of a group, with the member's activity.
select m.mem, m.mt, coalesce(u.active, true) from memberships m
left join users u on u.directory = m.directory and u.id = m.mem
where m.directory = $1 and m.grp = $2 and m.to_seq >= 9223372036854775807;

-- groups_of_member --
-- All groups that hold a user or group directly.
select m.grp from memberships m where m.directory = $1 and m.mem = $2 and m.to_seq >= 9223372036854775807;

-- last_of_users --
-- Users of a closed directory with their last state, for deletion. Damaged ones are included, otherwise the clean-up would never end.
select u.directory, u.id, u.body_seq, b.ct from unnest($2::uuid[]) k(i)
cross join lateral (select * from users where directory = $1 and id = k.i offset 0) u
left join lateral (select ct from bodies where directory = u.directory and seq = u.body_seq offset 0) b on true;

-- last_of_groups --
-- Groups of a closed directory with their last state, for deletion.
select g.directory, g.id, g.body_seq, b.ct from unnest($2::uuid[]) k(i)
cross join lateral (select * from groups where directory = $1 and id = k.i offset 0) g
left join lateral (select ct from bodies where directory = g.directory and seq = g.body_seq offset 0) b on true;

-- lock_subjects --
-- Until the transaction ends: the erasure of a user or group, and placing or releasing a hold of it, exclude each other.
select pg_advisory_xact_lock(8, k) from (select distinct hashtext(o::text) k from unnest($1::uuid[]) o order by 1 offset 0) ordered;

-- erasable --
-- Users and groups as their erasure sees them; no row if the directory never had it. An open hold that has not ended by itself. What the
-- erasure deletes, and how many leaves stay.
select v.d, v.o, s.ot, coalesce(u.id, g.id) is not null, coalesce(u.active, true), coalesce((select true from erasures where obj = v.o), false),
       (select id from holds where obj = v.o and released_at is null and coalesce(until, 'infinity') > clock_timestamp() order by placed_at, id limit 1),
       (select count(b.seq) from (select seq from events where obj = v.o and mem is null offset 0) e
        cross join lateral (select seq from bodies where directory = v.d and seq = e.seq offset 0) b)::int4,
       (select count(*) from subject_keys where obj = v.o)::int4,
       (select count(*) from events where obj = v.o) + (select count(*) from events where directory = v.d and mem = v.o),
       (select count(*) from requests where subject = v.o)::int4
from unnest($1::int4[], $2::uuid[]) v(d, o)
cross join lateral (select ot from states where directory = v.d and obj = v.o limit 1) s
left join lateral (select id, active from users where directory = v.d and id = v.o offset 0) u on true
left join lateral (select id from groups where directory = v.d and id = v.o offset 0) g on true;

-- erased_tails --
-- The newest rv and etag_rv of subjects of erasures.
select k.o, t.rv, t.etag_rv from unnest($1::uuid[]) k(o)
cross join lateral (select rv, etag_rv from events where obj = k.o order by rv desc limit 1) t;
