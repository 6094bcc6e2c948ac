"""What the commit of erasures deletes, and the rows of their receipts. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

from database.arrays import byteas, int2s, int4s, int8s, texts, uuids
from database.queries import load_queries
from ledger.commands import Erasable, Erase, Statement
from ledger.events import MEMBER_TYPES
from ledger.ids import DirectoryNumber, Seq

SQL: Final = load_queries(__file__)


class Erased(NamedTuple):
    """One erasure of a batch: its command, what it found, the seq of its event, and the epoch of key-encryption keys."""

    directory: DirectoryNumber
    command: Erase
    found: Erasable
    seq: Seq
    size: int  # events of its commit
    epoch: int


def deletions(erased: Sequence[Erased]) -> list[Statement]:
    """The statements that delete all that only the subjects have.

    Bodies and keys are deleted as ledger_eraser, which ledger_app becomes for these two statements: a trigger refuses anybody else.
    """
    if not erased:
        return []
    subjects = uuids([each.command.subject for each in erased])
    placed = int4s([each.directory for each in erased]), subjects
    return [
        (SQL["delete_requests_about"], (subjects,)),
        (SQL["forget_answers_about"], placed),
        (SQL["forget_matters_about"], (subjects,)),
        (SQL["become_eraser"], ()),
        (SQL["delete_bodies_of"], placed),
        (SQL["delete_keys_of"], (subjects,)),
        (SQL["become_oneself"], ()),
    ]


def receipts(erased: Sequence[Erased]) -> list[Statement]:
    """The statement that inserts the rows of erasures. It runs under the ledger's lock."""
    if not erased:
        return []
    commands = [each.command for each in erased]
    rows = (
        uuids([command.erasure for command in commands]), int4s([each.directory for each in erased]), uuids([command.subject for command in commands]),
        int2s([MEMBER_TYPES[command.ot] for command in commands]), int8s([each.seq for each in erased]), byteas([command.sealed_reason for command in commands]),
        texts([_counts(each) for each in erased]),
    )  # fmt: skip
    return [(SQL["insert_erasures"], rows)]


def _counts(each: Erased) -> str:
    """What is deleted and what stays, with the epoch, as JSON."""
    counts = {**each.found.counts, "deleted": each.found.living, "epoch": each.epoch}
    counts["leaves"] += each.size  # all of them are about the subject
    return orjson.dumps(counts).decode()
