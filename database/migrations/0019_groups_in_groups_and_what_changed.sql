-- serves: 0010
-- one by one
-- The groups above groups, for users who are in many groups. Few memberships are of groups; those of users do not write this index.
create index concurrently if not exists memberships_of_groups on memberships (directory, mem) include (grp, from_seq)
    where mt = 1 and to_seq = 9223372036854775807;
