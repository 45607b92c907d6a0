"""Jobs for the tests of what can be seen of jobs: progress, output, lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gmpd


def await_file(path: str) -> None:
    """Until it is there."""
    end = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.005)


def reach(done: int, go: str, note: str = "") -> int:
    """Tell progress, wait for the file ``go``, tell that it is over."""
    gmpd.progress(done, 10, note)
    await_file(go)
    gmpd.progress(10, 10, "over")
    return done


async def reach_async(done: int, go: str) -> int:
    """The same as a coroutine."""
    gmpd.progress(done, 10)
    while not Path(go).exists():
        await asyncio.sleep(0.005)
    gmpd.progress(10, 10, "over")
    return done


def parent(done: int, go: str) -> list[int]:
    """Only its children tell; some of them in another worker."""
    return [g.result() for g in [gmpd.go(reach, done, go) for _ in range(4)]]


async def parent_async(done: int, go: str) -> list[int]:
    """The same as a coroutine, with children of both kinds."""
    fns: list[Callable[..., Any]] = [reach, reach_async] * 2
    return [await g for g in [gmpd.go(fn, done, go) for fn in fns]]


def steps(done: int, go: str) -> Iterator[int]:
    """A generator that tells."""
    yield reach(done, go)


def count(n: int) -> int:
    """Tell often."""
    for i in range(n):
        gmpd.progress(i, n)
    return n
