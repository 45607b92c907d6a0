"""``asyncio.current_task()``: every coroutine sees its own, plain functions see none, and no thread
keeps one that has ended its step. TaskGroup, timeout and all of anyio stand on it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import gmpd
from gmpd.runtime import internals
from gmpd.runtime.loop import Loop
from tests.on_loops import Run, run_p

WAYS: dict[str, Callable[[Any], Any]] = {
    "task": lambda fn: asyncio.get_running_loop().create_task(fn()),
    "G": lambda fn: gmpd.go(fn),
    "eager": lambda fn: asyncio.Task(fn(), loop=asyncio.get_running_loop()),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_coroutine_sees_itself_at_every_step(way: str) -> None:
    async def steps() -> list[Any]:
        seen = [asyncio.current_task()]
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await gmpd.sleep(0.001)
        seen.append(asyncio.current_task(asyncio.get_running_loop()))
        return seen

    async def main() -> None:
        one, other = WAYS[way](steps), WAYS[way](steps)
        for child in (one, other):
            assert set(await child) == {child}
        assert asyncio.current_task() is not None

    run_p(main())


def test_task_groups_and_timeouts_work_in_gs_and_tasks(run: Run) -> None:
    async def grouped() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, n)) for n in range(5)]
        return sum(task.result() for task in tasks)

    async def too_slow() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timed out"
        return "not"

    async def main() -> None:
        assert list(await asyncio.gather(grouped(), too_slow())) == [10, "timed out"]
        if isinstance(asyncio.get_running_loop(), Loop):
            outcomes = await asyncio.gather(gmpd.go(grouped), gmpd.go(too_slow))
            assert list(outcomes) == [10, "timed out"]

    run(main())


def test_callbacks_and_plain_functions_see_none() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []
        for _ in range(3):
            loop.call_soon(lambda: seen.append(asyncio.current_task(loop)))
            await asyncio.sleep(0)
            await gmpd.go(lambda: seen.append(asyncio.current_task(loop)))
            await gmpd.blocking(lambda: seen.append(asyncio.current_task(loop)))
        assert seen == [None] * 9

    run_p(main())


def test_a_plain_function_may_run_a_loop_of_its_own_between_coroutines() -> None:
    """Its thread has run steps of coroutines just before: none of them is its current task."""

    async def inner() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    def nested() -> str:
        return type(asyncio.run(inner())).__name__

    async def main() -> None:
        for _ in range(5):
            busy = [gmpd.go(asyncio.sleep, 0) for _ in range(3)]
            assert await gmpd.go(nested) == "Task"
            for g in busy:
                await g

    run_p(main())
    run_p(main())  # nothing is left in this thread either


def test_nothing_is_left_in_the_thread_when_main_ends_or_fails() -> None:
    async def fails() -> None:
        gmpd.go(time.sleep, 0.02)  # P leaves this thread
        await asyncio.sleep(0.005)
        raise SystemExit(3)

    for _ in range(2):
        with pytest.raises(SystemExit):
            gmpd.run(fails())

        async def main() -> Any:
            return asyncio.current_task()

        assert isinstance(asyncio.run(main()), asyncio.Task)


def test_another_thread_sees_which_one_runs() -> None:
    async def main() -> None:
        loop, mine = asyncio.get_running_loop(), asyncio.current_task()
        seen: list[Any] = []
        looker = threading.Thread(target=lambda: seen.append(asyncio.current_task(loop)))
        looker.start()
        looker.join()
        assert seen == [mine]

    run_p(main())


@pytest.mark.skipif(
    internals.current_tasks is not None,
    reason="before 3.14 a current task does not depend on the running loop",
)
def test_code_that_leaves_another_loop_as_the_running_one_harms_no_neighbour() -> None:
    async def hostile() -> None:
        internals.set_running_loop(object())

    async def main() -> list[Any]:
        seen = []
        for _ in range(3):
            gmpd.go(hostile)
            seen.append(await gmpd.go(asyncio.sleep, 0.001, "well"))
            seen.append(type(asyncio.current_task()).__name__)
        return seen

    assert run_p(main()) == ["well", "Task"] * 3
