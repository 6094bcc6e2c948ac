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
select c.position, c.directory, c.seq, c.size, c.types, c.at, c.trace from commits c
where c.position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0)
order by c.position limit $2;

-- directory_commits_from --
-- Commits of one directory with seqs at or after $2, in order.
select c.position, c.directory, c.seq, c.size, c.types, c.at, c.trace from commits c
where c.directory = $1 and c.seq >= coalesce((select seq from commits where directory = $1 and seq <= $2 order by seq desc limit 1), 0)
order by c.seq limit $3;

-- matches_in --
-- The first events of a filter with positions from $3 to $4: directory, seq, position, commit (first seq, types, time, trace context). Commits that have
-- none of its types are skipped without reading their events.
select c.directory, e.seq, c.position + (e.seq - c.seq), c.seq, c.types, c.at, c.trace
from commits c
cross join lateral (
    select seq from events
    where directory = c.directory and seq >= c.seq + greatest($3 - c.position, 0) and seq <= c.seq + least($4 - c.position, c.size - 1)
      and (1::bigint << type) & $5 <> 0 and ($6::uuid is null or obj = $6 or mem = $6)
    order by directory, seq limit $9
) e
where c.position >= coalesce((select position from commits where position <= $3 order by position desc limit 1), 0) and c.position <= $4
  and c.types & $5 <> 0 and c.at >= $7 and c.at < $8
  and ($1::int4[] is null or c.directory = any($1)) and c.directory <> all($2::int4[])
order by c.position, e.seq limit $9;

-- directory_matches_in --
-- The same of one directory, with seqs from $2 to $3.
select c.directory, e.seq, c.position + (e.seq - c.seq), c.seq, c.types, c.at, c.trace
from commits c
cross join lateral (
    select seq from events
    where directory = c.directory and seq >= greatest($2, c.seq) and seq <= least($3, c.seq + c.size - 1)
      and (1::bigint << type) & $4 <> 0 and ($5::uuid is null or obj = $5 or mem = $5)
    order by directory, seq limit $8
) e
where c.directory = $1 and c.seq >= coalesce((select seq from commits where directory = $1 and seq <= $2 order by seq desc limit 1), 0)
  and c.seq <= $3 and c.types & $4 <> 0 and c.at >= $6 and c.at < $7
order by c.seq, e.seq limit $8;

-- events_in_ranges --
-- Events of contiguous seq ranges, one per directory.
select e.directory, e.seq, e.type, e.obj, e.leaf, e.leaf_hash, e.mem from unnest($1::int4[], $2::int8[], $3::int8[]) r(d, f, t)
cross join lateral (select * from events e where e.directory = r.d and e.seq between r.f and r.t order by e.directory, e.seq) e;

-- commits_of --
-- Position and commit (first seq, types, time, trace context) of events, by directory and seq.
select k.d, k.s, c.position + (k.s - c.seq), c.seq, c.types, c.at, c.trace from unnest($1::int4[], $2::int8[]) with ordinality k(d, s, n)
cross join lateral (select position, seq, size, types, at, trace from commits where directory = k.d and seq <= k.s order by seq desc limit 1) c
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

-- subject_keys_of --
-- Wrapped keys by resource.
select s.obj, s.directory, s.wrapped from unnest($1::uuid[]) k(o) join subject_keys s on s.obj = k.o;

-- event_at --
-- One event by directory and seq: its leaf hash, position and type.
select e.leaf_hash, c.position + (e.seq - c.seq), e.type
from events e
cross join lateral (select position, seq from commits where directory = e.directory and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq = $2;

-- event_at_position --
-- One event by its position in the ledger.
select e.leaf_hash, $1::int8, e.type
from (select position, directory, seq, size from commits where position <= $1 order by position desc limit 1) c
join events e on e.directory = c.directory and e.seq = c.seq + ($1 - c.position)
where $1 < c.position + c.size;
