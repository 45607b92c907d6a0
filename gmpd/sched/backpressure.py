"""Messages to workers when a client takes no results, and when it does again.

No more of its jobs are leased then (``ledger``); workers keep the results of those that were. Kept
results are asked for in portions, as the client takes them: all at once they would be hundreds of
megabytes, and the outcomes of others would wait behind them.

It does not know how full is full: that is ``outboxes``'.
"""

from __future__ import annotations

from gmpd.sched.instructions import Instruction, Withhold
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import Job, PRecord, Session

#: Kept results of one session that are on their way, from worker to client: bytes, of which the
#: client acknowledges every megabyte, and number.
RELEASE_BYTES = 4 << 20
RELEASE_MAX = 256


class Backpressure:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out

    def tell(self) -> None:
        """Pass on which sessions have become full, or are so no more; ask for kept results."""
        ledger = self._ledger
        turned = dict.fromkeys(ledger.turned)
        ledger.turned.clear()
        for session in turned:
            if ledger.is_open(session):  # else its jobs are being cancelled
                self._tell(session)
        for session in list(ledger.releasing.values()):
            if not session.full or not ledger.is_open(session):
                self._release(session)

    def _tell(self, session: Session) -> None:
        at: dict[PRecord, list[int]] = {}
        for job in session.jobs.values():
            p = job.p
            # An isolated worker has one job, and as many of them run as there may.
            if p is None or p.job(job.token) is not job or isinstance(p, IsolatedP):
                continue
            if job.withheld is not session.full:
                job.withheld = session.full
                if job.token not in p.withheld:
                    at.setdefault(p, []).append(job.token)
        self._out.extend(Withhold(p, tokens, session.full) for p, tokens in at.items())

    def _release(self, session: Session) -> None:
        """Ask for as many kept results as there is room for."""
        asked = {seq: nbytes for seq, nbytes in session.asked.items() if _kept_at(session, seq)[1]}
        session.asked = asked
        untaken = session.untaken if self._ledger.is_open(session) else 0  # else it drops all
        room = RELEASE_BYTES - untaken - sum(asked.values())
        at: dict[PRecord, list[int]] = {}
        while session.kept and room > 0 and len(asked) < RELEASE_MAX:
            seq = next(iter(session.kept))
            nbytes = session.kept.pop(seq)
            job, p = _kept_at(session, seq)
            if job is not None and p is not None:
                asked[seq] = nbytes
                room -= nbytes
                at.setdefault(p, []).append(job.token)
        self._out.extend(Withhold(p, tokens, False) for p, tokens in at.items())
        if not session.kept and not asked:
            del self._ledger.releasing[session.sid]


def _kept_at(session: Session, seq: int) -> tuple[Job | None, PRecord | None]:
    """A job and the P whose worker keeps its result; None, None when it has come, or never will."""
    job = session.jobs.get(seq)
    if job is None or job.p is None or job.p.withheld.get(job.token) is not job:
        return None, None
    return job, job.p
