-- erasure_of --
-- The erasure of a subject. The events of erasures and their commits are read with each: place, time, actor.
select x.id, x.number, x.directory, d.slug, x.obj, x.ot, x.seq, k.position + (x.seq - k.seq), k.at, (convert_from(e.leaf, 'UTF8')::json->>'actor'), e.leaf_hash,
       x.sealed_reason, x.counts, x.recipients, x.mentions, x.vacuumed_at, x.wal_switched_at, x.refused, x.completed_at
from erasures x join directories d on d.id = x.directory
cross join lateral (select leaf, leaf_hash from events where directory = x.directory and seq = x.seq offset 0) e
cross join lateral (select position, seq, at from commits where directory = x.directory and seq <= x.seq order by seq desc limit 1) k
where x.directory = $1 and x.obj = $2;

-- erasure_by_id --
-- One erasure.
select x.id, x.number, x.directory, d.slug, x.obj, x.ot, x.seq, k.position + (x.seq - k.seq), k.at, (convert_from(e.leaf, 'UTF8')::json->>'actor'), e.leaf_hash,
       x.sealed_reason, x.counts, x.recipients, x.mentions, x.vacuumed_at, x.wal_switched_at, x.refused, x.completed_at
from erasures x join directories d on d.id = x.directory
cross join lateral (select leaf, leaf_hash from events where directory = x.directory and seq = x.seq offset 0) e
cross join lateral (select position, seq, at from commits where directory = x.directory and seq <= x.seq order by seq desc limit 1) k
where x.directory = $1 and x.id = $2;

-- erasures_after --
-- A page of the erasures of a directory.
select x.id, x.number, x.directory, d.slug, x.obj, x.ot, x.seq, k.position + (x.seq - k.seq), k.at, (convert_from(e.leaf, 'UTF8')::json->>'actor'), e.leaf_hash,
       x.sealed_reason, x.counts, x.recipients, x.mentions, x.vacuumed_at, x.wal_switched_at, x.refused, x.completed_at
from erasures x join directories d on d.id = x.directory
cross join lateral (select leaf, leaf_hash from events where directory = x.directory and seq = x.seq offset 0) e
cross join lateral (select position, seq, at from commits where directory = x.directory and seq <= x.seq order by seq desc limit 1) k
where x.directory = $1 and x.number > $2 order by x.number limit $3;

-- erasures_incomplete --
-- What is still to be done.
select x.id, x.number, x.directory, d.slug, x.obj, x.ot, x.seq, k.position + (x.seq - k.seq), k.at, (convert_from(e.leaf, 'UTF8')::json->>'actor'), e.leaf_hash,
       x.sealed_reason, x.counts, x.recipients, x.mentions, x.vacuumed_at, x.wal_switched_at, x.refused, x.completed_at
from erasures x join directories d on d.id = x.directory
cross join lateral (select leaf, leaf_hash from events where directory = x.directory and seq = x.seq offset 0) e
cross join lateral (select position, seq, at from commits where directory = x.directory and seq <= x.seq order by seq desc limit 1) k
where x.completed_at is null order by x.number limit $1;

-- erased_since --
-- Erasures after a number, for processes that hold events in memory.
select number, obj from erasures where number > $1 order by number;

-- last_number --
-- The number of the last erasure.
select coalesce(max(number), 0) from erasures;

-- erased_among --
-- Those of some subjects that were erased.
select obj from erasures where obj = any($1::uuid[]);

-- listed_after --
-- Erasures as the list beside the root key names them.
select x.number, d.uuid, x.ot, x.obj, k.at from erasures x join directories d on d.id = x.directory
cross join lateral (select at from commits where directory = x.directory and seq <= x.seq order by seq desc limit 1) k
where x.number > $1 order by x.number limit $2;
