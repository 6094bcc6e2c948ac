"""The list of erasures beside the root key: after a restore of an older backup, what it names is erased again before the service answers.

A backup has what was erased later. The list lies with the key, which is kept apart from backups: one line for each erasure, with ids only.
It is written before a receipt is complete; a start adds what a killed process did not.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import orjson
import structlog

from ledger.directories import Directory
from ledger.receipts import Listed, erased_among, listed_after
from operations.caller import Caller
from operations.erasures import erase_now
from operations.open_ledger import OpenLedger
from projections.history import ever_existed

AGAIN: Final = "erased again: a backup from before was restored"
AT_ONCE: Final = 10_000
_log = structlog.get_logger("runtime")


class _Line(NamedTuple):
    directory: UUID
    ot: str
    subject: UUID


class ErasureList:
    """The file. Several processes may add to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted = 0  # the number of the last erasure that is known to be in it

    def lines(self) -> list[_Line]:
        """What it names. A last line that was not written whole is left out."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        return list(_lines_of(text))

    async def note(self, ledger: OpenLedger) -> None:
        """Add the erasures that are not in it."""
        while True:
            async with ledger.connection() as conn:
                rows = await listed_after(conn, self._noted, AT_ONCE)
            if not rows:
                return
            self._add(rows)
            self._noted = rows[-1].number

    def _add(self, rows: list[Listed]) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            known = {line.subject for line in _lines_of(text)}
            missing = [row for row in rows if row.subject not in known]
            if text and not text.endswith(b"\n"):
                file.write(b"\n")  # a line that was not written whole
            file.writelines(
                orjson.dumps({"directory": row.directory, "type": row.ot, "id": row.subject, "at": row.at}) + b"\n"
                for row in missing
            )
            file.flush()
            os.fsync(file.fileno())

    async def erase_again(self, ledger: OpenLedger, caller: Callable[[], Caller]) -> int:
        """Erase what it names and the ledger still has. Returns how many; `caller` gives each a request of its own. A hold is no obstacle: its release was lost with the erasure."""
        lines = self.lines()
        async with ledger.connection() as conn:
            directories = {directory.uuid: directory for directory in await ledger.directories.all(conn)}
            done = await erased_among(conn, [line.subject for line in lines])
            left: list[tuple[Directory, _Line]] = []
            for line in lines:
                directory = directories.get(line.directory)  # pyright: ignore[reportArgumentType]  # a kind of UUID
                if (
                    line.subject not in done
                    and directory is not None
                    and await ever_existed(conn, directory, line.ot, line.subject)
                ):
                    left.append((directory, line))
        for directory, line in left:
            await erase_now(ledger, caller(), directory, line.ot, line.subject, AGAIN, over_holds=True)
        if left:
            _log.warning("erased_again", erasures=len(left))
        return len(left)


def _lines_of(text: bytes) -> Iterator[_Line]:
    for line in text.splitlines():
        try:
            fields = orjson.loads(line)
            yield _Line(UUID(fields["directory"]), fields["type"], UUID(fields["id"]))
        except (ValueError, LookupError, TypeError):
            _log.warning("erasure_list_line_unread")
