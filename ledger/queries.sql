-- try_lock_directories --
-- Only one transaction at a time gives numbers in a directory. This form never waits, so a giant commit of another process that
-- holds one directory does not delay the others of the batch.
select d, pg_try_advisory_xact_lock(1, d) from (select d from unnest($1::int4[]) d order by d offset 0) ordered;

-- lock_directories --
-- The waiting form. The locks are taken in id order, so that two transactions cannot deadlock.
select d, pg_advisory_xact_lock(1, d) from (select d from unnest($1::int4[]) d order by d offset 0) ordered;

-- live_tokens --
-- Checked inside the write transaction: a revoked token writes nothing, even if it is still cached. Last column: types of its events.
select t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from unnest($1::uuid[]) wanted(id) join tokens t on t.id = wanted.id
where t.revoked_at is null and t.expires_at > clock_timestamp();

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

-- subject_keys_of --
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
join users u on u.directory = $1 and u.id = k.i
left join bodies b on b.directory = u.directory and b.seq = u.body_seq;

-- last_of_groups --
-- Groups of a closed directory with their last state, for deletion.
select g.directory, g.id, g.body_seq, b.ct from unnest($2::uuid[]) k(i)
join groups g on g.directory = $1 and g.id = k.i
left join bodies b on b.directory = g.directory and b.seq = g.body_seq;

-- insert_events --
-- The log itself. The primary key and events_rv refuse a number that is given twice.
insert into events (directory, seq, type, rv, etag_rv, obj, mem, leaf_hash, leaf)
select * from unnest($1::int4[], $2::int8[], $3::int2[], $4::int4[], $5::int4[], $6::uuid[], $7::uuid[], $8::bytea[], $9::bytea[]);

-- insert_bodies --
-- Sealed attributes, apart from the log so that a person can be erased.
insert into bodies (directory, seq, ct) select * from unnest($1::int4[], $2::int8[], $3::bytea[]);

-- insert_subject_keys --
-- A new resource's wrapped key; a second one for the same resource is refused.
insert into subject_keys (obj, directory, wrapped) select * from unnest($1::uuid[], $2::int4[], $3::bytea[]);

-- sign --
-- Does nothing, but shows that the session is alive.
select 1;

-- lock_ledger --
-- Held until COMMIT has finished: positions are dense and in commit order because only one transaction at a time is past this line.
select pg_advisory_xact_lock(2, 0);

-- locks_in_the_way --
-- Sessions that hold the write path's advisory locks (class 1 a directory, class 2 the ledger), without the service's own writers:
-- those have the service's application name, log in as it does or as the owner of the log, and their transaction is young.
-- Also sessions that hold or wait for a table lock that conflicts with writes (LOCK TABLE, CREATE INDEX, VACUUM FULL), once their
-- transaction has lasted a second, as far as this role may see that: writes queue behind both.
select distinct a.pid, a.usename::text, left(a.application_name, 64), case when l.locktype = 'advisory' and l.classid = 1 then l.objid::int4 end
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where ((l.locktype = 'advisory' and l.granted and l.objsubid = 2 and (l.classid = 1 or (l.classid = 2 and l.objid = 0)))
    or (l.locktype = 'relation' and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and l.relation in (select oid from pg_class where relnamespace = 'ledger'::regnamespace and relkind in ('r', 'p'))
        and coalesce(a.xact_start < clock_timestamp() - interval '1 second', true)))
  and l.database = (select oid from pg_database where datname = current_database())
  and not (a.application_name = $1 and coalesce(a.xact_start > clock_timestamp() - make_interval(secs => $2), true)
           and a.usename in (session_user, (select tableowner from pg_tables where schemaname = 'ledger' and tablename = 'commits')));

-- insert_commits --
-- off is the number of events in this batch before the commit. The last position is read after the lock, in a snapshot of its own.
-- The notification only wakes readers of the feed, who then read the log; PostgreSQL sends it at COMMIT.
with placed as (
    insert into commits (position, directory, seq, size, types, at, req, op)
    select t.p + v.off, v.d, v.s, v.n, v.ty, v.a, v.r, v.o
    from (select coalesce((select position + size from commits order by position desc limit 1), 1) p) t,
         unnest($1::int8[], $2::int4[], $3::int8[], $4::int4[], $5::int8[], $6::int8[], $7::uuid[], $8::int4[]) v(off, d, s, n, ty, a, r, o)
)
select pg_notify('ledger', 'wake');

-- commits_of_requests --
-- After a lost connection: which of the requests are stored, and where.
select c.req, c.op, c.directory, c.seq, c.size from unnest($1::uuid[], $2::int4[]) k(r, o) join commits c on c.req = k.r and c.op = k.o;

-- wait_for_standby --
-- Writes only to the WAL, so that COMMIT waits until the synchronous standby has this transaction and with it all earlier ones.
select pg_logical_emit_message(true, 'scim-ledger', 'a lost commit was looked up');

-- directory_by_slug --
-- The directory of the slug in a request path.
select id, uuid, slug, profile, index_key, created_at,
       (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0)
from directories d left join directory_states t on t.directory = d.id where slug = $1;

-- directories_all --
-- Every directory, closed ones too: their log stays readable.
select id, uuid, slug, profile, index_key, created_at,
       (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0)
from directories d left join directory_states t on t.directory = d.id order by id;

-- profiles_mark --
-- One value that changes if the profile, schemas or state of any directory changes, so that a check reads one row.
select md5(coalesce(string_agg(concat_ws(' ', id, uuid, profile, t.state, t.since), ',' order by id), '')) || (select count(*) from extension_schemas)
from directories d left join directory_states t on t.directory = d.id;

-- profiles_all --
-- For each directory: profile, schemas, document of an own profile, state since when, and uuid.
select id, profile, (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0), d.uuid
from directories d left join directory_states t on t.directory = d.id;

-- insert_schema --
-- In the transaction that records the event. The constraint refuses a URN that is registered twice.
insert into extension_schemas (directory, resource_type, urn, document) values ($1, $2, $3, $4::json);

-- profiles_own --
-- The operator's own profiles, oldest first.
select name, document::text from profiles order by created_at, name;

-- insert_profile --
-- In the transaction that records the event. The constraint refuses a name that is stored twice.
insert into profiles (name, document) values ($1, $2::json);

-- profile_unchanged --
-- A row if the directory still has the profile that it had when it was read.
select from directories where id = $1 and profile = $2;

-- set_profile --
-- In the transaction that records directory.profile_changed.
update directories set profile = $2 where id = $1;

-- wake_directories --
-- Makes serving processes refresh their directories now; without it they do so once a second.
select pg_notify('ledger', 'directories');

-- next_directory_id --
-- The number is reserved before the commit, because the directory's first event has it. A gap is harmless.
select nextval(pg_get_serial_sequence('ledger.directories', 'id'));

-- insert_directory --
-- In the transaction that records directory.created.
insert into directories (id, uuid, slug, profile, index_key) overriding system value values ($1, $2, $3, $4, $5);

-- directories_in --
-- Directories in a state. Only those that were paused or closed have a row, and these are few.
select directory from directory_states where state = $1 order by directory;

-- try_cleaning --
-- The lock of the process that cleans up closed directories. It ends with the connection, if not before.
select pg_try_advisory_lock(5, 0);

-- end_cleaning --
-- Releases the lock of the clean-up.
select pg_advisory_unlock(5, 0);

-- memberships_left --
-- The next open memberships of a closed directory.
select grp, mem, case mt when 0 then 'User' else 'Group' end from memberships
where directory = $1 and (grp, mem) > ($2::uuid, $3::uuid) and to_seq = 9223372036854775807 order by grp, mem limit $4;

-- users_left --
-- The next users of a closed directory.
select id from users where directory = $1 and id > $2::uuid order by id limit $3;

-- groups_left --
-- The next groups of a closed directory.
select id from groups where directory = $1 and id > $2::uuid order by id limit $3;

-- tokens_of_directory --
-- Valid tokens of some roles that reach only this directory.
select id, name from tokens where revoked_at is null and directories = array[$1::text] and role = any($2::text[]) order by created_at, id;

-- insert_token --
-- In the transaction that records token.issued.
insert into tokens (id, hash, role, name, directories, types, consumers, bodies, created_by, supersedes, expires_at, created_at, seal)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- supersede_token --
-- In the transaction that records token.rotated. If the token was rotated or revoked at the same moment, the trigger
-- refuses the update and with it the commit.
update tokens set superseded_by = $2, expires_at = $3, seal = $4 where id = $1;

-- revoke_token --
-- Keeps the time of the first revocation.
update tokens set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1;

-- token_without --
-- A row if the token has no event of these types, for acts that may happen only once.
select where not exists (select from events where obj = $1 and type = any($2::int2[]));

-- bind_token --
-- In the transaction that records token.bound. The trigger refuses a second one at the same moment.
update tokens set seal = $2 where id = $1;

-- tokens_by_hash --
-- One look-up for many concurrent requests. Last column: types of the token's events, as bits.
select k.n, t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from unnest($1::bytea[]) with ordinality k(h, n) join tokens t on t.hash = k.h
where t.revoked_at is null and t.expires_at > clock_timestamp()
  and (t.role <> 'scim' or exists (  -- the IdP's token ends with the closing itself; its revocation is on record a moment later
      select from unnest(t.directories) s cross join lateral (select id from directories where slug = s offset 0) d
      where not exists (select from directory_states where directory = d.id and closed_seq is not null)));

-- tokens_all --
-- For lists. null: any role, any directory.
select t.id, t.hash, t.role, t.name, t.directories, t.types, t.consumers, t.bodies, t.created_by, t.supersedes, t.superseded_by, t.expires_at,
       t.created_at, t.revoked_at, t.last_used_at, t.seal, (select bit_or(1::bigint << e.type) from events e where e.obj = t.id)
from tokens t where ($1::uuid is null or t.id = $1) and ($2::text is null or t.role = $2) and ($3::text is null or t.directories && array[$3, '*'])
order by t.created_at, t.id;

-- clock --
-- The time that decides whether a token is expired.
select clock_timestamp();

-- token_events --
-- The events of each token with their sealed bodies, in order.
select e.obj, e.type, e.seq, b.ct, s.wrapped from unnest($2::uuid[]) k(o)
join events e on e.obj = k.o and e.directory = $1
left join bodies b on b.directory = e.directory and b.seq = e.seq
left join subject_keys s on s.obj = e.obj order by e.obj, e.rv;

-- touch_tokens --
-- Once a minute for all used tokens, so that a request does not update a row. The time never goes back: the trigger would refuse the
-- whole statement. Losing it is harmless, so it does not wait for a synchronous standby.
update tokens set last_used_at = greatest(last_used_at, clock_timestamp()) where id = any($1::uuid[])
returning set_config('synchronous_commit', 'local', true);

-- ledger_row --
-- The ledger's uuid, and the id of its key-encryption key.
select id, kek_id from ledger;

-- insert_ledger --
-- At the first start. If two processes do it at once, one wins and both read its row.
insert into ledger (id, kek_id) values ($1, $2) on conflict do nothing;

-- head --
-- The last readable position; 0 for an empty ledger.
select coalesce((select position + size - 1 from commits order by position desc limit 1), 0);

-- head_and_leaf --
-- The last readable position, and the leaf hash at $1, which a reader's place is compared with.
select coalesce((select position + size - 1 from commits order by position desc limit 1), 0), (
    select e.leaf_hash from (select position, directory, seq, size from commits where position <= $1 order by position desc limit 1) c
    join events e on e.directory = c.directory and e.seq = c.seq + ($1 - c.position) where $1 < c.position + c.size);

-- directory_head_and_leaf --
-- The last readable seq of a directory, and the leaf hash at $2.
select coalesce((select seq + size - 1 from commits where directory = $1 order by seq desc limit 1), 0),
       (select leaf_hash from events where directory = $1 and seq = $2);

-- directory_head --
-- The last seq of a directory and its time; 0 when it is empty.
select coalesce(max(t.s), 0), coalesce(max(t.at), 0)
from (select seq + size - 1 s, at from commits where directory = $1 order by seq desc limit 1) t;

-- commits_from --
-- Commits with positions at or after $1, in order. The head is read in the same statement, so it fits these commits.
select c.position, c.directory, c.seq, c.size, c.types, c.at from commits c
where c.position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0)
order by c.position limit $2;

-- directory_commits_from --
-- Commits of one directory with seqs at or after $2, in order.
select c.position, c.directory, c.seq, c.size, c.types, c.at from commits c
where c.directory = $1 and c.seq >= coalesce((select seq from commits where directory = $1 and seq <= $2 order by seq desc limit 1), 0)
order by c.seq limit $3;

-- events_in_ranges --
-- Events of contiguous seq ranges, one per directory.
select e.directory, e.seq, e.type, e.obj, e.leaf, e.leaf_hash, e.rv, e.mem from unnest($1::int4[], $2::int8[], $3::int8[]) r(d, f, t)
cross join lateral (select * from events e where e.directory = r.d and e.seq between r.f and r.t order by e.directory, e.seq) e;

-- commits_of --
-- Position and commit (first seq, types, time) of events, by directory and seq.
select k.d, k.s, c.position + (k.s - c.seq), c.seq, c.types, c.at from unnest($1::int4[], $2::int8[]) with ordinality k(d, s, n)
cross join lateral (select position, seq, size, types, at from commits where directory = k.d and seq <= k.s order by seq desc limit 1) c
where k.s < c.seq + c.size order by k.n;

-- bodies_in_ranges --
-- Sealed bodies of the same ranges with their sizes. A body longer than $4 bytes is not read; its size is known without reading it.
-- Joining bodies to events in SQL is two to three times slower than merging in Python.
select b.directory, b.seq, octet_length(b.ct), case when octet_length(b.ct) <= $4 then b.ct end
from unnest($1::int4[], $2::int8[], $3::int8[]) r(d, f, t)
cross join lateral (select * from bodies b where b.directory = r.d and b.seq between r.f and r.t) b;

-- bodies_at --
-- Sealed bodies by directory and seq, for those too long for bodies_in_ranges.
select b.directory, b.seq, b.ct from unnest($1::int4[], $2::int8[]) k(d, s)
cross join lateral (select * from bodies b where b.directory = k.d and b.seq = k.s offset 0) b;

-- event_at --
-- One event by directory and seq, with its position and type.
select e.directory, e.seq, e.obj, e.leaf, e.leaf_hash, c.position + (e.seq - c.seq), e.type
from events e
cross join lateral (select position, seq from commits where directory = e.directory and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq = $2;

-- event_at_position --
-- One event by its position in the ledger.
select e.directory, e.seq, e.obj, e.leaf, e.leaf_hash, c.position + (e.seq - c.seq)
from (select position, directory, seq, size from commits where position <= $1 order by position desc limit 1) c
join events e on e.directory = c.directory and e.seq = c.seq + ($1 - c.position)
where $1 < c.position + c.size;

-- leaves_at --
-- The leaf hashes at positions, for the eventsourcing recorder.
select k.p, e.leaf_hash from unnest($1::int8[]) k(p)
cross join lateral (select position, directory, seq, size from commits where position <= k.p order by position desc limit 1) c
join events e on e.directory = c.directory and e.seq = c.seq + (k.p - c.position)
where k.p < c.position + c.size;

-- stream_of --
-- The events of one resource, for the eventsourcing recorder.
select e.directory, e.seq, e.rv, e.type, e.leaf, b.ct, s.wrapped, e.obj from events e
left join bodies b on b.directory = e.directory and b.seq = e.seq
left join subject_keys s on s.obj = e.obj
where e.obj = $1 and e.rv > $2 and e.rv <= $3 order by e.rv;

-- notifications --
-- Events by position and types, for the eventsourcing recorder.
select c.position + (e.seq - c.seq), e.directory, e.seq, e.obj, e.rv, e.leaf, b.ct, s.wrapped
from (select position, directory, seq, size from commits
      where position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0)
        and position <= $2 order by position) c
join events e on e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size
left join bodies b on b.directory = e.directory and b.seq = e.seq
left join subject_keys s on s.obj = e.obj and b.ct is not null
where c.position + (e.seq - c.seq) between $1 and $2 and e.type = any($3::int2[])
order by 1 limit $4;
