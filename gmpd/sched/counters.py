"""The coordinator's counters: plain integers, cumulative since it began.

Nothing here knows Prometheus; the gateway makes metrics of it. The counts of each function of jobs,
and their sums, are in ``per_function``.
"""

from __future__ import annotations

from collections import Counter

from gmpd.sched.histogram import Histogram
from gmpd.sched.per_function import PerFunction


class Counters:
    """Counters of the policy; labels are small closed sets."""

    __slots__ = (
        "children",
        "dropped",
        "functions",
        "occupied",
        "overran",
        "rejected",
        "retried",
        "steal",
        "submitted",
    )

    def __init__(self) -> None:
        self.submitted = 0
        #: Children of Gs that left their worker. They are no jobs: nothing else here counts them.
        self.children = 0
        #: Attempts that ran on past their time limit.
        self.overran = 0
        #: Jobs that have ended.
        self.functions = PerFunction()
        self.rejected: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.occupied = Histogram()
        self.steal = Histogram()

    @property
    def finished(self) -> Counter[str]:
        """Jobs that have ended, by outcome."""
        return self.functions.total().outcomes()

    def __repr__(self) -> str:
        names = ("submitted", "children", "overran", "finished", "rejected", "retried", "dropped")
        return f"<Counters {', '.join(f'{name} {_plain(getattr(self, name))}' for name in names)}>"


def _plain(count: int | Counter[str]) -> str:
    return str(count if isinstance(count, int) else dict(count))
