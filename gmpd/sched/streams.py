"""Generator jobs while they run: items to their client, its credit to their worker.

Client and worker agree on the items and on how many are under way; this file only forwards them.
"""

from __future__ import annotations

from gmpd.sched.instructions import Instruction, PullAt, SendItems
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import Buffers, PRecord, Session


class Streams:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out

    def items(
        self, record: PRecord, token: int, payloads: list[bytes], buffers: list[Buffers]
    ) -> None:
        """A generator job yielded."""
        job = self._ledger.leased_to(record, token)
        if job is None:
            return
        job.streamed = True
        if self._ledger.is_open(job.session):
            self._out.append(SendItems(job.session, job.seq, payloads, buffers))

    def pull(self, session: Session, seq: int, n: int) -> None:
        """A client has room for more items of a generator job."""
        job = session.jobs.get(seq)
        if job is not None and job.p is not None:  # else not begun: its options carry the window
            self._out.append(PullAt(job.p, job.token, n))
