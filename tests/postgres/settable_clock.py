"""A database whose clock a test can set: an offset is added to `clock_timestamp`, the only function through which time enters the log.

Functions belong to a database. In the test's own database the built-in one is renamed, and a function that adds an offset takes
its place. No code of the product is changed: statements, plans and processes are those of the service.
"""

from datetime import timedelta

import psycopg

_PUT_ASIDE = """
create table public.clock_offset (off interval not null);
insert into public.clock_offset values ('0');
grant select on public.clock_offset to public;
grant usage on schema public to public;
alter function pg_catalog.clock_timestamp() rename to true_clock_timestamp;
create function pg_catalog.clock_timestamp() returns timestamptz language sql volatile parallel safe
    as 'select pg_catalog.true_clock_timestamp() + (select off from public.clock_offset)';
"""


class SettableClock:
    """The clock of one database; it is set as the superuser."""

    def __init__(self, superuser_url: str) -> None:
        self._url = superuser_url

    @staticmethod
    def put_aside(superuser_url: str) -> bool:
        """Rename the built-in clock of a database, if that was not done yet; returns True."""
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("set allow_system_table_mods = on")
            conn.execute(_PUT_ASIDE)
        return True

    def ahead(self, **by: float) -> None:
        """From now on the clock differs from real time by this much: `ahead(hours=1)`, `ahead(days=-1)`."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute("update public.clock_offset set off = %s", (timedelta(**by),))
