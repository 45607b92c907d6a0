"""Outcomes on their way to sessions: gathered in columns, held back if the client does not read.

A session that takes none is *full* beyond a limit: its jobs are not leased until it has taken half
of its outcomes. Jobs that were leased before still end, and their results are held here.

It knows nothing of jobs; no module of the policy knows the meaning of an outcome's payload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gmpd.errors import ProtocolError
from gmpd.protocol import Outcome
from gmpd.sched.instructions import Instruction, SendOutcomes
from gmpd.sched.records import Buffers, Outcomes, Session

#: Most bytes of outcomes in one message: a larger one would be copied as a whole.
MESSAGE_BYTES = 1 << 20

#: Most bytes of outcomes in one turn, of all sessions together, as sending delays all other work:
#: about two milliseconds. The sessions take turns.
TURN_BYTES = 4 << 20


class Outboxes:
    """``unacked_max``: bytes in transit to one session, beyond which outcomes wait here.

    ``untaken_max``: bytes in transit and waiting, beyond which the session is full; ``hold`` is
    called when it becomes full, and when it no longer is.
    """

    def __init__(self, unacked_max: int, untaken_max: int, hold: Callable[[Session], None]) -> None:
        self._unacked_max = unacked_max
        self._untaken_max = untaken_max
        self._hold = hold
        #: Bytes of all outcomes that wait here.
        self.nbytes = 0
        #: The last ``flush`` left something for the next turn.
        self.is_pending = False
        self._dirty: dict[int, Session] = {}

    def add(
        self,
        session: Session,
        seq: int,
        payload: bytes,
        buffers: Buffers,
        ran_us: int,
        special: tuple[Outcome, dict[str, Any]] | None,
    ) -> None:
        """One outcome; ``special`` as in protocol.Done, None for one that is plainly OK."""
        if special is not None:
            session.outcomes.specials[len(session.outcomes.seqs)] = special
        self.extend(session, [seq], [payload], [buffers], [ran_us])

    def mark(self, session: Session, n: int, special: tuple[Outcome, dict[str, Any]]) -> None:
        """The next ``n`` outcomes share ``special``; ``extend`` follows."""
        first = len(session.outcomes.seqs)
        session.outcomes.specials.update(dict.fromkeys(range(first, first + n), special))

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
        if any(buffers):
            nbytes += sum(len(each) for own in buffers for each in own)
        outcomes.nbytes += nbytes
        self.nbytes += nbytes
        self._dirty[session.sid] = session
        untaken = outcomes.nbytes + session.unacked_bytes
        if nbytes and untaken > self._untaken_max and not session.full:
            session.full = session.parent is None  # a worker of our own takes all that comes
            self._hold(session)

    def drop(self, session: Session) -> None:
        """Drop the outcomes of this session: it has no reader."""
        self._dirty.pop(session.sid, None)
        self.nbytes -= session.outcomes.nbytes
        session.outcomes = Outcomes()

    def ack(self, session: Session, outcomes: int) -> None:
        """The client has acknowledged outcomes: its window and the bytes in transit shrink.

        Raises ProtocolError and changes nothing if the number is impossible.
        """
        if not session.acked <= outcomes <= session.delivered:
            raise ProtocolError(f"Ack of {outcomes}, {session.delivered} were sent")
        session.acked = outcomes
        while session.batches and session.batches[0][0] <= outcomes:
            _, nbytes, _ = session.batches.popleft()
            session.unacked_bytes -= nbytes
        if session.full and session.untaken <= self._untaken_max // 2:
            session.full = False
            self._hold(session)
        if session.outcomes.seqs:
            self._dirty[session.sid] = session

    def flush(self, out: list[Instruction], now: int) -> None:
        """The outcomes to send now: a message to each session in turn, up to ``TURN_BYTES``."""
        dirty, nbytes = self._dirty, 0
        if not dirty:
            self.is_pending = False
            return
        while dirty and nbytes < TURN_BYTES:
            session = dirty.pop(next(iter(dirty)))
            if not session.outcomes.seqs or session.unacked_bytes > self._unacked_max:
                continue
            outcomes = session.outcomes
            if outcomes.nbytes > MESSAGE_BYTES and len(outcomes.seqs) > 1:
                outcomes = outcomes.split(MESSAGE_BYTES)
            else:
                session.outcomes = Outcomes()
            size = outcomes.nbytes
            nbytes += size
            session.delivered += len(outcomes.seqs)
            if session.parent is None:
                session.unacked_bytes += size
                session.batches.append((session.delivered, size, now))
            else:  # a worker of our own: it reads all that comes
                session.acked = session.delivered
            self.nbytes -= size
            out.append(SendOutcomes(session, outcomes))
            if session.outcomes.seqs:
                dirty[session.sid] = session
        self.is_pending = bool(dirty)
