"""LEDGER_MIGRATE_URL that leads to another database than LEDGER_DATABASE_URL: nothing is made there."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from database.server import ServerRefusedError
from runtime.bootstrap import Urls
from runtime.exits import CommandError
from runtime.machine_database import running_urls
from runtime.reaching import reach, refuse_two_databases
from runtime.settings import Settings


@pytest.fixture
def other_url(admin_url: str) -> Iterator[str]:
    name = f"other_{uuid4().hex[:8]}"
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute(f"create database {name} owner ledger_owner".encode())
        yield make_conninfo(admin_url, user="ledger_owner", dbname=name)
        conn.execute(f"drop database {name} with (force)".encode())


def test_a_start_and_a_command_refuse_two_databases(app_url: str, owner_url: str, other_url: str) -> None:
    settings = Settings(database_url=SecretStr(app_url), migrate_url=SecretStr(other_url))  # pyright: ignore[reportCallIssue]
    with pytest.raises(
        ServerRefusedError, match=r"LEDGER_MIGRATE_URL leads to another database .* Set both to the same database"
    ):
        reach(Urls(app_url, other_url), settings, lambda: False)
    with pytest.raises(ServerRefusedError, match="LEDGER_MIGRATE_URL"), running_urls(settings):
        pass
    with psycopg.connect(other_url) as conn:
        assert conn.execute("select to_regclass('ledger.commits')").fetchone() == (None,)
    reach(Urls(app_url, owner_url), settings, lambda: False)


def test_a_role_that_does_not_exist_yet_is_asked_again_after_the_first_migration(app_url: str, other_url: str) -> None:
    asyncio.run(refuse_two_databases(Urls(make_conninfo(app_url, user="nobody_yet"), other_url)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dbname": "nowhere_to_be_found"}, "it has no database of that name"),
        ({"user": "nobody_yet"}, "it refuses the login"),
    ],
)
def test_a_refused_login_is_put_down_to_the_setting_that_it_came_from(
    app_url: str, owner_url: str, wrong: dict[str, str], says: str
) -> None:
    settings = Settings(database_url=SecretStr(app_url), migrate_url=SecretStr(make_conninfo(owner_url, **wrong)))  # pyright: ignore[reportCallIssue]
    with pytest.raises(CommandError, match=says) as refused:
        reach(Urls(app_url, make_conninfo(owner_url, **wrong)), settings, lambda: False)
    assert "is LEDGER_MIGRATE_URL right?" in refused.value.text
    assert "nobody_yet" not in refused.value.text
