-- groups_above --
-- All groups of users, direct or through member groups: the seq of the newest body, its event's leaf hash, the key, the places of direct members among the
-- users, and member groups, each with the seq since when.
-- Groups are followed upwards each once in a round, however many users are in them. `union` removes repeated memberships, so circles
-- end, and at most $3 memberships are followed.
with recursive e(d, n, mem, grp, from_seq) as (
    select k.d, k.n::int4, null::uuid, m.grp, m.from_seq from unnest($1::int4[], $2::uuid[]) with ordinality k(d, i, n)
    cross join lateral (select * from memberships where directory = k.d and mem = k.i and to_seq >= 9223372036854775807 offset 0) m
    union
    select m.directory, null, m.mem, m.grp, m.from_seq from (select distinct d, grp from e) g
    cross join lateral (select * from memberships where directory = g.d and mem = g.grp and to_seq >= 9223372036854775807 offset 0) m
)
select h.d, h.grp, g.body_seq, v.leaf_hash, s.wrapped, h.users, h.users_since, h.member_groups, h.groups_since
from (
    select d, grp, coalesce(array_agg(n) filter (where mem is null), '{}') users,
           coalesce(array_agg(from_seq) filter (where mem is null), '{}') users_since,
           coalesce(array_agg(mem) filter (where mem is not null), '{}') member_groups,
           coalesce(array_agg(from_seq) filter (where mem is not null), '{}') groups_since
    from (select * from e limit $3) e group by d, grp
) h
cross join lateral (select body_seq from groups where directory = h.d and id = h.grp offset 0) g
cross join lateral (select leaf_hash from events where directory = h.d and seq = g.body_seq offset 0) v
cross join lateral (select wrapped from subject_keys where obj = h.grp offset 0) s;

-- bodies_at --
-- The sealed bodies at these places of the log, unless they are longer than $3 bytes.
select b.directory, b.seq, case when octet_length(b.ct) <= $3 then b.ct end
from unnest($1::int4[], $2::int8[]) k(d, s) join bodies b on b.directory = k.d and b.seq = k.s;
