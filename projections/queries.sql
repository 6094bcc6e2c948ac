-- close_states --
-- The open interval of a resource ends where its next state begins.
update states s set to_seq = v.q from unnest($1::int4[], $2::uuid[], $3::int8[]) v(d, o, q)
where s.directory = v.d and s.obj = v.o and s.to_seq = 9223372036854775807;

-- insert_states --
insert into states (directory, obj, ot, active, body_seq, from_seq, to_seq)
select * from unnest($1::int4[], $2::uuid[], $3::int2[], $4::bool[], $5::int8[], $6::int8[], $7::int8[]);

-- close_memberships --
update memberships m set to_seq = v.q from unnest($1::int4[], $2::uuid[], $3::uuid[], $4::int8[]) v(d, g, m, q)
where m.directory = v.d and m.grp = v.g and m.mem = v.m and m.to_seq = 9223372036854775807;

-- insert_memberships --
insert into memberships (directory, grp, mem, mt, from_seq, to_seq)
select * from unnest($1::int4[], $2::uuid[], $3::uuid[], $4::int2[], $5::int8[], $6::int8[]);

-- delete_users --
delete from users u using unnest($1::int4[], $2::uuid[]) v(d, i) where u.directory = v.d and u.id = v.i;

-- delete_groups --
delete from groups g using unnest($1::int4[], $2::uuid[]) v(d, i) where g.directory = v.d and g.id = v.i;

-- update_users --
-- Only changed values of indexed columns cost index entries: an ordinary change stays HOT.
update users u set active = v.active, body_seq = v.body_seq, rv = v.rv, etag_rv = v.etag_rv, updated_at = v.updated_at,
       user_name_mac = v.name, external_id_mac = v.external, display_name_mac = v.display, email_macs = v.emails::bytea[]
from unnest($1::int4[], $2::uuid[], $3::bool[], $4::int8[], $5::int4[], $6::int4[], $7::int8[], $8::int8[], $9::bytea[], $10::bytea[],
            $11::bytea[], $12::text[])
     v(d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails)
where u.directory = v.d and u.id = v.i;

-- insert_users --
insert into users (directory, id, active, body_seq, rv, etag_rv, created_at, updated_at, user_name_mac, external_id_mac,
                   display_name_mac, email_macs)
select d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails::bytea[]
from unnest($1::int4[], $2::uuid[], $3::bool[], $4::int8[], $5::int4[], $6::int4[], $7::int8[], $8::int8[], $9::bytea[], $10::bytea[],
            $11::bytea[], $12::text[])
     v(d, i, active, body_seq, rv, etag_rv, created_at, updated_at, name, external, display, emails);

-- update_groups --
update groups g set body_seq = v.body_seq, display_name_mac = v.name, external_id_mac = v.external
from unnest($1::int4[], $2::uuid[], $3::int8[], $4::int8[], $5::bytea[], $6::bytea[]) v(d, i, body_seq, created_at, name, external)
where g.directory = v.d and g.id = v.i;

-- insert_groups --
insert into groups (directory, id, body_seq, created_at, display_name_mac, external_id_mac)
select * from unnest($1::int4[], $2::uuid[], $3::int8[], $4::int8[], $5::bytea[], $6::bytea[]);
