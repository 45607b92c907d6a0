"""Plain integers that the runtime counts and the worker reads: nobody asks the P for them."""

from __future__ import annotations

#: Bucket k of a histogram counts values v (ns) with ``v.bit_length() == k``: 2**47 ns are 39 hours.
BUCKETS = 48


class Stats:
    """Counters of one P since its worker began; histograms are lists of 48 counts by bit length in
    ns.
    """

    __slots__ = (
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
        self.poller = self.timer = 0
        self.handoff_blocked = self.handoff_hog = self.handoff_known = self.handoff_learned = 0
        self.overruns = 0
        #: Times that a G had to wait because ``max_ms`` threads were in use.
        self.max_ms_waits = 0
        self.finished = 0
        self.idle_ns = 0
        self.slice = [0] * BUCKETS
        self.slice_sum_ns = 0
        self.sched_latency = [0] * BUCKETS
        self.sched_latency_sum_ns = 0
