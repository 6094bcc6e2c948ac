"""A person who was erased, and whose key epoch was destroyed, cannot be read in any copy: not even with every key that there still is."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest

from ledger.ids import DirectoryUuid, Seq
from ledger.key_epochs import kek_at
from ledger.root_keys.local import FileKeys
from ledger.root_keys.provider import RootKeyLostError
from ledger.sealing import Kek, open_payload, unwrap_key
from proofs.keys import WrapError
from runtime import embedded
from tests.acceptance.conftest import Service, until
from tests.acceptance.test_backup import run
from tests.acceptance.test_erasure import Erasing
from tests.acceptance.test_keys import said
from tests.acceptance.test_restore_drills import dump, loaded, postgres
from tests.conftest import copied

pytestmark = pytest.mark.long


class Forgotten(NamedTuple):
    """What the tests look at: the service, copies from before and after, the erased person, a living one, the receipt."""

    e: Erasing
    place: Path
    erased: str
    living: str
    names: dict[str, str]
    receipts: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def forgotten(tmp_path: Path, first_started: Path) -> Iterator[Forgotten]:
    place = tmp_path
    service = Service(copied(first_started, place / "ledger")).start()
    service.note_address()
    shutil.copy(service.data_dir / "kek", place / "kek-of-before")
    with Erasing(service) as e:
        names = {kind: f"{kind}{uuid4().hex}" for kind in ("erased", "living")}
        erased, living = (e.user(name=name, displayName=name) for name in names.values())
        hold = e.hold(living).json()["id"]
        said(service, "backup", str(place / "before"), "--no-trial")
        dump(running(service), place / "before.dump")
        first = e.complete(e.erase(erased)["id"])
        said(service, "key", "rotate")
        said(service, "key", "rewrap")
        said(service, "backup", str(place / "after"), "--no-trial")
        said(service, "key", "destroy", "1", "--yes")
        # a serving process sees the destruction within some seconds
        until(lambda: e.receipt(first["id"])["horizon"]["backups"]["state"] == "unreadable")
        second = e.receipt(first["id"])
        assert second["reason"] == "a request"
        assert e.admin.get(f"{e.of_directory}/holds/{hold}").json()["matter"] == "Doe v. Acme"
        yield Forgotten(e, place, erased, living, names, (first, second))
    assert service.stop() == 0


def running(service: Service) -> embedded.Cluster:
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    return cluster


def the_receipt_says_that_copies_were_readable_and_now_are_not(forgotten: Forgotten) -> None:
    before, after = (receipt["horizon"]["backups"] for receipt in forgotten.receipts)
    assert (before["state"], before["epochs"]) == ("readable", [1])
    assert "key destroy 1" in before["says"]
    assert (after["state"], after["epochs"]) == ("unreadable", [])


def stored(cluster: embedded.Cluster, subject: str) -> tuple[UUID, Seq, bytes, bytes]:
    """Directory, seq, ciphertext and wrapped key of somebody, as they stand in a copy."""
    with psycopg.connect(cluster.url(embedded.SUPERUSER, "ledger")) as conn:
        row = conn.execute(
            "select d.uuid, e.seq, b.ct, k.wrapped from ledger.events e join ledger.bodies b using (directory, seq)"
            " join ledger.subject_keys k on k.obj = e.obj join ledger.directories d on d.id = e.directory where e.obj = %s",
            (subject,),
        ).fetchone()
    assert row is not None
    return row


def opened(kek: Kek, subject: str, row: tuple[UUID, Seq, bytes, bytes]) -> bytes:
    directory, seq, ct, wrapped = row
    key = unwrap_key(kek, wrapped, directory=DirectoryUuid(directory), obj=UUID(subject))
    return open_payload(key, ct, directory=DirectoryUuid(directory), obj=UUID(subject), seq=seq)


def a_dump_from_before_opens_with_no_key_that_there_is_and_with_the_destroyed_one_it_does(forgotten: Forgotten) -> None:
    service = forgotten.e.service
    now = kek_at(running(service).url("ledger_app", "ledger"), [FileKeys(service.data_dir / "kek")])
    with postgres(forgotten.place / "dumped") as cluster:
        urls = loaded(cluster, forgotten.place / "before.dump")
        row = stored(cluster, forgotten.erased)
        for epoch in now.epochs:
            with pytest.raises(WrapError):
                opened(Kek({1: now.key(epoch)}, 1, {}), forgotten.erased, row)
        with pytest.raises(RootKeyLostError, match="was destroyed"):
            kek_at(urls.serve, [FileKeys(service.data_dir / "kek")])
        then = kek_at(
            urls.serve, [FileKeys(forgotten.place / "kek-of-before")]
        )  # the control: it is the root key that is missing
        assert forgotten.names["erased"].encode() in opened(then, forgotten.erased, row)


def living_people_are_fine_also_in_a_backup_from_after(
    forgotten: Forgotten, tmp_path: Path, make_service: Callable[..., Service]
) -> None:
    e = forgotten.e
    assert e.idp.get(f"{e.service.scim}/Users/{forgotten.living}").json()["userName"] == forgotten.names["living"]
    assert e.verified()[0] == 10
    there = tmp_path / "restored"
    there.mkdir()
    for name in ("kek", "first-run.json"):
        shutil.copy(e.service.data_dir / name, there / name)
    assert run(there, "restore", str(forgotten.place / "after")).returncode == 0
    with Erasing(make_service("restored")) as restored:
        assert restored.service.user_names() == {forgotten.names["living"]}
        assert [event["data"] for event in restored.events(subject=forgotten.erased)] == [{"erased": True}] * 3


def the_backup_from_before_is_refused(forgotten: Forgotten, tmp_path: Path) -> None:
    tmp_path.mkdir()
    (tmp_path / "kek").write_bytes((forgotten.e.service.data_dir / "kek").read_bytes())
    refused = run(tmp_path, "restore", str(forgotten.place / "before"))
    assert refused.returncode == 2
    assert "was destroyed" in refused.stderr


def no_copy_has_a_word_of_anybody_and_a_planted_word_is_found(forgotten: Forgotten, tmp_path: Path) -> None:
    """Dump, base backups and data directory with its WAL, in all forms of `erase scan`."""
    needles = tmp_path / "needles.txt"
    needles.write_text("\n".join(forgotten.names.values()) + "\n")
    service = forgotten.e.service
    with psycopg.connect(running(service).url(embedded.SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("select pg_switch_wal()")
    for copy in ("before", "after", "before.dump"):
        target = service.data_dir / f"copy-of-{copy}"
        source = forgotten.place / copy
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    done = service.cli("erase", "scan", "--needles", str(needles), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"found": []})
    planted = service.data_dir / "copy-of-before" / "planted"
    planted.write_text(forgotten.names["living"].upper())
    done = service.cli("erase", "scan", "--needles", str(needles), "--json")
    assert {one["place"] for one in json.loads(done.stdout)["found"]} == {str(planted)}
    planted.unlink()


def test_e5_of_a_person_who_was_erased_no_copy_can_be_read_once_the_epoch_is_destroyed(
    forgotten: Forgotten, tmp_path: Path, make_service: Callable[..., Service]
) -> None:
    """One test, because what it looks at takes half a minute to make."""
    the_receipt_says_that_copies_were_readable_and_now_are_not(forgotten)
    a_dump_from_before_opens_with_no_key_that_there_is_and_with_the_destroyed_one_it_does(forgotten)
    living_people_are_fine_also_in_a_backup_from_after(forgotten, tmp_path, make_service)
    the_backup_from_before_is_refused(forgotten, tmp_path / "refused")
    no_copy_has_a_word_of_anybody_and_a_planted_word_is_found(forgotten, tmp_path)
