"""Jobs that log, and give what their records say."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import gmpd

NAMES = ("gmpd_job", "gmpd_attempt", "gmpd_g", "gmpd_p", "gmpd_function")
log = logging.getLogger("tests.jobs_logging")
_numbers = itertools.count()


class Said(NamedTuple):
    """The attributes of one record."""

    job: str
    attempt: str
    g: str
    p: str
    function: str


class _Kept(logging.Handler):
    """Handles records on another thread than they were made on, as a QueueListener does."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, Said] = {}

    def emit(self, record: logging.LogRecord) -> None:
        thread = threading.Thread(target=self._keep, args=(record,))
        thread.start()
        thread.join()

    def _keep(self, record: logging.LogRecord) -> None:
        said = logging.Formatter("|".join(f"%({name})s" for name in NAMES)).format(record)
        self.said[record.getMessage()] = Said(*said.split("|"))


_all = _Kept()
log.addHandler(_all)  # once: jobs that come and go with handlers would have others lose records


def said_by(call: Callable[[str], object], name: str) -> Said:
    """The attributes of the record that ``call`` makes of ``name``."""
    name = f"{name} {next(_numbers)}"  # other jobs log meanwhile
    call(name)
    return _all.said.pop(name)


def plain() -> Said:
    """A plain function."""
    return said_by(log.error, "plain")


async def coroutine() -> Said:
    """A coroutine, after a wait."""
    await asyncio.sleep(0)
    return said_by(log.error, "coroutine")


async def task() -> Said:
    """A task of a coroutine."""
    return await asyncio.create_task(coroutine())


async def in_thread() -> Said:
    """A thread with the context of its job."""
    return await asyncio.to_thread(plain)


async def blocking() -> Said:
    """The same by gmpd."""
    return await gmpd.blocking(plain)


def child_of_plain() -> Said:
    """A child of a plain function."""
    result: Said = gmpd.go(plain).result()
    return result


async def child() -> Said:
    """A child of a coroutine."""
    result: Said = await gmpd.go(coroutine)
    return result


def copied() -> Said:
    """A thread that runs in the context of a child."""

    def run() -> Said:
        found: list[Said] = []
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(lambda: found.append(plain())))
        thread.start()
        thread.join()
        return found[0]

    result: Said = gmpd.go(run).result()
    return result


def stream() -> Iterator[Said]:
    """A generator."""
    yield plain()


async def astream() -> AsyncIterator[Said]:
    """The same as a coroutine."""
    yield await coroutine()


def own_thread() -> Said:
    """A thread that knows nothing of its job."""
    found: list[Said] = []
    thread = threading.Thread(target=lambda: found.append(plain()))
    thread.start()
    thread.join()
    return found[0]


def fails_once(attempts: list[Any]) -> Said:
    """The second attempt succeeds."""
    said = plain()
    if said.attempt == "1":
        raise ValueError
    return said


def wide(n: int) -> list[Said]:
    """Children that run long enough for some to go to another P."""
    gs = [gmpd.go(slow) for _ in range(n)]
    return [g.result() for g in gs]


def slow() -> Said:
    """It keeps its P for a while."""
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    return plain()


class Odd:
    """A call whose name raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError if name == "__qualname__" else AttributeError(name)

    def __call__(self) -> Said:
        return plain()


def odd_child() -> Said:
    """A child whose function has no name that can be read."""
    said: Said = gmpd.go(Odd()).result()
    return said


def replaced_factory() -> tuple[bool, Said]:
    """A program's own factory, which does not call the one before: with the filter all is there."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    kept = _Kept()
    kept.addFilter(gmpd.LogFilter())
    log.addHandler(kept)
    try:
        bare = log.makeRecord("x", 40, "f", 1, "m", (), None)
        log.error("replaced")
    finally:
        log.removeHandler(kept)
        logging.setLogRecordFactory(before)
    return hasattr(bare, "gmpd_job"), kept.said["replaced"]


def warns(n: int) -> int:
    """A warning, with no handler configured."""
    logging.getLogger("tests.unconfigured").warning("job %d warns", n)
    return n


async def warns_async(n: int) -> int:
    """The same in a coroutine: to wait for the reader would hold up its P."""
    return warns(n)


def fails(text: str) -> None:
    """It raises."""
    raise ValueError(text)
