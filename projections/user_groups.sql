-- groups_above --
-- All groups of users, direct or through member groups, as one row of three arrays, whose items are packed: as a row for each group
-- with arrays of its own they took four times as long. 1: of each group its id, directory, seq of the newest body, key, HMAC of the
-- name. 2: the place of a user from 1, and the ids of its groups by seq. 3: a group, and the groups that it is a member of by seq.
-- Groups are followed upwards each once in a round, however many users are in them, by an index that has only memberships of groups.
-- `union` removes repeated memberships, so circles end. At most $3 memberships of users are followed, and as many of groups.
with recursive direct as materialized (
    select k.d, k.n::int4 n, m.grp, m.from_seq from unnest($1::int4[], $2::uuid[]) with ordinality k(d, i, n)
    cross join lateral (select * from memberships where directory = k.d and mem = k.i and to_seq >= 9223372036854775807 offset 0) m limit $3
), near as materialized (select distinct d, grp from direct), above(d, mem, grp, from_seq) as (
    select m.directory, m.mem, m.grp, m.from_seq from near g
    cross join lateral (
        select * from memberships where directory = g.d and mem = g.grp and mt = 1 and to_seq = 9223372036854775807 offset 0
    ) m
    union
    select m.directory, m.mem, m.grp, m.from_seq from (select distinct d, grp from above) g
    cross join lateral (
        select * from memberships where directory = g.d and mem = g.grp and mt = 1 and to_seq = 9223372036854775807 offset 0
    ) m
), followed as materialized (select * from above limit $3)
select array(
    select uuid_send(g.id) || int4send(g.directory) || int8send(g.body_seq) || s.wrapped || g.display_name_mac
    from (
        select * from groups where directory = any(array(select distinct d from near))
          and id = any(array(select grp from near union select grp from followed)) offset 0
    ) g
    cross join lateral (select wrapped from subject_keys where obj = g.id offset 0) s
), array(
    select int4send(n) || string_agg(uuid_send(grp), ''::bytea order by from_seq) from direct group by n
), array(
    select uuid_send(mem) || string_agg(uuid_send(grp), ''::bytea order by from_seq) from followed group by d, mem
);

-- bodies_at --
-- The sealed bodies at these places of the log, unless they are longer than $3 bytes.
select b.directory, b.seq, case when octet_length(b.ct) <= $3 then b.ct end
from unnest($1::int4[], $2::int8[]) k(d, s) join bodies b on b.directory = k.d and b.seq = k.s;
