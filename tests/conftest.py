"""Real PostgreSQL for every test that asks for it, made cheap: one cluster per test process, databases from a template."""

import fcntl
import functools
import gc
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from database.migrate import eraser_membership, migrate
from runtime import embedded
from tests.orphans import MARK, Watch

hypothesis_settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
# The same examples in each run of a commit: whether it passes is no matter of luck. `make test` looks for new ones.
hypothesis_settings.register_profile("ci", max_examples=60, deadline=None, print_blob=True, derandomize=True)
hypothesis_settings.register_profile("quick", max_examples=15, deadline=None)  # for `make quick`
hypothesis_settings.register_profile("explicit", phases=[Phase.explicit], deadline=None)  # for `make coverage`
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def examples(count: int) -> int:
    """The number of examples for a test that sets its own: fewer in `make quick`."""
    return min(count, count * hypothesis_settings().max_examples // 50)


# Files of tests are in memory if there is room for them and programs may run from there. A killed process loses no more than with a disk,
# and no test needs its files to survive a power cut. On ext4, the three hundred new files of each database and each service took a third
# of the CPU time of PostgreSQL, because the creation of a file skips every inode that was freed a short time ago.
MEMORY = "/dev/shm"
MEMORY_BYTES_MIN = 6 * 2**30  # the most that a run had at one time was 2 GiB
# Tests that share a cluster run without syncs; tests about durability start their own cluster.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TEMPLATE = "template_ledger"


def _memory_has_room() -> bool:
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN


if _memory_has_room():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)  # pytest reads it

# Each HTTP client reads two hundred certificates, which takes 18 ms. No test needs them, so clients share one context.
ssl.create_default_context = functools.cache(ssl.create_default_context)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch the run from its first process, before the workers start: they inherit the mark in the environment."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[MARK] = uuid4().hex
        _watching.append(Watch(os.environ[MARK], session.config._tmp_path_factory.getbasetemp()))


def pytest_unconfigure() -> None:
    while _watching:
        _watching.pop().end()


def pytest_collection_finish() -> None:
    """The ten thousand tests are more objects than any test makes: without this, each full garbage collection would take half a
    second for them.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # a hook of pytest-xdist, for `-n auto`
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than cores, on large machines half as many again: for a third of the time tests wait, for processes and
    for deadlines.
    """
    cores = os.cpu_count() or 1
    return cores + max(2, cores // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first, some for each process: a long test that begins last would be the only one that still runs.

    `--dist worksteal` first gives each process a part of the list; all parts have the same length.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    length = len(items) // processes
    items.clear()
    for number in range(processes):
        items += long[number::processes]
        room = max((number + 1) * length - len(items), 0)
        items += others[:room]
        del others[:room]
    items += others


def prepare_template(url: str) -> None:
    """Bring the template database to the current schema, as its owner; every test database is a copy of it.

    Roles belong to the whole cluster; they are made as the first start of the service makes them.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        for role in ("ledger_owner", "ledger_app"):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'ledger_eraser'").fetchone() is None:
            connection.execute("CREATE ROLE ledger_eraser NOLOGIN")
        connection.execute(eraser_membership(connection.info.server_version))
        connection.execute("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO ledger_owner")
        owned = sql.SQL("ALTER DATABASE {} OWNER TO ledger_owner").format(sql.Identifier(connection.info.dbname))
        connection.execute(owned)
    migrate(make_conninfo(url, user="ledger_owner"))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A function that returns the path of something that the first test process makes; the other processes of the run find it
    there.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # the directory of the run; each worker has its own directory in it

    def made(name: str, make: Callable[[Path], None]) -> Path:
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / name).exists():
                make(place / f"{name}.new")
                (place / f"{name}.new").rename(place / name)
        return place / name

    return made


def copied(source: Path, place: Path) -> Path:
    """Copy a data directory that no server uses, with the owners of its files; the file system shares the blocks if it can."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(place)], check=True)
    return place


def _initialise(data_dir: Path) -> None:
    """Make a cluster with the template database, and stop it."""
    running = embedded.start(data_dir, settings=FAST)
    with psycopg.connect(running.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    prepare_template(running.url("postgres", TEMPLATE))
    embedded.stop(running)


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, made_once: Callable[[str, Callable[[Path], None]], Path]
) -> Iterator[embedded.Cluster]:
    data_dir = copied(made_once("cluster", _initialise), tmp_path_factory.mktemp("postgres") / "cluster")
    running = embedded.start(data_dir, settings=FAST)
    yield running
    embedded.stop(running)


@pytest.fixture(scope="session")
def admin_url(cluster: embedded.Cluster) -> str:
    return cluster.url("postgres", "postgres")


@pytest.fixture(scope="session")
def template(cluster: embedded.Cluster) -> str:
    """The name of the migrated database in the cluster, from which others are copied."""
    assert cluster.pid
    return TEMPLATE


@pytest.fixture
def new_database(admin_url: str) -> Iterator[Callable[[str], str]]:
    """A function that copies the named template and returns the name of the copy; the copies are dropped after the test."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        made: list[str] = []

        def create(source: str = TEMPLATE) -> str:
            name = f"test_{next(_numbers)}"
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(source)
            )
            connection.execute(statement)
            made.append(name)
            return name

        yield create
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def superuser_url(cluster: embedded.Cluster, admin_url: str, template: str, new_database: Callable[[str], str]) -> str:
    """A fresh migrated ledger; the connection is that of the superuser."""
    name = new_database(template)
    with psycopg.connect(admin_url, autocommit=True) as connection:  # a copy belongs to the role that copies
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO ledger_owner").format(sql.Identifier(name)))
    return cluster.url("postgres", name)


@pytest.fixture
def owner_url(superuser_url: str) -> str:
    """The same fresh ledger; the connection is that of the role that migrates and rebuilds."""
    return make_conninfo(superuser_url, user="ledger_owner")


@pytest.fixture
def app_url(superuser_url: str) -> str:
    """The same fresh ledger; the connection is that of the role that serves."""
    return make_conninfo(superuser_url, user="ledger_app")


_numbers = count(1)
_watching: list[Watch] = []
