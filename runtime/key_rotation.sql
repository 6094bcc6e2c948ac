-- try_rotating --
-- One process at a time changes key epochs. The lock ends with the session.
select pg_try_advisory_lock(10, 0);

-- try_all_know --
-- Whether every process knows epoch $1.
select pg_try_advisory_lock(11, $1);

-- all_know --
-- The lock is given back: it only showed that nobody holds it.
select pg_advisory_unlock(11, $1);

-- try_none_seals --
-- Whether no process seals in epoch $1 any more.
select pg_try_advisory_lock(12, $1);

-- none_seals --
-- The same.
select pg_advisory_unlock(12, $1);

-- processes_with --
-- The sessions of processes that hold the lock ($1, $2).
select a.pid, coalesce(a.client_addr::text, 'this machine') from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.classid = $1 and l.objid = $2 and l.objsubid = 2 and l.pid <> pg_backend_pid()
  and l.database = (select oid from pg_database where datname = current_database());

-- older_processes --
-- Processes of releases before key epochs.
select a.pid, coalesce(a.client_addr::text, 'this machine') from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.classid = 6 and l.objsubid = 2 and l.objid::int8 < $1::int4
  and l.database = (select oid from pg_database where datname = current_database());

-- insert_epoch --
-- A new epoch, which does not seal yet.
insert into key_epochs (epoch, kek_id, provider, root, wrapped) values ($1, $2, $3, $4, $5);

-- destroy_epoch --
-- The wrapped key of epoch $1 is no longer stored.
update key_epochs set wrapped = null where epoch = $1;
