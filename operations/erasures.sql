-- older_processes --
-- A row if a process of a release before $1 serves this database.
select from pg_locks where locktype = 'advisory' and granted and classid = 6 and objsubid = 2 and objid::int8 < $1::int4
  and database = (select oid from pg_database where datname = current_database()) limit 1;

-- what_goes --
-- What an erasure of a user or group would delete, and how many leaves would stay.
select exists (select from users where directory = $1 and id = $2) or exists (select from groups where directory = $1 and id = $2),
       (select count(b.seq) from (select seq from events where obj = $2 and mem is null offset 0) e
        cross join lateral (select seq from bodies where directory = $1 and seq = e.seq offset 0) b)::int4,
       (select count(*) from subject_keys where obj = $2)::int4,
       (select count(*) from events where obj = $2) + (select count(*) from events where directory = $1 and mem = $2),
       (select count(*) from requests where subject = $2)::int4;
