-- quality_users --
-- How many users the report looks at, the newest $2, and how many of them have an externalId.
select count(*), count(external_id_mac)
from (select external_id_mac from users where directory = $1 order by created_at desc, id desc limit $2) newest;

-- same_external_id --
-- Of the first $2 externalIds: how many have several users, how many users these are, and the ids of some. Counted from the index alone.
with same as materialized (
    select external_id_mac mac, count(*) n
    from (select external_id_mac from users where directory = $1 and external_id_mac is not null order by external_id_mac limit $2) u
    group by external_id_mac having count(*) > 1)
select (select count(*) from same), (select coalesce(sum(n), 0)::int8 from same),
       array(select u.id from (select mac from same order by n desc, mac limit 5) s
             cross join lateral (select id from users where directory = $1 and external_id_mac = s.mac limit 4) u);

-- same_display_name --
-- The same of groups by displayName.
with same as materialized (
    select display_name_mac mac, count(*) n
    from (select display_name_mac from groups where directory = $1 order by display_name_mac limit $2) g
    group by display_name_mac having count(*) > 1)
select (select count(*) from same), (select coalesce(sum(n), 0)::int8 from same),
       array(select g.id from (select mac from same order by n desc, mac limit 5) s
             cross join lateral (select id from groups where directory = $1 and display_name_mac = s.mac limit 4) g);

-- newest_users --
-- Where the attributes of the newest $2 users are.
select body_seq from users where directory = $1 order by created_at desc, id desc limit $2;

-- newest_groups --
-- Where those of the newest $2 groups are.
select body_seq from groups where directory = $1 order by created_at desc, id desc limit $2;

-- refused_groups --
-- The newest $3 refusals of values in requests about groups in the last $2 hours, sealed.
select detail, request_id from requests
where directory = $1 and at > now() - make_interval(hours => $2) and status = 400 and scim_type = 'invalidValue' and detail is not null
  and route in ('/Groups', '/Groups/{id}', '/Bulk/Groups', '/Bulk/Groups/{id}') and mistake is null
  and id > (select coalesce(min(id), 0) - 1 from (select id from requests where directory = $1 order by id desc limit $4) looked)
order by id desc limit $3;
