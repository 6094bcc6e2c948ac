-- retry_open --
-- An operator's retry: due at once, whatever any clock says, with a schedule that begins again. A parked one comes back. Where $3 says that it is a grant and a later
-- event took it back meanwhile, the column refuses the null, and with it the act.
update open_deliveries o set state = 2, next_at = null, asked_s = null, told = false, attempts = case when $3 and exists (
    select from events g where g.directory = o.directory and g.seq = o.seq and (
        exists (select from (select seq, obj, type from events where directory = g.directory and mem = g.mem offset 0) e
                where g.mem is not null and e.obj = g.obj and e.seq > g.seq and e.type in (11, 12))
        or exists (select from (select directory, seq, type from events where obj = g.obj and g.mem is null offset 0) e
                   where e.directory = g.directory and e.seq > g.seq and e.type in (2, 4, 5))
        or exists (select from directory_states t where t.directory = g.directory and t.closed_seq > g.seq))) then null else 0 end
where consumer = $1 and position = $2;

-- park_open --
-- Set aside in sight: it holds up nothing, and stays until an operator brings it back or skips it.
update open_deliveries set state = 5, next_at = null, sealed_reason = $3 where consumer = $1 and position = $2;

-- skip_open --
-- Never to be delivered; the reason stays, sealed. Of what a run repeats only the repetition is given up, unless the event itself was.
with gone as (delete from open_deliveries where consumer = $1 and position = $2 returning consumer, position, replay)
insert into skips (consumer, position, sealed_reason, replay) select consumer, position, $3, replay from gone
on conflict (consumer, position) do update set sealed_reason = excluded.sealed_reason, at = excluded.at,
    replay = case when skips.replay is not null then excluded.replay end;
