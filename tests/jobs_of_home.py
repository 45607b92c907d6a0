"""Jobs that tell on which thread they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator


def block(seconds: float) -> None:
    time.sleep(seconds)


def is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


async def async_threads(awaits: int) -> list[str]:
    """The names of the threads between the awaits."""
    local = threading.local()
    local.value = 1
    names = []
    for _ in range(awaits):
        await asyncio.sleep(0.003)
        names.append(threading.current_thread().name)
        assert local.value == 1
    return names


async def async_names(n: int) -> AsyncIterator[str]:
    for _ in range(n):
        await asyncio.sleep(0.001)
        yield threading.current_thread().name


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def spin_for_ever() -> None:
    while True:
        pass
