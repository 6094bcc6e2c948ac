-- What operators write freely (URLs of webhooks, the names of replays, reasons) is sealed. SQL has no key, so what was there moves into
-- a table of its own, which the next start of the service seals and truncates: no file of it stays. Changing the type writes each
-- table anew, so nothing is left in theirs either. The columns have other names, so that an older process beside this schema fails
-- instead of writing in clear.
create table unsealed_notes (
    kind     text not null check (kind in ('url', 'parked', 'skipped', 'replay_name', 'replay_reason')),
    owner    uuid not null,                     -- the consumer, or the replay
    position bigint not null default 0,         -- of the delivery that was parked or skipped
    content  text not null
);
insert into unsealed_notes (kind, owner, content) select 'url', uuid, url from consumers where url is not null;
insert into unsealed_notes select 'parked', c.uuid, o.position, o.reason
    from open_deliveries o join consumers c on c.id = o.consumer where o.reason is not null;
insert into unsealed_notes select 'skipped', c.uuid, s.position, s.reason from skips s join consumers c on c.id = s.consumer;
insert into unsealed_notes (kind, owner, content) select 'replay_name', id, name from replays;
insert into unsealed_notes (kind, owner, content) select 'replay_reason', id, reason from replays;
-- take_unsealed_notes: everything, once, in the transaction that seals it. Of several processes that start together one gets it; the
-- others wait and get nothing. Not deleted row by row: the file goes, and what stands in it.
create function take_unsealed_notes() returns setof unsealed_notes language plpgsql as $$
begin
    lock table ledger.unsealed_notes in access exclusive mode;
    return query select * from ledger.unsealed_notes;
    truncate ledger.unsealed_notes;
end $$;

alter table consumers alter url type bytea using null;
alter table consumers rename url to sealed_url;
alter table open_deliveries alter reason type bytea using null;
alter table open_deliveries rename reason to sealed_reason;
alter table skips alter reason drop not null, alter reason type bytea using null;
alter table skips rename reason to sealed_reason;
alter table replays
    alter name drop not null, alter name type bytea using null,
    alter reason drop not null, alter reason type bytea using null;
alter table replays rename name to sealed_name;
alter table replays rename reason to sealed_reason;

-- Nothing ever showed why an epoch began. The events consumer.sought and consumer.updated say it, sealed.
alter table consumer_epochs alter reason drop not null, alter reason type bytea using null;
alter table consumer_epochs drop reason;
