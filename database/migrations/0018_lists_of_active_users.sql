-- serves: 0010
-- one by one
-- Lists of users by creation, and of the active or inactive ones, without the table. An update writes this index only if `active` changes.
create index concurrently if not exists users_listed on users (directory, created_at, id) include (active);
drop index concurrently if exists users_created;
