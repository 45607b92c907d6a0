"""The global run queue: fair between clients.

One FIFO per session and priority, the sessions of a priority served round-robin. A single FIFO
(what Go has, where all Gs belong to one program) would let a client with a million jobs delay
another's one by all of them. A higher priority goes first, strictly: a job that asks for less than
another says that it can wait.

Jobs that have passed a limit (``gates``) have a lane of their own beside the other jobs of their
session: what they hold, others wait for, so they do not queue behind a million jobs without limits.

The queue holds jobs that wait and nothing else; it never looks at what a job is about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from gmpd.sched.records import Job

#: Whether a P has room for a job.
Fits: TypeAlias = Callable[[Job], bool]
#: A priority, a lane (a session, or minus the session for its jobs with limits), and its FIFO,
#: which is not empty.
Turn: TypeAlias = tuple[int, int, deque[Job]]


class GlobalQueue:
    """Bounded by its user (Policy.queue_jobs): here is only the order.

    A session may be *held back*: its jobs keep their places, and none of them is given out.
    """

    __slots__ = ("_held", "_levels", "_order", "length")

    def __init__(self) -> None:
        #: priority -> lane -> FIFO. Insertion order of the inner dict is the turn order.
        self._levels: dict[int, dict[int, deque[Job]]] = {0: {}}
        #: Priorities that have jobs, highest first, and the usual one.
        self._order: list[int] = [0]
        #: The same of sessions that are held back: session id -> priority -> FIFO.
        self._held: dict[int, dict[int, deque[Job]]] = {}
        #: Jobs that may be given out.
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"<GlobalQueue of {self.length} jobs, {self.held_back} held back>"

    def __iter__(self) -> Iterator[Job]:
        for priority in self._order:
            for fifo in self._levels[priority].values():
                yield from fifo
        for fifos in self._held.values():
            for fifo in fifos.values():
                yield from fifo

    @property
    def held_back(self) -> int:
        """Jobs of sessions that are held back."""
        return sum(len(fifo) for fifos in self._held.values() for fifo in fifos.values())

    def hold(self, sid: int) -> None:
        """Give out no more jobs of this session, until ``release``."""
        if sid in self._held:
            return
        held = self._held[sid] = {}
        for priority in list(self._order):
            fifo = self._levels[priority].get(sid)
            if fifo is not None:
                held[priority] = fifo
                self.length -= len(fifo)
                self._drop(priority, sid)

    def release(self, sid: int) -> None:
        """The jobs of this session take their turns again."""
        for priority, fifo in self._held.pop(sid, {}).items():
            self._fifo(priority, sid).extend(fifo)
            self.length += len(fifo)

    def put(self, priority: int, jobs: Sequence[Job]) -> None:
        """Append jobs of one session, alike in options."""
        sid = _lane(jobs[0])
        if sid in self._held:
            self._held[sid].setdefault(priority, deque()).extend(jobs)
            return
        self._fifo(priority, sid).extend(jobs)
        self.length += len(jobs)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """To the head, keeping their order: what a thief, a dead or a shrunk P gives back is older
        than all that waits (Go: procresize puts a dying P's ring at the head)."""
        for job in reversed(list(jobs)):
            priority, sid = job.option("priority", 0), _lane(job)
            if sid in self._held:
                self._held[sid].setdefault(priority, deque()).appendleft(job)
                continue
            self._fifo(priority, sid).appendleft(job)
            self.length += 1

    def heads(self) -> list[Job]:
        """The first of every FIFO: the oldest job is among them."""
        return [fifo[0] for level in self._levels.values() for fifo in level.values()]

    def head(self, skip: int | None = None, fits: Fits | None = None) -> Job | None:
        """The job that pop would give; ``skip`` is a session to pass over, and so is each whose
        next job does not fit.
        """
        turn = self.turn(skip, fits)
        return None if turn is None else turn[2][0]

    def turn(self, skip: int | None = None, fits: Fits | None = None) -> Turn | None:
        """Whose turn it is, for ``pop_turn`` before anything else; arguments as of ``head``."""
        levels = self._levels
        for priority in self._order:
            for sid, fifo in levels[priority].items():
                if sid != skip and (fits is None or fits(fifo[0])):
                    return priority, sid, fifo
        return None

    def lone(self) -> tuple[int, int] | None:
        """The highest priority that has jobs and their lane; None if they have several."""
        for priority in self._order:
            level = self._levels[priority]
            if level:
                return (priority, next(iter(level))) if len(level) == 1 else None
        return None

    def pop_run(self, limit: int, skip: int | None = None, fits: Fits | None = None) -> list[Job]:
        """Up to ``limit`` jobs, alike in function and options, that are next in turn.

        Where several sessions are served at this priority, each gets its part of ``limit``, one job
        at least, and the turn passes on. Alike, because they travel as one message.
        """
        turn = self.turn(skip, fits)
        assert turn is not None
        return self.pop_turn(turn, limit)

    def pop_turn(self, turn: Turn, limit: int) -> list[Job]:
        """As ``pop_run``, of the session whose turn it is."""
        priority, sid, fifo = turn
        level = self._levels[priority]
        if (sessions := len(level)) > 1:
            limit //= sessions
        first = fifo.popleft()
        run = [first]
        fn, options = first.fn, first.options
        for _ in range(min(limit - 1, len(fifo))):
            job = fifo[0]
            if job.fn is not fn or (job.options is not options and job.options != options):
                break
            run.append(fifo.popleft())
        self.length -= len(run)
        if not fifo:
            self._drop(priority, sid)
        elif len(level) > 1:
            level[sid] = level.pop(sid)
        return run

    def remove(self, jobs: Sequence[Job]) -> None:
        """Take jobs out of the middle, for cancellation: one pass over each queue concerned."""
        places: dict[tuple[int, int], set[int]] = {}
        for job in jobs:
            places.setdefault((job.option("priority", 0), _lane(job)), set()).add(id(job))
        for (priority, sid), gone in places.items():
            if sid in self._held:
                fifo = self._held[sid].pop(priority)
                if left := deque(job for job in fifo if id(job) not in gone):
                    self._held[sid][priority] = left
                continue
            level = self._levels[priority]
            left = deque(job for job in level[sid] if id(job) not in gone)
            self.length -= len(level[sid]) - len(left)
            level[sid] = left
            if not left:
                self._drop(priority, sid)

    def drop_session(self, sid: int) -> list[Job]:
        """Take out all that a session has waiting."""
        dropped = [*self._drop_lane(sid), *self.drop_limited(sid)]
        for fifo in self._held.pop(sid, {}).values():
            dropped.extend(fifo)
        return dropped

    def drop_limited(self, sid: int) -> list[Job]:
        """Take out those of a session that have passed a limit."""
        return self._drop_lane(-sid)

    def _drop_lane(self, lane: int) -> list[Job]:
        dropped: list[Job] = []
        for priority in list(self._order):
            fifo = self._levels[priority].get(lane)
            if fifo is not None:
                dropped.extend(fifo)
                self._drop(priority, lane)
        self.length -= len(dropped)
        return dropped

    def _fifo(self, priority: int, sid: int) -> deque[Job]:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = {}
            self._order = sorted(self._levels, reverse=True)
        fifo = level.get(sid)
        if fifo is None:
            fifo = level[sid] = deque()
        return fifo

    def _drop(self, priority: int, sid: int) -> None:
        level = self._levels[priority]
        del level[sid]
        if not level and priority:
            del self._levels[priority]
            self._order.remove(priority)


def _lane(job: Job) -> int:
    sid, options = job.session.sid, job.options
    return sid if options is None or options.limit is None else -sid
