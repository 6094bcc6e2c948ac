-- serves: 0010
-- one by one
-- The journal lines about a user or group that an erasure deletes.
create index concurrently if not exists requests_of_subject on requests (subject) where subject is not null;
