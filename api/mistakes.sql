-- directories_by_slug --
-- The directories that URLs name.
select slug, id, profile from directories where slug = any($1);

-- directories_by_token --
-- The directory of each token that belongs to one directory only, also of a revoked or expired token, and of each OAuth 2.0 client.
select t.id, d.id, d.profile from tokens t join directories d on d.slug = t.directories[1]
where t.id = any($1) and cardinality(t.directories) = 1
union all select c.id, d.id, d.profile from clients c join directories d on d.id = c.directory where c.id = any($1);
