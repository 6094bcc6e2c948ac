-- serves: 0010
-- Where an OAuth 2.0 client was used last (route and network), sealed, as for tokens.
alter table clients add column if not exists last_used_place bytea;
