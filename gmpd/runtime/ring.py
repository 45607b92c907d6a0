"""The last events of a P, which are always kept (Go: the flight recorder).

An event is four integers: its kind with a number of 56 bits above it, two times
(``time.monotonic_ns``, the same clock in all processes of a machine), and a lease's token. To add
one is one call of a list's ``extend``; P moves them into arrays when it polls. A job or a sleep is
recorded when it ends, in one event: an answer also tells what runs. Jobs that ended come
in columns, with the message that reports them: so a job costs two appends.

Each step of an async job is an event. Of children and plain tasks, whose switches cost a few
hundred nanoseconds, only some have events (``followed``): those that are made while events come
slower than ``EVENTS_PER_S``. Their tokens are ``~id`` of the G, below 0.

Any thread may add an event; the M that holds P settles and dumps.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, TypeAlias

from gmpd.sched.sysmon import Trait

#: Integers of an event, and of a job.
WIDTH: Final = 4
ROW_BYTES: Final = WIDTH * 8
#: Events of an array, and of the ring: 2 MB. Jobs are as many again.
CHUNK: Final = 1024
EVENTS_MAX: Final = 64 * CHUNK
#: Events in a second beyond which the steps of jobs that begin are left out: the ring would go back
#: less than 6 s, and short coroutines would take a tenth longer.
EVENTS_PER_S: Final = 10_000
#: Turns of the coordinator that take this long are recorded, and one shorter in TURN_EVERY_NS:
#: at 20,000 turns a second the ring would go back 3 s.
LONG_TURN_NS: Final = 100_000
TURN_EVERY_NS: Final = 1_000_000
#: Children and tasks that may be made between two polls and have events: P makes up to a thousand
#: in that time.
FOLLOW_MAX: Final = 256
#: Names of functions of children; others have none. In a step of one that has ended, its number is
#: above the code.
CHILD_NAMES_MAX: Final = 10_000
CHILD_NAME_MAX: Final = 200
NAME_SHIFT: Final = 16
#: Functions whose names are kept; jobs of others are shown by number.
NAMES_MAX: Final = 10_000
#: Wait reasons by types; those of more types are looked up each time.
CODES_MAX: Final = 1000

Event: TypeAlias = tuple[int, int, int, int]


class Kind(IntEnum):
    """The kinds of events, each with its number, times and token."""

    #: Code of the wait reason; began, ended; token: one step of an async job.
    STEP = 1
    #: 0; at, 0; token: an async job that waited is made ready.
    WAKE = 2
    #: 0; began, ended; 0: P slept in select.
    IDLE = 3
    #: M | trait << 24 | M that gets P << 32; G began, at; token: P leaves an M whose G continues.
    HANDOFF = 4
    #: M; at, 0; token: a G that has waited without P continues with it.
    BACK = 5
    #: Count | stolen ones << 24; at, function (of the coordinator: P); first token: leases arrived,
    #: or were sent.
    LEASED = 6
    #: Victim | (thief + 1) << 24; asked, at; count: the coordinator revoked leases, if there is a
    #: thief to steal them.
    REVOKED = 7
    #: Jobs in the global queue; began, ended; unfinished ones: a turn of the coordinator, if
    #: ``Ring.takes_turn``.
    TURN = 8
    #: P; at, 0; epoch: a worker serves, or has died.
    READY = 9
    DIED = 10
    #: Outcome; at, 0; token: a job ended otherwise than with a value.
    FAILED = 11
    #: Name; at, token of the G that made it; token: a child or task that has events from now on.
    CHILD = 12
    #: 1 if it runs in another worker; at, 0; token: no steps of a G are recorded from now on.
    LEFT = 13
    #: 0; from, to; 0: steps of async jobs that began and of children that were made were left out.
    PAUSED = 14
    #: 0; from, to; 0: the coordinator asked Ps for children, and those without work searched.
    SEARCH = 15


#: Kinds whose token is that of a lease.
_OF_LEASES: Final = frozenset({Kind.STEP, Kind.WAKE, Kind.HANDOFF, Kind.BACK, Kind.FAILED})

#: Numbers, not members of an enum: they are used with every step.
STEP, WAKE, IDLE, TURN = map(int, (Kind.STEP, Kind.WAKE, Kind.IDLE, Kind.TURN))
SEARCH, _PAUSED, _LEFT = int(Kind.SEARCH), int(Kind.PAUSED), int(Kind.LEFT)

#: Numbers of the traits in HANDOFF; 0: it gave P away by a call that is known to block.
TRAITS: Final = {None: 0, Trait.BLOCKED: 1, Trait.HOG: 2, Trait.NATIVE: 3}
TRAIT_NAMES: Final = ("known", "blocked", "hog", "native")

#: The outcomes of children, as numbers of ``protocol.Outcome``.
OK, ERROR, CANCELLED = 0, 1, 3

#: Codes of wait reasons that are none of Go's.
ENDED, YIELDED = 0, 1


class _Ended:
    """The type that stands for the end of a coroutine."""


END: Final = _Ended()


class Codes(dict[type, int]):
    """The code of a wait reason, by the type of what a coroutine has yielded."""

    def __init__(self) -> None:
        # ``GOSCHED`` is a plain object.
        super().__init__({_Ended: ENDED, type(None): YIELDED, object: YIELDED})
        self.reasons = ["ended", "yield"]

    def __missing__(self, kind: type) -> int:
        reason = _reason(kind)
        if reason not in self.reasons:
            self.reasons.append(reason)
        code = self.reasons.index(reason)
        if len(self) < CODES_MAX:
            self[kind] = code
        return code


def _reason(kind: type) -> str:
    """As ``stacks.wait_reason``, without numbers."""
    # With it comes asyncio, which the coordinator, a reader of rings, has no use for.
    from gmpd.runtime.sudog import Wait

    if issubclass(kind, Wait):
        return kind.reason
    return "G wait" if hasattr(kind, "await_begins") else "IO wait"  # of a ``CoroG``


@dataclass(slots=True)
class RingDump:
    """Events and jobs as bytes, the oldest first, and what their numbers mean."""

    events: bytes = b""
    #: Each is (token, began, ended in us after that, function; ``~function`` of an async one).
    jobs: bytes = b""
    #: Jobs that have not ended: their time is -1.
    running: bytes = b""
    #: Events and jobs that are kept no more.
    lost: int = 0
    names: dict[int, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    #: False: there is no ring.
    keeps: bool = True
    #: Names of children, by their numbers.
    children: list[str] = field(default_factory=list)
    #: Those that have not ended: CHILD with the name; when its call began, if it is one, 0; token.
    alive: bytes = b""
    #: Since when steps are left out; 0: they are not.
    paused_ns: int = 0


class Ring:
    """The newest ``EVENTS_MAX`` events, and as many jobs, of one process."""

    __slots__ = (
        "_chunk_ns", "_chunks", "_jobs", "_jobs_kept", "_new", "_paused_ns", "_resume_ns",
        "_turn_ns", "add", "children", "codes", "lost", "names", "takes_steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self._new: list[int] = []
        #: Append one event: the list's own method.
        self.add: Callable[[Event], None] = self._new.extend
        self._chunks: deque[array[int]] = deque()
        #: Whether steps are recorded: of async jobs that begin now, and those begun before of which
        #: none was left out.
        self.takes_steps = True
        #: When the newest chunk began to fill, since when steps are not taken, and when they are
        #: again.
        self._chunk_ns = self._paused_ns = self._resume_ns = 0
        #: From when on a short turn is recorded.
        self._turn_ns = 0
        #: Of each batch, its columns one after the other, and when it was added.
        self._jobs: deque[array[int]] = deque()
        self._jobs_kept = 0
        #: Events and jobs that are no longer kept.
        self.lost = 0
        self.codes = Codes()
        #: Functions of jobs by their numbers.
        self.names: dict[int, str] = {}
        #: Numbers of the names of children; 0: of all others.
        self.children: dict[str, int] = {"": 0}

    def settle(self, now_ns: int) -> int:
        """Move new events into an array, if there are enough. P calls this when it polls. Gives how
        many of the Gs that it makes before the next poll may have events."""
        if len(self._new) >= CHUNK * WIDTH:
            self._move(now_ns)
        if not self.takes_steps:
            if now_ns < self._resume_ns:
                return 0
            self._chunk_ns = now_ns
            self._resume(now_ns)
        return FOLLOW_MAX

    def _move(self, now_ns: int) -> None:
        new = self._new
        n = len(new) // WIDTH * WIDTH
        self._chunks.append(array("q", new[:n]))
        del new[:n]  # others may have appended meanwhile
        if len(self._chunks) > EVENTS_MAX // CHUNK:
            self.lost += len(self._chunks.popleft()) // WIDTH
        self._resume_ns = self._chunk_ns + n // WIDTH * (10**9 // EVENTS_PER_S)
        self._chunk_ns = now_ns
        if now_ns >= self._resume_ns:
            self._resume(now_ns)
        elif self.takes_steps:
            self.takes_steps, self._paused_ns = False, now_ns

    def _resume(self, now_ns: int) -> None:
        if not self.takes_steps:
            self.takes_steps = True
            self.add((_PAUSED, self._paused_ns, now_ns, 0))

    def takes_turn(self, began_ns: int, ended_ns: int) -> bool:
        """Whether to record a turn of the coordinator: long ones, and one per millisecond."""
        if ended_ns - began_ns < LONG_TURN_NS and ended_ns < self._turn_ns:
            return False
        self._turn_ns = ended_ns + TURN_EVERY_NS
        return True

    def add_jobs(
        self, tokens: list[int], began_ns: list[int], ran_us: list[int], functions: list[int]
    ) -> None:
        """Jobs that ended, as columns."""
        at = [time.monotonic_ns()]
        self._jobs.append(array("q", tokens + began_ns + ran_us + functions + at))
        self._jobs_kept += len(tokens)
        while self._jobs_kept > EVENTS_MAX and len(self._jobs) > 1:
            n = len(self._jobs.popleft()) // WIDTH
            self._jobs_kept -= n
            self.lost += n

    @property
    def has_jobs(self) -> bool:
        """Whether it keeps any."""
        return bool(self._jobs)

    def name(self, number: int, name: str) -> None:
        """Remember the name of a function."""
        if len(self.names) >= NAMES_MAX and number not in self.names:
            del self.names[next(iter(self.names))]
        self.names[number] = name

    def child(self, name: str) -> int:
        """The number of the name of a child."""
        number = self.children.get(name)
        if number is None:
            if len(self.children) >= CHILD_NAMES_MAX:
                return 0
            number = self.children[name[:CHILD_NAME_MAX]] = len(self.children)
        return number

    def of(self, token: int, limit: int) -> list[Event]:
        """The newest ``limit`` events of a lease, the oldest first. A full ring takes a
        millisecond."""
        found: list[Event] = []
        new = array("q", self._new[: len(self._new) // WIDTH * WIDTH])
        for chunk in (new, *reversed(self._chunks)):
            mine = []
            for at in _indices(chunk[WIDTH - 1 :: WIDTH], token):
                kind, began, ended, _ = chunk[at * WIDTH : (at + 1) * WIDTH]
                if kind & 0xFF in _OF_LEASES:
                    mine.append((kind, began, ended, token))
            found = mine + found
            if len(found) >= limit:
                break
        return found[-limit:]

    def dump(
        self, since_ns: int, nbytes: int, running: bytes = b"", alive: bytes = b""
    ) -> RingDump:
        """Events and jobs from about ``since_ns`` on, the newest ``nbytes``; and what runs."""
        rows = max(1, nbytes // ROW_BYTES // 2)
        tail = array("q", self._new[: len(self._new) // WIDTH * WIDTH])
        events = [tail[-rows * WIDTH :]]
        rows_left = rows - len(events[0]) // WIDTH
        for chunk in reversed(self._chunks):
            rows_left -= len(chunk) // WIDTH
            if rows_left < 0 or max(chunk[-3], chunk[-2]) < since_ns:
                break
            events.append(chunk)
        return RingDump(
            b"".join(each.tobytes() for each in reversed(events)),
            self._dump_jobs(since_ns, rows),
            running,
            self.lost,
            dict(self.names),
            list(self.codes.reasons),
            children=list(self.children),
            alive=alive,
            paused_ns=0 if self.takes_steps else self._paused_ns,
        )

    def jobs_since(self, since_ns: int) -> list[tuple[int, array[int]]]:
        """Batches of jobs that were added after ``since_ns``, the oldest first: when each was, and
        its columns one after the other, each with a ``WIDTH``th of it."""
        found: list[tuple[int, array[int]]] = []
        for batch in reversed(self._jobs):
            if batch[-1] <= since_ns:
                break
            found.append((batch[-1], batch))
        return found[::-1]

    def events_since(self, since_ns: int, limit: int) -> list[Event]:
        """Events from about ``since_ns`` on, the newest ``limit``."""
        new = self._new[: len(self._new) // WIDTH * WIDTH]
        parts: list[Sequence[int]] = [new]
        left = limit - len(new) // WIDTH
        for chunk in reversed(self._chunks):
            if left <= 0 or max(chunk[-3], chunk[-2]) < since_ns:
                break
            parts.append(chunk)
            left -= len(chunk) // WIDTH
        numbers = [number for part in reversed(parts) for number in part[-limit * WIDTH :]]
        return list(zip(*[iter(numbers)] * WIDTH, strict=True))[-limit:]

    def _dump_jobs(self, since_ns: int, rows: int) -> bytes:
        found: list[array[int]] = []
        for batch in reversed(self._jobs):
            n = len(batch) // WIDTH
            rows -= n
            if rows < 0 or batch[2 * n - 1] + batch[3 * n - 1] * 1000 < since_ns:
                break
            turned = array("q", bytes(n * ROW_BYTES))
            for column in range(WIDTH):
                turned[column::WIDTH] = batch[column * n : (column + 1) * n]
            found.append(turned)
        return b"".join(each.tobytes() for each in reversed(found))


def _indices(column: array[int], wanted: int) -> Iterator[int]:
    at = -1
    with suppress(ValueError):
        while True:
            at = column.index(wanted, at + 1)
            yield at


def add_step(ring: Ring, job: Any, yielded: type, began_ns: int, ended_ns: int) -> Ring | None:
    """Record a step of an async job. None if events have come too fast: the rest of it is left out,
    and the ring says so."""
    ring.add((STEP | ring.codes[yielded] << 8, began_ns, ended_ns, job.token))
    if ring.takes_steps or yielded is _Ended:
        return ring
    job.stepped = False
    ring.add((_LEFT, ended_ns, 0, job.token))
    return None


def that_takes_steps(ring: Ring | None) -> Ring | None:
    """The ring in which an async job that begins now records its steps, if any."""
    return ring if ring is not None and ring.takes_steps else None


def rows_of(data: bytes) -> Sequence[Event]:
    """The events or jobs of a dump."""
    numbers: Any = array("q")
    numbers.frombytes(data[: len(data) // ROW_BYTES * ROW_BYTES])
    return list(zip(*[iter(numbers)] * WIDTH, strict=True))
