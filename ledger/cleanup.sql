-- directories_in --
-- Directories in a state. Only those that were paused or closed have a row, and these are few.
select directory from directory_states where state = $1 order by directory;

-- try_cleaning --
-- The lock of the process that cleans up closed directories. It ends with the connection, if not before.
select pg_try_advisory_lock(5, 0);

-- end_cleaning --
-- Releases the lock of the clean-up.
select pg_advisory_unlock(5, 0);

-- memberships_left --
-- The next open memberships of a closed directory.
select grp, mem, case mt when 0 then 'User' else 'Group' end from memberships
where directory = $1 and (grp, mem) > ($2::uuid, $3::uuid) and to_seq = 9223372036854775807 order by grp, mem limit $4;

-- users_left --
-- The next users of a closed directory.
select id from users where directory = $1 and id > $2::uuid order by id limit $3;

-- groups_left --
-- The next groups of a closed directory.
select id from groups where directory = $1 and id > $2::uuid order by id limit $3;

-- tokens_of_directory --
-- Valid tokens of some roles that reach only this directory.
select id, name from tokens where revoked_at is null and directories = array[$1::text] and role = any($2::text[]) order by created_at, id;
