"""Jobs that end unless they have begun: their ``expires`` has passed, a newer job replaces them, or
their client, which is the bridge of another daemon, has them run elsewhere.

The counterpart of ``cancels``: nothing that runs is disturbed. A lease is revoked; if its worker
has claimed it, the job runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from gmpd.protocol import Outcome
from gmpd.sched.instructions import Instruction, Revoke
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger, Withdrawal
from gmpd.sched.records import Job, PRecord, Session
from gmpd.sched.states import JobState
from gmpd.sched.uniques import WAITS

EXPIRED: Withdrawal = (
    Outcome.TIMEOUT, {"text": "it could not begin before its expires", "expired": True}
)  # fmt: skip
RECALLED: Withdrawal = (Outcome.CANCELLED, {"recalled": True})


class Withdrawals:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out

    def expire(self, now: int) -> None:
        """End those that could not begin in time."""
        if jobs := list(self._ledger.expiry.take_due(now)):
            self.withdraw(jobs, EXPIRED, now)

    def replace(self, job: Job, text: str, now: int) -> None:
        """A newer job replaces this one."""
        self.withdraw([job], (Outcome.CANCELLED, {"text": text}), now)

    def recall(self, session: Session, seqs: Sequence[int], now: int) -> None:
        """A client asks for these back."""
        mine = session.jobs
        self.withdraw([mine[seq] for seq in dict.fromkeys(seqs) if seq in mine], RECALLED, now)

    def withdraw(self, jobs: Sequence[Job], withdrawal: Withdrawal, now: int) -> None:
        """End those that have not begun, with this outcome and its details."""
        ledger = self._ledger
        ledger.remove_waiting(jobs)
        outcome, details = withdrawal
        leased: dict[PRecord, list[int]] = {}
        for job in ledger.held_first(jobs):
            if job.state in WAITS:
                ledger.finish(job, outcome, dict(details), now)
            elif job.state is JobState.LEASED and not isinstance(job.p, IsolatedP):
                assert job.p is not None
                ledger.withdrawn[job] = withdrawal
                leased.setdefault(job.p, []).append(job.token)
        self._out.extend(Revoke(p, tokens, None, now) for p, tokens in leased.items() if p.ready)
