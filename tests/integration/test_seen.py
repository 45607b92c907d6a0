"""What can be seen of jobs while they run: in a real daemon with two Ps."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.cli.app import App
from gmpd.cli.private import private_client
from gmpd.errors import DaemonUnreachable
from tests import jobs_seen as jobs
from tests.support import wait_until

ROOT = Path(__file__).parents[2]


class Served:
    """`gmpd serve`, its environment, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_DAEMON__PROCS": "2",
            "PYTHONPATH": str(ROOT),
        }
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gmpd.cli", "serve"], env=self.env, cwd=directory,
                stdout=log, stderr=log,
            )  # fmt: skip
        self.client = wait_until(self._connect, "the daemon takes clients", timeout=60)

    def _connect(self) -> gmpd.Client | None:
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            return gmpd.Client(str(self.directory / "run"))
        except DaemonUnreachable:
            return None

    def close(self) -> None:
        assert self.client is not None
        self.client.close(wait=False)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    directory = Path(tempfile.mkdtemp(prefix="seen", dir="/tmp"))
    served = Served(directory)
    yield served
    served.close()
    shutil.rmtree(directory)


@pytest.fixture
def client(served: Served) -> gmpd.Client:
    assert served.client is not None
    return served.client


@pytest.fixture
def go(short_tmp: Path) -> Iterator[Path]:
    """A file that ends the jobs that wait for it; it is there after the test."""
    path = short_tmp / "go"
    yield path
    path.touch()


def last(future: Any) -> object:
    """Its progress; by a call, as a type checker believes that an attribute stays."""
    return future.progress


# -- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn", [jobs.reach, jobs.reach_async, jobs.parent, jobs.parent_async], ids=lambda fn: fn.__name__
)
def test_a_future_shows_how_far_its_job_is(
    client: gmpd.Client, go: Path, fn: Callable[..., Any]
) -> None:
    future = client.submit(fn, 3, str(go))
    wait_until(lambda: future.progress == (3, 10, ""), "its progress")
    go.touch()
    future.result(60)
    assert last(future) == (10, 10, "over")


def test_an_isolated_job_shows_how_far_it_is(go: Path) -> None:
    with private_client(App(), 1, ["tests.jobs_seen"]) as client:
        future = client.options(isolate=True).submit(jobs.reach, 4, str(go), "alone")
        wait_until(lambda: future.progress == (4, 10, "alone"), "its progress")
        go.touch()
        assert future.result(60) == 4


def test_an_asyncio_client_shows_it_too(served: Served, go: Path) -> None:
    async def main() -> None:
        async with gmpd.AsyncClient(str(served.directory / "run")) as client:
            future = client.submit(jobs.reach, 2, str(go), "x")
            async with asyncio.timeout(60):
                while last(future) != (2, 10, "x"):
                    await asyncio.sleep(0.01)
            go.touch()
            assert await future == 2
            assert last(future) == (10, 10, "over")

    asyncio.run(main())


def test_progress_is_sent_some_times_a_second_however_often_it_is_told(
    client: gmpd.Client,
) -> None:
    def messages() -> int:
        n: int = client.call("status")["messages"]["in"].get("progress", 0)
        return n

    before = messages()
    futures = [client.submit(jobs.count, 100_000) for _ in range(4)]
    assert [each.result(120) for each in futures] == [100_000] * 4
    assert [each.progress for each in futures] == [(99_999, 100_000, "")] * 4
    # At the end of each, and a few while they ran, however slow this machine is: each takes a tenth
    # of a second at least, and telling it 100,000 times less than 50 of them.
    assert 1 <= messages() - before <= 4 + 200
