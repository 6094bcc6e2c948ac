-- serves: 0010
-- one by one
-- The groups above groups, for users who are in many groups. Few memberships are of groups; those of users do not write this index.
create index concurrently if not exists memberships_of_groups on memberships (directory, mem) include (grp, from_seq)
    where mt = 1 and to_seq = 9223372036854775807;

-- Which users were changed since a moment, or until one: the open state of a user begins with its newest event. An update of a user begins
-- a new state anyway, so its row in users still stays on its page.
create index concurrently if not exists states_changed on states (directory, from_seq) include (obj, active)
    where to_seq = 9223372036854775807 and ot = 0;
