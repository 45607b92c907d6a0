"""Jobs of the tests of limits: they tell when they ran."""

from __future__ import annotations

import asyncio
import os
import signal
import time


def span(s: float) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(s)
    return began, time.monotonic()


async def aspan(s: float) -> tuple[float, float]:
    began = time.monotonic()
    await asyncio.sleep(s)
    return began, time.monotonic()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
