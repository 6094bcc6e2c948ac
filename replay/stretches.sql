-- events_with_keys --
-- A stretch of one directory's log, with the bodies and keys that the read models need. A key is looked up only for an event with a body.
select e.seq, e.type, e.rv, e.etag_rv, e.obj, e.mem, e.leaf, e.leaf_hash, b.ct, k.wrapped
from ledger.events e
left join ledger.bodies b on b.directory = e.directory and b.seq = e.seq
left join ledger.subject_keys k on k.obj = case when b.ct is not null then e.obj end
where e.directory = $1 and e.seq > $2 and e.seq <= $3 order by e.seq;

-- versions_before --
-- The versions of the events before the first event of each resource in a stretch.
select k.o, e.rv, e.etag_rv from unnest($1::int4[], $2::uuid[], $3::int4[]) k(d, o, r)
join ledger.events e on e.obj = k.o and e.rv = k.r and e.directory = k.d where e.seq <= $4;

-- commits_between --
-- The commit rows that begin in a stretch of the log, to compare them with the leaves.
select seq, size, at, req from ledger.commits where directory = $1 and seq > $2 and seq <= $3 order by seq;

-- erased_of --
-- Those of some resources whose last event is user.erased (5) or group.erased (9).
select k.o from unnest($1::uuid[]) k(o)
cross join lateral (select type from ledger.events where obj = k.o order by rv desc limit 1) e
where e.type in (5, 9);
