"""Clients that were refused for lack of room and wait: which is offered how much room, and when.

The client that has waited longest is served first, in turns. Offered room is reserved, so that no
newcomer is quicker; for a while only, since it may have died, or may want it no more (``waive``).

Who lets that while pass is not told again until it submits something: a client that is stopped
would cost the others such a while in each of its turns.
"""

from __future__ import annotations

from typing import NamedTuple

from gmpd.sched.instructions import TellRoom
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import Session

#: How long offered room is reserved for a client: far above the way there and back, far
#: below what others would notice. It may come later all the same, if there still is room then.
KEEP_NS = 100_000_000


class _Want(NamedTuple):
    jobs: int
    #: Their average size.
    nbytes: int


class _Kept(NamedTuple):
    jobs: int
    #: Of each.
    nbytes: int
    until_ns: int


class Waiting:
    """The line, in order, and what is kept for those who have been told."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._line: dict[Session, _Want] = {}
        self._kept: dict[Session, _Kept] = {}
        #: Clients that let an offer expire.
        self._absent: dict[Session, _Want] = {}

    def __bool__(self) -> bool:
        """Whether ``tell`` has something to look at."""
        return bool(self._line or self._kept or self._absent)

    def refused(self, session: Session, jobs: int, nbytes: int) -> None:
        """There was no room for ``n`` jobs; their client holds them until it is offered room."""
        self._is_back(session)
        before = self._line.get(session, _Want(0, 0))
        self._line[session] = _Want(before.jobs + jobs, max(before.nbytes, nbytes // jobs))

    def accepted(self, session: Session, jobs: int, now: int) -> None:
        """So many have come in."""
        self._is_back(session)
        kept = self._kept.pop(session, None)
        if kept is not None and kept.jobs > jobs:
            self._kept[session] = _Kept(kept.jobs - jobs, kept.nbytes, now + KEEP_NS)

    def _is_back(self, session: Session) -> None:
        if session in self._absent:
            self._line[session] = self._absent.pop(session)

    def waive(self, session: Session) -> None:
        """A client wants no more room, and gives back what is kept for it."""
        self._line.pop(session, None)
        self._kept.pop(session, None)
        self._absent.pop(session, None)

    def kept_from(self, session: Session) -> int:
        """Room that this session may not use, as it is reserved for others."""
        if not self._kept:
            return 0
        return sum(kept.jobs for other, kept in self._kept.items() if other is not session)

    def bytes_for(self, session: Session) -> int:
        """How many more bytes of arguments this session may hold.

        Whoever holds some may hold as much as it leaves free: one client alone half of all, two a
        third each; so there is always room for another, whatever they do. A first one may be as
        large as there is room for.
        """
        free = self._ledger.policy.queue_bytes - self._ledger.jobs_nbytes
        for other, kept in self._kept.items():
            if other is not session:
                free -= kept.jobs * kept.nbytes
        return max(0, (free - session.nbytes) // 2 if session.nbytes else free)

    def tell(self, now: int) -> list[TellRoom]:
        """The offers of room to make now."""
        self._let_lapse(now)
        told: list[TellRoom] = []
        first: dict[Session, _Want] = {}  # those who have to wait for their own jobs to end
        while self._line:
            session = next(iter(self._line))
            want = self._line.pop(session)
            if not self._ledger.is_open(session):
                continue
            jobs = want.jobs
            if not self._ledger.draining:
                jobs = min(jobs, self._free_jobs(), self._fitting(session, want.nbytes))
            if not jobs:
                first[session] = want
                continue
            if jobs < want.jobs:  # there is more to tell it later, after the others
                self._line[session] = want._replace(jobs=want.jobs - jobs)
            before = self._kept.get(session)
            if before is None:
                self._kept[session] = _Kept(jobs, want.nbytes, now + KEEP_NS)
            else:  # no longer than the first of it, or it would never lapse
                self._kept[session] = _Kept(before.jobs + jobs, want.nbytes, before.until_ns)
            told.append(TellRoom(session, jobs))
        self._line = first
        return told

    def _let_lapse(self, now: int) -> None:
        is_open = self._ledger.is_open
        for session in [session for session in self._absent if not is_open(session)]:
            del self._absent[session]
        for session, kept in list(self._kept.items()):
            if not is_open(session):
                del self._kept[session]
            elif kept.until_ns <= now:
                del self._kept[session]
                if session in self._line:
                    self._absent[session] = self._line.pop(session)

    def _free_jobs(self) -> int:
        """The share of the next in line of the jobs that there is room for."""
        ledger = self._ledger
        free = ledger.policy.queue_jobs - ledger.unfinished
        free -= sum(each.jobs for each in self._kept.values())
        return max(0, -(-free // (len(self._line) + 1)))

    def _fitting(self, session: Session, nbytes: int) -> int:
        """How many jobs of average size this session may bring, beside what it was offered."""
        own = self._kept.get(session)
        room = self.bytes_for(session) - (0 if own is None else own.jobs * own.nbytes)
        return max(0, room // max(1, nbytes))

    def next_due(self) -> int | None:
        """When ``tell`` may have something to say although nothing happened."""
        if not self._line:
            return None
        return min((kept.until_ns for kept in self._kept.values()), default=None)
