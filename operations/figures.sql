-- silent_seconds --
-- Seconds since the last request of each directory's IdP, of those that have one on record.
select d.id, extract(epoch from now() - r.at)::float8
from directories d
cross join lateral (select at from requests where directory = d.id order by id desc limit 1) r;
