"""The coordinator's counters: plain integers, cumulative since it began.

Nothing here knows Prometheus; the gateway makes metrics of it. A log2 bucket costs 80 ns, a
client library's histogram fifteen times that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: Values up to 2**47 ns (39 hours) have a bucket of their own; the last takes what is longer.
BUCKETS = 48


class Histogram:
    """Bucket ``k`` counts values of ``k`` bits, i.e. below ``2**k`` nanoseconds."""

    __slots__ = ("buckets", "sum_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.sum_ns = 0

    def add(self, value_ns: int) -> None:
        """Count one value; a negative one (clocks of two processes) counts as zero."""
        if value_ns < 0:
            value_ns = 0
        try:
            self.buckets[value_ns.bit_length()] += 1
        except IndexError:
            self.buckets[-1] += 1
        self.sum_ns += value_ns

    def add_all(self, values_ns: Iterable[int]) -> None:
        """Count many: one by one, the calls would cost more than the counting."""
        buckets, sum_ns = self.buckets, self.sum_ns
        for value_ns in values_ns:
            if value_ns > 0:
                sum_ns += value_ns
                bits = value_ns.bit_length()
                buckets[bits if bits < BUCKETS else -1] += 1
            else:
                buckets[0] += 1
        self.sum_ns = sum_ns

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} values, {self.sum_ns} ns in all>"

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.buckets)


class Counters:
    """Counters of the policy; labels are small closed sets."""

    __slots__ = (
        "children",
        "dropped",
        "finished",
        "occupied",
        "overran",
        "rejected",
        "retried",
        "run",
        "steal",
        "submitted",
        "wait",
    )

    def __init__(self) -> None:
        self.submitted = 0
        #: Children of Gs that left their worker. They are no jobs: nothing else here counts them.
        self.children = 0
        #: Attempts that ran on past their time limit.
        self.overran = 0
        self.finished: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.wait = Histogram()
        self.run = Histogram()
        self.occupied = Histogram()
        self.steal = Histogram()

    def __repr__(self) -> str:
        names = ("submitted", "children", "overran", "finished", "rejected", "retried", "dropped")
        return f"<Counters {', '.join(f'{name} {_plain(getattr(self, name))}' for name in names)}>"


def _plain(count: int | Counter[str]) -> str:
    return str(count if isinstance(count, int) else dict(count))
