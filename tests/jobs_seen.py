"""Jobs for the tests of what can be seen of jobs: progress, output, lists."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
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


def fails(text: str) -> None:
    """It raises."""
    raise ValueError(text)


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


def talk(word: str, go: str, fail: bool = False) -> str:
    """Print, log, wait for the file ``go``, print again."""
    print(word, "begins")
    logging.getLogger("jobs.seen").warning("%s waits", word)
    await_file(go)
    print(word, "ends", file=sys.stderr)
    if fail:
        raise ValueError(word)
    return word


async def talk_async(word: str, rounds: int) -> str:
    """Print in turns with others, by tasks and in a thread too."""
    for n in range(rounds):
        print(word, n)
        await asyncio.sleep(0)

    async def task() -> None:
        print(word, "task")

    await asyncio.create_task(task())
    await asyncio.to_thread(print, word, "thread")
    await gmpd.go(print, word, "child")
    return word


def say(word: str) -> int:
    """Print in a child that computes; its process."""
    print(word, "child")
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    return os.getpid()


def talk_by_children(word: str, n: int) -> int:
    """Children print, in several workers; in how many."""
    print(word, "begins")
    return len({g.result() for g in [gmpd.go(say, word) for _ in range(n)]})


def talk_and_die(path: str) -> str:
    """End the worker once, after words that have left it."""
    first = not Path(path).exists()
    Path(path).touch()
    print("first" if first else "second", flush=True)
    if first:
        time.sleep(1.0)
        os._exit(9)
    return "done"


def flood(n: int) -> None:
    """Print much."""
    for i in range(n):
        print("x" * 100, i)
