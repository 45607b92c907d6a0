"""Plain integers that the runtime counts and the worker reads: nobody asks the P for them."""

from __future__ import annotations

import time
from typing import Any

#: Bucket k of a histogram counts values v (ns) with ``v.bit_length() == k``: 2**47 ns are 39 hours.
BUCKETS = 48


class Stats:
    """Counters of one P since its loop was made; histograms are lists of 48 counts by bit length in
    ns.

    ``slice`` has every sync G; ``sched_latency`` is sampled: one G of the ring at a time is
    followed.
    """

    __slots__ = (
        "blocked_ns",
        "born_ns",
        "finished",
        "handoff_blocked",
        "handoff_hog",
        "handoff_known",
        "handoff_learned",
        "idle_ns",
        "max_ms_waits",
        "overruns",
        "poller",
        "sched_latency",
        "sched_latency_sum_ns",
        "slice",
        "slice_sum_ns",
        "timer",
    )

    def __init__(self) -> None:
        self.born_ns = time.monotonic_ns()
        self.poller = self.timer = 0
        self.handoff_blocked = self.handoff_hog = self.handoff_known = self.handoff_learned = 0
        self.overruns = 0
        #: Times that a G had to wait because ``max_ms`` threads were in use.
        self.max_ms_waits = 0
        self.finished = 0
        #: Time that P waited in select, and that a blocked G kept it before it was handed off.
        self.idle_ns = 0
        self.blocked_ns = 0
        self.slice = [0] * BUCKETS
        self.slice_sum_ns = 0
        self.sched_latency = [0] * BUCKETS
        self.sched_latency_sum_ns = 0

    def handoffs(self) -> dict[str, int]:
        """How often P changed its M, by reason."""
        return {
            "blocked": self.handoff_blocked,
            "hog": self.handoff_hog,
            "known": self.handoff_known,
            "learned": self.handoff_learned,
        }

    def state_s(self, now_ns: int) -> dict[str, float]:
        """Seconds that P spent in each state."""
        running_ns = max(0, now_ns - self.born_ns - self.idle_ns - self.blocked_ns)
        return {
            "running": running_ns / 1e9,
            "idle": self.idle_ns / 1e9,
            "blocked": self.blocked_ns / 1e9,
        }

    def histograms(self) -> dict[str, dict[str, Any]]:
        """Copies, with sum and count."""
        return {
            "slice": _histogram(self.slice, self.slice_sum_ns),
            "sched_latency": _histogram(self.sched_latency, self.sched_latency_sum_ns),
        }


def _histogram(buckets: list[int], sum_ns: int) -> dict[str, Any]:
    return {"buckets": list(buckets), "sum_ns": sum_ns, "count": sum(buckets)}
