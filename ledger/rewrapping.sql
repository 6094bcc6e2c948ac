-- pages_of --
-- The pages that a table has now.
select pg_relation_size($1::text::regclass) / current_setting('block_size')::int;
