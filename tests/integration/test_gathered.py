"""Outcomes that a worker gathers while it holds much: no job that turns out long keeps them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

#: Jobs before the long one: so many that the P's credit grows.
BEFORE = 150


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[gmpd.Client]:
    """Of a daemon with one P."""
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "1")
    with gmpd.Client() as made:
        yield made


def milli(wait_for: str = "", how: str = "") -> int:
    """A millisecond of the CPU; once, as long as nobody opens the pipe."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    if how == "native":  # keeps the GIL
        ctypes.PyDLL(None).open(os.fsencode(wait_for), os.O_RDONLY)
    elif how == "blocks":
        with open(wait_for, "rb"):
            pass
    elif how == "computes":
        while not Path(wait_for + ".end").exists():
            pass
    return 1


async def async_milli(wait_for: str = "", how: str = "") -> int:
    await asyncio.sleep(0)
    return milli(wait_for, how)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[str]:
    """A long job waits for it, until the end of the test at the latest."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield str(path)
    release(str(path))


def release(path: str) -> bool:
    """Let the long job end, if it has begun to wait."""
    Path(path + ".end").touch()
    if not Path(path + ".opened").exists():
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # none waits for it
            return True
        Path(path + ".opened").touch()
    return True


@pytest.mark.parametrize("fn", [milli, async_milli])
@pytest.mark.parametrize("how", ["native", "blocks", "computes"])
def test_what_has_ended_is_told_while_a_long_one_runs(
    client: gmpd.Client, pipe: str, how: str, fn: Callable[..., Any]
) -> None:
    """By its average it takes a millisecond, so that outcomes wait for it."""
    for future in [client.submit(fn) for _ in range(20)]:
        assert future.result(60) == 1
    before = [client.submit(fn) for _ in range(BEFORE)]
    long = client.submit(fn, pipe, how)
    after = [client.submit(fn) for _ in range(BEFORE)]
    assert [future.result(60) for future in before] == [1] * BEFORE
    assert not long.done()
    wait_until(lambda: release(pipe) and long.done(), "the end of the long job", timeout=60)
    assert [future.result(60) for future in (long, *after)] == [1] * (BEFORE + 1)


def test_a_job_of_another_client_begins_before_the_backlog_of_this_one(
    client: gmpd.Client,
) -> None:
    for future in [client.submit(milli) for _ in range(20)]:
        assert future.result(60) == 1
    backlog = [client.submit(milli) for _ in range(3000)]
    urgent = client.options(priority=1).submit(milli)
    assert urgent.result(60) == 1
    waiting = sum(not future.done() for future in backlog)
    assert waiting > 1000
    assert sum(future.result(60) for future in backlog) == 3000
