"""Migration of children of Gs: which workers have some, and which are asked for them.

Children live in their worker and are not known here one by one. A worker reports that it has some.
When another P is idle, that worker is asked for the older half of them, and becomes the client of
those that it gives: they are queued, leased and lost like jobs. Its own P gets them back only when
it has no others left.

It does not know the children, nor where migrated ones are.
"""

from __future__ import annotations

from gmpd.errors import ProtocolError
from gmpd.sched.cancels import Cancels
from gmpd.sched.instructions import AskChildren, Instruction
from gmpd.sched.ledger import Ledger
from gmpd.sched.ps import Ps
from gmpd.sched.random_order import RandomOrder
from gmpd.sched.records import PRecord

#: Children that are asked for at once; the worker gives half of what it has, and packs no longer
#: than it may. A round of asking costs the thief a slice at worst: a few of these per second.
CHILDREN_MAX = 512
#: More children are asked for when those that are queued here are less work than this per thief:
#: a victim answers after the child that it runs, or after a slice (10 ms), and then packs.
CHILDREN_LOW_NS = 30_000_000
#: A thief holds children worth so much: what counts is when the last of them ends, not each by
#: itself, and a round trip for every 2 ms of them cost a tenth of two cores. Jobs queued behind a
#: long one is taken back as soon as another P has nothing.
CHILDREN_CREDIT_NS = 40_000_000


class Children:
    """Workers with children, and those asked. ``out`` collects instructions for the shell."""

    def __init__(
        self,
        ledger: Ledger,
        ps: Ps,
        cancels: Cancels,
        order: RandomOrder,
        out: list[Instruction],
    ) -> None:
        self._ledger = ledger
        self._ps = ps
        self._cancels = cancels
        self._order = order
        self._out = out
        #: Ps whose workers said that they have fresh children, by number.
        self.parents: dict[int, PRecord] = {}

    def open_parent(self, p: int, epoch: int, now: int) -> None:
        """A worker becomes the client of its children that run elsewhere, unless it is already.

        Raises ProtocolError for one that is dead, or was replaced.
        """
        record = self._ps.record(p)
        if record is None or epoch != record.epoch or not record.ready:
            raise ProtocolError(f"children from epoch {epoch} of P{p}, which is no more")
        self._ps.heard(record, now)
        if record.session is None:
            record.session = self._ledger.open_session(record, f"P{p}")
            record.session.parent = record

    def counted(self, record: PRecord, n: int, *, asked: bool = False) -> None:
        """A worker has ``n`` fresh children; ``asked``: this answers AskChildren, and what it gives
        has been submitted before."""
        record.children = n
        if asked:
            record.asked = False
        if n:
            self.parents[record.p] = record
        else:
            self.parents.pop(record.p, None)

    def renumbered(self, p: int, record: PRecord) -> None:
        """The worker of P ``p`` is leaving, and has a number of its own."""
        if self.parents.pop(p, None) is not None:
            self.parents[record.p] = record

    def orphan(self, record: PRecord, now: int) -> None:
        """The children of a dead worker have no parent: they end like the jobs of a client that
        left."""
        self.counted(record, 0)
        record.asked = False
        if record.session is not None:
            self._cancels.close_session(record.session, now)
            record.session = None

    def ask(self) -> None:
        """A P has nothing, or soon will: ask a P that has children for the older half of them."""
        if self._ledger.draining:
            return
        takers = [
            p
            for p in self._ps.all.values()
            if p.ready and not p.draining and not p.children and not p.host
        ]
        if not takers or not self._is_low(takers):
            return
        parents = list(self.parents.values())
        for at in self._order.positions(len(parents)):
            victim = parents[at]
            if not victim.asked:
                victim.asked = True
                self._out.append(AskChildren(victim, CHILDREN_MAX))
                return

    def _is_low(self, takers: list[PRecord]) -> bool:
        """Whether a P that takes children has none left, or will have used them up before an
        answer can come."""
        queue = self._ledger.queue
        head = queue.head()
        if head is None:
            return any(p in self._ps.idle or _has_children(p) for p in takers)
        est_ns = head.fn.est_ns
        if head.session.parent is None or est_ns is None:
            return False
        return len(queue) * est_ns < CHILDREN_LOW_NS * len(takers)


def _has_children(record: PRecord) -> bool:
    """Whether its queued Gs are children that it took over."""
    return any(job.session.parent is not None for job in record.fresh.values())
