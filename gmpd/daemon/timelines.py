"""The live timeline: what all Ps did since the last question, asked for once or twice a second.

A worker that has not answered is not asked again, so a deaf one has no heap of questions to answer
later. It is waited for once, and briefly; its answer is part of a later reply. Windows adjoin for
each worker: what it did while it was silent is told when it answers.

Workers tell jobs by tokens. The coordinator adds the ids and times that it knows, of jobs that are
long enough to be seen: always of those of 10 ms, and of shorter ones only while there are
questions. Isolated workers are not asked at all: each has one job, which the coordinator knows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from gmpd import protocol
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.workers import Workers
from gmpd.errors import ConfigError
from gmpd.runtime.ring import Kind, Ring
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import p_of
from gmpd.sched.records import Job, PRecord
from gmpd.sched.schedt import Sched
from gmpd.status import PStatus

#: The number of its questions to workers: ``Fanout`` counts from 1.
REQUEST: Final = 0
#: How long workers are waited for: a few rounds of a loop that is busy but well.
WAIT_NS: Final = 100_000_000
#: A window ends a moment ago: an event is recorded shortly after its time.
SETTLE_NS: Final = 20_000_000
#: The longest window.
BACK_NS: Final = 30_000_000_000
#: Rows of one P in one window.
ROWS_MAX: Final = 6000
#: After the last question, jobs of less than LONG_US are remembered for this long.
WATCHED_NS: Final = 10_000_000_000
#: Jobs (us) that are always remembered, those while there are questions, and how few jobs come
#: together when each is.
LONG_US, SEEN_US, FEW = 10_000, 1000, 8
#: Jobs that are remembered; of those that run, the first of each P; and isolated ones.
KNOWN_MAX: Final = 4096
BEGUN_MAX: Final = 64
ALONE_MAX: Final = 500
#: Events of the coordinator that are looked at.
EVENTS_READ: Final = 8192

_LOW = (1 << 24) - 1

#: A worker, for as long as it lives: its P and epoch.
Who: TypeAlias = tuple[int, int]
#: Answers the callers: peer, request, value.
Answered: TypeAlias = Callable[[bytes, int, dict[str, Any]], None]


class Shown(Protocol):
    """The parts of a daemon that are shown here."""

    sched: Sched
    pool: WorkerPool
    workers: Workers
    deadlines: Deadlines
    durable: DurableJobs
    ring: Ring | None


class Timelines:
    """Asks workers, and answers callers. ``status_of``: of a worker that does not answer."""

    def __init__(
        self, daemon: Shown, status_of: Callable[[Who], PStatus], answered: Answered
    ) -> None:
        self._c = daemon
        self._status_of = status_of
        self._answer = answered
        self._deadline = daemon.deadlines.new(self._due)
        #: Callers that wait: peer, request, and since when they want to know.
        self._callers: list[tuple[bytes, int, int]] = []
        self._window = 0, 0
        self._due_ns = 0
        #: Workers that owe an answer: when they were asked, and until when they are to tell; and of
        #: those, the ones that a reply waits for.
        self._asked: dict[Who, tuple[int, int]] = {}
        self._awaited: set[Who] = set()
        #: Until when each has told, and what it told that no reply has had.
        self._until: dict[Who, int] = {}
        self._parts: dict[Who, list[bytes]] = {}
        self._watched_until = 0
        #: Of jobs that ended: when, P, epoch, token, id, accepted, durable.
        self._known: deque[tuple[int, int, int, int, str, int, bool]] = deque(maxlen=KNOWN_MAX)
        #: Isolated jobs that ended, and those that ran at the last look, by worker.
        self._alone: deque[list[Any]] = deque(maxlen=ALONE_MAX)
        self._alone_now: dict[int, list[Any]] = {}

    # -- questions and answers ---------------------------------------------------------------------

    def ask(self, peer: bytes, request: int, params: dict[str, Any]) -> None:
        """Answer the caller with what is new after ``since_ns``, in about ``rows`` rows of each
        P. A call that comes while another one waits gets the same answer."""
        since, rows = params.get("since_ns", 0), params.get("rows", ROWS_MAX)
        if type(since) is not int or since < 0:
            raise ConfigError(f"since_ns must be a time in ns, not {since!r}")
        if type(rows) is not int or not 1 <= rows <= ROWS_MAX:
            raise ConfigError(f"rows must be 1 to {ROWS_MAX}, not {rows!r}")
        now = time.monotonic_ns()
        self._watched_until = now + WATCHED_NS
        self._c.workers.noticed_us = 0
        since = max(min(since, now - SETTLE_NS), now - BACK_NS)
        if not self._callers:
            self._window = since, now - SETTLE_NS
            self._due_ns = now + WAIT_NS
            self._ask_workers(since, rows, now)
        self._callers.append((peer, request, since))
        self._deadline.now() if not self._awaited else self._deadline.set(self._due_ns)

    def _ask_workers(self, since: int, rows: int, now: int) -> None:
        records = {(p_of(each.p), each.epoch): each for each in self._records()}
        for dead in self._asked.keys() - records.keys():
            del self._asked[dead]
        self._until = {who: at for who, at in self._until.items() if who in records}
        for who, record in records.items():
            if who in self._asked:
                continue
            self._asked[who] = now, self._window[1]
            self._awaited.add(who)
            begin = max(min(since, self._until.get(who, since)), now - BACK_NS)
            params = {"since_ns": begin, "until_ns": self._window[1], "rows": rows}
            self._c.workers.tell(record, protocol.Ask(REQUEST, "timeline", params))

    def _records(self) -> list[PRecord]:
        sched = self._c.sched
        serving = [each for each in sched.ps.values() if each.ready]
        return [*serving, *sched.leaving.values()]

    def answered(self, who: Who, value: Any) -> None:
        """A worker's answer; one that was not asked for changes nothing."""
        asked = self._asked.pop(who, None)
        if asked is None or not isinstance(value, bytes):
            return
        self._parts.setdefault(who, []).append(value)
        self._until[who] = asked[1]
        self._awaited.discard(who)
        if not self._awaited and self._callers:
            self._deadline.now()

    def worker_died(self) -> None:
        """One that is waited for may be among the dead."""
        if self._callers:
            alive = {(p_of(each.p), each.epoch) for each in self._records()}
            self._awaited &= alive
            self._deadline.set(None if self._awaited else 0)

    def _due(self, now: int) -> None:
        """All have answered, or the time is over."""
        if not self._callers:
            return
        if self._awaited and now < self._due_ns:
            self._deadline.set(self._due_ns)
            return
        self._awaited.clear()
        callers, self._callers = self._callers, []
        value = self._value(min(since for *_, since in callers))
        for peer, request, _ in callers:
            self._answer(peer, request, value)

    # -- a reply -----------------------------------------------------------------------------------

    def _value(self, since: int) -> dict[str, Any]:
        now = time.monotonic_ns()
        parts, self._parts = self._parts, {}
        steals, workers = self._moves(since)
        return {
            "since": since, "until": self._window[1], "now": now,
            "wall_ms": time.time_ns() // 1_000_000,
            "ps": [*self._ps(parts, now)],
            "jobs": [*self._jobs(since)], "isolated": [*self._isolated(since, now)],
            "steals": steals, "workers": workers,
        }  # fmt: skip

    def _ps(self, parts: dict[Who, list[bytes]], now: int) -> Iterator[dict[str, Any]]:
        serving = {p: record.epoch for p, record in self._c.sched.ps.items() if record.ready}
        whos = {(p, serving.get(p, 0)) for p in range(self._c.pool.procs)}
        for who in sorted(whos | parts.keys() | self._asked.keys()):
            told = parts.get(who, [])
            silent_ns = now - self._asked[who][0] if who in self._asked else 0
            row: dict[str, Any] = {"p": who[0], "epoch": who[1], "parts": told}
            if not told:
                status = self._status_of(who)
                row |= {"state": status.state, "pid": status.pid}
            yield row | {"silent_s": silent_ns / 1e9}

    def _moves(self, since: int) -> tuple[list[Any], list[Any]]:
        """Steals (at, victim, thief, jobs), and workers that began or died (at, P, epoch, died)."""
        steals: list[Any] = []
        workers: list[Any] = []
        ring, until = self._c.ring, self._window[1]
        for what, first, second, number in () if ring is None else ring.events_since(
            since, EVENTS_READ
        ):  # fmt: skip
            kind, extra = what & 0xFF, what >> 8
            if kind == Kind.REVOKED and extra >> 24 and since < second <= until:
                steals.append((second, extra & _LOW, (extra >> 24) - 1, number))
            elif kind in (Kind.READY, Kind.DIED) and since < first <= until:
                workers.append((first, extra, number, kind == Kind.DIED))
        return steals, [each for each in workers if each[1] < ISOLATED_FROM]

    # -- jobs --------------------------------------------------------------------------------------

    def least_us(self, now: int) -> int:
        """How long a job must have run to be of interest."""
        return 0 if now < self._watched_until else LONG_US

    def finished(self, record: PRecord, tokens: list[int], ran_us: list[int], now: int) -> None:
        """Jobs of a P have ended: remember those that are seen one by one."""
        least_us = self.least_us(now)
        if not least_us and len(tokens) > FEW:
            least_us = SEEN_US
        if max(ran_us, default=0) < least_us:
            return
        for token, us in zip(tokens, ran_us, strict=True):
            if us >= least_us and (job := record.job(token)) is not None:
                if record.p >= ISOLATED_FROM:
                    self._alone.append([record.p, now - us * 1000, now, *self._about(job)])
                else:
                    self._known.append((now, p_of(record.p), record.epoch, token, *self._of(job)))

    def _of(self, job: Job) -> tuple[str, int, bool]:
        """Its id, when it was accepted, and whether it is durable."""
        return self._c.durable.shown_id(job), job.accepted_ns, job.session.patient

    def _about(self, job: Job) -> tuple[str, str, int, bool]:
        return (job.fn.name, *self._of(job))

    def _jobs(self, since: int) -> Iterator[Any]:
        """Jobs that ended (P, epoch, token, id, accepted, durable), then some that run."""
        for at, *known in reversed(self._known):
            if at <= since:
                break
            yield known
        for record in self._records():
            for token, job in islice(record.started.items(), BEGUN_MAX):
                yield (p_of(record.p), record.epoch, token, *self._of(job))

    def _isolated(self, since: int, now: int) -> Iterator[Any]:
        """Isolated jobs: worker, began, ended (0: it runs), function, id, accepted, durable."""
        before, self._alone_now = self._alone_now, {}
        for record in self._c.sched.isolated.ps.values():
            for job in record.started.values():
                self._alone_now[record.p] = [record.p, record.leased_ns, 0, *self._about(job)]
        ended = {row[0] for row in self._alone}
        for number in before.keys() - self._alone_now.keys() - ended:
            number, began, _, *about = before[number]
            self._alone.append([number, began, now, *about])  # it was ended, or died
        yield from (row for row in self._alone if row[2] > since)
        yield from self._alone_now.values()
