"""Limits by key: jobs at once, and starts per interval (the job option ``limit``).

**The tension.** A job whose limit is reached must wait, and must not make others wait that come
after it; a million such jobs must cost no more than one. And the limit counts what *runs*: a job
that has passed and is not started yet takes a place that another one could use.

**Rejected.** To look for a job that may go in the global queue: each look passes all that may not.
To count at the lease and put the job back: the same, and it moves each time. To count starts when
a job passes: jobs that wait for a P could start together, twice as many as the limit in
one interval. To free a place by a timer: the frame may still run.

**Chosen.** A *gate* per key, with a queue of its own that is fair between clients. All jobs with a
limit wait there (LIMITED). A job that passes is QUEUED, in a lane beside the other jobs of its
client, so that its turn comes soon; its place is free when its frame has ended, its worker is
confirmed dead, or it was cancelled before it began. The interval counts a start from when its
worker's report of it comes, which is never before it was; until then the job counts as a start that
does not grow old. So no window of that length ever has more starts than the limit. (A start is the
claim of a lease whose turn has come: the import of its module, at a first call, comes after it.)

Further attempts pass the gate again. The newest numbers of a key count for all of its jobs. A gate
without jobs, and without starts that still count, is forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush

from gmpd.errors import InvariantError
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.records import Job
from gmpd.sched.states import JobState, transition

#: Keys that are known at once. Jobs of further ones are refused.
GATES_MAX = 100_000
#: Jobs that pass in one turn, of all gates: more of them wait for the next one (2 ms).
PASSES_MAX = 1000
#: Starts of a gate that are remembered one by one. Of more, those within 1/256 of the interval
#: count as one moment, the last of theirs.
STARTS_EXACT = 256

#: Key, jobs at once, starts, seconds: as ``protocol.Options.limit`` has them. 0: unlimited.
Numbers = tuple[str, int, int, float]


class Pass:
    """The place in its gate of a job that has passed."""

    __slots__ = ("gate", "started")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.started = False


class Gate:
    """The limit of one key. ``at_once`` and ``starts_max``: 0 is unlimited. Times in ns."""

    __slots__ = (
        "at_once", "due_ns", "inside", "key", "per_ns", "queue", "recent", "starting", "starts",
        "starts_max",
    )  # fmt: skip

    def __init__(self, numbers: Numbers) -> None:
        self.key = numbers[0]
        self.set(numbers)
        #: Jobs that wait for this limit.
        self.queue = GlobalQueue()
        #: Jobs that have passed, and whose frames have not ended.
        self.inside = 0
        #: Of them: those that are not known to have started. They count as starts.
        self.starting = 0
        #: When attempts started, in order: the first and the last moment, and how many.
        self.starts: deque[list[int]] = deque()
        #: The sum of ``starts``.
        self.recent = 0
        #: When it is to be looked at, even if nothing happens until then.
        self.due_ns: int | None = None

    def __repr__(self) -> str:
        return (
            f"<Gate {self.key[:60]!r}: {self.inside} inside of {self.at_once or 'any number'},"
            f" {self.recent + self.starting} starts of {self.starts_max or 'any number'} in"
            f" {self.per_ns / 1e9:g} s, {len(self.queue)} wait>"
        )

    def set(self, numbers: Numbers) -> None:
        """The numbers of a newer job."""
        _, self.at_once, self.starts_max, seconds = numbers
        self.per_ns = int(seconds * 1e9)

    def room(self, now: int) -> int:
        """How many may pass now."""
        room = self.at_once - self.inside if self.at_once else PASSES_MAX
        if self.starts_max:
            room = min(room, self.starts_max - self.counted(now))
        return max(0, room)

    def counted(self, now: int) -> int:
        """Starts that count now."""
        self._age(now)
        return self.starting + self.recent if self.starts_max else 0

    def _age(self, now: int) -> None:
        starts = self.starts
        while starts and starts[0][1] + self.per_ns <= now:
            self.recent -= starts.popleft()[2]

    def count_start(self, now: int) -> None:
        """An attempt has started by now."""
        if not self.starts_max:
            return
        self._age(now)
        self._add(now)

    def recall(self, times: Sequence[int]) -> None:
        """Attempts started at these times, before all that are known."""
        known, self.starts = self.starts, deque()
        for at in times:
            self._add(at)
        self.starts.extend(known)

    def _add(self, now: int) -> None:
        starts = self.starts
        self.recent += 1
        if len(starts) >= STARTS_EXACT and now - starts[-1][0] < self.per_ns >> 8:
            starts[-1][1] = now
            starts[-1][2] += 1
        else:
            starts.append([now, now, 1])

    def opens_ns(self) -> int | None:
        """When the interval gives room again; None when it does not keep any job waiting."""
        full = self.starts_max and self.starting + self.recent >= self.starts_max
        return self.starts[0][1] + self.per_ns if full and self.starts else None

    def is_unused(self, now: int) -> bool:
        """Whether nothing would be lost with it."""
        self._age(now)
        return not (len(self.queue) or self.inside or self.starts)


class Gates:
    """All gates. ``let_in`` puts jobs of one client, which have passed, where jobs wait for a
    worker."""

    def __init__(self, let_in: Callable[[list[Job]], None]) -> None:
        self._let_in = let_in
        #: By key. Empty while no job has a limit: then nothing here is called.
        self.by_key: dict[str, Gate] = {}
        #: Of the jobs that have passed and whose frames have not ended. ``Overrun`` has those of
        #: frames that overrun.
        self.passes: dict[Job, Pass] = {}
        #: Gates to look at in this turn, in order.
        self._news: dict[Gate, None] = {}
        #: Gates whose next jobs belong to clients that take no results.
        self._stuck: dict[Gate, None] = {}
        self._heap: list[tuple[int, int, Gate]] = []
        self._count = 0
        #: Jobs that wait.
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Gates: {len(self.by_key)} keys, {len(self.passes)} inside, {self.waiting} wait>"

    def __iter__(self) -> Iterator[Job]:
        for gate in self.by_key.values():
            yield from gate.queue

    # -- jobs wait ---------------------------------------------------------------------------------

    def set(self, numbers: Numbers, *, newest: bool) -> None:
        """A new job has these numbers. Not ``newest``: those of a known key stay as they are."""
        gate = self.by_key.get(numbers[0])
        if gate is None:
            self.by_key[numbers[0]] = gate = Gate(numbers)
        elif newest:
            gate.set(numbers)
        self._news[gate] = None

    def recall(self, numbers: Numbers, times: Sequence[int]) -> None:
        """Attempts of an earlier daemon started at these times, in order."""
        if self.has_room_for(numbers[0]):
            self.set(numbers, newest=False)
            self.by_key[numbers[0]].recall(times)

    def has_room_for(self, key: str) -> bool:
        """Whether the key is known, or one more may be."""
        return key in self.by_key or len(self.by_key) < GATES_MAX

    def line_up(self, jobs: Sequence[Job], *, first: bool = False) -> None:
        """LIMITED jobs of one client, alike in options, begin to wait; ``first``: before the others
        of their client."""
        gate = self._gate(jobs[0])
        if first:
            gate.queue.put_back(jobs)
        else:
            gate.queue.put(jobs[0].option("priority", 0), jobs)
        self.waiting += len(jobs)
        self._news[gate] = None

    def _gate(self, job: Job) -> Gate:
        assert job.options is not None
        numbers = job.options.limit
        assert numbers is not None
        gate = self.by_key.get(numbers[0])
        if gate is None:
            gate = self.by_key[numbers[0]] = Gate(numbers)
        return gate

    def remove(self, jobs: Iterable[Job]) -> None:
        """These wait, and are to end."""
        at: dict[Gate, list[Job]] = {}
        for job in jobs:
            at.setdefault(self._gate(job), []).append(job)
        for gate, mine in at.items():
            gate.queue.remove(mine)
            self.waiting -= len(mine)
            self._news[gate] = None

    def take_all(self) -> list[Job]:
        """Take out all that wait."""
        jobs = list(self)
        for gate in self.by_key.values():
            gate.queue = GlobalQueue()
            self._news[gate] = None
        self.waiting = 0
        return jobs

    # -- jobs pass ---------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether the last turn left something for the next one."""
        return bool(self._news)

    def next_due(self) -> int | None:
        """When an interval gives room, or a gate may be forgotten."""
        heap = self._heap
        while heap and heap[0][2].due_ns != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def open(self, now: int) -> None:
        """Let in what may pass."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due_ns, _, gate = heappop(heap)
            if gate.due_ns == due_ns:
                gate.due_ns = None
                self._news[gate] = None
        left = PASSES_MAX
        for _ in range(len(self._news)):
            if left <= 0:
                return
            gate = next(iter(self._news))
            del self._news[gate]
            left -= self._open(gate, left, now)

    def _open(self, gate: Gate, most: int, now: int) -> int:
        """Let in up to ``most``; how many."""
        self._stuck.pop(gate, None)
        passed = 0
        room = gate.room(now)
        while room > passed < most and len(gate.queue):
            turn = gate.queue.turn(None, _takes_results)
            if turn is None:
                self._stuck[gate] = None
                break
            jobs = gate.queue.pop_turn(turn, min(room, most) - passed)
            passed += len(jobs)
            self._passed(gate, jobs)
        if room > passed and len(gate.queue) and gate not in self._stuck:
            self._news[gate] = None  # the rest, in the next turn
        elif gate.is_unused(now):
            if self.by_key.get(gate.key) is gate:
                del self.by_key[gate.key]
        else:
            self._set_due(gate)
        return passed

    def _passed(self, gate: Gate, jobs: list[Job]) -> None:
        gate.inside += len(jobs)
        gate.starting += len(jobs)
        self.waiting -= len(jobs)
        for job in jobs:
            transition(job, JobState.QUEUED)
            self.passes[job] = Pass(gate)
        self._let_in(jobs)

    def _set_due(self, gate: Gate) -> None:
        """Look at it when its interval gives room; or when it can be forgotten."""
        due_ns = None
        if len(gate.queue):
            due_ns = gate.opens_ns()
        elif not gate.inside and gate.starts:
            due_ns = gate.starts[-1][1] + gate.per_ns
        if due_ns is not None and due_ns != gate.due_ns:
            gate.due_ns = due_ns
            self._count += 1
            heappush(self._heap, (due_ns, self._count, gate))

    # -- what becomes of them ----------------------------------------------------------------------

    def started(self, job: Job, now: int) -> None:
        """An attempt is known to have started."""
        held = self.passes.get(job)
        if held is not None and not held.started:
            self._start(held, now)

    def _start(self, held: Pass, now: int) -> None:
        held.started = True
        gate = held.gate
        gate.starting -= 1
        gate.count_start(now)
        self._news[gate] = None  # it is known now when this start no longer counts

    def ended(self, job: Job, now: int) -> None:
        """The frame of an attempt has ended, or its worker is confirmed dead; or it never began,
        if the job is QUEUED."""
        held = self.passes.pop(job, None)
        if held is not None:
            if not held.started and job.state is not JobState.QUEUED:
                self._start(held, now)
            self._leave(held)

    def all_ended(self, jobs: Iterable[Job], now: int) -> None:
        """``ended``, of many."""
        for job in jobs:
            self.ended(job, now)

    def unbegun(self, job: Job) -> None:
        """It had passed, and ends before it has begun."""
        held = self.passes.pop(job, None)
        if held is not None:
            self._leave(held)

    def overruns(self, job: Job, now: int) -> Pass | None:
        """Its time limit has passed and its frame has not ended: the caller gives this back, to
        ``frame_ended``, when it has."""
        held = self.passes.pop(job, None)
        if held is not None and not held.started:
            self._start(held, now)
        return held

    def frame_ended(self, held: Pass) -> None:
        """The counterpart of ``overruns``."""
        self._leave(held)

    def _leave(self, held: Pass) -> None:
        gate = held.gate
        gate.starting -= not held.started
        gate.inside -= 1
        self._news[gate] = None

    def take_back(self, jobs: Sequence[Job]) -> None:
        """QUEUED jobs that had passed, and cannot be leased now: they wait here again."""
        for job in reversed(jobs):
            self.unbegun(job)
            transition(job, JobState.LIMITED)
            self.line_up([job], first=True)

    def takes_results(self) -> None:
        """Some client takes results again."""
        self._news.update(self._stuck)
        self._stuck.clear()

    # -- for tests ---------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise InvariantError when places were miscounted, or a job waits that may pass. The
        passes of frames that overrun are not known here."""
        if self.waiting != sum(len(gate.queue) for gate in self.by_key.values()):
            raise InvariantError(f"{self.waiting} jobs wait for limits, and others are there")
        for gate in self.by_key.values():
            own = [held for held in self.passes.values() if held.gate is gate]
            if gate.starting != sum(not held.started for held in own):
                raise InvariantError(f"{gate!r} has other jobs that have not started")
            if gate.inside < len(own):
                raise InvariantError(f"{gate!r}: {len(own)} are inside")
            if gate.recent != sum(n for _, _, n in gate.starts):
                raise InvariantError(f"{gate!r} has other starts")
        for job in self.passes:
            if job.state in (JobState.DELAYED, JobState.LIMITED, JobState.FINAL):
                raise InvariantError(f"it has passed its limit: {job.story()}")


def _takes_results(job: Job) -> bool:
    return not job.session.full
