-- serves: 0010
-- consumer_leases.lease_s: for how long its holder may send after a renewal. Whoever takes over waits for as long, by its own clock.
-- Null where an earlier release holds it. `until` is only looked at for changes now; earlier releases beside us still compare it.
-- The others: what limits the consumer (the numbers of delivery/pace.py), and means of lately in seconds and events a second.
alter table consumer_leases add lease_s real, add limited_by smallint, add answer_s real, add record_s real, add events_s real;

-- Why an operator moved a consumer, sealed, for the hole in the audit. Of seeks of earlier releases only the event consumer.sought says it.
alter table consumer_epochs add sealed_reason bytea;
