-- serves: 0010
-- open_deliveries.tried_at: when the last attempt failed, by the clock of the process that made it. A clock that says less by now was set back,
-- and what waits for a time waits no longer than it would have. asked_s: for how long the receiver asked to be left alone (Retry-After), in
-- seconds; what is tried before its time, or because the receiver is back, keeps to it. Null in rows of earlier releases.
alter table open_deliveries add tried_at timestamptz, add asked_s real;

-- consumer_leases.not_before: until then the receiver asked for nothing at all (429). Whoever takes the lease over keeps to it too.
alter table consumer_leases add not_before timestamptz;
