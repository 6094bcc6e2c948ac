-- directory_by_slug --
-- The directory of the slug in a request path.
select id, uuid, slug, profile, index_key, created_at,
       (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0),
       r.per_second, r.burst
from directories d left join directory_states t on t.directory = d.id left join rate_limits r on r.directory = d.id where slug = $1;

-- directories_all --
-- Every directory, closed ones too: their log stays readable.
select id, uuid, slug, profile, index_key, created_at,
       (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0),
       r.per_second, r.burst
from directories d left join directory_states t on t.directory = d.id left join rate_limits r on r.directory = d.id order by id;

-- profiles_mark --
-- One value that changes if the profile, schemas, state or rate limit of any directory changes, so that a check reads one row.
select md5(coalesce(string_agg(concat_ws(' ', id, uuid, profile, t.state, t.since, r.per_second, r.burst), ',' order by id), ''))
       || (select count(*) from extension_schemas)
from directories d left join directory_states t on t.directory = d.id left join rate_limits r on r.directory = d.id;

-- profiles_all --
-- For each directory: profile, schemas, document of an own profile, state since when, rate limit, and uuid.
select id, profile, (select coalesce(json_agg(json_build_array(resource_type, document) order by x.id), '[]')::text
       from extension_schemas x where x.directory = d.id),
       (select document::text from profiles p where p.name = d.profile), coalesce(t.state, 'active'), coalesce(t.since, 0),
       r.per_second, r.burst, d.uuid
from directories d left join directory_states t on t.directory = d.id left join rate_limits r on r.directory = d.id;

-- next_directory_id --
-- The number is reserved before the commit, because the directory's first event has it. A gap is harmless.
select nextval(pg_get_serial_sequence('ledger.directories', 'id'));

-- insert_directory --
-- In the transaction that records directory.created.
insert into directories (id, uuid, slug, profile, index_key) overriding system value values ($1, $2, $3, $4, $5);

-- wake_directories --
-- Makes serving processes refresh their directories now; without it they do so once a second.
select pg_notify('ledger', 'directories');
