"""How programs end: errors that no G asked for are told, and nothing starts any more."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.runtime.run import run
from gmpd.runtime.timers import after_func
from tests.on_loops import spawn

ROOT = Path(__file__).resolve().parents[2]


def script(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program as its user would."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip


def fail() -> None:
    raise LookupError("lost")


async def afail() -> None:
    fail()


def fails_and_is_kept_by_its_error() -> None:
    """In a circle: only the garbage collector finds it."""
    try:
        fail()
    except LookupError as error:
        error.circle = error  # type: ignore[attr-defined]
        raise


def waits_then_fails() -> None:
    gmpd.go(len, "").result(20)
    fail()


def returns_a_coroutine() -> Any:
    return afail()


CHILDREN: dict[str, Callable[..., Any]] = {
    "plain": fail,
    "coroutine": afail,
    "lambda": lambda: fail(),
    "in a circle": fails_and_is_kept_by_its_error,
    "that lost P": waits_then_fails,
    "that returns a coroutine": returns_a_coroutine,
    "called with too little": lambda _missing: None,
}


def by_go(fn: Callable[..., Any]) -> None:
    gmpd.go(fn)


def by_wait_group(fn: Callable[..., Any]) -> None:
    gmpd.WaitGroup().go(fn)


def by_group(fn: Callable[..., Any]) -> None:
    gmpd.Group().go(fn)


def by_after_func(fn: Callable[..., Any]) -> None:
    after_func(0, fn)


def by_blocking(fn: Callable[..., Any]) -> None:
    gmpd.blocking(fn)


MAKERS = [by_go, by_wait_group, by_group, by_after_func]


@pytest.mark.parametrize("child", CHILDREN.values(), ids=list(CHILDREN))
@pytest.mark.parametrize("make", MAKERS)
def test_an_error_that_nobody_awaits_is_told_once(
    make: Callable[[Any], None], child: Callable[..., Any]
) -> None:
    """For each maker and each kind of child, at the latest when the loop ends."""
    told: list[BaseException] = []
    gc.collect()
    gc.disable()  # so that what is in a circle has only the end of the loop

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: told.append(context["exception"])
        )
        make(child)
        await gmpd.sleep(0.05)
        while gmpd.num_g() > 1:
            await gmpd.sleep(0.001)

    try:
        run(main())
        assert [type(error) in (LookupError, TypeError) for error in told] == [True]
    finally:
        gc.enable()
    gc.collect()
    assert len(told) == 1


@pytest.mark.parametrize("make", [by_go, by_blocking])
def test_an_error_of_a_plain_child_is_told_when_the_child_is_forgotten(
    make: Callable[[Any], None],
) -> None:
    """Not only at the end of the loop: a worker's is far away."""
    told: list[dict[str, Any]] = []
    gc.disable()

    async def main() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        make(fail)
        await gmpd.sleep(0.05)
        return len(told)

    try:
        assert run(main()) == 1
    finally:
        gc.enable()


@pytest.mark.parametrize("heard", ["await", "exception", "group", "group error"])
def test_an_error_that_somebody_asked_for_is_not_told(heard: str) -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        group = gmpd.Group()
        if heard == "await":
            with pytest.raises(LookupError):
                await gmpd.go(fail)
        elif heard == "exception":
            g = gmpd.go(fail)
            await asyncio.wait([asyncio.ensure_future(g)])
            assert isinstance(g.exception(), LookupError)
        elif heard == "group":
            await group.go(fail)
            with pytest.raises(LookupError):
                await group.wait()
        else:
            await group.go(fail)
            while group.error is None:
                await gmpd.sleep(0.001)

    run(main())
    gc.collect()
    assert told == []


def test_a_program_says_what_its_plain_children_raised() -> None:
    done = script(
        """
        import gmpd

        def broken(what):
            raise LookupError(what)

        async def main():
            group = gmpd.WaitGroup()
            gmpd.go(broken, "a child")
            group.go(broken, "a member")
            await group.wait()

        gmpd.run(main())
        """
    )
    assert done.returncode == 0
    assert done.stderr.count("its exception was never retrieved") == 2
    assert "LookupError: a child" in done.stderr
    assert "LookupError: a member" in done.stderr
    assert "line 5, in broken" in done.stderr


def test_who_ends_the_program_is_not_told_of_besides() -> None:
    done = script(
        """
        import sys, gmpd

        async def leaves():
            sys.exit(7)

        async def main():
            gmpd.go(leaves)
            await gmpd.sleep(20)

        gmpd.run(main())
        """
    )
    assert (done.returncode, done.stderr) == (7, "")


# ---- main returns -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1])
def test_row_42_children_that_had_not_started_never_do(seed: int | None) -> None:
    begun: list[str] = []

    async def child() -> None:
        begun.append("async")

    async def task() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)  # asyncio lets it end: rounds go by

    async def main() -> None:
        spawn(task())
        await asyncio.sleep(0)
        for _ in range(300):
            gmpd.go(child)
            gmpd.go(begun.append, "plain")
        after_func(0, begun.append, "after_func")
        gmpd.blocking(begun.append, "blocking")

    run(main(), deterministic_seed=seed)
    gc.collect()
    assert begun == []


def test_row_42_a_child_that_yields_or_was_woken_does_not_go_on() -> None:
    seen: list[str] = []

    async def task(ch: gmpd.Chan[int]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            asyncio.get_running_loop().call_soon(ch.close)
            await asyncio.sleep(0.02)
            seen.append("task")

    async def main() -> None:
        over = False
        ch = gmpd.Chan[int]()

        async def yields() -> None:
            while True:
                await gmpd.gosched()
                if over:
                    seen.append("yields")

        begun = []

        async def waits(what: Callable[[], Awaitable[object]]) -> None:
            begun.append(what)
            try:
                await what()
            finally:
                if over and sys.exc_info()[0] is not GeneratorExit:
                    seen.append("waits")

        spawn(task(ch))
        await asyncio.sleep(0)
        gmpd.go(yields)
        gmpd.go(waits, ch.recv)
        gmpd.go(waits, partial(asyncio.sleep, 0.01))
        gmpd.go(waits, partial(gmpd.sleep, 0.01))
        while len(begun) < 3:
            await asyncio.sleep(0)
        over = True

    run(main())
    assert seen == ["task"]


def test_row_42_an_error_of_main_ends_its_children_too() -> None:
    begun: list[int] = []

    async def main() -> None:
        gmpd.go(begun.append, 1)
        raise LookupError("main")

    with pytest.raises(LookupError):
        run(main())
    assert begun == []


def test_tasks_that_clean_up_may_use_new_children_and_are_told_of_the_old_ones() -> None:
    """asyncio cancels the tasks that are left and waits for them: no child may make it wait."""
    seen: list[str] = []
    begun: list[str] = []

    async def task(name: str, g: Any) -> None:
        begun.append(name)
        try:
            await g
        except asyncio.CancelledError:
            seen.append(f"{name} {await gmpd.go(len, 'new')}")
            await gmpd.sleep(0.001)
            raise

    async def main() -> None:
        old = gmpd.go(gmpd.sleep, 60)
        group = asyncio.gather(gmpd.go(gmpd.sleep, 60), gmpd.go(gmpd.sleep, 60))
        spawn(task("shielded", asyncio.shield(old)))
        spawn(task("awaited", gmpd.go(gmpd.sleep, 60)))
        spawn(task("gathered", group))
        while len(begun) < 3:
            await asyncio.sleep(0)

    run(main())
    assert sorted(seen) == ["awaited 3", "gathered 3", "shielded 3"]


def test_a_group_that_waits_for_room_starts_nothing_after_main() -> None:
    begun: list[int] = []

    async def child(number: int) -> None:
        begun.append(number)
        await gmpd.sleep(60)

    async def rest() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)

    async def main() -> None:
        spawn(rest())
        group = gmpd.Group()
        group.set_limit(1)
        for number in range(5):
            group.go(child, number)
        await gmpd.sleep(0.001)

    run(main())
    assert begun == [0]


def test_a_plain_child_that_runs_when_main_returns_is_left_to_itself() -> None:
    begun, over = threading.Event(), threading.Event()
    ended = threading.Event()

    def child() -> None:
        begun.set()
        over.wait(20)
        ended.set()

    async def main() -> None:
        gmpd.go(child)
        while not begun.is_set():
            await gmpd.sleep(0.001)

    run(main())
    assert not ended.is_set()
    over.set()
    assert ended.wait(20)


@pytest.mark.filterwarnings("error")
def test_row_42_dropped_children_end_without_a_word_wherever_they_wait() -> None:
    """Their frames are closed with the loop: what cleans up must not wait there."""
    told: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        cond, rw = gmpd.Cond(gmpd.Mutex()), gmpd.RWMutex()
        reading = gmpd.Cond(rw.rlocker())

        async def in_cond(cond: Any) -> None:
            await cond.lock.lock()
            try:
                await cond.wait()
            finally:
                cond.lock.unlock()

        async def in_group() -> None:
            async with gmpd.Group() as group:
                group.go(gmpd.sleep, 60)

        async def in_locks() -> None:
            async with gmpd.Mutex(), gmpd.Semaphore(1), rw.rlocker():
                await gmpd.select(gmpd.recv(gmpd.Chan()), gmpd.recv(gmpd.after(60)))

        async def in_flight() -> None:
            await gmpd.SingleFlight().do(1, gmpd.sleep, 60)

        for fn in (in_group, in_locks, in_flight, gmpd.WaitGroup().wait, gmpd.Chan().recv):
            gmpd.go(fn)
        gmpd.go(in_cond, cond)
        gmpd.go(in_cond, reading)
        await gmpd.sleep(0.01)

    unraisable, sys.unraisablehook = sys.unraisablehook, told.append
    try:
        run(main())
        gc.collect()
    finally:
        sys.unraisablehook = unraisable
    assert told == []


# ---- SIGQUIT ------------------------------------------------------------------------------------

WAITS_ON_ANOTHER_M = """
    import asyncio, os, signal, time, gmpd

    async def child():
        await gmpd.Chan().recv()

    def plain():
        print("up", flush=True)
        time.sleep(60)

    async def main():
        gmpd.go(child)
        gmpd.go(plain)
        await gmpd.sleep(60)

    gmpd.run(main())
    """
COMPUTES_ON_M0 = """
    import gmpd

    async def main():
        print("up", flush=True)
        while True:
            pass

    gmpd.run(main())
    """


@pytest.mark.parametrize("text", [WAITS_ON_ANOTHER_M, COMPUTES_ON_M0])
def test_TestSignalDuringExec_sigquit_says_where_every_g_is_and_ends_it(text: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    program.send_signal(signal.SIGQUIT)
    _, said = program.communicate(timeout=50)
    assert program.returncode == 2
    assert said.startswith("SIGQUIT: quit\n\ngoroutine 1 [")
    assert "main(...)" in said
    assert (text is COMPUTES_ON_M0) or ("child(...)" in said and "plain(...)" in said)


def test_a_handler_of_the_programs_own_for_sigquit_stays() -> None:
    done = script(
        """
        import os, signal, time, gmpd

        async def main():
            os.kill(os.getpid(), signal.SIGQUIT)
            await gmpd.sleep(0.01)

        signal.signal(signal.SIGQUIT, lambda *_: print("mine"))
        gmpd.run(main())
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        gmpd.run(gmpd.sleep(0))
        print(signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL)
        """
    )
    assert (done.stdout, done.returncode) == ("mine\nTrue\n", 0), done.stderr


def test_an_excepthook_around_that_of_a_run_is_called_once_however_often_it_runs(
    tmp_path: Path,
) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, gmpd\n"
        "async def main(): pass\n"
        "gmpd.run(main())\n"
        "old = sys.excepthook\n"
        "def hook(*told):\n"
        "    print('hook')\n"
        "    old(*told)\n"
        "sys.excepthook = hook\n"
        "gmpd.run(main())\n"
        "raise ValueError('mine')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (1, "hook\n"), done.stderr
    assert done.stderr.count("ValueError: mine") == 1
    assert "RecursionError" not in done.stderr
