"""Outcomes on their way to sessions: gathered in columns, held back from who does not read.

It knows nothing of jobs; what an outcome's payload means is not known in the whole policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gmpd.errors import ProtocolError
from gmpd.sched.instructions import Deliver, Instruction
from gmpd.sched.records import Buffers, Outcomes, Session


class Outboxes:
    """``unacked_max``: bytes on the way to one session, beyond which more wait here."""

    def __init__(self, unacked_max: int) -> None:
        self._unacked_max = unacked_max
        #: Bytes of all outcomes that wait here.
        self.nbytes = 0
        self._dirty: dict[int, Session] = {}

    def add(
        self,
        session: Session,
        seq: int,
        payload: bytes,
        buffers: Buffers,
        ran_us: int,
        special: list[Any] | None,
    ) -> None:
        """One outcome; ``special`` as in protocol.Done, None for one that is plainly OK."""
        if special is not None:
            session.outcomes.specials[len(session.outcomes.seqs)] = special
        self.extend(session, [seq], [payload], [buffers], [ran_us])

    def extend(
        self,
        session: Session,
        seqs: Sequence[int],
        payloads: Sequence[bytes],
        buffers: Sequence[Buffers],
        ran_us: Sequence[int],
    ) -> None:
        """Outcomes in columns."""
        outcomes = session.outcomes
        outcomes.seqs.extend(seqs)
        outcomes.payloads.extend(payloads)
        outcomes.ran_us.extend(ran_us)
        outcomes.buffers.extend(buffers)
        nbytes = sum(map(len, payloads))
        for own in buffers:
            if own:
                nbytes += sum(map(len, own))
        outcomes.nbytes += nbytes
        self.nbytes += nbytes
        self._dirty[session.sid] = session

    def drop(self, session: Session) -> None:
        """Nobody reads what is there for this session."""
        self._dirty.pop(session.sid, None)
        self.nbytes -= session.outcomes.nbytes
        session.outcomes = Outcomes()

    def ack(self, session: Session, outcomes: int) -> None:
        """The client has so many outcomes: its window and the bytes on the way shrink.

        Raises ProtocolError, nothing changed, for a number that cannot be.
        """
        if not session.acked <= outcomes <= session.delivered:
            raise ProtocolError(f"Ack of {outcomes}, {session.delivered} were sent")
        session.acked = outcomes
        while session.batches and session.batches[0][0] <= outcomes:
            _, nbytes = session.batches.popleft()
            session.unacked_bytes -= nbytes
        if session.outcomes.seqs:
            self._dirty[session.sid] = session

    def flush(self, out: list[Instruction]) -> None:
        """What is to be sent now."""
        for session in self._dirty.values():
            outcomes = session.outcomes
            if not outcomes.seqs or session.unacked_bytes > self._unacked_max:
                continue
            session.outcomes = Outcomes()
            session.delivered += len(outcomes.seqs)
            if session.parent is None:
                session.unacked_bytes += outcomes.nbytes
                session.batches.append((session.delivered, outcomes.nbytes))
            else:  # a worker of our own: it reads all that comes
                session.acked = session.delivered
            self.nbytes -= outcomes.nbytes
            out.append(Deliver(session, outcomes))
        self._dirty.clear()
