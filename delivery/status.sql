-- revocation_seconds --
-- Percentiles of the time from the commit to a consumer's acknowledgement, of the last 30 days.
select percentile_cont(0.5) within group (order by s), percentile_cont(0.99) within group (order by s)
from (select consumer, greatest(extract(epoch from at)::float8 - happened / 1e6, 0) s from revocation_acks
      where consumer = any($1::int4[]) and at > now() - interval '30 days') v group by consumer;

-- revocations_acked_after --
-- What came since the last scrape, for the histogram. Not the last second: numbers are given before they commit.
select r.id, c.name, greatest(extract(epoch from r.at)::float8 - r.happened / 1e6, 0)::float8
from revocation_acks r join consumers c on c.id = r.consumer where r.id > $1 and r.at < now() - interval '1 second' order by r.id limit $2;

-- pace_of --
-- What whoever delivers for a consumer sees of it; nothing where nobody does. A minute is more than any lease that is renewed, two
-- are further ahead than any: that was before the clock was set back.
select limited_by, answer_s::float8, record_s::float8, events_s::float8 from consumer_leases
where consumer = $1 and until > clock_timestamp() - interval '1 minute' and until < clock_timestamp() + interval '2 minutes';

-- matching_after --
-- How many events of a filter lie in (after, through], capped, and when the oldest was made. Reading ends with the last that is counted.
select count(*), min(at) from (
    select c.at from commits c
    cross join lateral (
        select seq from events
        where directory = c.directory and seq >= c.seq and seq < c.seq + c.size and (1::bigint << type) & $4 <> 0 offset 0) e
    where c.position >= coalesce((select position from commits where position <= $1 order by position desc limit 1), 0) and c.position <= $2
      and c.directory = any($3::int4[]) and c.types & $4 <> 0 and c.position + (e.seq - c.seq) > $1 and c.position + (e.seq - c.seq) <= $2
    order by c.position limit $5) v;

-- reading --
-- Where a reading of a consumer began, and how many of its events behind that are exceptions or were skipped.
select e.start, (select count(*) from open_deliveries where consumer = $1 and position > e.start and replay is null)
              + (select count(*) from skips where consumer = $1 and position > e.start and replay is null)
from consumer_epochs e where e.consumer = $1 and e.epoch = $2;

-- open_counts --
-- Exceptions by state, for status and metrics.
select consumer, state, count(*) from open_deliveries where consumer = any($1::int4[]) group by consumer, state;

-- oldest_open_time --
-- When the oldest exception that is not parked was committed.
select min(c.at) from (select directory, seq from open_deliveries where consumer = $1 and state <> 5 order by position limit 1) o
cross join lateral (select at from commits where directory = o.directory and seq <= o.seq order by seq desc limit 1) c;

-- times_at --
-- When the commits at positions were made (µs).
select c.at from unnest($1::int8[]) p cross join lateral (select at from commits where position <= p order by position desc limit 1) c;
