-- hold_by_id --
-- One hold of a directory.
select h.id, h.directory, d.slug, h.obj, h.ot, h.sealed_matter, h.until, h.placed_at, h.placed_by, h.released_at, h.released_by,
       coalesce(h.until <= clock_timestamp(), false)
from holds h join directories d on d.id = h.directory where h.directory = $1 and h.id = $2;

-- holds_of --
-- Holds of a directory, or of one subject ($2), after the hold $3, in a state ($4).
select h.id, h.directory, d.slug, h.obj, h.ot, h.sealed_matter, h.until, h.placed_at, h.placed_by, h.released_at, h.released_by,
       coalesce(h.until <= clock_timestamp(), false)
from holds h join directories d on d.id = h.directory
where h.directory = $1 and ($2::uuid is null or h.obj = $2)
  and ($3::uuid is null or (h.placed_at, h.id) > (select placed_at, id from holds where id = $3))
  and ($4::text is null or $4 = case when h.released_at is not null then 'released' when h.until <= clock_timestamp() then 'ended' else 'open' end)
order by h.placed_at, h.id limit $5;

-- insert_hold --
-- In the transaction that records hold.placed.
insert into holds (id, directory, obj, ot, sealed_matter, until, placed_by) values ($1, $2, $3, $4, $5, $6, $7);

-- release_hold --
-- In the transaction that records hold.released.
update holds set released_at = clock_timestamp(), released_by = $2 where id = $1;

-- may_be_held --
-- A row if the directory has or had the subject, and it was not erased.
select from states where directory = $1 and obj = $2 and ot = $3 and not exists (select from erasures where obj = $2) limit 1;

-- not_released --
-- A row while nobody released the hold.
select from holds where id = $1 and released_at is null;
