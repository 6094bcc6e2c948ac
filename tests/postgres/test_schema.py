"""database/schema.sql, which people read, equals the result of the migrations."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from database import migrate as database_migrate
from runtime import embedded

SCHEMA = Path(database_migrate.__file__).with_name("schema.sql")

# One line for each thing in the schema `ledger`. Rights are written out, so that default rights equal the same rights granted.
CATALOG: LiteralString = """
with rights as (
    select 'relation' as kind, oid, 0 as part, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) as acl
    from pg_class where relnamespace = 'ledger'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
    union all select 'column', attrelid, attnum, attacl from pg_attribute where attacl is not null
    union all select 'function', oid, 0, coalesce(proacl, acldefault('f', proowner)) from pg_proc
    union all select 'schema', oid, 0, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace
), granted as (
    select kind, oid, part, string_agg(grantee::regrole || ' ' || privilege_type || case when is_grantable then ' with grant option' else '' end, ', '
           order by grantee::regrole::text, privilege_type) as rights
    from rights cross join lateral aclexplode(acl) group by kind, oid, part
)
select 'schema: ' || g.rights from granted g where kind = 'schema' and oid = 'ledger'::regnamespace
union all
select format('relation %s (%s %s, %s) %s: %s', c.relname, c.relkind, c.relpersistence, c.relowner::regrole,
              (select string_agg(o, ', ' order by o) from unnest(c.reloptions) o), g.rights)
from pg_class c left join granted g on g.kind = 'relation' and g.oid = c.oid where c.relnamespace = 'ledger'::regnamespace and c.relkind <> 'i'
union all
select format('column %s %s. %s %s%s default %s identity %s storage %s%s', c.relname, row_number() over (partition by c.oid order by a.attnum), a.attname,
              format_type(a.atttypid, a.atttypmod), case when a.attnotnull then ' not null' else '' end, pg_get_expr(d.adbin, d.adrelid),
              a.attidentity::text || a.attgenerated::text, a.attstorage, coalesce(': ' || g.rights, ''))
from pg_class c join pg_attribute a on a.attrelid = c.oid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
left join granted g on g.kind = 'column' and g.oid = c.oid and g.part = a.attnum
where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
union all
select format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint where connamespace = 'ledger'::regnamespace
union all
select format('index %s valid %s', pg_get_indexdef(indexrelid), indisvalid) from pg_index where indrelid in (select oid from pg_class where relnamespace = 'ledger'::regnamespace)
union all
select format('trigger %s enabled %s', pg_get_triggerdef(t.oid), tgenabled) from pg_trigger t join pg_class c on c.oid = t.tgrelid
where c.relnamespace = 'ledger'::regnamespace and not tgisinternal
union all
select format('function %s: %s', pg_get_functiondef(p.oid), g.rights) from pg_proc p left join granted g on g.kind = 'function' and g.oid = p.oid
where p.pronamespace = 'ledger'::regnamespace
union all
select format('sequence %s', s) from pg_sequences s where schemaname = 'ledger'
"""


def catalog(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [line for text in sorted(text for (text,) in conn.execute(CATALOG)) for line in text.splitlines()]


def test_schema_sql_equals_the_sum_of_the_migrations(
    cluster: embedded.Cluster, admin_url: str, owner_url: str, new_database: Callable[[str], str]
) -> None:
    name = new_database("template1")
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute(sql.SQL("alter database {} owner to ledger_owner").format(sql.Identifier(name)))
    url = make_conninfo(cluster.url("postgres", name), user="ledger_owner")
    with psycopg.connect(url) as conn:
        conn.execute(cast("LiteralString", SCHEMA.read_text(encoding="utf-8")))
    migrated, written = catalog(owner_url), catalog(url)
    assert len(migrated) > 300
    difference = "\n".join(
        difflib.unified_diff(migrated, written, "after the migrations", "database/schema.sql", n=0, lineterm="")
    )
    assert not difference, (
        f"Write into database/schema.sql what the migrations and grants.sql make (lines with -), nothing else (+):\n{difference}"
    )


def test_every_table_has_a_description() -> None:
    """A newcomer reads the file from the top; the purpose of a table without a description has to be guessed."""
    text = SCHEMA.read_text(encoding="utf-8")
    tables = re.findall(r"^create table (\w+)", text, re.MULTILINE)
    assert set(re.findall(r"^-- (\w+): .+(?:\n--.*)*\ncreate table \1 ", text, re.MULTILINE)) == set(tables)
