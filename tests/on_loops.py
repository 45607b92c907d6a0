"""Programs on event loops, with a deadline: what the tests of channels, select and locks share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gmpd.runtime.loop import Loop

Run = Callable[[Coroutine[Any, Any, Any]], Any]

DEADLINE_S = 20.0


def runner_of(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """asyncio.run on such a loop."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(asyncio.wait_for(main, DEADLINE_S))

    return run


#: On a P.
run_p: Run = runner_of(Loop)


def spawn(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coro)


async def parked(*tasks: asyncio.Task[Any]) -> None:
    """Until each of them waits for something (or ended)."""
    while not all(task.done() or task._fut_waiter is not None for task in tasks):  # type: ignore[attr-defined]
        await asyncio.sleep(0)
