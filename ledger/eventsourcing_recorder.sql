-- head --
-- The last readable position; 0 for an empty ledger.
select coalesce((select position + size - 1 from commits order by position desc limit 1), 0);

-- directory_uuids --
-- The UUID of every directory, by its number.
select id, uuid from directories;

-- leaves_at --
-- The leaf hashes at positions, for the eventsourcing recorder.
select k.p, e.leaf_hash from unnest($1::int8[]) k(p)
cross join lateral (select position, directory, seq, size from commits where position <= k.p order by position desc limit 1) c
join events e on e.directory = c.directory and e.seq = c.seq + (k.p - c.position)
where k.p < c.position + c.size;

-- stream_of --
-- The events of one resource, for the eventsourcing recorder.
select e.directory, e.seq, e.rv, e.leaf, b.ct, s.wrapped, e.obj from events e
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
