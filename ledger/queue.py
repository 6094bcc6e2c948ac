"""The bounded, fair queue in front of the writer: which commands may share the next batch. Pure but for its own state."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ledger.transaction import Submission

BATCH_MAX = 64  # more gains no throughput over HTTP, and whoever comes next waits longer: for the batch, and for its answers
SHARE_MAX = 16  # of one directory where others write too: each waits for the rest of a batch and for one of its own
RECENT_BATCHES = 1_000  # a directory that asked for something within so many counts as one that writes: ten seconds of a storm
SHARE_BYTES_MAX = 512 * 1024  # of the requests of one directory in a batch: a tenth of a second of decisions and sealing
QUEUED_MAX = 1_000  # commands of one directory
QUEUED_BYTES_MAX = 64 * 2**20  # request bytes of one directory; one larger request is still taken by an empty queue
SCAN_MAX = 4 * BATCH_MAX  # how far a batch looks past commands that must wait


@dataclass(slots=True)
class _Line:
    """The waiting commands of one directory."""

    waiting: deque[Submission] = field(default_factory=deque[Submission])
    weight: int = 0


@dataclass(slots=True)
class _Touched:
    """What the commands of a batch, and those that wait before others, read and write."""

    reads: set[object] = field(default_factory=set[object])
    writes: set[object] = field(default_factory=set[object])

    def admits(self, submission: Submission) -> bool:
        needs = submission.needs
        return (
            self.writes.isdisjoint(needs.reads) and self.writes.isdisjoint(needs.writes) and self.reads.isdisjoint(needs.writes)
        )

    def add(self, submission: Submission) -> None:
        self.reads |= submission.needs.reads
        self.writes |= submission.needs.writes


class FairQueue:
    """Commands by directory. A directory in a storm takes its share of a batch and no more."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._count = 0
        self._batches = 0
        self._heard: dict[int, int] = {}  # the number of batches there had been when a directory last asked, oldest first

    def __len__(self) -> int:
        return self._count

    def put(self, submission: Submission) -> bool:
        """Take a command, or give False where the directory's line is full."""
        line = self._lines.setdefault(submission.directory.id, _Line())
        if line.waiting and (len(line.waiting) >= QUEUED_MAX or line.weight + submission.weight > QUEUED_BYTES_MAX):
            return False
        line.waiting.append(submission)
        line.weight += submission.weight
        self._count += 1
        self._heard.pop(submission.directory.id, None)
        self._heard[submission.directory.id] = self._batches
        return True

    def put_back(self, submissions: list[Submission]) -> None:
        """Return commands to the head of their lines, in order."""
        for submission in reversed(submissions):
            line = self._lines.setdefault(submission.directory.id, _Line())
            line.waiting.appendleft(submission)
            line.weight += submission.weight
            self._count += 1

    def drain(self) -> list[Submission]:
        """Take everything out."""
        lines, self._lines, self._count = self._lines, {}, 0
        return [submission for line in lines.values() for submission in line.waiting]

    def overdue(self, now: float) -> list[Submission]:
        """Take out what should have been begun by now."""
        found: list[Submission] = []
        for line in self._lines.values():
            late = [submission for submission in line.waiting if submission.until <= now]
            if late:
                line.waiting = deque(submission for submission in line.waiting if submission.until > now)
                line.weight -= sum(submission.weight for submission in late)
                found += late
        self._count -= len(found)
        return found

    def take(self, busy: set[int]) -> tuple[list[Submission], list[Submission]]:
        """Give (a batch, commands that run alone): round-robin over the directories that are not busy.

        Two commands that touch the same user, userName or edge never share a batch; a later one does not overtake an
        earlier one it conflicts with. A command that runs alone ends its directory's part of the batch.
        """
        batch: list[Submission] = []
        alone: list[Submission] = []
        open_lines = [directory for directory, line in self._lines.items() if line.waiting and directory not in busy]
        share = self._share(len(open_lines))
        for directory in open_lines:
            if len(batch) >= BATCH_MAX:
                break
            for submission in self._admitted(directory, share):
                (alone if submission.needs.alone else batch).append(submission)
            # To the back: the next batch begins with another directory.
            line = self._lines.pop(directory)
            if line.waiting:
                self._lines[directory] = line
        return batch, alone

    def _share(self, waiting: int) -> int:
        """How many commands of one directory the next batch takes: few where another may come at any moment."""
        self._batches += 1
        while self._heard and next(iter(self._heard.values())) < self._batches - RECENT_BATCHES:
            del self._heard[next(iter(self._heard))]
        share = max(1, BATCH_MAX // max(1, waiting))
        return share if len(self._heard) < 2 else min(share, SHARE_MAX)

    def _admitted(self, directory: int, share: int) -> Iterator[Submission]:
        line = self._lines[directory]
        touched, skipped, taken, room = _Touched(), list[Submission](), False, SHARE_BYTES_MAX
        for _ in range(min(len(line.waiting), SCAN_MAX)):
            if share == 0 or room <= 0:
                break
            submission = line.waiting.popleft()
            if submission.needs.alone and (skipped or taken):
                # Also after one that touches nothing: its lane would want the same lock.
                skipped.append(submission)
                break
            if touched.admits(submission):
                share -= 1
                room -= submission.weight
                line.weight -= submission.weight
                self._count -= 1
                touched.add(submission)
                taken = True
                yield submission
                if submission.needs.alone:
                    break
            else:
                skipped.append(submission)
                touched.add(submission)
        line.waiting.extendleft(reversed(skipped))
