"""The bounded, fair queue in front of the writer: which commands may share the next batch. Pure but for its own state."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ledger.ids import DirectoryNumber
from ledger.transaction import Submission

BATCH_MAX = 64  # commands; larger batches gain no throughput over HTTP, and the next command waits longer
SHARE_MAX = 16  # commands of one directory in a batch while other directories write: keeps their latency low
RECENT_BATCHES = 1_000  # a directory that queued a command within so many batches counts as writing: about ten seconds under load
SHARE_BYTES_MAX = 512 * 1024  # request bytes of one directory in a batch: a tenth of a second of deciding and sealing
QUEUED_MAX = 1_000  # waiting commands of one directory
QUEUED_BYTES_MAX = 64 * 2**20  # waiting request bytes of one directory; an empty line takes one larger request too
SCAN_MAX = 4 * BATCH_MAX  # commands of a line that a batch looks at, where some must wait


@dataclass(slots=True)
class _Line:
    """The waiting commands of one directory."""

    waiting: deque[Submission] = field(default_factory=deque[Submission])
    weight: int = 0


@dataclass(slots=True)
class _Touched:
    """The touch keys of the commands taken or skipped so far: a later command that conflicts with one of them must wait."""

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
    """One line of commands for each directory. However many commands a directory queues, it gets its share of a batch."""

    def __init__(self) -> None:
        self._lines: dict[DirectoryNumber, _Line] = {}
        self._count = 0
        self._batches = 0
        self._heard: dict[
            DirectoryNumber, int
        ] = {}  # directory -> number of batches taken before its latest command, in ascending order

    def __len__(self) -> int:
        return self._count

    def put(self, submission: Submission) -> bool:
        """Queue a command. Returns False if the directory's line is full."""
        line = self._lines.get(submission.directory.id)
        if line is None:
            line = self._lines[submission.directory.id] = _Line()
        if line.waiting and (len(line.waiting) >= QUEUED_MAX or line.weight + submission.weight > QUEUED_BYTES_MAX):
            return False
        line.waiting.append(submission)
        line.weight += submission.weight
        self._count += 1
        self._heard.pop(submission.directory.id, None)
        self._heard[submission.directory.id] = self._batches
        return True

    def put_back(self, submissions: list[Submission]) -> None:
        """Put commands back at the head of their lines, in their order."""
        for submission in reversed(submissions):
            line = self._lines.setdefault(submission.directory.id, _Line())
            line.waiting.appendleft(submission)
            line.weight += submission.weight
            self._count += 1

    def drain(self) -> list[Submission]:
        """Remove and return all commands."""
        lines, self._lines, self._count = self._lines, {}, 0
        return [submission for line in lines.values() for submission in line.waiting]

    def overdue(self, now: float) -> list[Submission]:
        """Remove and return the commands whose time to begin is over."""
        found: list[Submission] = []
        for line in self._lines.values():
            late = [submission for submission in line.waiting if submission.until <= now]
            if late:
                line.waiting = deque(submission for submission in line.waiting if submission.until > now)
                line.weight -= sum(submission.weight for submission in late)
                found += late
        self._count -= len(found)
        return found

    def take(self, busy: set[DirectoryNumber]) -> tuple[list[Submission], list[Submission]]:
        """Take (a batch, commands that run alone), round-robin over the directories that are not busy.

        Two commands that touch the same user, userName or membership never share a batch, and a command never overtakes an earlier
        one that it conflicts with. After a command that runs alone no more of its directory is taken.
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
            # The directory goes to the back, so that the next batch begins with another one.
            line = self._lines.pop(directory)
            if line.waiting:
                self._lines[directory] = line
        return batch, alone

    def _share(self, waiting: int) -> int:
        """How many commands the next batch takes of each directory. At most SHARE_MAX if several directories wrote recently."""
        self._batches += 1
        while self._heard and next(iter(self._heard.values())) < self._batches - RECENT_BATCHES:
            del self._heard[next(iter(self._heard))]
        share = max(1, BATCH_MAX // max(1, waiting))
        return share if len(self._heard) < 2 else min(share, SHARE_MAX)

    def _admitted(self, directory: DirectoryNumber, share: int) -> Iterator[Submission]:
        line = self._lines[directory]
        touched, skipped, taken, room = _Touched(), list[Submission](), False, SHARE_BYTES_MAX
        for _ in range(min(len(line.waiting), SCAN_MAX)):
            if share == 0 or room <= 0:
                break
            submission = line.waiting.popleft()
            if submission.needs.alone and (skipped or taken):
                # Both would need the directory's lock at the same time, even if they have no touch key in common.
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
