"""Back up the embedded PostgreSQL while it runs, and restore such a backup. Both check what they made by starting it.

BACKUP/backup.json    what it is of, and which key opens it
BACKUP/data           the cluster as pg_basebackup wrote it, with the WAL that makes it consistent and a manifest of checksums
"""

import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypedDict
from uuid import UUID

import psycopg

from database.connections import BoundedThread
from database.deadlines import with_deadlines
from database.queries import load_queries
from ledger.ids import DirectoryUuid
from ledger.key_epochs import Epoch, Provider, domain_place, key_of
from ledger.private_files import write_private
from ledger.rewrapping import count_up_to
from ledger.root_keys.local import FileKeys
from ledger.root_keys.provider import RootKeyError, RootKeyLostError, RootKeys
from ledger.sealed_columns import NOTES, WRAPPED
from ledger.sealing import BACKUP_SEAL, Kek, key_id, unwrap_key
from runtime import embedded
from runtime.bootstrap import DATABASE, StartError
from runtime.exits import FINDING, CommandError
from runtime.failures import explained
from runtime.machine_database import main_settings, running_urls
from runtime.root_key import providers_of
from runtime.served_settings import as_served
from runtime.settings import Settings
from runtime.upkeep import Bar, Progress

SQL: Final = load_queries(__file__)
FORMAT: Final = 2
_BEFORE_EPOCHS: Final = 1
_FIELD_KINDS: Final[Mapping[str, type]] = {"format": int, "position": int, "postgresql": int, "epochs": list}
_EPOCH_KINDS: Final = {"epoch": int, "provider": str, "root": str, "key_id": str, "wrapped": str}
_POSITION_MAX: Final = 2**63
# A trial must not archive: it would write other WAL under names that the real server uses.
_OTHER_KEY: Final = "The key in {} has id {}, but the backup was written with key {}. Point LEDGER_KEK_FILE at the right file."
QUIET: Final[Mapping[str, str]] = {
    "archive_mode": "off",
    "restore_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
}
PROGRESS_S: Final = 0.3
_BY_URL: Final = (
    "This ledger is in a PostgreSQL of your own (LEDGER_DATABASE_URL): use pg_basebackup or pg_dump there, or what its provider offers, and "
    "keep the key file apart (docs/operations.md). This command is for the embedded PostgreSQL."
)


class EpochOf(TypedDict):
    """A key epoch in a backup: which root key of which provider opens it, and its wrapped key in hexadecimal digits."""

    epoch: int
    provider: Provider
    root: str
    key_id: str
    wrapped: str


@dataclass(frozen=True, slots=True)
class Backup:
    """What backup.json says. The backup has all events up to `position` at least; `leaf_hash` is the event there."""

    format: int
    ledger: str
    key_id: str
    position: int
    leaf_hash: str | None
    made_at: str
    release: str
    postgresql: int  # its major version
    epochs: list[EpochOf]  # the key epochs that were not destroyed; which root keys it needs
    seal_key: str  # the key of the seal, wrapped
    seal: str = ""  # HMAC over the rest and the manifest, with a key from the ledger's key: only who has that key can make one


def backup_here(target: Path, bar: Bar, *, trial: bool) -> tuple[Backup, int]:
    """Back up the embedded PostgreSQL into a new directory. Returns what it is of, and its size in bytes.

    `trial`: also start a copy of it, which needs as much room again for a while. Raises CommandError and StartError.
    """
    settings = as_served(main_settings())
    with explained(settings), _embedded_only(settings), _ended_in_order(), _on_disk(target):
        _refuse_used(target)
        with running_urls(settings), _draft_beside(target) as draft:
            cluster = _cluster(settings)
            with BoundedThread.connect(with_deadlines(cluster.url(embedded.SUPERUSER, DATABASE)), autocommit=True) as conn:
                made = _facts(conn)
                _check_room(draft.parent, _bytes_below(cluster.data_dir / "data") * (2 if trial else 1))
                kek = _keys_of(made, settings)
                with bar("backing up") as progress:
                    _copy_running(cluster, draft, conn, progress)
            _check_files(draft / "data", bar)
            if trial:
                _try(draft, made, kek, bar)
            made = replace(made, seal=_seal_of(kek, made, draft / "data"))
            write_private(draft / "backup.json", json.dumps(asdict(made), indent=1) + "\n")
            size = _bytes_below(draft)
            draft.rename(target)
    return made, size


def restore_here(source: Path, bar: Bar) -> tuple[Backup, int]:
    """Restore a backup into the data directory, which has no ledger yet. Returns what it is of, and the last position that it has.

    Raises CommandError and StartError before anything is copied if the key is another one, or the backup is damaged.
    """
    settings = main_settings()
    place = settings.data_dir.absolute() / "postgres"
    with explained(settings), _embedded_only(settings), _ended_in_order(), embedded.in_words(settings.data_dir):
        known = read_backup(source)
        if (place / "data").exists():
            raise StartError(
                f"There is a ledger in {settings.data_dir}. Restore into an empty LEDGER_DATA_DIR, or move that one away first."
            )
        kek = _keys_of(known, settings)
        _check_files(source / "data", bar)
        if not hmac.compare_digest(known.seal, _seal_of(kek, known, source / "data")):
            raise CommandError(
                f"{source} was not made with this ledger's key: backup.json or the manifest was changed. Nothing was copied.",
                FINDING,
            )
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_room(place, _bytes_below(source))
        with _draft_beside(place / "data") as draft:
            with bar("copying") as progress:
                _copy(source / "data", draft / "data", progress)
            _disarm(draft / "data")
            embedded.adopt(draft / "data")
            head = _head_after_start(draft, known, kek, bar)
            (draft / "data").rename(place / "data")  # fails if a service began one there meanwhile: nothing of it is touched
    return known, head


def read_backup(source: Path) -> Backup:
    """What a directory is a backup of. Raises CommandError if it is none."""
    try:
        found: Any = json.loads((source / "backup.json").read_text(encoding="utf-8"))
        if found.get("format") == _BEFORE_EPOCHS:
            found |= {"epochs": [], "seal_key": ""}
        wrong_kind = [
            name for name, value in found.items() if type(value) is not _FIELD_KINDS.get(name, str) and name != "leaf_hash"
        ]
        wrong_kind += [str(one) for one in found["epochs"] if {name: type(value) for name, value in one.items()} != _EPOCH_KINDS]
        if wrong_kind or not 0 <= found["position"] < _POSITION_MAX:
            raise ValueError(wrong_kind)
        known = Backup(**found)
        bytes.fromhex(known.key_id)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as wrong:
        raise CommandError(
            f"{source} is not a backup of `scim-ledger backup`: it has no readable backup.json.", FINDING
        ) from wrong
    if known.format not in (_BEFORE_EPOCHS, FORMAT):
        raise CommandError(f"{source} is a backup of a later release ({known.release}). Restore it with that release.", FINDING)
    return known


@contextmanager
def _embedded_only(settings: Settings) -> Generator[None]:
    if settings.database_url is not None:
        raise StartError(_BY_URL)
    try:
        yield
    except embedded.EmbeddedPostgresError as broken:
        raise StartError(str(broken)) from broken


def _refuse_used(target: Path) -> None:
    if os.path.lexists(target):
        raise StartError(f"{target} exists. Name a directory that does not: a backup never replaces another one.")
    if not target.absolute().parent.is_dir():
        raise StartError(f"{target.absolute().parent} is no directory. Make it first: a backup belongs on another disk.")


@contextmanager
def _draft_beside(target: Path) -> Generator[Path]:
    """A new directory beside the target, of its owner alone. What is interrupted or refused leaves nothing of it behind."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _ended_in_order() -> Generator[None]:
    """End at SIGTERM and SIGHUP as at Ctrl-C: what was started is stopped, and what was begun is removed."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _on_disk(target: Path) -> Generator[None]:
    """Turn an OSError at the target into a sentence about it."""
    try:
        yield
    except OSError as refused:
        raise StartError(f"{target} cannot be written ({refused.strerror}). Nothing of it was kept.") from refused


def _seal_of(kek: Kek, backup: Backup, data: Path) -> str:
    """The HMAC of a backup: the manifest has a SHA-256 of each file, so it covers all of them."""
    known = asdict(replace(backup, seal=""))
    if backup.format == _BEFORE_EPOCHS:
        known = {name: value for name, value in known.items() if name not in ("epochs", "seal_key")}
    facts = json.dumps(known, sort_keys=True).encode()
    return kek.mac(BACKUP_SEAL, hashlib.sha256((data / "backup_manifest").read_bytes()).digest() + facts).hex()


def _keys_of(backup: Backup, settings: Settings) -> Kek:
    """Open the keys that a backup needs. Raises StartError, which names the root key that is missing or another one."""
    ledger, found = UUID(backup.ledger), backup.epochs
    try:
        if not found:  # made before key epochs
            key = FileKeys(settings.kek_path).key("1")
            if key_id(key).hex() != backup.key_id:
                raise RootKeyError(_OTHER_KEY.format(settings.kek_path, key_id(key).hex(), backup.key_id))
            return Kek.of(key)
        keys = _opened_of(found, providers_of(settings), ledger)
    except RootKeyError as refused:
        raise StartError(f"{refused} Nothing was copied.") from refused
    kek = Kek(keys, max(keys), {})
    seal_key = unwrap_key(kek, bytes.fromhex(backup.seal_key), directory=DirectoryUuid(ledger), obj=domain_place(BACKUP_SEAL))
    return Kek(keys, max(keys), {BACKUP_SEAL: seal_key})


def _opened_of(found: Sequence[EpochOf], providers: Sequence[RootKeys], ledger: UUID) -> dict[int, bytes]:
    """The keys of the epochs, the last one first: an earlier one may be destroyed since, if nothing in the backup is sealed in it."""
    keys: dict[int, bytes] = {}
    for one in reversed(found):
        try:
            keys[one["epoch"]] = key_of(providers, ledger, _epoch(one))
        except RootKeyLostError:
            if not keys:
                raise
    return keys


def _epoch(one: EpochOf) -> Epoch:
    made = datetime.min.replace(tzinfo=UTC)
    return Epoch(
        one["epoch"],
        bytes.fromhex(one["key_id"]),
        one["provider"],
        one["root"],
        bytes.fromhex(one["wrapped"]),
        made,
        None,
        None,
        None,
    )


def _refuse_lost(conn: psycopg.Connection[Any], known: Backup, opened: Kek) -> None:
    """Raise CommandError if something is sealed in an epoch whose root key is gone."""
    for epoch in {one["epoch"] for one in known.epochs} - set(opened.epochs):
        for column in (*WRAPPED, *NOTES):
            row = conn.execute(count_up_to(column, epoch)).fetchone()
            if row is not None and row[0]:
                raise CommandError(
                    f"The backup was made before everything was moved out of key epoch {epoch}, whose root key is gone: {row[0]} of "
                    f"{column.table}.{column.column} can never be read again. Restore a later backup.",
                    FINDING,
                )


def _cluster(settings: Settings) -> embedded.Cluster:
    running = embedded.running(settings.data_dir.absolute() / "postgres")
    if running is None:
        raise StartError("The embedded PostgreSQL ended just now. Run the command again.")
    return running


def _facts(conn: psycopg.Connection[Any]) -> Backup:
    row = psycopg.RawCursor(conn).execute(SQL["facts"], (BACKUP_SEAL,)).fetchone()
    assert row is not None, "made at first start"
    ledger, key, position, leaf, now, server, epochs, seal_key = row
    leaf_hash = bytes(leaf).hex() if leaf is not None else None
    return Backup(
        FORMAT,
        str(ledger),
        bytes(key).hex(),
        position,
        leaf_hash,
        f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        version("scim-ledger"),
        server // 10_000,
        epochs,
        bytes(seal_key).hex(),
    )


def _bytes_below(data: Path) -> int:
    """Bytes of the files below a directory. Files of a running cluster may be gone meanwhile."""
    size = 0
    for path in data.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _check_room(place: Path, needed: int) -> None:
    room = embedded.free_bytes(place) - embedded.FREE_BYTES_MIN
    if room < needed:
        raise StartError(
            f"{place} has {max(room, 0) // 2**20} MiB to spare, and {needed // 2**20 + 1} are needed. Nothing was copied."
        )


def _copy_running(cluster: embedded.Cluster, draft: Path, conn: psycopg.Connection[Any], progress: Progress) -> None:
    """Copy the cluster with pg_basebackup, and stream the WAL meanwhile. Its manifest has a SHA-256 of every file."""
    command = [
        str(embedded.program("pg_basebackup")), f"--pgdata={draft / 'data'}", "--wal-method=stream", "--checkpoint=fast", "--progress",
        "--manifest-checksums=SHA256", "--no-password", f"--host={cluster.socket_dir}", f"--port={cluster.port}", f"--username={embedded.SUPERUSER}",
    ]  # fmt: skip
    with ExitStack() as parts:
        log = parts.enter_context((draft / "pg_basebackup.log").open("wb"))
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - our program and options
        process = parts.enter_context(_ended(started))
        while process.poll() is None:
            row = conn.execute(SQL["progress"]).fetchone()
            streamed, total = row or (0, None)
            if total:
                progress(streamed, total)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PROGRESS_S)
    _check_exit(process.returncode, draft / "pg_basebackup.log", "The backup could not be made.")


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Generator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _check_exit(code: int, log: Path, what: str) -> None:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    log.unlink()
    if code:
        raise CommandError(f"{what} {text.splitlines()[-1] if text else f'exit code {code}'}", FINDING)


def _disarm(data: Path) -> None:
    """Take out what no manifest covers and what would make a server run commands: ALTER SYSTEM settings and recovery signals."""
    (data / "postgresql.auto.conf").write_text("", encoding="ascii")
    for name in ("standby.signal", "recovery.signal"):
        (data / name).unlink(missing_ok=True)


def _refuse_links(data: Path) -> None:
    """A backup has files only. A link would lead the copy, or the server, out of it."""
    links = [path for path in (data, *data.rglob("*")) if path.is_symlink()]
    if links:
        raise CommandError(f"The backup has a link, {links[0]}: it was changed. Nothing was copied.", FINDING)


def _check_files(data: Path, bar: Bar) -> None:
    """Compare every file with the manifest, and read the WAL. Raises CommandError."""
    _refuse_links(data)
    with bar("checking") as progress:
        progress.waits("every file against its checksum")
        command = [str(embedded.program("pg_verifybackup")), "--quiet", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our program
    if done.returncode:
        lines = [line.removeprefix("pg_verifybackup: ") for line in done.stderr.splitlines()]
        raise CommandError(f"The backup in {data} is damaged: {'; '.join(lines[:3])}. Nothing was changed.", FINDING)


def _try(draft: Path, made: Backup, kek: Kek, bar: Bar) -> None:
    """Start a copy: only a server that has recovered shows that a backup can be restored."""
    trial = draft / "trial"
    try:
        with bar("copying for a trial start") as progress:
            _copy(draft / "data", trial / "data", progress)
        _disarm(trial / "data")
        embedded.adopt(trial / "data")
        _head_after_start(trial, made, kek, bar)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _copy(source: Path, target: Path, progress: Progress) -> None:
    files = [path for path in source.rglob("*") if path.is_file()]
    done, total = 0, sum(path.stat().st_size for path in files)

    def copy(one: str, other: str) -> None:
        nonlocal done
        shutil.copy2(one, other)
        done += Path(other).stat().st_size
        progress(done, total)

    shutil.copytree(source, target, copy_function=copy)


def _head_after_start(place: Path, known: Backup, opened: Kek, bar: Bar) -> int:
    """Start the cluster there, compare its log with what the backup is of, stop it; returns its last position."""
    with bar("starting it") as progress:
        progress.waits("recovery from its WAL")
        cluster = embedded.start(place, settings=QUIET, report=progress.waits)
        try:
            with BoundedThread.connect(with_deadlines(cluster.url(embedded.SUPERUSER, DATABASE)), autocommit=True) as conn:
                found = psycopg.RawCursor(conn).execute(SQL["recovered"], (known.position,)).fetchone()
                _refuse_lost(conn, known, opened)
        finally:
            embedded.stop(cluster)
    assert found is not None
    ledger, key, head, leaf = found
    if (str(ledger), bytes(key).hex(), None if leaf is None else bytes(leaf).hex()) != (
        known.ledger,
        known.key_id,
        known.leaf_hash,
    ):
        raise CommandError("The log in the backup is not the one that backup.json names: it must not be used.", FINDING)
    return head
