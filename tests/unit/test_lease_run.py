"""Leases of a quick function that share a G: each is a call of its own all the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gmpd import protocol
from gmpd.codec import FunctionRef, decode, encode_call
from gmpd.daemon import lease_run
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.definitions import QUICK_NS, RemoteFunction
from gmpd.daemon.lease_run import LeaseRun, may_run_as_one
from gmpd.daemon.outcomes import OutcomeBatch
from gmpd.daemon.shm import WorkerShm
from gmpd.protocol import Outcome
from gmpd.runtime.fresh import LOST
from gmpd.runtime.p import M
from gmpd.sched.runq import RunQueue

#: What the jobs of a test do; set by it.
_job: Callable[[int], Any] = abs
_var: ContextVar[int] = ContextVar("test-lease-run", default=0)


def call(n: int) -> Any:
    """The function of all jobs."""
    return _job(n)


class _Ms:
    """``lost``: sysmon was at it, and P is gone."""

    lost = False

    def exitsyscall(self, m: M) -> bool:
        m.preempt = False
        return not self.lost


class _Shm(WorkerShm):
    """Without memory: notes the tokens of what is stored."""

    def __init__(self, stored: list[int]) -> None:
        self.stored = stored

    def store(self, token: int, *_: Any) -> bool:
        self.stored.append(token)
        return True


class Worker:
    """A worker of which a run needs no more. ``run`` does what the loop does."""

    def __init__(self, n: int = 5, first: int = 10) -> None:
        self.revoked_tokens: set[int] = set()
        self.gone: list[int] = []
        self.stored: list[int] = []
        self.outcomes = OutcomeBatch()
        self.attempts: dict[int, Attempt] = {}
        self.unreported: dict[int, Attempt] = {}
        self.withheld = SimpleNamespace(is_needed=False)
        self.fresh, self.slow_ns, self.flushed_ns = n, 0, 1 << 62
        self.m = M(cast("Any", SimpleNamespace()), 1)
        self.ms = _Ms()
        runq = RunQueue()
        stats = SimpleNamespace(slice=[0] * 64, slice_sum_ns=0, finished=0)
        self.p = SimpleNamespace(
            owner=self.m, runq=runq, stats=stats, forked=False, lock=threading.Lock(),
            turns=[], ring=None,
        )  # fmt: skip
        self.loop = SimpleNamespace(p=self.p, ms=self.ms, fresh=self)
        self.shm = _Shm(self.stored)
        self.value_bytes = 1 << 20
        self.fn = RemoteFunction(3, FunctionRef("name", f"{__name__}:call"))
        self.fn.quick_ns = 1
        payloads = [encode_call("call", (each,), {}).data for each in range(n)]
        LeaseRun(cast("Any", self), self.fn, None, first, payloads).queue()

    # -- what a run asks for -----------------------------------------------------------------------

    def put(self, run: LeaseRun, n: int) -> None:
        run.id = 100
        self.p.runq.ring.append(run)

    def claim(self, token: int, _now: int) -> bool:
        return token not in self.revoked_tokens

    def revoked(self, attempt: Attempt) -> None:
        self.gone.append(attempt.token)
        del self.attempts[attempt.token]

    def check_size(self, _blob: Any) -> None:
        pass

    def begin(self, attempt: Attempt) -> bool:
        self.fresh -= 1
        attempt.began_ns = 1
        return True

    def ended(self, attempt: Attempt) -> None:
        del self.attempts[attempt.token]
        self.outcomes.add(attempt, None)
        self.stored.append(attempt.token)

    def flush(self) -> None:
        raise AssertionError("few outcomes, at once")

    # -- the loop ----------------------------------------------------------------------------------

    def step(self) -> Any:
        """Start the first G of the queue, as ``FreshGs.run`` does; what that gave."""
        g, m = self.p.runq.ring.popleft(), self.m
        m.g, m.context = g, Context()
        given = m.context.run(g.start)
        if given is LOST:
            return given
        m.tick += 1
        m.g = None
        if given is None:
            g.finished()
        return given

    def run(self) -> int:
        """Until the queue is empty; how many starts that took."""
        starts = 0
        while self.p.runq.ring:
            assert self.step() is None
            starts += 1
        return starts

    @property
    def results(self) -> list[tuple[int, Any]]:
        message, _ = self.outcomes.message()
        specials = message.specials or {}
        rows = zip(message.tokens, message.payloads, strict=True)
        return [
            (token, specials[i][0] if i in specials else decode(payload))
            for i, (token, payload) in enumerate(rows)
        ]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may stop this process for longer than a run may take, or outcomes may wait."""
    monkeypatch.setattr(lease_run, "RUN_NS", 1 << 60)
    monkeypatch.setattr(lease_run, "GATHER_NS", 1 << 60)
    monkeypatch.setattr(lease_run, "QUICK_NS", 1 << 60)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Any]], None]:
    return lambda fn: monkeypatch.setattr(f"{__name__}._job", fn)


def test_all_leases_are_called_in_one_start() -> None:
    worker = Worker()
    assert worker.run() == 1
    assert worker.results == [(10 + n, n) for n in range(5)]
    assert worker.stored == [10, 11, 12, 13, 14]
    assert not worker.attempts
    assert not worker.fresh
    assert worker.m.tick == 5


def test_a_lease_that_fails_ends_alone(job: Any) -> None:
    job(lambda n: 1 // (n - 2))
    worker = Worker()
    assert worker.run() == 1
    assert [each for _, each in worker.results] == [-1, -1, Outcome.ERROR, 1, 0]


@pytest.mark.parametrize("which", [{10}, {12}, {14}, {10, 11, 12, 13, 14}, {13, 14}])
def test_revoked_leases_are_not_called(which: set[int]) -> None:
    worker = Worker()
    worker.revoked_tokens = which
    worker.run()
    assert worker.results == [(10 + n, n) for n in range(5) if 10 + n not in which]
    assert worker.gone == sorted(which)
    assert not worker.attempts
    assert not worker.fresh


def test_what_a_call_leaves_in_the_context_is_not_seen_by_the_next(job: Any) -> None:
    def count(_: int) -> int:
        _var.set(_var.get() + 1)
        return _var.get()

    job(count)
    worker = Worker()
    assert worker.run() == 5
    assert [each for _, each in worker.results] == [1] * 5


def test_a_run_that_loses_p_in_a_call_leaves_the_others_to_it(job: Any) -> None:
    """Sysmon takes P in the third call, and another M runs the rest while that goes on."""
    worker = Worker()

    def block(n: int) -> int:
        if n == 2:
            worker.m.g.parted()
            worker.m.preempt = True
            worker.ms.lost = True
        return n

    job(block)
    run = worker.p.runq.ring[0]
    assert worker.step() is None or worker.ms.lost
    assert worker.unreported == {12: run}
    job(abs)
    worker.ms.lost = worker.m.preempt = False
    worker.run()
    assert sorted(token for token, _ in worker.results) == [10, 11, 12, 13, 14]
    assert worker.results.count((12, 2)) == 1


def test_p_that_is_lost_at_the_very_end_of_a_call_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the look at ``preempt`` and the count of the tick."""
    worker = Worker()
    run = worker.p.runq.ring[0]

    class Tick:
        def __init__(self) -> None:
            self.looks = 0

        def __get__(self, m: Any, _: Any) -> bool:
            if m is None:
                return False
            self.looks += 1
            if self.looks == 2:
                worker.ms.lost = True
                run.parted()
                return True
            return False

        def __set__(self, _m: Any, _value: Any) -> None:
            pass

    lossy = type("LossyM", (M,), {"preempt": Tick()})
    worker.m = worker.p.owner = lossy(cast("Any", SimpleNamespace()), 1)
    assert worker.step() is LOST
    assert run.end == 1
    assert worker.unreported == {10: run}
    assert [g.token for g in worker.p.runq.ring] == [11]


def test_a_coroutine_is_the_loops_and_the_rest_become_gs_of_their_own(job: Any) -> None:
    async def later(n: int) -> int:
        return n

    job(later)
    worker = Worker(3)
    run = worker.p.runq.ring[0]
    coro = worker.step()
    assert asyncio.iscoroutine(coro)
    coro.close()
    run.driven.close()
    assert run.adopted
    assert run.token == 10
    assert [(type(g), g.token, g.id) for g in worker.p.runq.ring] == [
        (Attempt, 11, 101),
        (Attempt, 12, 102),
    ]
    assert worker.attempts[10] is run
    assert worker.attempts[12].token == 12
    assert not worker.fn.gathers


def test_a_job_that_others_know_keeps_its_object(job: Any) -> None:
    known: list[Any] = []
    worker = Worker(3)

    def tell(n: int) -> int:
        assert worker.m.g.progressed is not None
        known.append(worker.m.g)
        return n

    job(tell)
    assert worker.run() == 3
    assert [each.token for each in known] == [10, 11, 12]
    assert [each.id for each in known] == [100, 101, 102]
    assert [token for token, _ in worker.results] == [10, 11, 12]


def test_a_started_g_comes_before_the_next_lease(job: Any) -> None:
    worker = Worker(2)

    def ready(n: int) -> int:
        worker.p.runq.runnext = "a G"
        return n

    job(ready)
    assert worker.step() is None
    assert len(worker.results) == 1
    worker.p.runq.runnext = None
    assert worker.run() == 1


def test_a_run_that_takes_long_lets_p_look_at_its_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease_run, "RUN_NS", -1)
    worker = Worker(3)
    assert worker.run() == 3


def test_results_are_sent_at_once_when_calls_are_not_quick_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease_run, "QUICK_NS", QUICK_NS)
    sent: list[int] = []
    worker = Worker(3)
    cast("Any", worker).flush = lambda: sent.append(len(worker.outcomes))
    worker.fn.quick_ns = 9 * QUICK_NS
    worker.run()
    assert sent == [1, 2]


def test_where_some_must_wait_each_lease_is_a_g() -> None:
    worker = Worker(3)
    run = worker.p.runq.ring.popleft()
    assert run.scatter()
    assert [(type(g), g.token, g.id) for g in worker.p.runq.ring] == [
        (Attempt, 10, 100),
        (Attempt, 11, 101),
        (Attempt, 12, 102),
    ]
    assert not LeaseRun(cast("Any", worker), worker.fn, None, 20, [b"\x92\x90\x80"]).scatter()


def _assign(**more: Any) -> protocol.Assign:
    fields: dict[str, Any] = {"options": None, "stolen": 0, "buffer_counts": None, **more}
    return protocol.Assign(1, 1, payloads=[b"a", b"b"], **fields)


def test_only_plain_leases_of_quick_functions_share_a_g() -> None:
    fn = RemoteFunction(1, FunctionRef("name", "m:f"))
    assert not may_run_as_one(_assign(), fn)  # unknown
    fn.quick_ns = 1
    assert may_run_as_one(_assign(), fn)
    assert not may_run_as_one(_assign(stolen=1), fn)
    assert not may_run_as_one(_assign(buffer_counts=[1, 0]), fn)
    assert not may_run_as_one(_assign(options=protocol.options({"timeout": 1.0})), fn)
    fn.is_async = True
    assert not may_run_as_one(_assign(), fn)
    fn.is_async = fn.gathers = False
    assert not may_run_as_one(_assign(), fn)
