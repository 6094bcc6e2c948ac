"""Turn decided drafts into numbered, sealed and hashed events. Pure, given a source of randomness."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from ledger.directories import Directory
from ledger.events import Draft, Recorded, Stored
from ledger.ids import DirectoryNumber, Seq
from ledger.leaf import Commit, leaf_of
from ledger.sealing import KEY_SIZE, NONCE_SIZE, Kek, index_macs, seal_body, wrap_key
from ledger.state import BatchState
from proofs.leaf import leaf_hash


class Decided(NamedTuple):
    """The drafts of one command, and the document that the answer shows."""

    directory: Directory
    drafts: tuple[Draft, ...]
    document: dict[str, Any] | None
    actor: str
    request: UUID


class PlacedCommit(NamedTuple):
    """The seq range and time that a commit got in its directory."""

    directory: DirectoryNumber
    first_seq: Seq
    size: int
    types: int
    at: int
    etag_rv: int  # of the resource that the command changed, the object of the last event

    @property
    def last_seq(self) -> Seq:
        return Seq(self.first_seq + self.size - 1)


class NewKey(NamedTuple):
    """A subject key made in this batch, wrapped for storage."""

    obj: UUID
    directory: DirectoryNumber
    wrapped: bytes


@dataclass(slots=True)
class Built:
    """The rows that one piece of a batch adds to the log. A commit is in the piece that has its last event."""

    stored: list[Stored] = field(default_factory=list[Stored])
    commits: list[PlacedCommit] = field(default_factory=list[PlacedCommit])
    new_keys: list[NewKey] = field(default_factory=list[NewKey])


def build(
    decided: Sequence[Decided], state: BatchState, kek: Kek, random: Callable[[int], bytes], piece_events: int
) -> Iterator[Built]:
    """Number the events of a batch, stamp the time, build the leaves, seal the bodies; at most `piece_events` events at once.

    seq continues from the last event of the directory, rv from the last event of the resource. `at` is the time of the
    database's clock and never decreases.
    """
    return _Builder(state, kek, random, piece_events).pieces(decided)


class _Builder:
    """The numbers that the next event of a batch gets."""

    def __init__(self, state: BatchState, kek: Kek, random: Callable[[int], bytes], piece_events: int) -> None:
        self._state = state
        self._kek = kek
        self._random = random
        self._piece_events = piece_events
        self._piece = Built()

    def pieces(self, decided: Sequence[Decided]) -> Iterator[Built]:
        for item in decided:
            tail = self._state.tails[item.directory.id]
            first, at = Seq(tail.seq + 1), tail.now
            commit = Commit(
                item.directory.uuid, first, len(item.drafts), at, item.actor, item.request, item.directory.profile.text
            )
            types = etag_rv = 0
            for offset, draft in enumerate(item.drafts):
                if len(self._piece.stored) == self._piece_events:
                    full, self._piece = self._piece, Built()
                    yield full
                etag_rv = self._event(item.directory, commit, draft, Seq(first + offset))
                types |= draft.kind.bit
            tail.seq = Seq(tail.seq + commit.size)
            # The events after user.reactivated are about groups, but the answer needs the ETag of the user.
            if item.drafts[-1].moves_etag is False or item.drafts[-1].kind.membership:
                etag_rv = self._main_etag(item)
            self._piece.commits.append(PlacedCommit(item.directory.id, first, commit.size, types, at, etag_rv))
        if self._piece.stored:
            yield self._piece

    def _main_etag(self, item: Decided) -> int:
        main = next((draft.obj for draft in item.drafts if not draft.kind.membership), item.drafts[0].obj)
        return self._state.stream_tails[main][1]

    def _event(self, directory: Directory, commit: Commit, draft: Draft, seq: Seq) -> int:
        last_rv, last_etag = self._state.stream_tails.get(draft.obj, (0, 0))
        rv = last_rv + 1
        etag_rv = rv if draft.moves_etag else last_etag
        self._state.stream_tails[draft.obj] = (rv, etag_rv)
        cmt = ct_hash = ct = macs = None
        if draft.body is not None:
            key = self._key(directory, draft.obj)
            sealed = seal_body(key, draft.body, directory=directory.uuid, obj=draft.obj, seq=seq, random=self._random)
            cmt, ct_hash, ct = sealed.cmt, sealed.ct_hash, sealed.ct
            if draft.ot in {"User", "Group"}:
                macs = index_macs(directory.index_key, draft.ot, draft.body.key, draft.body.object)
        leaf = leaf_of(draft, commit, seq, rv, cmt, ct_hash)
        recorded = Recorded(
            directory.id, seq, draft.kind, draft.obj, rv, etag_rv, commit.at, draft.mem, draft.mt, draft.active, macs
        )
        self._piece.stored.append(Stored(recorded, leaf, leaf_hash(leaf), ct))
        return etag_rv

    def _key(self, directory: Directory, obj: UUID) -> bytes:
        key = self._state.keys.get(obj)
        if key is None:
            entropy = self._random(KEY_SIZE + NONCE_SIZE)
            key = entropy[:KEY_SIZE]
            wrapped = wrap_key(self._kek, key, directory=directory.uuid, obj=obj, nonce=entropy[KEY_SIZE:])
            self._state.keys[obj] = key
            self._piece.new_keys.append(NewKey(obj, directory.id, wrapped))
        return key
