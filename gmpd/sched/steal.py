"""Stealing: a P is idle and the queue is empty, so unclaimed leases of another P move to it.

Jobs queued behind an unexpectedly long one are stolen as soon as another P is idle. They are first
revoked in shared memory, so that the victim need not answer and cannot claim them any more; only
then are they leased again, under new tokens. A lease that the victim had claimed counts as started
from then on (``lease_events.revoked``).

It only chooses victim and leases; it never moves a job itself.
"""

from __future__ import annotations

from itertools import islice

from gmpd.sched.instructions import Instruction, Revoke
from gmpd.sched.ledger import Ledger
from gmpd.sched.ps import Ps
from gmpd.sched.random_order import RandomOrder
from gmpd.sched.records import Job, PRecord
from gmpd.sched.runq import half_up

#: A steal costs a lease and its way back (about 0.2 ms): less work is not worth moving.
WORTH_NS = 300_000

#: And what a host steals waits for a batch, beside others of its kind.
WORTH_AT_HOST_NS = 10_000_000

#: A fresh job that was leased this long ago is moved to any idle P, and at its next P has twice
#: as long: behind two hogs it is not carried to and fro for ever.
STALE_NS = 50_000_000
#: How often it doubles at most: 3.2 s.
STALE_DOUBLINGS = 6

#: Begun jobs of a thief that are compared with the leases set aside.
ALIKE_LOOKS = 64


class Steals:
    """Revokes for idle Ps. ``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, ps: Ps, order: RandomOrder, out: list[Instruction]) -> None:
        self._queue = ledger.queue
        self._started_max = ledger.policy.started_max
        self._ps = ps
        self._order = order
        self._out = out
        #: When the oldest lease will be stale enough for any idle P, as ``steal`` found.
        self.next_stale: int | None = None

    def steal(self, now: int) -> None:
        """An idle P and an empty queue: revoke unclaimed leases of a busy P.

        The older half of them (Go: ``runqgrab``); all of them from a deaf P; else those that are
        stale.
        """
        self.next_stale = None
        if self._queue.length or not (thieves := self._thieves()):
            return
        victims = [p for p in self._ps.all.values() if p.fresh and p.ready and not p.draining]
        for thief in thieves:
            for at in self._order.positions(len(victims)):
                if tokens := self._stealable(victims[at], thief, now):
                    self._out.append(Revoke(victims[at], tokens, thief, now))
                    return

    def _stealable(self, victim: PRecord, thief: PRecord, now: int) -> list[int]:
        """The leases to revoke from ``victim``. Not a thief's own children, which are nothing for
        it while it has others of them at home; and no children at all for a host."""
        fresh, skip = victim.fresh, thief.own_children()
        tokens = list(fresh)
        if thief.host:
            tokens = [token for token in tokens if fresh[token].session.parent is None]
        elif skip is not None:
            tokens = [token for token in tokens if fresh[token].session.sid != skip]
        if not tokens:
            return []
        oldest = fresh[tokens[0]]
        if victim.deaf:
            return tokens
        if victim.aside and (aside := victim.set_aside()):
            # First what would wait there longest, but not to where it would be set aside as well.
            alike = {job.fn for job in islice(reversed(thief.started.values()), ALIKE_LOOKS)}
            tokens = [t for t in tokens if t not in aside or fresh[t].fn not in alike]
            tokens.sort(key=lambda token: token not in aside)
        if tokens and self._has_spare(victim, len(tokens), thief):
            return tokens[: half_up(len(tokens))]
        if now >= (stale := _stale_ns(oldest)):
            return [oldest.token]
        if self.next_stale is None or stale < self.next_stale:
            self.next_stale = stale
        return []

    def _thieves(self) -> list[PRecord]:
        """The idle P to steal for: the latest that has nothing started; if none is so, a host that
        has begun less than it has cores, and the latest."""
        latest = host = None
        for p in reversed(self._ps.idle):
            if p.deaf:
                continue
            begun = len(p.started) + len(p.overrunning)
            if p.host:
                if begun < p.cores:
                    host = host or p
            elif not begun:
                return [p]
            elif begun < self._started_max:
                latest = latest or p
        return [p for p in (host, latest) if p is not None]

    def _has_spare(self, victim: PRecord, n: int, thief: PRecord) -> bool:
        """Whether it has Gs beside the running one, or a long one runs; ``n`` may be stolen.

        A last fresh job, or a little work, moves only to a P that is free of started ones:
        between two Ps that both run something long it would be carried to and fro.
        """
        if thief.host:
            return n > 1 and victim.used_ns >= WORTH_AT_HOST_NS
        if n > 1 and victim.used_ns >= WORTH_NS:
            return True
        free = not (thief.started or thief.overrunning)
        return free and bool(victim.started or victim.overrunning)


def _stale_ns(job: Job) -> int:
    """From when on a fresh job is taken to any idle P."""
    return job.leased_ns + (STALE_NS << min(job.moves, STALE_DOUBLINGS))
