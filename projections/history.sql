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
    cross join lateral (select ct from bodies where directory = $1 and seq = s.body_seq offset 0) b
    cross join lateral (select wrapped from subject_keys where obj = s.obj offset 0) y
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
cross join lateral (select seq, ct from bodies where directory = $1 and seq = v.q offset 0) b
cross join lateral (select obj from events where directory = $1 and seq = v.q offset 0) e
cross join lateral (select wrapped from subject_keys where obj = e.obj offset 0) k;

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
