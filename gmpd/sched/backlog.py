"""How far the credit of Ps grows with the queue, and the return to the usual credit.

Each message to a P and back costs as much as a short job. While many jobs of one lane wait, and
nothing else of their priority, a P may hold more of them: all Ps together a quarter of what waits,
one P ``GROWTH_MAX`` credits. As the queue gets shorter, so does what a P is given: at the end of a
backlog each P holds one credit, and steals even out the rest.

**A job that is more urgent** than these, of another client or a higher priority, must not wait for
them: the leases beyond the usual credit are revoked, and credit does not grow again for
``CALM_NS``. So a client that submits single jobs all the time costs one revocation. The same is
done at a P whose averages were wrong: it has been deaf for a while, or has set leases aside.

Credit does not grow for functions of unknown time, nor for long ones, which gain nothing; nor for
large arguments or results, which would fill the memory on their way; nor at a P that has begun
something long, nor for jobs that hold a place of a limit. A host's credit is ``leasing``'s.
"""

from __future__ import annotations

from gmpd.sched.globq import GlobalQueue, Turn
from gmpd.sched.instructions import Instruction, Revoke
from gmpd.sched.ps import Ps
from gmpd.sched.records import Job, Policy, PRecord

#: The most that a P holds, in credits.
GROWTH_MAX = 8
#: All Ps together hold at most one part in four of what waits in the queue.
PART = 4
#: Calls of functions that take longer than this many credits are long.
LONG_CREDITS = 2
#: Arguments of more bytes than this are large.
LARGE_BYTES = 16 << 10
#: A P that has been deaf for less may only have waited for its core.
DEAF_NS = 30_000_000
#: Credit does not grow for this time after something more urgent had to wait.
CALM_NS = 50_000_000


class Backlog:
    """Credit beyond the usual one. ``out`` collects instructions for the shell."""

    __slots__ = ("_calm_ns", "_grown", "_lane", "_out", "_policy", "_ps", "_queue")

    def __init__(self, queue: GlobalQueue, ps: Ps, policy: Policy, out: list[Instruction]) -> None:
        self._queue = queue
        self._ps = ps
        self._policy = policy
        self._out = out
        #: No growth before this.
        self._calm_ns = 0
        #: Ps that were given more than the usual credit.
        self._grown: dict[PRecord, None] = {}
        #: Of what they were given: its priority and lane.
        self._lane = (0, 0)

    def credit_ns(self, record: PRecord, turn: Turn, now: int) -> int:
        """How much fresh work this P may hold when it is given jobs of this turn."""
        usual, (priority, lane, fifo) = self._policy.credit_ns, turn
        head = fifo[0]
        fn = head.fn
        if (est := fn.est_ns) is None:
            return usual
        waits = est * len(fifo) // (PART * self._ps.cores)
        if (
            waits <= usual
            or now < self._calm_ns
            or est > usual * LONG_CREDITS
            or fn.bulky
            or head.nbytes > LARGE_BYTES
            or lane < 0
            or head.session.parent is not None
            or self._queue.lone() != (priority, lane)
            or (self._grown and self._lane != (priority, lane))
            or not self._takes_more(record, head)
        ):
            return usual
        return min(waits, usual * GROWTH_MAX)

    def _takes_more(self, record: PRecord, head: Job) -> bool:
        """Whether a P is free of what would delay these jobs."""
        fresh = record.fresh
        return not (
            record.host
            or record.deaf
            or record.begun
            or record.set_aside()
            or (fresh and next(reversed(fresh.values())).fn is not head.fn)
        )

    def gave(self, record: PRecord, turn: Turn) -> None:
        """A P was given jobs of this turn by a credit that had grown."""
        if record.used_ns > self._policy.credit_ns:
            self._grown[record] = None
            self._lane = turn[:2]

    def take_back(self, now: int) -> None:
        """Revoke what Ps hold beyond the usual credit, if something more urgent waits."""
        if not self._grown:
            return
        urgent = self._urgent()
        if urgent is not None:
            self._calm_ns = now + CALM_NS
        usual = self._policy.credit_ns
        for record in list(self._grown):
            if record.used_ns <= usual or record.draining:
                del self._grown[record]
            elif urgent is not None or record.is_deaf_for(DEAF_NS, now) or record.set_aside():
                del self._grown[record]
                kept_ns = usual - _est_ns(urgent, usual)
                if tokens := _beyond(record, kept_ns):
                    self._out.append(Revoke(record, tokens, None, now))

    def _urgent(self) -> Job | None:
        """The next job, if those that Ps hold too many of are not to delay it."""
        turn = self._queue.turn()
        if turn is None or turn[0] < self._lane[0] or self._queue.lone() == self._lane:
            return None
        return turn[2][0]


def _est_ns(job: Job | None, usual: int) -> int:
    """The part of the usual credit that this one will take."""
    if job is None:
        return 0
    return usual if job.fn.est_ns is None else min(usual, job.fn.est_ns)


def _beyond(record: PRecord, kept_ns: int) -> list[int]:
    """The leases behind the first ones, which are worth ``kept_ns``: one, at least. No children:
    their credit is another one."""
    tokens, used_ns = [], 0
    for token, job in record.fresh.items():
        if job.session.parent is not None:
            continue
        if used_ns and used_ns + job.est_ns > kept_ns:
            tokens.append(token)
        used_ns += job.est_ns
    return tokens
