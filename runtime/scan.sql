-- tables_to_scan --
-- The tables that this login may read, with their sizes: those of the ledger and other schemas, and what the planner keeps of values.
select n.nspname::text, c.relname::text, pg_table_size(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'm') and n.nspname not like 'pg_toast%' and n.nspname not like 'pg_temp%' and n.nspname <> 'information_schema'
  and (n.nspname <> 'pg_catalog' or c.relname in ('pg_statistic', 'pg_largeobject')) and has_table_privilege(c.oid, 'select')
order by 1, 2;
