-- losses_between --
-- Commits of a directory that end somebody's access, the newest first: first seq, time, users who lose some, groups that a group loses with
-- everybody inside. Of an edge only where it gave access. At most $4 events, the newest, each commit with the lowest seq of them; those of
-- a time of exactly $3 only below the seq $5, which is where the page before ended. 6164: user.deactivated, user.deleted,
-- group.member_removed, group.member_access_revoked, as in the index. Last, when it was made: where the clock was behind the log, commits have
-- the time of the one before (docs/decisions/0038), and the id of a request (a UUIDv7) still says when that came.
select commit, at, array_agg(distinct who) filter (where not whole), array_agg(distinct who) filter (where whole), min(seq),
       case when substr(req::text, 15, 1) = '7' and at - 60000000 > ('x' || translate(left(req::text, 13), '-', ''))::bit(48)::int8 * 1000
            then ('x' || translate(left(req::text, 13), '-', ''))::bit(48)::int8 * 1000 else at end
from (
    select c.seq as commit, c.at, c.req, e.seq, e.who, e.whole from commits c
    cross join lateral (
        select e.seq, coalesce(e.mem, e.obj) as who, position('\x226d74223a2247726f757022'::bytea in e.leaf) > 0 as whole from events e
        where e.directory = c.directory and e.seq >= c.seq and e.seq < case when c.at < $3 then c.seq + c.size else least(c.seq + c.size, $5) end
          and e.type in (2, 4, 11, 12)
          and (e.mem is null or position('\x22656666223a74727565'::bytea in e.leaf) > 0)
        order by e.seq desc limit $4) e
    where c.directory = $1 and c.at > $2 and c.at <= $3 and c.types & 6164 <> 0 and (c.at < $3 or c.seq < $5)
    order by c.at desc, c.seq desc, e.seq desc limit $4  -- as in the index, so that a page reads no more than itself
) ended group by commit, at, req order by commit desc;

-- edges_inside --
-- Memberships of groups as of a seq: which of the groups, the member, whether it is a group. Of each at most $6, after the place where the
-- page before ended ($4, $5): a group has one edge of each from_seq.
select g.n, m.mem, m.mt = 1, m.to_seq, m.from_seq
from unnest($3::uuid[], $4::int8[], $5::int8[]) with ordinality g(grp, t, f, n)
cross join lateral (
    select mem, mt, to_seq, from_seq from memberships
    where directory = $1 and grp = g.grp and to_seq > $2 and from_seq <= $2 and (to_seq, from_seq) > (g.t, g.f)
    order by to_seq, from_seq limit $6) m
order by g.n, m.to_seq, m.from_seq;

-- active_at --
-- Which of these users were active as of a seq.
select u from unnest($3::uuid[]) u
where (select s.active from states s where s.directory = $1 and s.obj = u and s.to_seq > $2 and s.from_seq <= $2 limit 1);
