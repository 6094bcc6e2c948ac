-- surge_limits_all --
-- The directories whose operator said something about surges, and which of them were closed.
select l.directory, l.per_hour, l.action, l.released, t.closed_seq is not null from surge_limits l
left join directory_states t on t.directory = l.directory;

-- set_surge_limit --
-- In the transaction that records the event.
insert into surge_limits (directory, per_hour, action) values ($1, $2, $3)
on conflict (directory) do update set per_hour = excluded.per_hour, action = excluded.action;

-- release_surge --
-- In the transaction that records the event: everything up to $2 may go.
insert into surge_limits (directory, per_hour, action, released) values ($1, $3, $4, $2)
on conflict (directory) do update set released = greatest(surge_limits.released, excluded.released);

-- losses_lately --
-- Directories where access ended in the hour until now, with the newest commit, and when that hour began. A closed one is left out: its end
-- was no accident.
select d.id, c.seq, h.since from directories d
cross join (select (extract(epoch from clock_timestamp()) * 1000000)::int8 - $1 as since) h
cross join lateral (
    select seq from commits where directory = d.id and at > h.since and types & 6164 <> 0 order by at desc, seq desc limit 1) c
where not exists (select from directory_states where directory = d.id and closed_seq is not null);

-- surge_alarmed_lately --
-- Which surges were told already; the seq where that was before the clock was set back, and so speaks of no more than it saw.
select directory, case when at > clock_timestamp() then seq end from surge_alarms where at > clock_timestamp() - make_interval(secs => $1);

-- insert_surge_alarm --
-- In the transaction that records the event.
insert into surge_alarms (directory, seq) values ($1, $2) on conflict do nothing;
