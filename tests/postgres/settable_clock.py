"""A database whose clock a test sets: `clock_timestamp`, the one place where time enters the log, is told how far to be off.

Functions belong to a database, so the built-in one is put aside under another name in the test's own, and one that adds an offset takes its
place. Nothing of the product takes part: statements, plans and processes are those of the service.
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
    """The clock of one database, which is entered as the superuser."""

    def __init__(self, superuser_url: str) -> None:
        self._url = superuser_url

    @staticmethod
    def put_aside(superuser_url: str) -> bool:
        """Put the built-in clock of a database aside, once; True."""
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("set allow_system_table_mods = on")
            conn.execute(_PUT_ASIDE)
        return True

    def ahead(self, **by: float) -> None:
        """From now on it is off by so much of real time: `ahead(hours=1)`, `ahead(days=-1)`."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute("update public.clock_offset set off = %s", (timedelta(**by),))
