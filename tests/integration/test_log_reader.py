"""A daemon whose standard error is a full pipe that is not read serves; its log comes late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from tests import jobs_logging as jobs
from tests.durable_daemon import Daemon
from tests.support import wait_until


def full_pipe() -> tuple[int, int, int]:
    """Its ends, and how many bytes fill it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    try:
        while True:
            filled += os.write(write, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
        return read, write, filled


class Unread(Daemon):
    """Its log goes into a full pipe."""

    def _serve(self, log: IO[bytes], flags: Sequence[str]) -> subprocess.Popen[bytes]:
        self.pipe, write, self.filled = full_pipe()
        try:
            command = [sys.executable, "-m", "gmpd.cli", "serve", *flags]
            return subprocess.Popen(
                command, env=self.env, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=write
            )
        finally:
            os.close(write)


@pytest.fixture
def unread() -> Iterator[Unread]:
    with tempfile.TemporaryDirectory(prefix="unread", dir="/tmp") as directory:
        with Unread(Path(directory), GMPD_DAEMON__LOG_FORMAT="json") as daemon:
            yield daemon
        os.close(daemon.pipe)


class Reader(threading.Thread):
    """Reads the pipe to its end."""

    def __init__(self, daemon: Unread) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self.data = b""
        self.start()

    def run(self) -> None:
        while chunk := os.read(self._daemon.pipe, 1 << 16):
            self.data += chunk

    def records(self) -> list[dict[str, Any]]:
        lines = self.data[self._daemon.filled :].decode().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def test_jobs_run_while_the_log_is_not_read_and_it_comes_when_it_is(unread: Unread) -> None:
    client = unread.client()
    unread.process.send_signal(
        signal.SIGUSR1
    )  # lines of coordinator and worker: nothing takes them
    future = client.submit(jobs.warns, 2)
    assert future.result(60) == 2
    assert client.submit(jobs.warns_async, 3).result(60) == 3
    failed = client.submit(jobs.fails, "odd \udc80 \x1b[2J\n{forged}")
    assert isinstance(failed.exception(60), ValueError)
    reader = Reader(unread)

    def both() -> list[dict[str, Any]] | None:
        records = reader.records()
        names = {each["message"] for each in records}
        wanted = {"job 3 warns", "SIGUSR1 is ignored; SIGTERM ends the daemon"}
        arrived = wanted <= names and any(each["logger"] == "gmpd.jobs" for each in records)
        return records if arrived else None

    records = wait_until(both, "the lines", timeout=60)
    assert records is not None
    (said,) = [each for each in records if each["message"] == "job 2 warns"]
    assert (said["process"], said["p"], said["job"]) == ("worker", "0", future.job_id)
    (stray, *_) = [each for each in records if each["message"].startswith("SIGUSR1")]
    assert (stray["process"], stray["logger"]) == ("coordinator", "gmpd.serve")
    (said,) = [each for each in records if each["logger"] == "gmpd.jobs"]
    assert (said["job"], said["attempt"]) == (failed.job_id, "1")
    assert said["function"] == "tests.jobs_logging:fails"
    assert unread.end() == 0
    reader.join(60)
    assert any(" serves on 1 Ps " in each["message"] for each in reader.records())


def test_it_ends_although_its_log_is_not_read(unread: Unread) -> None:
    client = unread.client()
    assert client.submit(jobs.warns, 1).result(60) == 1
    assert unread.end() == 0
