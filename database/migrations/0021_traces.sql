-- serves: 0010
-- The W3C trace context of the request that made a commit. Older commits, and requests without a traceparent, have none.
alter table commits add column if not exists trace bytea;
