"""Root keys outside of files, on a running service: a provider that is away at the start and later, and moving from a file to another one."""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from runtime import embedded
from tests import warm
from tests.acceptance.conftest import ROOT, Service, until
from tests.acceptance.test_keys import said
from tests.conftest import copied
from tests.vault import TOKEN, vault

pytestmark = pytest.mark.long
PROCESSES = 3  # two that serve, and one that delivers
USER = "urn:ietf:params:scim:schemas:core:2.0:User"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service on an empty data directory."""
    made: list[Service] = []

    def start(**environment: str) -> Service:
        made.append(Service(tmp_path / "fresh", **environment).start())
        return made[-1]

    yield start
    for service in made:
        assert service.stop() == 0


def write(service: Service) -> str:
    name = uuid4().hex
    with service.client("scim") as idp:
        answer = idp.post(f"{service.scim}/Users", json={"schemas": [USER], "userName": name})
    assert answer.status_code == 201, answer.text
    return name


def refused(data_dir: Path, **environment: str) -> str:
    """What a start says that must end."""
    done = warm.run(["serve"], {**os.environ, "LEDGER_DATA_DIR": str(data_dir), "LEDGER_PORT": "0", **environment})
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def test_a_ledger_moves_from_its_key_file_to_vault(make_service: Callable[..., Service]) -> None:
    with vault() as (address, transit):
        transit.make("scim-ledger")
        own = {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN}
        service = make_service()
        names = {write(service)}
        file = service.data_dir / "kek"
        assert service.stop() == 0
        service.environment |= {"LEDGER_ROOT_KEY": f"vault:transit/scim-ledger file:{file}", **own}
        service.start()
        assert said(service, "key", "rotate")["provider"] == "vault"
        names.add(write(service))
        said(service, "key", "rewrap")
        said(service, "key", "destroy", "1", "--yes")
        assert service.stop() == 0
        file.unlink()
        service.environment["LEDGER_ROOT_KEY"] = "vault:transit/scim-ledger"
        service.start()
        assert service.user_names() >= names
        write(service)
        assert service.stop() == 0
        transit.keys.clear()
        assert "vault write -f transit/keys/scim-ledger" in refused(service.data_dir, **service.environment)
        assert "needs VAULT_ADDR" in refused(service.data_dir, LEDGER_ROOT_KEY="vault:transit/scim-ledger", VAULT_TOKEN="")


def test_a_provider_that_is_lost_while_the_service_runs_stops_nothing(fresh: Callable[..., Service]) -> None:
    """Not even a process that is replaced meanwhile: it gets the keys from the one that started it."""
    with vault() as (address, transit):
        transit.make("scim-ledger")
        service = fresh(LEDGER_ROOT_KEY="vault:transit/scim-ledger", VAULT_ADDR=address, VAULT_TOKEN=TOKEN, LEDGER_WORKERS="2")
        names = {write(service)}
    assert service.process is not None
    parent = service.process.pid
    until(lambda: len(warm.spawned(parent)) == PROCESSES)
    before = warm.spawned(parent)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(warm.spawned(parent)) - set(before)) == PROCESSES)
    names |= {write(service) for _ in range(20)}
    assert service.user_names() >= names
    refusal = service.cli("key", "rotate")
    assert refusal.returncode != 0
    assert "cannot be asked" in refusal.stderr
    write(service)


def test_a_rotation_waits_for_a_process_that_cannot_load_the_new_key_and_goes_on_later(
    fresh: Callable[..., Service],
) -> None:
    one, two = secrets.token_hex(32), secrets.token_hex(32)
    service = fresh(LEDGER_ROOT_KEY="env:ROOT_OF_THE_TEST", ROOT_OF_THE_TEST=one)
    assert "Add number 2 to it" in service.cli("key", "rotate").stderr
    write(service)
    environment = {
        **os.environ, "LEDGER_DATA_DIR": str(service.data_dir), **service.environment, "ROOT_OF_THE_TEST": f"1:{one},2:{two}",
    }  # fmt: skip
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "key", "rotate"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        for line in waiting.stderr:
            if re.search(r"for pid \d+ of PostgreSQL", line):
                break
        waiting.send_signal(signal.SIGINT)
        waiting.stderr.read()
    assert [row["state"] for row in said(service, "key", "list")["data"]] == ["current", "announced"]
    until(lambda: "key_epoch_not_loaded" in service.log.read_text())
    write(service)
    assert service.stop() == 0
    service.environment["ROOT_OF_THE_TEST"] = f"1:{one},2:{two}"
    service.start()
    assert said(service, "key", "rotate")["epoch"] == 2
    assert [row["state"] for row in said(service, "key", "list")["data"]] == ["earlier", "current"]
    write(service)


def test_an_epoch_is_destroyed_to_the_end_though_something_unreadable_carries_its_number(fresh: Callable[..., Service]) -> None:
    """A value that opens with no key needs none: it must not keep a service from starting once the root key is gone."""
    one, two = secrets.token_hex(32), secrets.token_hex(32)
    service = fresh(LEDGER_ROOT_KEY="env:ROOT_OF_THE_TEST", ROOT_OF_THE_TEST=f"1:{one},2:{two}")
    names = {write(service)}
    said(service, "key", "rotate")
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    with psycopg.connect(cluster.url("ledger_owner", "ledger")) as conn:
        conn.execute("insert into ledger.subject_keys values (gen_random_uuid(), 1, %s)", (bytes(60),))
    assert said(service, "key", "rewrap")["unreadable"] == 1
    assert "remove `1:…` from it" in service.cli("key", "destroy", "1", "--yes").stderr
    assert [row["state"] for row in said(service, "key", "list")["data"]] == ["earlier", "current"], "it is not destroyed yet"
    assert service.stop() == 0
    service.environment["ROOT_OF_THE_TEST"] = f"2:{two}"
    service.start()
    assert service.user_names() >= names
    said(service, "key", "destroy", "1", "--yes")
    assert [row["state"] for row in said(service, "key", "list")["data"]] == ["destroyed", "current"]
    write(service)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("env:NOT_SET_HERE", "NOT_SET_HERE is not set"),
        ("vault:transit/none", "needs VAULT_ADDR"),
        ("pkcs11:token=none;object=none?module-path=/none.so&pin-source=file:/none", "PIN of token none cannot be read"),
        ("nowhere", "LEDGER_ROOT_KEY does not name a root key"),
    ],
)
def test_a_start_without_its_root_key_says_what_to_do_and_makes_none(
    tmp_path: Path, first_started: Path, setting: str, says: str
) -> None:
    assert says in refused(tmp_path / "new", LEDGER_ROOT_KEY=setting)
    assert "LEDGER_ROOT_KEY" in refused(copied(first_started, tmp_path / "old"), LEDGER_ROOT_KEY=setting)


def test_the_database_refuses_what_is_sealed_in_a_destroyed_epoch(make_service: Callable[..., Service]) -> None:
    service = make_service()
    said(service, "key", "rotate")
    needed = service.cli("key", "destroy", "1", "--yes")
    assert needed.returncode == 4
    assert re.search(r"Key epoch 1 is needed: .*\d+ of subject_keys.wrapped", needed.stderr)
    assert service.cli("key", "destroy", "2", "--yes").returncode == 4
    assert service.cli("key", "destroy", "7", "--yes").returncode == 4
    said(service, "key", "rewrap")
    assert service.cli("key", "destroy", "1").returncode == 2, "nobody can be asked here"
    said(service, "key", "destroy", "1", "--yes")
    said(service, "key", "destroy", "1", "--yes")  # again: no effect
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    with psycopg.connect(cluster.url("ledger_owner", "ledger")) as conn, pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("insert into ledger.subject_keys values (gen_random_uuid(), 1, %s)", (bytes(60),))
    write(service)
