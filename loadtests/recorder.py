"""Latencies below a millisecond, and the verdict on a run.

Locust rounds response times to whole milliseconds, so a round trip of 0.3 ms is shown as 0. This
keeps them in buckets 3 % wide, in constant memory, and adds up what several processes saw. Knows
nothing of locust or gmpd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Buckets per power of two: the answer is off by at most 1/32, about 3 %.
SUB_BUCKETS = 32


def bucket_of(ns: int) -> int:
    """The bucket of a duration: exact below 64 ns, then 32 buckets to each power of two."""
    shift = max(0, ns.bit_length() - 6)
    return shift * SUB_BUCKETS + (ns >> shift)


def upper_ns(bucket: int) -> int:
    """The largest duration in a bucket."""
    shift = max(0, bucket // SUB_BUCKETS - 1)
    return ((bucket - shift * SUB_BUCKETS + 1) << shift) - 1


@dataclass(slots=True)
class Latencies:
    """Durations of one kind of job."""

    counts: dict[int, int] = field(default_factory=dict)
    count: int = 0
    failures: int = 0
    max_ns: int = 0

    def add(self, ns: int, *, failed: bool = False) -> None:
        """One more."""
        ns = max(0, ns)
        bucket = bucket_of(ns)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.failures += failed
        self.max_ns = max(self.max_ns, ns)

    def quantile_ms(self, q: float) -> float:
        """The duration that a share ``q`` stays at or below, in ms; 0 when there are none."""
        rank = q * self.count
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(upper_ns(bucket), self.max_ns) / 1e6
        return 0.0

    def merge(self, other: Latencies) -> None:
        """Add what another one saw."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += other.count
        self.failures += other.failures
        self.max_ns = max(self.max_ns, other.max_ns)


class Recorder:
    """Latencies by kind of job."""

    def __init__(self) -> None:
        self.kinds: dict[str, Latencies] = {}

    def add(self, kind: str, ns: int, *, failed: bool = False) -> None:
        """One more of ``kind``."""
        self.kinds.setdefault(kind, Latencies()).add(ns, failed=failed)

    def total(self) -> Latencies:
        """All kinds together."""
        total = Latencies()
        for latencies in self.kinds.values():
            total.merge(latencies)
        return total

    def take(self) -> dict[str, Any]:
        """Give the counts since the last take, as plain data for a process, and forget them."""
        taken = {
            kind: [seen.counts, seen.count, seen.failures, seen.max_ns]
            for kind, seen in self.kinds.items()
        }
        self.kinds = {}
        return taken

    def put(self, taken: Mapping[str, Any]) -> None:
        """Add what another process took."""
        for kind, (counts, count, failures, max_ns) in taken.items():
            # Keys of a map may have come as text on the way.
            plain = {int(bucket): int(n) for bucket, n in counts.items()}
            theirs = Latencies(plain, count, failures, max_ns)
            self.kinds.setdefault(kind, Latencies()).merge(theirs)

    def table(self, seconds: float) -> str:
        """For a person: a line per kind."""
        head = (
            f"{'kind':<12}{'jobs':>9}{'failed':>8}{'jobs/s':>10}"
            f"{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'max ms':>10}"
        )
        rows = [*sorted(self.kinds.items()), ("all", self.total())]
        return "\n".join([head, *(_row(kind, seen, seconds) for kind, seen in rows)])

    def report(self, seconds: float) -> dict[str, Any]:
        """For a program: the same as plain data."""
        rows = [*self.kinds.items(), ("all", self.total())]
        return {
            "seconds": seconds,
            "kinds": {
                kind: {
                    "jobs": seen.count,
                    "failed": seen.failures,
                    "jobs_per_s": seen.count / seconds if seconds else 0.0,
                    **{f"p{q}_ms": seen.quantile_ms(q / 100) for q in (50, 95, 99)},
                    "max_ms": seen.max_ns / 1e6,
                }
                for kind, seen in rows
            },
        }


def _row(kind: str, seen: Latencies, seconds: float) -> str:
    rate = seen.count / seconds if seconds else 0.0
    quantiles = "".join(f"{seen.quantile_ms(q):>10.3f}" for q in (0.5, 0.95, 0.99))
    return (
        f"{kind:<12}{seen.count:>9}{seen.failures:>8}{rate:>10.1f}"
        f"{quantiles}{seen.max_ns / 1e6:>10.3f}"
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures that a run has to reach."""

    fail_ratio: float = 0.0
    min_jobs: int = 1
    min_rate: float = 0.0
    #: Kind of job (or "all") to milliseconds.
    p99_ms: Mapping[str, float] = field(default_factory=dict)

    def broken_by(self, recorder: Recorder, seconds: float) -> list[str]:
        """A sentence for every limit that the run did not keep."""
        total = recorder.total()
        broken = []
        if total.count < self.min_jobs:
            broken.append(f"{total.count} jobs were run, at least {self.min_jobs} were asked for")
        if total.count and total.failures / total.count > self.fail_ratio:
            broken.append(f"{total.failures} of {total.count} jobs failed")
        if total.count < self.min_rate * seconds:
            broken.append(
                f"{total.count / seconds:.1f} jobs/s, at least {self.min_rate:g} were asked for"
            )
        for kind, limit_ms in self.p99_ms.items():
            seen = total if kind == "all" else recorder.kinds.get(kind, Latencies())
            p99_ms = seen.quantile_ms(0.99)
            if not seen.count:
                broken.append(f"no job of kind {kind} was run, its p99 has a limit")
            elif p99_ms > limit_ms:
                broken.append(f"p99 of {kind} is {p99_ms:.3f} ms, at most {limit_ms:g} is allowed")
        return broken
