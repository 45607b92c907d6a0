"""Counts durable jobs as the ledger counts others: one that is stored was submitted, its attempts
that are followed by another were retried, and it has ended when its policy says so.

The ledger counts an attempt that was OK, with which its job always ends. A job that ends in the
store, without having come into memory, is counted in the row of functions without a name.
"""

from __future__ import annotations

from typing import Final

from gmpd.protocol import Outcome
from gmpd.sched.counters import Counters
from gmpd.sched.per_function import OTHER
from gmpd.sched.stored import Again, Ended, StoredState

#: How the metrics call an end that has no name there.
_OUTCOMES: Final = {StoredState.EXPIRED: Outcome.TIMEOUT, StoredState.CANCELLED: Outcome.CANCELLED}


class DurableCounts:
    """``counters``: those of the policy."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def stored(self, n: int) -> None:
        """``n`` new jobs are on disk; or some that had ended are to run again."""
        self._counters.submitted += n

    def judged(self, name: str, verdict: Ended | Again) -> None:
        """The consequence of the end of an attempt of a job of the function ``name``."""
        if isinstance(verdict, Again):
            self._counters.retried[verdict.attempt.outcome] += 1
        elif verdict.state is not StoredState.DONE:
            outcome = _OUTCOMES.get(verdict.state) or Outcome[verdict.attempt.outcome.upper()]
            self._counters.functions.named(name).finished[outcome] += 1

    def ended_in_store(self, n: int, outcome: Outcome) -> None:
        """``n`` jobs have ended that were not in memory."""
        self._counters.functions.named(OTHER).finished[outcome] += n
