"""No G freezes its P: blocked ones, hogs, known and learned blocking, with real threads."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

import gmpd
from gmpd.runtime import fresh, overrun
from gmpd.runtime.batch import Batches
from gmpd.runtime.fresh import FreshGs
from gmpd.runtime.handoffs import hogs
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_loop, entersyscallblock, minit
from gmpd.runtime.p import Face, M
from gmpd.runtime.stats import histograms, snapshot
from gmpd.runtime.sysmon import Sysmon
from gmpd.sched.runq import RunQueue
from gmpd.sched.sysmon import Trait

T = TypeVar("T")


async def until(fact: Callable[[], bool], what: str) -> None:
    """Wait on the loop for it, generously."""
    end = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.001)


def run(main: Callable[[Loop], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run ``main(loop)`` on a P of its own."""
    with asyncio.Runner(loop_factory=lambda: Loop(**options)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        return runner.run(main(loop))


class Ticks:
    """Counts how often the loop gets to run a short timer, and the longest pause between two."""

    def __init__(self) -> None:
        self.count = 0
        self.pause_s_max = 0.0

    async def __call__(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            self.pause_s_max = max(self.pause_s_max, now - last)
            last = now
            self.count += 1


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_blocked_gs_run_at_once_on_one_p() -> None:
    """Twenty sleeps of 0.3 s take a part of 6 s, and timers go on meanwhile."""

    async def main(loop: Loop) -> tuple[float, Ticks]:
        ticks = Ticks()
        ticker = loop.create_task(ticks())
        start = time.monotonic()
        await asyncio.gather(*[loop.call_sync(lambda: time.sleep(0.3)) for _ in range(20)])
        ticker.cancel()
        return time.monotonic() - start, ticks

    took, ticks = run(main)
    assert 0.3 <= took < 3
    assert ticks.count > 5


class Hogs:
    """Sync Gs that compute until they are let go."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.over = threading.Event()

    def __call__(self) -> None:
        while not self.over.is_set():
            pass

    async def start(self) -> asyncio.Future[None]:
        """The first of them, once P knows it for what it is."""
        first = self._loop.call_sync(self)
        while not hogs(self._loop.p):
            await asyncio.sleep(0.001)
        return first


def test_a_hog_leaves_timers_their_turn() -> None:
    async def main(loop: Loop) -> None:
        hogs, ticks = Hogs(loop), Ticks()
        hog = await hogs.start()
        ticker = loop.create_task(ticks())
        while ticks.count < 10:
            await asyncio.sleep(0.001)
        hogs.over.set()
        await hog
        ticker.cancel()
        assert loop.p.stats.handoff_hog + loop.p.stats.handoff_blocked == 1

    run(main)


def test_known_blocking_hands_off_without_waiting_for_a_slice() -> None:
    """The second G can only run if the first, which waits for it, gave P away."""

    async def main(loop: Loop) -> tuple[int, bool]:
        met = threading.Event()

        def first() -> bool:
            with entersyscallblock("chan receive"):
                return met.wait(20)

        waiting = loop.call_sync(first)
        loop.call_sync(met.set)
        return loop.p.stats.handoff_blocked, await waiting

    assert run(main) == (0, True)


def test_entersyscallblock_outside_of_a_p_does_nothing() -> None:
    assert current_loop() is None
    with entersyscallblock("chan receive"):
        assert current_loop() is None


def test_sync_gs_know_their_loop_but_have_no_running_one() -> None:
    def inside() -> tuple[Face | None, str]:
        return current_loop(), asyncio.run(asyncio.sleep(0, "ran"))

    async def main(loop: Loop) -> bool:
        return await loop.call_sync(inside) == (loop, "ran")

    assert run(main)


def test_a_lock_held_by_a_blocked_g_does_not_deadlock_the_p() -> None:
    async def main(loop: Loop) -> list[int]:
        lock, order = threading.Lock(), list[int]()

        def holder(number: int) -> None:
            with lock:
                time.sleep(0.03)
                order.append(number)

        async with asyncio.timeout(20):
            await asyncio.gather(*[loop.call_sync(partial(holder, n)) for n in range(5)])
        return order

    assert sorted(run(main)) == [0, 1, 2, 3, 4]


def test_ms_are_reused() -> None:
    async def main(loop: Loop) -> int:
        for _ in range(5):
            await loop.call_sync(lambda: time.sleep(0.02))
        return loop.p.ms_count

    assert run(main) <= 3


def test_ms_are_bounded_and_the_rest_waits() -> None:
    async def main(loop: Loop) -> tuple[int, int]:
        release, stats = threading.Event(), loop.p.stats
        blocked = [loop.call_sync(lambda: release.wait(50)) for _ in range(12)]
        deadline = time.monotonic() + 40
        while not stats.max_ms_waits and time.monotonic() < deadline:
            await asyncio.sleep(0.001)  # the loop turns, although every M but its own is blocked
        release.set()
        assert await asyncio.gather(*blocked) == [True] * 12
        return loop.p.ms_count, stats.max_ms_waits

    count, waits = run(main, max_ms=4)
    assert count <= 4
    assert waits > 0


def test_coroutines_stay_on_the_main_thread_and_plain_gs_run_elsewhere() -> None:
    async def main(loop: Loop) -> list[str]:
        names = [threading.current_thread().name]
        names.append(await loop.call_sync(lambda: threading.current_thread().name))
        names.append(threading.current_thread().name)
        return names

    assert run(main) == ["MainThread", "gmpd-M1", "MainThread"]
    assert threading.current_thread() is threading.main_thread()


def test_the_loop_ends_although_a_sync_g_still_blocks() -> None:
    """Row 42: main returns, the program goes on; the child is left to itself."""
    release = threading.Event()

    async def main(loop: Loop) -> str:
        loop.call_sync(lambda: release.wait(50))
        while not loop.p.detached:
            await asyncio.sleep(0.001)
        return "main"

    start = time.monotonic()
    assert run(main) == "main"
    assert time.monotonic() - start < 10
    release.set()


def test_signal_handlers_can_be_set_from_whichever_m_holds_p() -> None:
    async def main(loop: Loop) -> bool:
        seen = asyncio.Event()
        await loop.call_sync(lambda: loop.add_signal_handler(signal.SIGUSR1, seen.set))
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(seen.wait(), 20)
        seen.clear()
        loop.add_signal_handler(signal.SIGUSR1, seen.set)
        await loop.call_sync(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        await asyncio.wait_for(seen.wait(), 20)
        with pytest.raises(ValueError, match=r"invalid signal"):
            loop.add_signal_handler(12345, seen.set)
        return loop.remove_signal_handler(signal.SIGUSR1)

    assert run(main)


def test_a_task_can_be_cancelled_from_a_sync_g_without_p() -> None:
    async def main(loop: Loop) -> bool:
        task = loop.create_task(asyncio.sleep(60))

        def cancel() -> None:
            with entersyscallblock("chan receive"):
                time.sleep(0.01)
            task.cancel("from another thread")

        await loop.call_sync(cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert run(main)


def test_system_exit_in_a_callback_beside_a_blocked_g_ends_run_forever() -> None:
    release = threading.Event()

    async def main(loop: Loop) -> None:
        loop.call_sync(lambda: release.wait(50))
        while not loop.p.detached:
            await asyncio.sleep(0.001)

        def leave() -> None:
            raise SystemExit(3)

        loop.call_soon(leave)
        await asyncio.sleep(20)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 3
    release.set()


def test_an_idle_p_has_no_periodic_wake_ups() -> None:
    async def main(loop: Loop) -> int:
        await loop.call_sync(lambda: time.sleep(0.02))
        await asyncio.sleep(0.1)  # the hand-off of above is over
        before = loop.p.rounds + loop.sysmon.passes
        await asyncio.sleep(0.5)
        return loop.p.rounds + loop.sysmon.passes - before

    # One for the timer itself, and sysmon's last passes after it left idle.
    assert run(main) <= 8


def sleep_briefly() -> None:
    time.sleep(0.05)


def test_a_function_that_blocked_is_known_to_block() -> None:
    """Thirty of them do not cost P a slice each, as unknown ones would (0.3 s): the best of some
    rounds."""

    async def main(loop: Loop) -> tuple[float, int]:
        await loop.call_sync(sleep_briefly)
        took: list[float] = []
        while len(took) < 20 and min(took, default=1) >= 0.25:
            start = time.monotonic()
            await asyncio.gather(*[loop.call_sync(sleep_briefly) for _ in range(30)])
            took.append(time.monotonic() - start)
        return min(took), loop.p.stats.handoff_learned

    took, learned = run(main)
    assert took < 0.25
    assert learned > 20


def test_a_function_that_no_longer_blocks_is_forgotten() -> None:
    pause = 0.03

    def sometimes() -> None:
        time.sleep(pause)

    async def main(loop: Loop) -> list[bool]:
        nonlocal pause
        deadline = time.monotonic() + 20
        while not loop.p.learned.get(sometimes.__code__) and time.monotonic() < deadline:
            await loop.call_sync(sometimes)  # sysmon may be late for it
        known = [bool(loop.p.learned.get(sometimes.__code__))]
        pause = 0
        deadline = time.monotonic() + 20
        while loop.p.learned.get(sometimes.__code__) and time.monotonic() < deadline:
            await loop.call_sync(sometimes)
        known.append(bool(loop.p.learned.get(sometimes.__code__)))
        return known

    assert run(main) == [True, False]


@pytest.fixture
def _held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gs deferred for a hog stay so until it ends, as if its slices were hours."""
    monkeypatch.setattr(fresh, "beside_ns", lambda _hogs: 10**15)


@pytest.mark.usefixtures("_held_for_long")
def test_hogs_do_not_pile_up_and_short_gs_run_beside_them() -> None:
    """Four hogs of one function: never two at once, once the first was found out, in its slices."""
    at_once, most = 0, 0

    class Counted(Hogs):
        def __call__(self) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            super().__call__()
            spin(0.05)
            at_once -= 1

    async def main(loop: Loop) -> float:
        hog = Counted(loop)
        hogs = [await hog.start()]
        hogs += [loop.call_sync(hog) for _ in range(3)]
        while len(loop.p.deferred) < 3:
            await asyncio.sleep(0.001)
        took = []
        for _ in range(5):
            start = time.monotonic()
            await loop.call_sync(lambda: None)
            took.append(time.monotonic() - start)
        assert len(loop.fresh) == 3
        hog.over.set()
        await asyncio.gather(*hogs)
        return min(took)

    assert run(main) < 0.2
    assert most == 1


@pytest.fixture
def crowded_core() -> Iterator[None]:
    """This thread, and those that it starts, share one core with six processes that compute."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    yield
    for each in crowd:
        each.kill()
        each.wait()
    os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("crowded_core")
def test_on_a_crowded_core_a_hog_is_not_taken_for_blocked() -> None:
    """Most of the time it stands in the kernel's queue, and its CPU clock stands still."""

    async def main(loop: Loop) -> dict[str, int]:
        for _ in range(3):
            await loop.call_sync(partial(spin, 0.4))
        return loop.p.stats.handoffs()

    handoffs = run(main)
    assert handoffs["hog"] >= 1
    assert handoffs["blocked"] == 0


def test_a_first_import_makes_no_hog_of_a_function_that_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "heavy_for_test.py"
    module.write_text(
        "import time\nend = time.thread_time() + 0.1\nwhile time.thread_time() < end: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def blocking() -> None:
        __import__("heavy_for_test")
        time.sleep(0.1)

    async def main(loop: Loop) -> tuple[int, list[Trait]]:
        await loop.call_sync(blocking)
        return loop.p.stats.handoff_hog, [trait for trait, _ in loop.p.learned.traits.values()]

    hogs, learned = run(main)
    sys.modules.pop("heavy_for_test", None)
    assert hogs == 1, "P was handed off"
    assert Trait.HOG not in learned


@pytest.mark.usefixtures("_held_for_long")
def test_held_hogs_can_still_be_stolen() -> None:
    async def main(loop: Loop) -> int:
        hog = Hogs(loop)
        hogs = [await hog.start()]
        hogs += [loop.call_sync(hog) for _ in range(3)]
        while len(loop.p.deferred) < 3:
            await asyncio.sleep(0.001)
        taken = loop.fresh.grab_if(2, lambda _: True)
        for g in taken:
            g.finished()
        hog.over.set()
        await asyncio.gather(*hogs)
        return len(taken)

    assert run(main) == 2


@pytest.mark.usefixtures("_held_for_long")
def test_children_of_a_hogs_function_are_set_aside_together() -> None:
    """Not one by one, at every hog again: a thousand of them at one look; others run on."""
    order: list[int] = []
    looks: list[object] = []
    over = threading.Event()

    class Watched(FreshGs):
        def _must_wait(self, g: Any, trait: Trait | None) -> bool:
            looks.append(g)
            return super()._must_wait(g, trait)

    def child(n: int) -> None:
        while n < 0 and not over.is_set():
            pass
        order.append(n)

    async def main(loop: Loop) -> None:
        loop.fresh = Watched(loop.p, loop.ms, loop.handoffs)
        loop.batches = Batches(loop.p, loop.ms, loop.fresh)
        hog = gmpd.go(child, -1)
        while not hogs(loop.p):
            await asyncio.sleep(0.001)
        looks.clear()
        children = [gmpd.go(child, n) for n in range(1000)]
        others = [gmpd.go(len, "other") for _ in range(10)]
        while len(loop.p.deferred) < 1000:
            await asyncio.sleep(0.001)
        assert [await other for other in others] == [5] * 10
        assert order == []
        assert 1 <= len(looks) < 10
        over.set()
        for each in [hog, *children]:
            await each

    run(main)
    assert order[0] == -1
    assert sorted(order) == [*range(-1, 1000)]


def test_a_hog_that_waits_for_its_like_does_not_hold_them_back() -> None:
    """A G that computed long and then waits for a child of its own function is a hog no more."""

    def grow(loop: Loop, depth: int) -> int:
        if not depth:
            return 1
        while not hogs(loop.p):
            pass
        child = gmpd.go(grow, loop, 0)
        spin(0.05)  # the child is held meanwhile
        return 1 + int(child.result(20))

    async def main(loop: Loop) -> int:
        return int(await gmpd.go(grow, loop, 1))

    assert run(main) == 2


def burn(seconds: float) -> None:
    """Compute for so much CPU time, however long that takes on a busy machine."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_an_async_g_that_keeps_its_p_is_named_once_and_counted_always(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: Loop) -> int:
        await asyncio.sleep(0.01)
        for _ in range(6):
            burn(0.03)
            await asyncio.sleep(0)
        assert named(caplog) == [], "they are counted only"
        until_named(caplog, burn)
        for _ in range(2):
            await asyncio.sleep(0)
            burn(0.15)
        return loop.p.stats.overruns

    assert run(main) >= 3
    # Each place once: a step may be seen at any line of burn() and of those that call it.
    places = [line.partition("for more than 100 ms at ")[2].split()[0] for line in named(caplog)]
    assert 1 <= len(set(places)) == len(places)
    assert all("test_handoff.py" in place for place in places)


def named(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "gmpd.runtime.overrun"]


def until_named(caplog: pytest.LogCaptureFixture, spend: Callable[[float], None]) -> None:
    """One step that is as long as sysmon, starved on a busy machine, takes to name it."""
    end = time.monotonic() + 20
    while not named(caplog) and time.monotonic() < end:
        spend(0.05)


def test_imports_are_counted_and_not_named(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.2)\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main(loop: Loop) -> int:
        await asyncio.sleep(0.01)
        importlib.import_module("slow_to_import")
        await asyncio.sleep(0)
        return loop.p.stats.overruns

    assert run(main) >= 1
    assert named(caplog) == []


def test_gmpds_own_work_in_a_users_g_is_counted_and_not_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a worker, whose module is ``__main__``: packing a result, reading a socket."""
    monkeypatch.setattr(overrun, "_GMPD", __file__)

    async def packs() -> None:
        await asyncio.sleep(0.01)
        burn(0.15)

    def reads() -> None:
        burn(0.15)

    reads.__module__ = "__main__"

    async def main(loop: Loop) -> int:
        await gmpd.go(packs)
        loop.call_soon(partial(reads))
        await asyncio.sleep(0.01)
        return loop.p.stats.overruns

    assert run(main) >= 2
    assert named(caplog) == []


def test_a_library_in_site_packages_is_named_but_gmpd_there_is_not() -> None:
    site = "/usr/lib/python3/site-packages"
    assert overrun._is_users_file(f"{site}/tornado/web.py")
    assert not overrun._is_users_file(overrun._GMPD + "codec/values.py")
    assert not overrun._is_users_file(json.__file__)
    assert overrun._is_users_file("<stdin>")


def test_an_async_job_that_keeps_its_p_is_named_as_its_client_named_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not as the class that the worker keeps it in."""

    async def greedy() -> None:
        await asyncio.sleep(0.01)
        until_named(caplog, burn)

    async def main(loop: Loop) -> None:
        ended = loop.create_future()
        loop.fresh.put(AsyncJob(greedy, ended))
        await ended

    run(main)
    (said,) = named(caplog)
    assert "shop:greedy" in said
    assert "test_handoff.py" in said


def test_an_async_g_that_blocks_its_p_is_named(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class Tells(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    async def main(loop: Loop) -> int:
        await asyncio.sleep(0.01)
        # As users do by mistake. One wait: a thread that wakes often stands in the kernel's run
        # queue for a part of the time on a busy machine, and is not blocked.
        told.wait(20)
        await asyncio.sleep(0)
        return loop.p.stats.overruns

    log, tells = logging.getLogger("gmpd.runtime.overrun"), Tells()
    log.addHandler(tells)
    try:
        assert run(main) >= 1
    finally:
        log.removeHandler(tells)
    (said,) = named(caplog)
    assert "test_handoff.py" in said


def test_a_callback_of_gmpd_itself_is_counted_and_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def beat(seconds: float) -> None:
        burn(seconds)

    beat.__module__ = "gmpd.daemon.worker"

    async def main(loop: Loop) -> int:
        await asyncio.sleep(0.01)
        loop.call_soon(partial(beat, 0.1))
        await asyncio.sleep(0.01)
        return loop.p.stats.overruns

    assert run(main) >= 1
    assert [record for record in caplog.records if record.name == "gmpd.runtime.overrun"] == []


def test_what_ran_last_is_not_named_while_p_is_on_its_way_to_another_m(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its thread parks, or starts another; it stands as the current G until the next one."""

    async def main(loop: Loop) -> int:
        parked, over = threading.Event(), threading.Event()

        def park() -> None:
            parked.set()
            over.wait(50)

        thread = threading.Thread(target=park)
        thread.start()
        try:
            parked.wait(50)
            m = M(loop.p, 1)
            m.ident = thread.ident or 0
            loop.overruns.report(m)
            m.ident = -1  # not yet begun
            loop.overruns.report(m)
            return loop.p.stats.overruns
        finally:
            over.set()
            thread.join()

    assert run(main) == 0
    assert [record for record in caplog.records if record.name == "gmpd.runtime.overrun"] == []


class Bystander:
    """The part of a P that sysmon asks, with one step that does not end."""

    def __init__(self) -> None:
        self.runq: RunQueue = RunQueue(lambda _g: False)
        self.detached: list[M] = []
        self.is_idle = False
        self.told = 0

    def step(self) -> str:
        return "the same"

    def report(self, _m: object) -> None:
        self.told += 1


class Thread:
    """An M, as the kernel sees it: of each millisecond it has shares."""

    def __init__(
        self, loop: Bystander, *, cpu: float, waits: float, runnable: bool = False
    ) -> None:
        p: Any = loop
        self.sysmon: Any = Sysmon(p, p, p, p)
        self.cpu, self.waits, self.runnable = cpu, waits, runnable
        self.now = 1

    def cpu_ns(self) -> int:
        return int(self.now * self.cpu)

    def queued(self) -> tuple[int, bool]:
        return int(self.now * self.waits), self.runnable

    def watched_for(self, ns: int) -> None:
        end = self.now + ns
        while self.now < end:
            self.now += self.sysmon._overrun(self, self.now)


def test_a_thread_that_was_merely_preempted_does_not_hold_its_p() -> None:
    loop = Bystander()
    for thread in (
        Thread(loop, cpu=0.04, waits=0.96),  # runs now and then
        Thread(loop, cpu=0.04, waits=0.96, runnable=True),
        Thread(loop, cpu=0, waits=0, runnable=True),  # not a nanosecond yet: its wait goes on
    ):
        thread.watched_for(100_000_000)
        assert loop.told == 0
    # What it computes counts however often it was interrupted: 7.5 ms in all, here after 188 ms.
    thread = Thread(loop, cpu=0.04, waits=0.96)
    thread.watched_for(250_000_000)
    assert loop.told == 1


def test_one_that_blocks_or_computes_is_told_of_once_and_soon() -> None:
    for cpu, within in ((1.0, 21_000_000), (0.0, 24_000_000)):
        loop = Bystander()
        thread = Thread(loop, cpu=cpu, waits=0)
        thread.watched_for(within)
        assert loop.told == 1
        thread.watched_for(100_000_000)
        assert loop.told == 1


def test_the_kernel_says_how_long_a_thread_waited_for_a_cpu() -> None:
    m = M(None, 1)  # type: ignore[arg-type]
    assert m.queued() == (0, False)  # no such thread
    seen: list[tuple[int, bool]] = []

    def start() -> None:
        minit(m)
        seen.append(m.queued())

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    ((waited, runnable),) = seen
    assert waited >= 0
    assert runnable  # it asked for itself


class AsyncJob:
    """A fresh G as a worker makes it."""

    id = 0
    fn_key = "greedy"
    fn_name = "shop:greedy"

    def __init__(self, fn: Callable[[], Coroutine[Any, Any, None]], ended: asyncio.Future[None]):
        self.fn = fn
        self.ended = ended

    def start(self) -> Coroutine[Any, Any, None]:
        return self.fn()

    def finished(self) -> None:
        self.ended.set_result(None)


def test_context_variables_of_one_sync_g_are_not_seen_by_the_next() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main(loop: Loop) -> list[str]:
        await loop.call_sync(lambda: variable.set("set"))
        return [await loop.call_sync(variable.get), variable.get()]

    assert run(main) == ["unset", "unset"]


def test_less_than_two_ms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_ms is 1, must be at least 2"):
        Loop(max_ms=1)


def test_the_snapshot_counts_what_happened() -> None:
    async def main(loop: Loop) -> dict[str, Any]:
        release = threading.Event()

        async def blocked(n: int) -> asyncio.Future[Any]:
            """A G that is handed off for the nth time; sysmon counts that a moment later."""
            g = loop.call_sync(lambda: release.wait(50))
            while not loop.p.detached or sum(loop.p.stats.handoffs().values()) < n:
                await asyncio.sleep(0.001)
            return g

        first = await blocked(1)
        release.set()
        await first
        release.clear()
        await asyncio.gather(*[loop.call_sync(lambda: None) for _ in range(20)])
        await asyncio.sleep(0.01)
        second = await blocked(2)
        seen = snapshot(loop.p)
        seen["slice"] = histograms(loop.p)[0][0]
        release.set()
        await second
        return seen

    seen = run(main)
    assert seen["finished"] == 21
    assert seen["gs"]["syscall"] == 1
    assert sum(seen["handoffs"].values()) == 2
    assert seen["picks"]["local"] >= 22
    assert seen["picks"]["timer"] >= 1
    assert seen["state_s"]["idle"] >= 0.01
    assert sum(seen["slice"]) == 20
    assert len(seen["slice"]) == 48


class Job:
    """A job as a worker queues it; it knows how often it was started and finished, and where."""

    id = 0
    fn_key = fn_name = "job"

    def __init__(self, loop: Loop, kind: int):
        self.loop = loop
        self.kind = kind
        self.fn_key = f"kind {kind}"
        self.started = self.finished_times = 0
        self.finished_on_p = False

    def start(self) -> Coroutine[Any, Any, None] | None:
        self.started += 1
        pause_s = random.random() * 0.0006
        if self.kind == 1:
            time.sleep(pause_s)
        elif self.kind == 2:
            spin(pause_s)
        elif self.kind == 3:
            with entersyscallblock("chan receive"):
                time.sleep(pause_s)
        elif self.kind == 4:
            return self.wait(pause_s)
        elif self.kind == 5:
            time.sleep(pause_s)
            return self.wait(pause_s)
        return None

    async def wait(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)

    def finished(self) -> None:
        self.finished_times += 1
        owner = self.loop.p.owner
        self.finished_on_p = owner is not None and owner.ident == threading.get_ident()


@pytest.mark.parametrize("max_ms", [3, 1000])
def test_every_g_ends_exactly_once_on_p_however_sysmon_and_its_end_meet(
    max_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delicate dance: slices of 0.2 ms, and Gs that end just then."""
    monkeypatch.setattr("gmpd.runtime.sysmon.SLICE_NS", 200_000)
    monkeypatch.setattr("gmpd.runtime.handoffs.SLICE_NS", 200_000)
    monkeypatch.setattr("gmpd.sched.sysmon.LOOK_NS", 50_000)

    async def main(loop: Loop) -> list[Job]:
        jobs = [Job(loop, random.randrange(6)) for _ in range(1500)]
        for job in jobs:
            loop.fresh.put(job)
        async with asyncio.timeout(40):
            while not all(job.finished_times for job in jobs):
                await asyncio.sleep(0.01)
        assert sum(loop.p.stats.handoffs().values()) > 20
        assert not loop.p.detached
        return jobs

    jobs = run(main, max_ms=max_ms)
    assert {(job.started, job.finished_times, job.finished_on_p) for job in jobs} == {(1, 1, True)}


def test_idle_ms_end_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmpd.runtime.m.IDLE_S_MAX", 0.05)

    async def main(loop: Loop) -> tuple[int, int]:
        await asyncio.gather(*[loop.call_sync(sleep_briefly) for _ in range(10)])
        most = loop.p.ms_count
        deadline = time.monotonic() + 20
        while loop.p.ms_count > 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return most, loop.p.ms_count

    most, left = run(main)
    assert most >= 5
    assert left <= 2


def test_short_gs_and_a_server_stay_quick_beside_blocking_ones() -> None:
    """100 sleeps and 100 blocking HTTP calls to an aiohttp server on the same P."""

    async def main(loop: Loop) -> tuple[float, list[float]]:
        async def answer(_request: web.Request) -> web.Response:
            await asyncio.sleep(0.05)
            return web.Response(text="here")

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"

        def fetch() -> bytes:
            with urllib.request.urlopen(url, timeout=30) as got:
                return bytes(got.read())

        start = time.monotonic()
        blocking: list[asyncio.Future[Any]] = [
            *[loop.call_sync(lambda: time.sleep(1)) for _ in range(100)],
            *[loop.call_sync(fetch) for _ in range(100)],
        ]
        all_done = asyncio.gather(*blocking)
        waits = []
        while not all_done.done():
            sent = time.monotonic()
            await loop.call_sync(lambda: None)
            waits.append(time.monotonic() - sent)
            await asyncio.sleep(0.005)
        answers = await all_done
        took = time.monotonic() - start
        assert answers[100:] == [b"here"] * 100
        await runner.cleanup()
        return took, sorted(waits)

    took, waits = run(main)
    assert took < 20, "of 100 s, if one held up the next"
    assert waits[len(waits) * 9 // 10 - 1] < 0.25


def test_an_interrupt_of_the_parked_main_thread_ends_the_loop() -> None:
    """Ctrl-C, with Python's own handler, while another M holds P: also when M0 is just about to
    park, which is why it is tried often.
    """
    for _ in range(40):
        interrupt_once()


def interrupt_once() -> None:
    loop = Loop()
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    heard = signal.set_wakeup_fd(-1)

    async def main() -> None:
        await loop.call_sync(lambda: None)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        assert loop.run_until_complete(asyncio.sleep(0, "runs again")) == "runs again"
        assert signal.set_wakeup_fd(heard) == -1, "it leaves Python's setting as it was"
    finally:
        signal.signal(signal.SIGINT, old)
        loop.close()


def test_debug_mode_follows_p_to_its_threads_and_leaves_the_main_thread_clean() -> None:
    async def main(loop: Loop) -> list[int]:
        loop.set_debug(True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        depths = [sys.get_coroutine_origin_tracking_depth()]
        await loop.call_sync(lambda: None)
        return [*depths, sys.get_coroutine_origin_tracking_depth()]

    here, there = run(main)
    assert here == there > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


class NativeHogs(Hogs):
    """Their C code lets go of the GIL, for some ten milliseconds at a time."""

    at_once = most = 0

    def __call__(self) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        while not self.over.is_set():
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 30_000)
        self.at_once -= 1


def traits(loop: Loop) -> list[Trait | None]:
    return [m.trait for m in loop.p.detached[:]]


@pytest.mark.usefixtures("_held_for_long")
def test_a_g_that_computes_without_the_gil_is_no_hog() -> None:
    """Its like begins beside it at once, while cores are left."""

    async def main(loop: Loop) -> None:
        hog = NativeHogs(loop)
        gs = [loop.call_sync(hog)]
        await until(lambda: Trait.NATIVE in traits(loop), "the first to be known for native")
        gs += [loop.call_sync(hog)]
        await until(lambda: hog.at_once == 2, "the second to run beside it")
        hog.over.set()
        await asyncio.gather(*gs)

    run(main)


@pytest.mark.usefixtures("_held_for_long")
def test_native_gs_run_beside_each_other_on_as_many_threads_as_there_are_cores() -> None:
    cores = max(2, len(os.sched_getaffinity(0)))

    async def main(loop: Loop) -> None:
        hog = NativeHogs(loop)
        gs = [loop.call_sync(hog)]
        await until(lambda: Trait.NATIVE in traits(loop), "the first to be known for native")
        gs += [loop.call_sync(hog) for _ in range(cores + 1)]
        await until(lambda: len(loop.p.deferred) == 2, "two of them to wait")
        assert await loop.call_sync(lambda: 1) == 1
        hog.over.set()
        await asyncio.gather(*gs)
        assert hog.most == cores

    run(main)


def test_a_hog_of_pure_python_is_not_taken_for_native() -> None:
    async def main(loop: Loop) -> None:
        hog = Hogs(loop)
        g = await hog.start()
        seen = set()
        for _ in range(30):
            seen.update(traits(loop))
            await asyncio.sleep(0.02)
        hog.over.set()
        await g
        assert seen == {Trait.HOG}

    run(main)
