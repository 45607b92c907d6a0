"""Leases of one quick function that came together, as one G: it calls for one after the other.

A fresh G for each of them costs several times what such a call takes: an object, a place in the run
queue, a context, a start and an end. Here all of a message share those. A lease keeps all that is
promised of it: it is claimed right before its call, and named in shared memory meanwhile; its
outcome is stored there before the next one is claimed; its times are its own.

Whatever is not plain and quick falls back on ``Attempt``, whose object this is for the lease whose
turn it is. A call that loses P, gives a coroutine, or whose job is known outside (it logs, tells
progress, starts children) keeps the object; the leases behind it go to another one.

**Who may touch it.** The M with P, between two calls. During a call sysmon, under ``p.lock``:
``parted``. So the look at ``end`` after the call comes before ``tick`` counts up, as the look at
``preempt`` does (``runtime.m``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from gmpd.codec import MARK, decode_call, resolve_function, scalar_result
from gmpd.daemon.attempt import SMALL_BYTES, Attempt, Host
from gmpd.daemon.definitions import QUICK_NS, RemoteFunction
from gmpd.daemon.leased import Leased
from gmpd.daemon.outcomes import GATHER_MAX, GATHER_NS, OutcomeBatch, is_due
from gmpd.daemon.run_spans import open_spans
from gmpd.daemon.withheld import Withheld
from gmpd.protocol import Assign, Outcome
from gmpd.runtime.coro import leave_fork
from gmpd.runtime.fresh import LOST
from gmpd.runtime.p import M
from gmpd.runtime.progress import Progress

if TYPE_CHECKING:
    import cython
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    bits = int.bit_length

#: After this time a run queues up again, at the head, and P looks at its sockets.
RUN_NS = 1_000_000
#: Arguments of all leases of a run, in bytes: they are kept until its end.
RUN_BYTES = 64 * 1024

_SPANS = MARK[0]
#: Results of these are looked at no further.
_SCALARS = frozenset({type(None), bool, int, float})
_OK: Final = int(Outcome.OK)


class RunHost(Host, Protocol):
    """The worker, as a run needs it."""

    #: Claims a lease, unless it was revoked.
    claim: Callable[[int, int], bool]
    #: Leases that have not ended, by token.
    attempts: dict[int, Attempt]
    #: Begun, not ended, and the coordinator does not know yet that they began.
    unreported: dict[int, Attempt]
    #: Outcomes that have not been sent.
    outcomes: OutcomeBatch
    withheld: Withheld
    #: Leases that have not begun; and how long those of them take that are not quick.
    fresh: int
    slow_ns: int
    #: When outcomes were sent last.
    flushed_ns: int

    def flush(self) -> None: ...


def may_run_as_one(message: Assign, fn: RemoteFunction) -> bool:
    """Whether one G may run all leases of a message."""
    return (
        fn.quick
        and fn.gathers
        and not fn.is_async
        and len(message.payloads) > 1
        and message.options is None
        and message.buffer_counts is None
        and not message.stolen
    )


def settle(
    worker: RunHost,
    fn: RemoteFunction,
    token: int,
    data: bytes,
    began_ns: int,
    ended_ns: int,
    occupied_ns: int,
) -> None:
    """A lease has ended with a small value, and another one follows: as ``Worker.ended``, which is
    for all others, without what no plain, quick one needs."""
    outcomes, shm = worker.outcomes, worker.shm
    quick_ns = fn.learn(occupied_ns)
    ran_us, occupied_us = (ended_ns - began_ns) // 1000, occupied_ns // 1000
    del worker.attempts[token]
    n = outcomes.add_plain(token, began_ns, fn.fid, data, ran_us, occupied_us)
    shm.store(token, _OK, data, ran_us, occupied_us)
    if (
        n >= GATHER_MAX
        or quick_ns >= QUICK_NS
        or (
            ((age_ns := ended_ns - worker.flushed_ns) > GATHER_NS or worker.slow_ns)
            and is_due(age_ns, worker.fresh, worker.slow_ns, quick_ns)
        )
    ):
        worker.flush()


class LeaseRun(Attempt):
    """A fresh G; see the module."""

    __slots__ = ("at", "coro", "end", "first_id", "first_token", "kept", "payloads")

    worker: RunHost

    def __init__(
        self,
        worker: RunHost,
        fn: RemoteFunction,
        leased: Leased | None,
        first_token: int,
        payloads: list[bytes],
        at: int = 0,
    ) -> None:
        super().__init__(worker, first_token + at, fn, None, payloads[at], ())
        self.leased = leased
        self.first_token = first_token
        self.first_id = 0
        self.payloads = payloads
        #: The lease whose turn it is, and the first one that is not of this run any more.
        self.at = at
        self.end = len(payloads)
        #: Others may know this object as the present job.
        self.kept = False
        #: The return of its call, if that is to be awaited.
        self.coro: Coroutine[Any, Any, Any] | None = None
        worker.attempts.update(dict.fromkeys(range(self.token, first_token + self.end), self))

    def queue(self) -> None:
        """To the tail of the run queue. Each of its leases has a number of its own, as a G."""
        self.worker.loop.fresh.put(self, self.end - self.at)
        self.first_id = self.id - self.at

    @property
    def progressed(self) -> Callable[[Progress], None]:
        """As ``Attempt.progressed``. Code that asks for it may keep this object: a child inherits
        it."""
        self.kept = True
        return super().progressed

    # -- the G -------------------------------------------------------------------------------------

    def start(self) -> Coroutine[Any, Any, Any] | None:
        """Call for one lease after the other. The last of them ends as a single one does, in
        ``finished``; a coroutine that one gives is the loop's to drive."""
        worker, clock, payloads = self.worker, time.monotonic_ns, self.payloads
        p, withheld = worker.loop.p, worker.withheld
        m, runq, stats = p.owner, p.runq, p.stats
        assert m is not None  # the caller
        context, slices = m.context, stats.slice
        at = self._claim(m, self.at, clock())
        if at < 0:
            return None
        until_ns = self.began_ns + RUN_NS
        while True:
            data = self._call(payloads[at])
            if p.forked:
                leave_fork(self.outcome is not Outcome.OK)
            ended = self.ended_ns = clock()
            began = self.began_ns
            occupied = self.occupied_ns = ended - began - self.away_ns
            if self.coro is not None:
                return self._leave()
            lost = m.preempt
            if (
                at + 1 == self.end
                or lost
                or self.kept
                or withheld.is_needed
                or context
                or runq.runnext is not None
                or runq.global_
                or ended > until_ns
            ):
                return None
            m.tick += 1
            if m.preempt and not worker.loop.ms.exitsyscall(m):
                return LOST  # type: ignore[no-any-return]
            m.g = None
            took = ended - m.start_ns
            slices[bits(took)] += 1
            stats.slice_sum_ns += took
            stats.finished += 1
            runq.schedtick += 1
            if data is not None:
                settle(worker, self.fn, self.first_token + at, data, began, ended, occupied)
            else:
                worker.ended(self)
                self._renew()
            at = self._claim(m, at + 1, clock())
            if at < 0:
                return None

    def _call(self, payload: bytes) -> bytes | None:
        """The present lease's value, if it is small; else the outcome is where ``Attempt`` has
        it."""
        try:
            if payload[0] == _SPANS:
                payload = self._open_spans(payload)
            call = resolve_function(self.fn.ref)
            args, kwargs = decode_call(payload)
            result = call(*args, **kwargs)
            if result.__class__ in _SCALARS:
                data = self.data = scalar_result(result)
                return data
            self.coro = self._taken(result)
            small = self.coro is None and not self.out_buffers and len(self.data) <= SMALL_BYTES
            return self.data if small else None
        except BaseException as exc:  # noqa: BLE001 - whatever a job raises is its outcome
            self._fail(exc)
            return None

    def _claim(self, m: M, at: int, now_ns: int) -> int:
        """Claim the next lease from ``at`` on that was not revoked, and give its place; -1 if all
        were: the last one is told in ``finished``."""
        worker, first_token, first_id = self.worker, self.first_token, self.first_id
        claim = worker.claim
        while True:
            self.at = at
            token = self.token = first_token + at
            self.id = first_id + at
            worker.fresh -= 1
            if claim(token, now_ns):
                self.began_ns = m.start_ns = now_ns
                m.g = self
                return at
            self.began_ns = 0
            if at + 1 == self.end:
                return -1
            worker.revoked(self)
            at += 1

    def _open_spans(self, payload: bytes) -> bytes:
        """Begin those of a call with a header, and give the call. They stay with this object."""
        self.payload, self.kept = payload, True
        open_spans(self, self.worker.loop, self._found)
        return self.payload

    def _renew(self) -> None:
        """This object is for another lease from here on."""
        self.outcome, self.data, self.out_buffers = Outcome.OK, b"", ()
        self.away_ns = 0

    def finished(self) -> None:
        """The present lease has ended, or was revoked; those behind it are next."""
        worker = self.worker
        keeps = self.kept or worker.withheld.is_needed
        super().finished()
        if self.at + 1 == self.end:
            return
        if keeps:
            following = self._part()
        else:
            self._renew()
            self.at += 1
            following = self
        worker.loop.p.runq.ring.appendleft(following)

    # -- parts of it -------------------------------------------------------------------------------

    def parted(self) -> None:
        """Its M has lost P, which the leases behind the present one need. ``p.lock`` is held, and
        its call runs on."""
        self.worker.unreported[self.token] = self
        if self.at + 1 < self.end:
            self.worker.loop.p.runq.ring.appendleft(self._part())

    def _part(self) -> LeaseRun:
        """The leases behind the present one, with an object of their own."""
        following = LeaseRun(
            self.worker, self.fn, self.leased, self.first_token, self.payloads, self.at + 1
        )
        following.first_id, following.end = self.first_id, self.end
        following.id = self.first_id + self.at + 1
        self.end = self.at + 1
        return following

    def _leave(self) -> Coroutine[Any, Any, Any] | None:
        """The present lease is a coroutine's, which the loop is to drive; those behind it will be,
        too."""
        self.adopted, self.fn.gathers = True, False
        with self.worker.loop.p.lock:  # for the case that sysmon takes P just now
            self._scatter(self.at + 1)
        coro, self.coro = self.coro, None
        return coro

    def scatter(self) -> bool:
        """If there are several leases: each becomes a G of its own, as some have to wait. Before
        its start."""
        if self.at + 1 == self.end:
            return False
        self._scatter(self.at)
        return True

    def _scatter(self, first: int) -> None:
        worker, attempts = self.worker, []
        for at in range(first, self.end):
            attempt = Attempt(worker, self.first_token + at, self.fn, None, self.payloads[at], ())
            attempt.leased, attempt.id = self.leased, self.first_id + at
            attempts.append(attempt)
        worker.attempts.update({attempt.token: attempt for attempt in attempts})
        worker.loop.p.runq.ring.extendleft(reversed(attempts))
        self.end = first
