-- serves: 0010
-- replayed: events that a consumer's place does not speak for (an operator skipped them or sought over them, its filter left them out, they
-- lay before its beginning), and that a run delivered.
create table replayed (
    consumer int not null,
    position bigint not null,
    primary key (consumer, position)
);

-- skips.replay: the run whose repetition was given up; the event itself had been acknowledged, or is a hole for another reason.
alter table skips add replay uuid;

-- What was skipped and delivered after a seek back is no hole. Only where each epoch had the same filter: then the later one took it.
delete from skips s using consumer_epochs e cross join lateral (
    select through, open from checkpoints where consumer = e.consumer and epoch = e.epoch order by id desc limit 1) k
where e.consumer = s.consumer and e.at > s.at and s.position > e.start and s.position <= k.through and s.position <> all(k.open)
  and not exists (select from open_deliveries o where o.consumer = s.consumer and o.position = s.position)
  and not exists (select from consumer_epochs f where f.consumer = s.consumer and (f.directories, f.types) is distinct from (e.directories, e.types));
