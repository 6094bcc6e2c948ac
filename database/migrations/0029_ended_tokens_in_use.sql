-- serves: 0010
-- When a token was last sent after its end, on any route. The journal has only requests of SCIM.
alter table tokens add column if not exists refused_at timestamptz;
