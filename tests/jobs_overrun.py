"""Functions that do not stop when their time is over; they write when a frame begins and ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def noted(path: str) -> Iterator[None]:
    """The frame lives: ``+`` at its begin, ``-`` at its end."""
    _note(path, "+")
    try:
        yield
    finally:
        _note(path, "-")


def _note(path: str, sign: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{sign}{os.getpid()}\n")


def most_at_once(path: Path) -> tuple[int, int]:
    """How many frames there were, and how many at once at most."""
    alive = most = begun = 0
    for line in path.read_text().split() if path.exists() else []:
        alive += 1 if line[0] == "+" else -1
        begun += line[0] == "+"
        most = max(most, alive)
    return begun, most


def _stubborn(step: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                step()
        except BaseException:  # as a bare "except:" in users' code
            continue


def swallow(path: str, seconds: float) -> str:
    """Interrupts come, and are swallowed."""
    with noted(path):
        _stubborn(lambda: time.sleep(0.005), seconds)
    return "late"


def sleep(path: str, seconds: float) -> str:
    """Blocks in C."""
    with noted(path):
        time.sleep(seconds)
    return "late"


def hold_gil(path: str, seconds: float) -> str:
    """C code that keeps the GIL from the first moment to the last."""
    with noted(path):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "late"


async def swallow_cancel(path: str, seconds: float) -> str:
    with noted(path):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue
    return "late"


async def block(path: str, seconds: float) -> str:
    """A step that never awaits."""
    with noted(path):
        time.sleep(seconds)
    return "late"


async def slow_cleanup(path: str, seconds: float) -> None:
    """Its cancellation is heard, and what it does then takes long."""
    with noted(path):
        try:
            await asyncio.sleep(60)
        finally:
            time.sleep(seconds)


def items(path: str, seconds: float) -> Iterator[str]:
    with noted(path):
        time.sleep(seconds)
        yield "late"


async def items_async(path: str, seconds: float) -> AsyncIterator[str]:
    with noted(path):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue
        yield "late"


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def swallow_then_die(path: str, seconds: float) -> None:
    """Its worker dies with it."""
    with noted(path):
        _stubborn(lambda: time.sleep(0.005), seconds)
        _note(path, "-")
        os._exit(9)
