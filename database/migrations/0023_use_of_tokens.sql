-- serves: 0010
-- Where a token was used last (route and network, sealed), and the tightest warning before its expiry that is on record, in days.
alter table tokens add column if not exists last_used_place bytea, add column if not exists warned_days smallint;
