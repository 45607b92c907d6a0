"""The functions under load: what jobs of real programs do to a scheduler, one kind each.

Imported by the daemon's workers (``gmpd serve --import loadtests.jobs``), so they need nothing but
Python.
"""

from __future__ import annotations

import asyncio
import time

#: What each kind of job does for at most this long unless told otherwise: typical, not extreme.
BLOCKING_S = 0.02
WAITING_S = 0.02
CPU_ROUNDS = 20_000


def short(n: int) -> int:
    """Nothing: what is measured is the way there and back."""
    return n


def blocking(seconds: float = BLOCKING_S) -> float:
    """Block a thread as ``requests.get`` or a database driver does: costs a P nothing."""
    time.sleep(seconds)
    return seconds


async def waiting(seconds: float = WAITING_S) -> float:
    """Wait as an asyncio library does: thousands at once on one P."""
    await asyncio.sleep(seconds)
    return seconds


def cpu(rounds: int = CPU_ROUNDS) -> int:
    """Compute: about a millisecond for 20,000 rounds; holds its P the whole time."""
    total = 0
    for i in range(rounds):
        total += i * i
    return total


def bulky(size: int) -> bytes:
    """Return ``size`` bytes: the weight of results."""
    return bytes(size)


def failing(n: int) -> None:
    """Fail: the daemon's own error path, and what it costs."""
    raise ValueError(f"job {n} fails on purpose")
