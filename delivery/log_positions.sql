-- by_index_alone --
-- Of this transaction. A bitmap of all that lies behind a page, or of a giant commit, would be made anew for each page.
select set_config('enable_bitmapscan', 'off', true);

-- position_at_time --
-- An instant as a place for a reader of directories ($2, or null: all, but none of $3): the last position before which nothing of theirs
-- is from then or later, and the last position at or below which all of theirs from before it is. Time never runs backwards in a directory, so
-- each is asked alone; between directories it may, where the clock was set, and then the two differ.
select f.before, greatest(f.before, f.through) from (
    select least((select coalesce(max(position + size - 1), 0) from (select position, size from commits order by position desc limit 1) t),
                 coalesce(min(c.position) - 1, 9223372036854775807)) as before, max(b.through) as through
    from directories d
    left join lateral (select position from commits where directory = d.id and at >= $1 order by at, seq limit 1) c on true
    left join lateral (
        select position + size - 1 as through from commits where directory = d.id and at < $1 order by at desc, seq desc limit 1) b on true
    where ($2::int4[] is null or d.id = any($2)) and d.id <> all($3::int4[])) f;

-- position_of_seq --
-- The position of an event by directory and seq.
select c.position + ($2 - c.seq) from (select position, seq, size from commits where directory = $1 and seq <= $2 order by seq desc limit 1) c
where $2 < c.seq + c.size;

-- seq_at_position --
-- The last seq of a directory at or before a position.
select least(c.seq + c.size - 1, c.seq + ($2 - c.position)) from commits c where c.directory = $1 and c.position <= $2 order by c.seq desc limit 1;

-- seqs_at_position --
-- The last seq of each directory at a position of the ledger.
select d.id, t.s from directories d
cross join lateral (select seq + size - 1 as s from commits where directory = d.id and position <= $1 order by seq desc limit 1) t;

-- clock --
-- The database's, in µs: what events are stamped with.
select (extract(epoch from clock_timestamp()) * 1000000)::int8;
