"""The jobs of the peers' table, the same for every peer; they need nothing but Python."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

#: What a job that waits and computes waits for (seconds).
MIXED_NAP_S = 0.02


def noop(value: Any) -> Any:
    """Nothing: the way there and back."""
    return value


def burn(rounds: int) -> int:
    """Compute: run a loop for the given number of rounds."""
    x = 1
    for _ in range(rounds):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


def block(seconds: float) -> float:
    """Block a thread, as a driver of a database does."""
    time.sleep(seconds)
    return seconds


async def nap(seconds: float) -> float:
    """Wait as a library of asyncio does."""
    await asyncio.sleep(seconds)
    return seconds


def block_and_burn(rounds: int) -> int:
    """Wait for an answer, then compute."""
    time.sleep(MIXED_NAP_S)
    return burn(rounds)


async def nap_and_burn(rounds: int) -> int:
    """As ``block_and_burn``, in a coroutine."""
    await asyncio.sleep(MIXED_NAP_S)
    return burn(rounds)


def echo(value: Any) -> Any:
    """The argument, sent back."""
    return value


def pid(_: int) -> int:
    """The process that runs jobs; long enough that others get some of them, too."""
    time.sleep(0.01)
    return os.getpid()


def parent_pid(_: int) -> int:
    """As ``pid``, where a worker forks for each job."""
    time.sleep(0.01)
    return os.getppid()


#: For peers whose jobs are registered by name.
TASKS = (noop, burn, block, nap, block_and_burn, nap_and_burn, echo, pid, parent_pid)


async def called(fn: Any, arg: Any) -> Any:
    """A plain function, for peers that only run coroutines."""
    return fn(arg)
