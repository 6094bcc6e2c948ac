-- point_at_time --
-- As-of T is the last commit with at <= T, whole.
select seq + size - 1, at from commits where directory = $1 and at <= $2 order by at desc, seq desc limit 1;

-- frozen_stretches --
-- Where an operator accepted that the clock was behind: what it told then, by the id of the request, and the time that events have until it
-- had caught up (µs). By the events of the directory itself, which are few.
select ('x' || translate(left(k.req::text, 13), '-', ''))::bit(48)::int8 * 1000, k.at
from events e
cross join lateral (select req, at from commits where directory = $1 and seq = e.seq offset 0) k
where e.obj = $2 and e.type = 50;

-- point_at_seq --
-- A seq inside a commit means the end of that commit.
select seq + size - 1, at from commits where directory = $1 and seq <= $2 order by seq desc limit 1;

-- state_at --
-- A resource as of a seq: type, activity, where its body is, when it began. Here and below nobody is active from the seq on at which
-- the directory was closed: one row says so for all of them.
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
-- Resources as of a seq, in the order asked for: place, id, body_seq, ct, key. The bodies come as far as they fit into $4 bytes, and
-- that of the first one always. What was erased has none, and is left out.
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
-- Everyone as of a seq, by id: the population.
select s.obj, s.active and not exists (select from directory_states where directory = $1 and closed_seq <= $3), s.body_seq from states s
where s.directory = $1 and s.ot = $2 and s.from_seq <= $3 and s.to_seq > $3 and s.obj > $4 order by s.obj limit $5;

-- members_at --
-- Direct members of groups as of a seq, with the activity of users then.
select m.grp, m.mem, m.mt,
       coalesce(s.active, false) and not exists (select from directory_states where directory = $1 and closed_seq <= $3), m.from_seq
from unnest($2::uuid[]) k(g)
cross join lateral (select * from memberships where directory = $1 and grp = k.g and to_seq > $3 and from_seq <= $3 offset 0) m
left join lateral (
    select active from states where directory = $1 and obj = m.mem and to_seq > $3 and from_seq <= $3 offset 0
) s on true;

-- groups_at --
-- Groups that directly hold members as of a seq.
select m.mem, m.grp, m.from_seq from unnest($2::uuid[]) k(i)
cross join lateral (select * from memberships where directory = $1 and mem = k.i and to_seq > $3 and from_seq <= $3 offset 0) m;

-- membership_diff --
-- Edges that stand at one of two points only: -1 was there at the first, 1 is there at the second.
select grp, mem, mt, case when from_seq <= $2 and to_seq > $2 then -1 else 1 end, from_seq, to_seq from memberships
where directory = $1 and ($4::uuid is null or grp = $4) and ($5::uuid is null or mem = $5)
  and (from_seq <= $2 and to_seq > $2) <> (from_seq <= $3 and to_seq > $3)
order by grp, mem, from_seq limit $6;

-- state_diff --
-- Resources that began, ended, changed activity or attributes between two points; the closing of the directory is where users that
-- were active ended to be.
with ended as (select coalesce((select closed_seq from directory_states where directory = $1 and closed_seq <= $3), 9223372036854775807) q)
select coalesce(a.obj, b.obj), coalesce(a.ot, b.ot), a.active and (a.ot = 1 or q > $2), b.active and (b.ot = 1 or q > $3), a.body_seq,
       case when b.ot = 0 and b.active and q <= $3 then greatest(b.body_seq, q) else b.body_seq end
from ended,
     (select * from states where directory = $1 and from_seq <= $2 and to_seq > $2 and ($4::uuid is null or obj = $4)) a
     full join (select * from states where directory = $1 and from_seq <= $3 and to_seq > $3 and ($4::uuid is null or obj = $4)) b on a.obj = b.obj
where a.body_seq is distinct from b.body_seq or (a.ot = 0 and a.active and q > $2 and q <= $3)
order by 2, 1 limit $5;

-- bodies_of --
-- Sealed bodies at places of the log with their sizes and the keys of their resources, read only up to $3 bytes each.
select b.seq, e.obj, octet_length(b.ct), case when octet_length(b.ct) <= $3 then b.ct end, k.wrapped from unnest($2::int8[]) v(q)
join bodies b on b.directory = $1 and b.seq = v.q
join events e on e.directory = b.directory and e.seq = b.seq
join subject_keys k on k.obj = e.obj;

-- long_bodies --
-- Those that were too long to be read with the others.
select b.seq, b.ct from unnest($2::int8[]) v(q)
cross join lateral (select * from bodies b where b.directory = $1 and b.seq = v.q offset 0) b;

-- members_packed --
-- The direct members of a group as of a seq in one row: ids by order, and beside each a digit, type and twice the activity, which ended
-- where the directory was closed by then.
select coalesce(string_agg(m.mem::text, '' order by m.mem), ''),
       coalesce(string_agg((m.mt + case when coalesce(s.active, false) and not closed then 2 else 0 end)::text, '' order by m.mem), '')
from (select exists (select from directory_states where directory = $1 and closed_seq <= $3) as closed offset 0) d
cross join (select mem, mt from memberships where directory = $1 and grp = $2 and to_seq > $3 and from_seq <= $3 offset 0) m
left join lateral (
    select active from states where directory = $1 and obj = m.mem and to_seq > $3 and from_seq <= $3 offset 0
) s on true;

-- ever_existed --
-- Tells a resource that is gone, or not yet there, from an id that never was.
select 1 from states where directory = $1 and obj = $2 and ot = $3 limit 1;
