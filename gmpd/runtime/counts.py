"""Plain integers that the Ms of one P count."""

from __future__ import annotations

import time

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
        "children_in",
        "children_out",
        "finished",
        "handoff_blocked",
        "handoff_hog",
        "handoff_known",
        "handoff_learned",
        "idle_ns",
        "local",
        "max_ms_waits",
        "overruns",
        "poller",
        "sched_latency",
        "sched_latency_sum_ns",
        "slice",
        "slice_sum_ns",
        "steal",
        "timer",
    )

    def __init__(self) -> None:
        self.born_ns = time.monotonic_ns()
        self.poller = self.timer = 0
        #: Gs that began here after they were stolen: jobs given back by their P, and children of
        #: Gs elsewhere.
        self.steal = 0
        #: All the others of the ring, as last shown: those of a batch count once it is over, stolen
        #: ones at once, and what was shown never falls.
        self.local = 0
        #: Children that left for another P, and that began here, of Gs of another P.
        self.children_out = self.children_in = 0
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
