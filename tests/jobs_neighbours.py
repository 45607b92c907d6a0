"""Jobs that treat their event loop as if they had it to themselves, and one that lives beside."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


async def neighbour(path: str) -> list[Any]:
    """Begins everything that a vandal could hit, and ends it once ``path`` is gone."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(asyncio.sleep(0.05, "task"))
    agen = numbers()
    seen: list[Any] = [await anext(agen)]
    Path(f"{path}.ready").touch()
    while Path(path).exists():
        await asyncio.sleep(0.01)
    seen += [await anext(agen), await loop.run_in_executor(None, int, "7"), await task]
    seen.append(type(asyncio.create_task(asyncio.sleep(0))).__module__)
    seen += [loop.get_debug(), loop.get_task_factory(), loop.get_exception_handler()]
    return seen


async def cancel_all() -> str:
    """As ``asyncio.run`` does at its end."""
    own = asyncio.create_task(asyncio.sleep(60))
    found = asyncio.all_tasks()
    assert found == {own, asyncio.current_task()}, found
    for task in found - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(own, return_exceptions=True)
    return "cancelled" if own.cancelled() else "not"


async def shut_down() -> str:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int, "1")
    await loop.shutdown_default_executor()
    await loop.shutdown_asyncgens()
    return "done"


async def own_executor() -> str:
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(pool)
    name = await asyncio.to_thread(lambda: __import__("threading").current_thread().name)
    await loop.shutdown_default_executor()
    return str(name).partition("_")[0]


async def own_factory() -> str:
    made = []

    def factory(loop: Any, coro: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **more)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    await asyncio.create_task(asyncio.sleep(0))
    assert loop.get_task_factory() is factory
    return str(len(made))


async def own_handler() -> str:
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context["message"]))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
    return str(len(heard))


async def stop_it() -> str:
    loop = asyncio.get_running_loop()
    loop.stop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # it would name every step of every job
    return "done" if loop.slow_callback_duration else "changed"


# ---- what the current task is --------------------------------------------------------------------


async def what_am_i() -> list[Any]:
    task: Any = asyncio.current_task()
    text = io.StringIO()
    task.print_stack(file=text)
    frames = [frame.f_code.co_name for frame in task.get_stack()]
    task.set_name("renamed")
    return [
        isinstance(task, asyncio.Task),
        isinstance(task, asyncio.Future),
        "what_am_i" in text.getvalue(),
        frames,
        task.get_name(),
        task.get_loop() is asyncio.get_running_loop(),
        task.done() or task.cancelled() or bool(task.cancelling()),
    ]


async def origins() -> list[str]:
    """In debug mode: the files that tasks are said to come from."""
    loop: Any = asyncio.get_running_loop()
    loop._debug = True
    try:
        tasks: list[Any] = [
            loop.create_task(asyncio.sleep(0)),
            asyncio.create_task(asyncio.sleep(0)),
            asyncio.ensure_future(asyncio.sleep(0)),
        ]
        await asyncio.gather(*tasks)
        return [traceback.StackSummary.from_list(t._source_traceback)[-1].filename for t in tasks]
    finally:
        loop._debug = False


async def portal() -> str:
    """greenback: an ``await`` from inside a plain function, by another coroutine in the task."""
    import greenback  # type: ignore[import-not-found, unused-ignore]

    await greenback.ensure_portal()
    return str(greenback.await_(asyncio.sleep(0.01, "through")))


def own_loop() -> str:
    """Plain code that makes a loop of its own."""
    loop = asyncio.get_event_loop()
    try:
        return loop.run_until_complete(asyncio.sleep(0.001, "ran"))
    finally:
        loop.close()


# ---- what patches the process --------------------------------------------------------------------


async def nested() -> None:
    import nest_asyncio  # type: ignore[import-untyped, import-not-found, unused-ignore]

    nest_asyncio.apply()


async def patch_by_hand() -> None:
    """As nest_asyncio does it: asyncio first, then the class of the loop."""
    module: Any = asyncio
    module.run = module.Task = None
    module._patched_by_hand = True
    cls: Any = type(asyncio.get_running_loop())
    cls._run_once = lambda self: None


def patched_plainly() -> None:
    import nest_asyncio

    nest_asyncio.apply()


def greenlets() -> str:
    import gevent.monkey

    gevent.monkey.patch_all()
    import time

    time.sleep(0.01)
    return "patched"


async def asyncio_is_whole() -> list[Any]:
    await asyncio.sleep(0.001)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0.001, "well"))
    return [task.result(), asyncio.run.__module__, hasattr(asyncio, "_patched_by_hand")]
