"""Go's rules for whole programs under ``gmpd.run``: children, results, sleep, deadlock, what main's
return means.
"""

from __future__ import annotations

import asyncio
import gc
import math
import re
import subprocess
import sys
import textwrap
import threading
import time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd.runtime.go as gmpd
from gmpd import compiled
from gmpd.errors import Deadlock, InvariantError
from gmpd.runtime.chan import Chan
from gmpd.runtime.g import G
from gmpd.runtime.run import new_event_loop, run
from gmpd.runtime.sleepers import WAKE_MAX
from gmpd.runtime.stacks import stacks as dump
from gmpd.runtime.sudog import Sudog, park

ROOT = Path(__file__).resolve().parents[2]


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_a_child_is_awaited_for_its_result() -> None:
    async def main() -> list[int]:
        return [
            await gmpd.go(double, 1),
            await gmpd.go(lambda: 3),
            await gmpd.go(partial(double, 4)),
        ]

    assert run(main()) == [2, 3, 8]


def test_children_work_with_asyncios_gather_wait_and_shield() -> None:
    async def main() -> tuple[list[int], int, int]:
        gathered = await asyncio.gather(gmpd.go(double, 1), gmpd.go(lambda: 5))
        waited: asyncio.Future[int] = asyncio.ensure_future(gmpd.go(double, 2))
        done, _ = await asyncio.wait([waited])
        return list(gathered), done.pop().result(), await asyncio.shield(gmpd.go(double, 3))

    assert run(main()) == ([2, 5], 4, 6)


@pytest.mark.parametrize("sync", [False, True])
def test_an_error_of_a_child_comes_to_who_awaits_it(sync: bool) -> None:
    def fail() -> None:
        raise LookupError("lost")

    async def afail() -> None:
        fail()

    async def main() -> None:
        await gmpd.go(fail if sync else afail)

    with pytest.raises(LookupError, match="lost"):
        run(main())


def test_an_error_that_nobody_asks_for_is_reported() -> None:
    told: list[dict[str, Any]] = []

    def fail() -> None:
        raise LookupError("lost")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        gmpd.go(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    run(main())
    assert [type(context["exception"]) for context in told] == [LookupError]


def test_a_sync_child_spawns_and_waits_for_children_while_p_goes_on() -> None:
    def parent(depth: int) -> int:
        if depth == 0:
            return 1
        children = [gmpd.go(parent, depth - 1), gmpd.go(double, depth)]
        return sum(child.result(20) for child in children)

    async def main() -> int:
        return int(await gmpd.go(parent, 4))

    assert run(main()) == 1 + 2 * (1 + 2 + 3 + 4)


def test_result_of_a_child_times_out_in_a_sync_g_and_never_waits_in_async_code() -> None:
    def impatient() -> str:
        try:
            gmpd.go(asyncio.sleep, 5).result(0.01)
        except TimeoutError:
            return "timed out"
        return "waited"

    async def main() -> str:
        with pytest.raises(asyncio.InvalidStateError):
            gmpd.go(asyncio.sleep, 5).result()
        return str(await gmpd.go(impatient))

    assert run(main()) == "timed out"


def test_cancelling_a_child_before_and_after_it_started() -> None:
    begun: list[str] = []

    async def child(name: str) -> None:
        begun.append(name)
        await gmpd.sleep(60)

    async def main() -> None:
        fresh, parked = gmpd.go(child, "fresh"), gmpd.go(child, "parked")
        fresh.cancel()
        await asyncio.sleep(0)
        parked.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await fresh
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await parked

    run(main())
    assert begun == ["parked"]


def test_a_sync_function_that_returns_a_coroutine_is_driven_to_its_end() -> None:
    async def main() -> Any:
        return await gmpd.go(lambda: double(21))

    assert run(main()) == 42


def test_row_36_sleep_is_never_early_and_not_at_all_for_zero() -> None:
    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await gmpd.sleep(0.02)
        took = loop.time() - start
        others: list[int] = []
        loop.call_soon(others.append, 1)
        await gmpd.sleep(0)
        return took, len(others)

    took, others = run(main())
    assert took >= 0.02
    assert others == 0


def test_cancelled_sleeps_leave_the_timers() -> None:
    async def main() -> int:
        loop = gmpd.this_loop("the test")
        sleepers = [gmpd.go(gmpd.sleep, 3600) for _ in range(1000)]
        await asyncio.sleep(0)
        for g in sleepers:
            g.cancel()
        await asyncio.gather(*sleepers, return_exceptions=True)
        await asyncio.sleep(0)
        return len(loop.p.sleepers) + len(loop.p.sleepers._heap)

    assert run(main()) < 150


def test_nan_is_no_time_to_sleep_and_harms_nobody() -> None:
    """Among the timers it would compare as neither earlier nor later, and put them in disorder."""

    async def main() -> list[float]:
        for wrong in (math.nan, -math.nan, "1", None, Decimal(1)):
            with pytest.raises((ValueError, TypeError)):
                await gmpd.sleep(wrong)  # type: ignore[arg-type]
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await gmpd.sleep(seconds)
            woken.append(seconds)

        gs = [gmpd.go(sleeper, n / 100) for n in (3, 1, 4, 2)]
        for g in gs:
            await g
        return woken

    assert run(main(), deterministic_seed=1) == [0.01, 0.02, 0.03, 0.04]


@pytest.mark.parametrize("forever", [math.inf, 10**400, 1e300])
def test_a_sleep_may_last_for_ever(forever: float) -> None:
    """As in Go, where a time that overflows is never reached."""

    async def main() -> tuple[bool, float]:
        sleeper = gmpd.go(gmpd.sleep, forever)
        await gmpd.sleep(0.01)
        ended = sleeper.done()
        sleeper.cancel()
        start = asyncio.get_running_loop().time()
        await gmpd.sleep(-forever)
        return ended, asyncio.get_running_loop().time() - start

    ended, took = run(main())
    assert not ended
    assert took < 1


def test_a_clock_that_jumps_never_arrives_at_for_ever() -> None:
    async def main() -> None:
        await gmpd.sleep(math.inf)

    with pytest.raises(Deadlock, match=r"\[sleep\]"):
        run(main(), deterministic_seed=1)


def test_many_that_wake_at_once_leave_room_for_others() -> None:
    """5,000 are due in the same moment: they are woken over several rounds."""

    async def main() -> tuple[int, int]:
        loop = gmpd.this_loop("the test")
        woken = 0

        async def sleeper() -> None:
            nonlocal woken
            await gmpd.sleep(0.05)
            woken += 1

        gs = [gmpd.go(sleeper) for _ in range(5000)]
        seen: list[int] = []
        while woken < 5000:
            await asyncio.sleep(0)  # once a round
            seen.append(woken)
        for g in gs:
            await g
        return len(set(seen)), loop.p.stats.timer

    rounds, timers = run(main())
    assert rounds > 5000 // WAKE_MAX
    assert timers >= 5000


def test_blocking_runs_beside_the_p() -> None:
    async def main() -> tuple[str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await gmpd.sleep(0.001)
                ticks += 1

        gmpd.go(tick)

        def call(name: str, *, pause_s: float) -> str:
            end = time.monotonic() + 20
            while ticks <= 5 and time.monotonic() < end:
                time.sleep(pause_s)
            return name

        return await gmpd.blocking(call, "done", pause_s=0.05), ticks

    name, ticks = run(main())
    assert name == "done"
    assert ticks > 5


def test_row_42_main_returns_and_children_are_dropped() -> None:
    ended: list[str] = []

    async def child() -> None:
        await gmpd.sleep(60)
        ended.append("child")

    async def main() -> str:
        gmpd.go(child)
        await asyncio.sleep(0)
        return "main"

    start = time.monotonic()
    assert run(main()) == "main"
    assert time.monotonic() - start < 5
    assert not ended


def test_row_43_go_of_nil() -> None:
    async def main() -> None:
        gmpd.go(None)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"go of nil func value"):
        run(main())


def test_go_of_a_coroutine_says_what_to_pass_instead() -> None:
    async def main() -> None:
        gmpd.go(double(1))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"not a coroutine: gmpd\.go"):
        run(main())


def test_go_outside_of_a_p_says_where_to_call_it() -> None:
    with pytest.raises(RuntimeError, match=r"gmpd\.run"):
        gmpd.go(double, 1)


def test_row_44_num_g_counts_the_caller_and_children() -> None:
    async def main() -> list[int]:
        counts = [gmpd.num_g()]
        child = gmpd.go(gmpd.sleep, 60)
        counts.append(gmpd.num_g())
        await asyncio.sleep(0)
        counts.append(gmpd.num_g())
        child.cancel()
        await asyncio.gather(child, return_exceptions=True)
        return [*counts, gmpd.num_g()]

    assert run(main()) == [1, 2, 2, 1]


def test_stacks_show_parked_running_and_fresh_gs() -> None:
    async def parked() -> None:
        await gmpd.sleep(60)

    async def main() -> str:
        gmpd.go(parked)
        gmpd.go(Chan().recv)
        await asyncio.sleep(0)
        gmpd.go(double, 1)
        return gmpd.stacks()

    text = run(main())
    assert re.search(r"\[sleep\]:\nsleep\(\.\.\.\)\n\t.*/go\.py:\d+\n.*parked\(", text)
    assert re.search(r"\[chan receive\]:\nChan\.recv\(\.\.\.\)\n\t.*/chan\.py:\d+\n", text)
    assert "[running]:" in text
    assert "[runnable]:" in text
    assert "parked(...)" in text


def test_stacks_say_how_long_a_g_waits_and_who_made_it() -> None:
    """Minutes as Go does, seconds below; the function and line of the ``go``."""

    def spawn(seconds: float) -> Any:
        return gmpd.go(gmpd.sleep, seconds)

    async def main() -> tuple[str, int]:
        loop = gmpd.this_loop("the test")
        gs = [spawn(60), gmpd.go(partial(gmpd.sleep, 60))]
        here = sys._getframe().f_lineno - 1
        while not all(getattr(g, "since_ns", 0) for g in gs):  # unset, or 0 in C
            await gmpd.gosched()
        gs[0].since_ns -= 3 * 10**9
        gs[1].since_ns -= 130 * 10**9
        assert set(loop.p.gs.some(9)) == set(gs)
        return gmpd.stacks(), here

    text, here = run(main())
    spawned = spawn.__code__
    assert "[sleep, 3 seconds]:" in text
    assert "[sleep, 2 minutes]:" in text
    assert f"created by {spawned.co_qualname}\n\t{__file__}:{spawned.co_firstlineno + 1}" in text
    assert f"created by {main.__qualname__}\n\t{__file__}:{here}" in text


def test_stacks_of_very_many_show_a_bounded_number() -> None:
    async def main() -> tuple[str, Any, int]:
        for _ in range(3000):
            gmpd.go(gmpd.sleep, 60)
        await gmpd.gosched()
        loop = gmpd.this_loop("the test")
        return gmpd.stacks(), dump(loop.p, limit=10), dump(loop.p, nbytes=1000).shown

    text, ten, few = run(main())
    assert text.count("goroutine ") == 1000
    assert "...2001 more goroutines not shown..." in text
    assert (ten.gs, ten.shown, ten.text.count("goroutine ")) == (3001, 10, 10)
    assert "[running]" in ten.text, "who runs is among them"
    assert 0 < few < 20


def test_parked_children_are_never_collected() -> None:
    class Gate(Sudog):
        reason = "chan receive"

    async def main() -> int:
        async def child() -> None:
            await park(Gate(None, asyncio.get_running_loop()))

        for _ in range(10):
            gmpd.go(child)
        await asyncio.sleep(0)
        gc.collect()
        return gmpd.num_g()

    assert run(main()) == 11


def test_row_39_a_deadlock_is_an_error_with_gos_text() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(
        Deadlock, match=r"all goroutines are asleep - deadlock!\n\ngoroutine \d+ \["
    ):
        run(main())


def test_row_39_a_sleeping_g_or_a_blocked_m_is_no_deadlock() -> None:
    async def main() -> str:
        future = asyncio.get_running_loop().create_future()

        def late() -> None:
            time.sleep(0.05)
            future.get_loop().call_soon_threadsafe(future.set_result, "no deadlock")

        gmpd.go(late)
        return str(await future)

    assert run(main()) == "no deadlock"


def test_row_39_uncaught_it_ends_the_program_as_in_go() -> None:
    program = textwrap.dedent(
        """
        import asyncio
        from gmpd.runtime.go import go
        from gmpd.runtime.run import run

        async def child():
            await asyncio.get_running_loop().create_future()

        async def main():
            await go(child)

        run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fatal error: all goroutines are asleep - deadlock!\n\ngoroutine")
    assert "child(...)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runner_can_use_the_loop_by_itself() -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(double(4)) == 8


@pytest.mark.parametrize("seed", [None, 1])
def test_row_39_sync_gs_that_wait_for_gs_are_asleep_too(seed: int | None) -> None:
    async def main() -> None:
        ch = Chan[int]()
        await gmpd.go(lambda: ch.sync.recv())

    with pytest.raises(Deadlock, match=r"\[chan receive, M\d+\]"):
        run(main(), deterministic_seed=seed)


@pytest.mark.parametrize("seed", [None, 1])
def test_sync_gs_that_are_woken_in_time_are_no_deadlock(seed: int | None) -> None:
    async def main() -> int:
        there, back = Chan[int](), Chan[int]()

        def echo() -> None:
            for _ in range(50):
                back.sync.send(there.sync.recv() + 1)

        gmpd.go(echo)
        total = 0
        for number in range(50):
            await there.send(number)
            total += await back.recv()
        return total

    assert run(main(), deterministic_seed=seed) == sum(range(1, 51))


def test_when_the_loop_closes_dropped_children_are_unwound() -> None:
    unwound: list[str] = []

    async def child() -> None:
        try:
            await gmpd.sleep(60)
        finally:
            unwound.append("child")

    async def main() -> None:
        gmpd.go(child)
        await asyncio.sleep(0)

    run(main())
    gc.collect()
    assert unwound == ["child"]


def test_who_awaits_a_sync_child_can_be_cancelled_while_it_runs() -> None:
    release = threading.Event()

    async def main() -> str:
        child = gmpd.go(release.wait, 50)
        try:
            async with asyncio.timeout(0.05):
                await child
        except TimeoutError:
            return f"gave up, {child.cancelled()}"
        return "waited"

    assert run(main()) == "gave up, True"
    release.set()


def test_a_child_that_runs_elsewhere_comes_home() -> None:
    """As stealing has it: children are taken fresh, and settled by value, error or cancel."""
    told: list[G] = []

    async def main() -> tuple[int, str, bool]:
        loop = gmpd.this_loop("the test")
        gs = [gmpd.go(double, 1), gmpd.go(lambda: 1), gmpd.go(double, 3), gmpd.go(double, 4)]
        taken: list[object] = loop.fresh.grab_if(3, lambda _: True)
        assert taken == gs[:3]
        for g in gs[:3]:
            g.leave(told.append)
        assert "running in another worker" in gmpd.stacks()
        loop.call_soon(gs[0].settle, 10)
        loop.call_soon(gs[1].settle_error, LookupError("elsewhere"))
        loop.call_soon(gs[2].cancel)
        with pytest.raises(LookupError, match="elsewhere"):
            await gs[1]
        with pytest.raises(asyncio.CancelledError):
            await gs[2]
        gs[2].settle(5)
        assert await gs[3] == 8
        with pytest.raises(InvariantError):
            gs[3].leave(told.append)
        return await gs[0], str(gs[1].exception()), gs[2].cancelled()

    assert run(main()) == (10, "elsewhere", True)
    assert [g.args for g in told] == [(3,)]


def test_a_trace_follows_a_sync_child_that_loses_its_p() -> None:
    async def main() -> list[str]:
        tracer = gmpd.this_loop("the test").start_trace()

        def seen() -> list[str]:
            return [event.event.name for event in tracer.events if event.g == 2]

        p_was_taken = threading.Event()
        child = gmpd.go(p_was_taken.wait)
        while "SYSCALL_BEGIN" not in seen():
            await gmpd.sleep(0.001)
        p_was_taken.set()
        await child
        return seen()

    assert run(main()) == ["CREATE", "START", "SYSCALL_BEGIN", "END"]


def test_a_g_that_go_makes_is_made_as_its_class_does() -> None:
    """``go`` has ``G.__init__`` written out: both must set the same."""

    def attributes(g: G) -> set[str]:
        names = {name for kind in type(g).__mro__ for name in getattr(kind, "__slots__", ())}
        return {name for name in names if getattr(g, name, None) is not None}

    async def main() -> None:
        for fn in (gmpd.sleep, double):
            child = gmpd.go(fn, 0)
            made = type(child)(gmpd.this_loop("the test").p, fn, (0,))
            more = attributes(child) - attributes(made)
            assert {"made_by"} <= more <= {"made_by", "made_at"}  # a number of C is never unset
            assert attributes(made) <= attributes(child)
            await child

    run(main())


def test_children_made_in_a_large_function_share_the_number_of_their_line() -> None:
    """Else each has an object of 32 bytes more."""
    lines = [f"    x{n} = {n}" for n in range(200)]
    source = "\n".join(["def spawn(go, fn):", *lines, "    return go(fn, 0)"])
    names: dict[str, Any] = {}
    exec(source, names)

    async def main() -> None:
        for fn in (gmpd.sleep, partial(gmpd.sleep)):
            first, second = [names["spawn"](gmpd.go, fn) for _ in range(2)]
            assert first.made_at > 256
            assert first.made_at == second.made_at
            if compiled.variant().name == "pure":  # else it is a number of C
                assert first.made_at is second.made_at
            await asyncio.gather(first, second)

    run(main())
