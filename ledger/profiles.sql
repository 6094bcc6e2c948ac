-- profiles_own --
-- The operator's own profiles, oldest first.
select name, document::text from profiles order by created_at, name;

-- insert_profile --
-- In the transaction that records the event. The constraint refuses a name that is stored twice.
insert into profiles (name, document) values ($1, $2::json);

-- profile_unchanged --
-- A row if the directory still has the profile that it had when it was read.
select from directories where id = $1 and profile = $2;

-- set_profile --
-- In the transaction that records directory.profile_changed.
update directories set profile = $2 where id = $1;
