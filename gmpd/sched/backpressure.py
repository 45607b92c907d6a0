"""Messages to workers when a client takes no results, and when it does again.

No more of its jobs are leased then (``ledger``); workers keep the results of those that were.
It does not know how full is full: that is ``outboxes``'.
"""

from __future__ import annotations

from gmpd.sched.instructions import Instruction, Withhold
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import PRecord, Session


class Backpressure:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out

    def tell(self) -> None:
        """Pass on which sessions have become full, or are so no more."""
        turned = dict.fromkeys(self._ledger.turned)
        self._ledger.turned.clear()
        for session in turned:
            if self._ledger.is_open(session):  # else its jobs are being cancelled
                self._tell(session)

    def _tell(self, session: Session) -> None:
        at: dict[PRecord, list[int]] = {}
        for job in session.jobs.values():
            p = job.p
            # An isolated worker has one job, and as many of them run as there may.
            if p is None or p.job(job.token) is not job or isinstance(p, IsolatedP):
                continue
            if job.withheld is not session.full:
                job.withheld = session.full
                at.setdefault(p, []).append(job.token)
        self._out.extend(Withhold(p, tokens, session.full) for p, tokens in at.items())
