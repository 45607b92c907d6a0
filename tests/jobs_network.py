"""Functions that a daemon of the tests registers for other machines, and one that it does not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import gmpd
from tests.support import is_setting


@gmpd.job
def add(a: int, b: int = 0) -> int:
    return a + b


@gmpd.job
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@gmpd.job
def block(seconds: float) -> None:
    time.sleep(seconds)


@gmpd.job
def count(n: int) -> Iterator[int]:
    yield from range(n)


@gmpd.job
def echo(value: Any) -> Any:
    return value


@gmpd.job
def pair() -> tuple[int, int]:
    return 1, 2


@gmpd.job
def unsendable() -> object:
    return {"deep": [object()]}


class OwnError(Exception):
    """Known here alone, as far as a client of another machine is concerned."""


@gmpd.job
def fail(own: bool) -> None:
    if own:
        raise OwnError("of my own")
    raise ValueError("of Python's")


def unmarked() -> str:
    return "must not run"


@gmpd.job
def environment() -> list[str]:
    """Variables that are gmpd's."""
    return list(filter(is_setting, os.environ))
