"""Two releases side by side on one database, under load, whichever starts first: no request is refused."""

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Self

import httpx
import pytest

from database.migrate import shipped
from runtime import embedded
from tests.acceptance.conftest import ROOT, Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
PACKAGES = ("api", "database", "delivery", "ledger", "operations", "projections", "proofs", "replay", "runtime", "scim")
# The commit of the previous release. Each release changes this line.
RELEASE_BEFORE = (Path(__file__).parent / "release_before").read_text().strip()
NEWEST = max(migration.number for migration in shipped())
MADE_UP = f"""-- serves: {NEWEST:04}
alter table consumers add made_up int;
create table made_up (one int primary key);
"""


def the_release_before(place: Path) -> Path:
    """The code of the previous release, from the repository's history if it is available."""
    archive = subprocess.run(["git", "archive", RELEASE_BEFORE, *PACKAGES], cwd=ROOT, capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"commit {RELEASE_BEFORE} is not in this clone; the other test stands in for it")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(place, filter="data")
    return place


def a_next_release(place: Path) -> Path:
    """This release with one more migration."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package)
    (place / "database" / "migrations" / f"{NEWEST + 1:04}_made_up.sql").write_text(MADE_UP)
    with (place / "database" / "grants.sql").open("a") as grants:
        grants.write("grant select on made_up to ledger_app;\n")
    return place


class Load:
    """An IdP that writes to every service in rotation, one request after the other."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.rotation = list[Service]()
        self.refused = list[tuple[int, str]]()
        self.answered = 0
        self._client = httpx.Client(headers=headers, timeout=30, trust_env=False)
        self._round = Event()
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def rounds(self, number: int) -> None:
        """Wait until every service has answered this number of further requests."""
        for _ in range(number):
            self._round.clear()
            assert self._round.wait(60)

    def _run(self) -> None:
        for number in count():
            if self._over.is_set():
                return
            for service in tuple(self.rotation):
                try:
                    answer = self._client.post(
                        f"{service.scim}/Users", json={"schemas": [USER], "userName": f"{service.port}-{number}"}
                    )
                    found = self._client.get(f"{service.scim}/Users", params={"filter": f'userName eq "{service.port}-{number}"'})
                    for each in (answer, found):
                        if each.status_code >= 300:
                            self.refused.append((each.status_code, each.text))
                except httpx.HTTPError as broken:
                    self.refused.append((0, repr(broken)))
                self.answered += 2
            self._round.set()


@pytest.fixture
def start(tmp_path: Path, cluster: embedded.Cluster, new_database: Callable[[str], str]) -> Iterator[Callable[[Path], Service]]:
    """Starts services with given code on the one database."""
    url, started = cluster.url("postgres", new_database("template1")), list[Service]()

    def begin(code: Path) -> Service:
        place = tmp_path / f"service-{len(started)}"
        service = Service(place, LEDGER_DATABASE_URL=url, LEDGER_KEK_FILE=str(tmp_path / "kek"))
        service.root = code
        started.append(service.start())
        return service

    yield begin
    for service in started:
        if service.process is not None and service.process.poll() is None:
            service.stop()


def upgraded_and_back(start: Callable[[Path], Service], older: Path, newer: Path) -> list[dict]:
    """The older release serves, the newer one joins it and takes over; then the older one is started again and takes over.

    Returns what both report about themselves while they run side by side, after each start.
    """
    one = start(older)
    headers = {"Authorization": f"Bearer {one.first_run['tokens']['scim']}", "Content-Type": "application/scim+json"}
    said = list[dict]()
    with Load(headers) as load:
        load.rotation.append(one)
        load.rounds(3)
        for code in (newer, older):
            two = start(code)
            load.rotation.append(two)
            load.rounds(10)
            ready = [httpx.get(f"{service.base}/readyz", trust_env=False) for service in (one, two)]
            assert [answer.status_code for answer in ready] == [200, 200], [answer.text for answer in ready]
            said += [answer.json() for answer in ready]
            load.rotation.remove(one)
            load.rounds(2)
            assert one.stop() == 0
            load.rounds(3)
            one = two
    assert load.refused == []
    assert load.answered > 60
    return said


@pytest.mark.long
def test_this_release_and_a_next_one(start: Callable[[Path], Service], tmp_path: Path) -> None:
    """The older release stays ready while a newer one migrates the schema, and can be started again with it."""
    said = upgraded_and_back(start, ROOT, a_next_release(tmp_path / "next"))
    assert [answer.get("schema") for answer in said] == ["newer", None, None, "newer"]


@pytest.mark.long
def test_the_previous_release_and_this_one(start: Callable[[Path], Service], tmp_path: Path) -> None:
    """The same with the code of that release."""
    said = upgraded_and_back(start, the_release_before(tmp_path / "before"), ROOT)
    assert {answer["status"] for answer in said} == {"ready"}
