-- untold --
-- Blocked ones whose event is not in the log: the process or the database ended between the two.
select position from open_deliveries where consumer = $1 and state = 3 and not told order by position;

-- note_told --
-- In the commit of delivery.blocked. Where another process told it meanwhile the column refuses the null, and with it the second event.
update open_deliveries set told = nullif(not told, false) where consumer = $1 and position = $2 and state = 3;

-- places_at --
-- Directory and seq of positions.
select p, c.directory, c.seq + (p - c.position) from unnest($1::int8[]) p
cross join lateral (select position, directory, seq from commits where position <= p order by position desc limit 1) c;

-- previous_matching --
-- The last event of a filter in a directory before a seq, with its position: what was delivered there before. $4 is the consumer.
select e.seq, c.position + (e.seq - c.seq) from events e
cross join lateral (select position, seq from commits where directory = $1 and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq < $2 and (1::bigint << e.type) & $3 <> 0
  and not exists (select from skips s where s.consumer = $4 and s.position = c.position + (e.seq - c.seq) and s.replay is null)
  and not exists (select from open_deliveries o where o.consumer = $4 and o.position = c.position + (e.seq - c.seq))
order by e.seq desc limit 1;

-- epoch_start --
-- Where a consumer's epoch began.
select start from consumer_epochs where consumer = $1 and epoch = $2;

-- matching_between --
-- Events of a filter in one directory between two seqs (exclusive), for a rewind; not what an operator skipped or parked. $6 is the consumer.
select e.seq, e.type, e.obj, e.mem, c.at, c.position + (e.seq - c.seq), c.seq, c.types from events e
cross join lateral (select position, seq, at, types from commits where directory = $1 and seq <= e.seq order by seq desc limit 1) c
where e.directory = $1 and e.seq > $2 and e.seq < $3 and (1::bigint << e.type) & $4 <> 0
  and not exists (select from skips s where s.consumer = $6 and s.position = c.position + (e.seq - c.seq) and s.replay is null)
  and not exists (select from open_deliveries o where o.consumer = $6 and o.position = c.position + (e.seq - c.seq) and o.state = 5)
order by e.seq limit $5;
