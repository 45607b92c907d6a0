"""How much is sent to a host, and when its answers come back: pure arithmetic.

**The tension.** Each exchange costs the engine about a millisecond of CPU time in three processes,
whatever it carries, so it should carry much. A job that waits for others to fill a batch is late,
and a job that was sent cannot be taken back for a P that is idle.

**Chosen.** Nothing waits to fill a batch on its way there: what has gathered while the last two
exchanges were away is the batch; but a host that has enough to do gets more when it has done a
part of that. On the way back outcomes gather for a part of the time that the
host needs for the rest of its work, up to ``GATHER_MAX_S``. A host holds as much unbegun work as it
needs until the next batch can come (``AHEAD_NS`` for each core), at least one job for each core.
"""

from __future__ import annotations

from collections import deque

#: Unbegun work that each core of a host is to have: about twice the way there and back.
AHEAD_NS = 120_000_000
#: Unbegun jobs at a host, at most, however short.
AHEAD_JOBS = 16_384
#: Bytes of arguments in one exchange; a single larger job has one for itself.
BATCH_BYTES = 8 << 20
#: Outcomes gather no longer than this.
GATHER_MAX_S = 0.04
#: Little more is sent while a host has most of that, and work for every core.
WORTH = 4
#: Exchanges on their way to one host.
EXCHANGES_MAX = 2


class Ahead:
    """The unbegun work of a host, by estimates that are learned from run times."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        #: Running averages by function, of the whole run time: a job that blocks is told to have
        #: begun, and does not count any more.
        self._run_ns: dict[int, int] = {}
        self.jobs = 0
        self.ns = 0

    def est_ns(self, fid: int) -> int:
        """The estimate of a job of this function."""
        return min(self._run_ns.get(fid, AHEAD_NS), AHEAD_NS)

    def learn(self, fid: int, ran_ns: int) -> None:
        """A job of it has ended."""
        before = self._run_ns.get(fid)
        self._run_ns[fid] = ran_ns if before is None else before + ((ran_ns - before) >> 3)

    def forget(self, fid: int) -> None:
        """No more jobs of it will come."""
        self._run_ns.pop(fid, None)

    def room(self, fid: int) -> int:
        """How many more jobs of this function may be sent now."""
        most_ns = AHEAD_NS * self.cores
        left_ns = most_ns - self.ns
        if left_ns * WORTH < most_ns and self.jobs >= self.cores:
            return 0
        free = left_ns // max(1, self.est_ns(fid))
        return max(0, min(max(free, self.cores - self.jobs), AHEAD_JOBS - self.jobs))

    def sent(self, ests_ns: int, jobs: int) -> None:
        """So much was sent, and has not begun as far as is known."""
        self.ns += ests_ns
        self.jobs += jobs

    def begun(self, ests_ns: int, jobs: int) -> None:
        """So much of it has begun, or ended."""
        self.ns -= ests_ns
        self.jobs -= jobs

    def gather_s(self) -> float:
        """For how long the host lets outcomes gather: a third of what it still has to do."""
        return min(GATHER_MAX_S, self.ns / self.cores / 3e9)


class Numbered:
    """Messages in one direction: kept by the sender until the receiver has them."""

    def __init__(self) -> None:
        #: The number of the first that is kept.
        self.first = 0
        self._kept: deque[list[bytes]] = deque()

    @property
    def end(self) -> int:
        """The number of the next one."""
        return self.first + len(self._kept)

    def add(self, message: list[bytes]) -> None:
        """Keep one more."""
        self._kept.append(message)

    def got(self, number: int) -> None:
        """The receiver has all before this one."""
        while self.first < number and self._kept:
            self._kept.popleft()
            self.first += 1

    def since(self, number: int, nbytes: int) -> list[list[bytes]]:
        """The messages from this one on: about as many bytes, one message at least."""
        found: list[list[bytes]] = []
        size = 0
        for at in range(max(0, number - self.first), len(self._kept)):
            message = self._kept[at]
            size += sum(map(len, message))
            if found and size > nbytes:
                break
            found.append(message)
        return found
