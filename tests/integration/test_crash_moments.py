"""A daemon that dies at each moment of a durable job's way, and what the next one makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import jobs_durable as jobs
from tests.durable_daemon import Daemon
from tests.support import wait_until


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp, failpoints=True) as daemon:
        yield daemon


#: When the daemon dies; how often a job runs then, and one with once=True; and how that one ends.
MOMENTS = [
    ("unflushed", 1, 1, "done"),
    # It was taken from the store with the flush, so it may have begun, as far as is known.
    ("flushed", 1, 0, "unknown"),
    ("leased", 1, 0, "unknown"),
    ("finishing", 2, 1, "unknown"),
    ("finished", 1, 1, "done"),
]


def test_each_job_has_one_end_wherever_the_daemon_was_killed(
    daemon: Daemon, tmp_path: Path
) -> None:
    """A client enqueues a job, and one that must not run twice, and waits: for an answer to its
    enqueue, or for the ends. It is never told about the deaths."""
    client = daemon.client(reconnect=120)
    for moment, runs, once_runs, once_ends in MOMENTS:
        often = killed_at(daemon, client, moment, tmp_path / f"{moment} often")
        assert often == (runs, "done"), moment
        once = killed_at(daemon, client.options(once=True), moment, tmp_path / f"{moment} once")
        assert once == (once_runs, once_ends), moment


def killed_at(daemon: Daemon, view: Any, moment: str, path: Path) -> tuple[int, str]:
    """How often a job ran, and how it ended, of a daemon that was killed at that moment."""
    daemon.kill_at(moment)
    with ThreadPoolExecutor() as threads:
        enqueued = threads.submit(view.enqueue, jobs.note, str(path), "ran")
        assert daemon.process.wait(60) == -9
        daemon.start()
        job = daemon.clients[0].job(enqueued.result(120))
    error = job.exception(120)
    assert error is None or "once=True forbids a second run" in str(error)
    return len(path.read_text().split()) if path.exists() else 0, job.state


def test_a_daemon_that_dies_again_and_again_loses_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """Each start dies at another moment, with the same jobs in the store."""
    path, client = tmp_path / "record", daemon.client(reconnect=240)
    ids = [client.options(delay=0.5).enqueue(jobs.note, str(path), f"job{n}") for n in range(20)]
    for moment in ("leased", "finishing", "finished"):
        daemon.kill_at(moment)
        assert daemon.process.wait(120) == -9
        daemon.start()
    assert [client.job(each).result(120) for each in ids] == [f"job{n}" for n in range(20)]
    ran = path.read_text().split()
    assert {f"job{n}" for n in range(20)} == set(ran)
    wait_until(lambda: client.call("status")["durable"]["jobs"]["queued"] == 0, "none is left")
