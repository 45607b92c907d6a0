"""Hogs of one P run in turns, with real threads."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import gmpd
from gmpd.runtime import turns
from gmpd.runtime.turns import let_go

#: Generous: a machine with twenty other programs gives a hog a turn now and then.
PATIENCE_S = 60


class Hogs:
    """Gs that compute until told to stop."""

    def __init__(self, count: int):
        self.over = False
        self.rounds = [0] * count
        self.gs = [gmpd.go(self._compute, n) for n in range(count)]

    def _compute(self, n: int) -> str:
        while not self.over and not gmpd.cancelled():
            self.rounds[n] += 1
        return "ended"

    def parked(self) -> list[int]:
        """The numbers of those that wait for their turn."""
        p: Any = asyncio.get_running_loop().p  # type: ignore[attr-defined]
        return [self.gs.index(turn.m.g) for turn in p.turns if turns.is_parked(turn.m)]

    async def until_one_runs(self) -> None:
        await until(lambda: len(self.parked()) == len(self.gs) - 1, "all but one are parked")

    async def end(self) -> list[str]:
        self.over = True
        return [await g for g in self.gs]


async def until(fact: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end, f"waited in vain until {what}"
        await asyncio.sleep(0.001)


def test_hogs_run_one_at_a_time_and_each_gets_its_turn() -> None:
    async def main() -> None:
        hogs = Hogs(4)
        await hogs.until_one_runs()
        before = hogs.rounds[:]
        await until(
            lambda: all(now > then for now, then in zip(hogs.rounds, before, strict=True)),
            "each has had another turn",
        )
        await hogs.until_one_runs()
        assert "runnable" in str(gmpd.stacks()), "a parked G waits for its turn, as in Go"
        assert await hogs.end() == ["ended"] * 4

    gmpd.run(main())
    assert not turns._parked
    assert not turns._asked


def test_a_lock_that_a_parked_hog_holds_is_free_after_its_turns() -> None:
    lock, entered = threading.Lock(), [0, 0, 0]

    def locked(n: int) -> None:
        while min(entered) < 5:
            with lock:
                entered[n] += 1
                for _ in range(20_000):
                    pass

    async def main() -> None:
        for g in [gmpd.go(locked, n) for n in range(3)]:
            await g

    gmpd.run(main())
    assert min(entered) >= 5


def test_a_parked_hog_that_is_to_end_runs_at_once() -> None:
    """It is told to end, or interrupted as at a time limit."""

    async def main() -> None:
        hogs = Hogs(4)
        await hogs.until_one_runs()
        cancelled = hogs.parked()[-1]
        hogs.gs[cancelled].cancel()
        assert turns._parked.keys() != set(), "only that one runs"
        with pytest.raises(asyncio.CancelledError):
            await hogs.gs[cancelled]

        p: Any = asyncio.get_running_loop().p  # type: ignore[attr-defined]
        interrupted = next(n for n in hogs.parked() if n != cancelled)
        g = hogs.gs[interrupted]
        (turn,) = [turn for turn in p.turns if turn.m.g is g]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(turn.m.ident), ctypes.py_object(InterruptedError)
        )
        let_go(p, g)
        assert turn.m.ident not in turns._parked
        with pytest.raises(InterruptedError):
            await g
        hogs.over = True

    gmpd.run(main())
    assert not turns._parked


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_of_a_hog_runs_without_the_others() -> None:
    def fork_and_compute() -> int:
        child = os.fork()
        if child == 0:
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                pass
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def main() -> None:
        hogs = Hogs(3)
        await hogs.until_one_runs()
        assert await gmpd.go(fork_and_compute) == 7
        await hogs.end()

    gmpd.run(main())


def test_gs_that_mostly_wait_are_not_parked() -> None:
    """They compute for a fifth of their time, and overlap."""

    def waits(most: list[int]) -> None:
        for _ in range(100):
            time.sleep(0.004)
            end = time.thread_time() + 0.0002
            while time.thread_time() < end:
                pass
            most[0] = max(most[0], len(turns._parked))

    async def main() -> int:
        most = [0]
        for g in [gmpd.go(waits, most) for _ in range(4)]:
            await g
        return most[0]

    assert gmpd.run(main()) < 3, "at most all but one: then they would wait one after the other"
