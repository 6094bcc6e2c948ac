-- events_with_attributes --
-- The events of subjects whose leaf commits to a sealed body: position, directory, type, time.
select v.o, k.position + (e.seq - k.seq), v.d, e.type, k.at
from unnest($1::int4[], $2::uuid[]) v(d, o)
cross join lateral (
    select seq, type from events where obj = v.o and mem is null and position('"ct":'::bytea in leaf) > 0 order by rv desc limit $3
) e
cross join lateral (select position, seq, at from commits where directory = v.d and seq <= e.seq order by seq desc limit 1) k;
