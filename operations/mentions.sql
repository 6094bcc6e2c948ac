-- bodies_after --
-- The next sealed bodies with their keys: at most $3, and $4 bytes besides the first. Those of users and groups have types below 10; a key is
-- missing only if its row is damaged.
select p.seq, p.obj, p.ct, p.wrapped from (
    select b.seq, e.obj, b.ct, case when e.type < 10 then k.wrapped end as wrapped,
           sum(octet_length(b.ct)) over (order by b.seq) - octet_length(b.ct) as before
    from (select seq, ct from bodies where directory = $1 and seq > $2 order by seq limit $3) b
    cross join lateral (select obj, type from events where directory = $1 and seq = b.seq offset 0) e
    left join lateral (select wrapped from subject_keys where obj = e.obj offset 0) k on true
) p where p.before <= $4 order by p.seq;

-- newest_bodies --
-- The newest body of each of some resources that exist.
select u.id, u.body_seq from unnest($2::uuid[]) v(o) join users u on u.directory = $1 and u.id = v.o
union all
select g.id, g.body_seq from unnest($2::uuid[]) v(o) join groups g on g.directory = $1 and g.id = v.o;

-- groups_ever --
-- The groups that subjects were members of at any time: memberships are leaves, which stay.
select v.o, m.grp from unnest($2::uuid[]) v(o)
cross join lateral (select distinct grp from memberships where directory = $1 and mem = v.o limit $3) m;
