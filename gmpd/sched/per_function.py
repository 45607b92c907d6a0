"""Outcomes, waits and run times of the jobs of each function, as plain integers.

The figures of all jobs are the sums over these, so that the two agree, and nothing is counted
twice. The table is bounded: the functions that took least time are folded into one row, ``_other``.

Of those in the table the busiest are *listed*: shown by name, the others as part of ``_other``. A
function that is listed later than others begins at 0 then, as no shown figure may fall: what it had
counted before stays with ``_other``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from gmpd.protocol import Outcome
from gmpd.sched.histogram import BUCKETS, Histogram

#: Rows of the table, about 1 kB each; and how many are folded when there are more.
ROWS_MAX: Final = 256
FOLDED: Final = 64
#: Functions that are shown by name.
LISTED_MAX: Final = 100
#: Fewer jobs are counted one by one, which then is cheaper.
COLUMN_MIN: Final = 4
#: A result from which on it is counted as large. Smaller ones are not counted at all: most jobs
#: have none worth it.
LARGE_BYTES: Final = 1 << 20
#: The name of the row of all others.
OTHER: Final = "_other"
#: Characters of a name: of a longer one the end, which has the function.
NAME_MAX: Final = 120

_OK: Final = int(Outcome.OK)
_LABELS: Final = [outcome.name.lower() for outcome in Outcome]


class FunctionCounts:
    """One function. ``finished`` has a number for each ``Outcome``."""

    __slots__ = ("before", "finished", "is_folded", "is_listed", "large", "large_bytes", "largest",
                 "name", "occupied_ns", "run", "wait")  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished = [0] * len(Outcome)
        self.wait = Histogram()
        self.run = Histogram()
        #: Time on a P.
        self.occupied_ns = 0
        #: Results of ``LARGE_BYTES`` or more: how many, their bytes, and the largest one's.
        self.large = self.large_bytes = self.largest = 0
        self.is_listed = False
        #: Its counts when it was listed, if that was not at once.
        self.before: FunctionCounts | None = None
        #: It is part of ``_other``: count in a new row.
        self.is_folded = False

    def __repr__(self) -> str:
        return f"<FunctionCounts of {self.name!r}: {dict(self.outcomes())}>"

    def outcomes(self) -> Counter[str]:
        """Its ended jobs by outcome, those that occurred."""
        rows = zip(_LABELS, self.finished, strict=True)
        return Counter({label: n for label, n in rows if n})

    def add_from(self, other: FunctionCounts, sign: int = 1) -> None:
        """Count what another row has counted; ``sign`` -1: take it away again."""
        pairs = zip(self.finished, other.finished, strict=True)
        self.finished = [mine + sign * theirs for mine, theirs in pairs]
        self.wait.add_from(other.wait, sign)
        self.run.add_from(other.run, sign)
        self.occupied_ns += sign * other.occupied_ns
        self.large += sign * other.large
        self.large_bytes += sign * other.large_bytes
        self.largest = max(self.largest, other.largest)  # of all time: nothing is taken from it

    def add_large(self, nbytes: int) -> None:
        """Count a large result."""
        self.large += 1
        self.large_bytes += nbytes
        self.largest = max(self.largest, nbytes)

    def copy(self) -> FunctionCounts:
        """Its counts now."""
        same = FunctionCounts(self.name)
        same.add_from(self)
        return same

    def shown(self) -> FunctionCounts:
        """Its counts since it was listed."""
        if self.before is None:
            return self
        since = self.copy()
        since.add_from(self.before, -1)
        return since


class Counted(Protocol):
    """A function, as it is counted."""

    name: str
    counts: FunctionCounts | None


class PerFunction:
    """The table. Functions with one name are one row."""

    def __init__(self) -> None:
        self._rows: dict[str, FunctionCounts] = {}
        self._other = FunctionCounts(OTHER)

    def __repr__(self) -> str:
        return f"<PerFunction: {len(self._rows)} rows>"

    def __iter__(self) -> Iterator[FunctionCounts]:
        yield from self._rows.values()
        yield self._other

    def of(self, fn: Counted) -> FunctionCounts:
        """The row of a function."""
        counts = fn.counts
        if counts is None or counts.is_folded:
            counts = fn.counts = self.named(fn.name)
        return counts

    def named(self, name: str) -> FunctionCounts:
        """The row of the functions with this name."""
        if len(name) > NAME_MAX:
            name = f"…{name[1 - NAME_MAX :]}"
        if name == OTHER:
            return self._other
        if name not in self._rows:
            if len(self._rows) >= ROWS_MAX:
                self._fold()
            self._rows[name] = FunctionCounts(name)
        return self._rows[name]

    def _fold(self) -> None:
        """Fold the functions that took least time, and are not listed, into one."""
        for row in sorted(self._rows.values(), key=lambda row: (row.is_listed, row.run.sum_ns))[
            :FOLDED
        ]:
            self._other.add_from(row)
            row.is_folded = True
            del self._rows[row.name]

    def add_plain(
        self,
        fns: Sequence[Counted],
        waits_ns: Sequence[int],
        runs_ns: Sequence[int],
        occupied_us: Sequence[int],
    ) -> None:
        """Jobs that are OK, a column at a time. Mostly they are of one function."""
        if len(fns) >= COLUMN_MIN and fns.count(fns[0]) == len(fns):
            _add(self.of(fns[0]), waits_ns, runs_ns, sum(occupied_us))
            return
        for fn, wait_ns, run_ns, us in zip(fns, waits_ns, runs_ns, occupied_us, strict=True):
            row = fn.counts
            if row is None or row.is_folded:
                row = self.of(fn)
            row.finished[_OK] += 1
            row.occupied_ns += us * 1000
            # ``Histogram.add``, twice: the calls would cost as much as all of this.
            if wait_ns < 0:
                wait_ns = 0
            bits = wait_ns.bit_length()
            row.wait.buckets[bits if bits < BUCKETS else -1] += 1
            row.wait.sum_ns += wait_ns
            bits = run_ns.bit_length()
            row.run.buckets[bits if bits < BUCKETS else -1] += 1
            row.run.sum_ns += run_ns

    def total(self) -> FunctionCounts:
        """Counts of all jobs."""
        return _sum_of(self)

    def shown(self) -> list[FunctionCounts]:
        """The busiest by name, the most time first, and the others as one, if there are any."""
        self._list()
        rows = [row.shown() for row in self._rows.values() if row.is_listed]
        rows.sort(key=lambda row: row.run.sum_ns, reverse=True)
        other = self.total()
        other.name = OTHER
        for row in rows:
            other.add_from(row, -1)
        return [*rows, other] if any(other.finished) or other.occupied_ns else rows

    def _list(self) -> None:
        """List the busiest. One that is listed gives way to one that took twice its time."""
        rows = sorted(self._rows.values(), key=lambda row: row.run.sum_ns, reverse=True)
        waiting = [row for row in rows if not row.is_listed]
        listed = [row for row in rows if row.is_listed]
        for row in waiting:
            if len(listed) >= LISTED_MAX:
                least = listed[-1]
                if row.run.sum_ns <= 2 * least.run.sum_ns:
                    return
                listed.pop()
                least.is_listed, least.before = False, None
                row.before = row.copy()
                listed.insert(0, row)
            else:
                listed.append(row)
            row.is_listed = True


def _add(
    row: FunctionCounts, waits_ns: Iterable[int], runs_ns: Sequence[int], occupied_us: int
) -> None:
    row.finished[_OK] += len(runs_ns)
    row.wait.add_all(waits_ns)
    row.run.add_all(runs_ns)
    row.occupied_ns += occupied_us * 1000


def _sum_of(rows: Iterable[FunctionCounts]) -> FunctionCounts:
    total = FunctionCounts("")
    for row in rows:
        total.add_from(row)
    return total
