"""Workers of a private daemon that start before the coordinator does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

import gmpd
from gmpd.daemon import early
from gmpd.daemon.early import EarlyWorkers, Started
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def workers() -> Iterator[EarlyWorkers]:
    workers = EarlyWorkers()
    yield workers
    workers.dismiss()


def begun(workers: EarlyWorkers, procs: object = 1) -> dict[int, Started]:
    workers.start({"config": {"daemon": {"procs": procs}}, "options": [], "stdout": None})
    return dict(workers._started)


def has_ended(started: Started) -> bool:
    return not os.path.exists(f"/proc/{started.process.pid}")


@pytest.mark.parametrize(
    ("procs", "many"), [(1, 1), (0, CORES), (10_000, CORES), (None, CORES), ("many", CORES)]
)
def test_there_are_as_many_as_asked_for_and_no_more_than_cores(
    workers: EarlyWorkers, procs: object, many: int
) -> None:
    assert list(begun(workers, procs)) == [*range(many)]


def test_those_that_are_not_taken_end(workers: EarlyWorkers) -> None:
    found = begun(workers, 0)
    workers.dismiss(1)
    assert [has_ended(each) for each in found.values()] == [False, *[True] * (CORES - 1)]
    workers.dismiss()
    assert has_ended(found[0])


def test_one_that_has_ended_is_not_taken(workers: EarlyWorkers) -> None:
    process = begun(workers)[0].process
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: process.poll() is not None, "it ends")
    assert workers.take(0) is None


def test_one_whose_starter_ends_exits_without_a_word(
    workers: EarlyWorkers, capfd: pytest.CaptureFixture[str]
) -> None:
    started = begun(workers)[0]
    assert started.process.stdin is not None
    started.process.stdin.close()
    assert isinstance(started.process, subprocess.Popen)
    assert started.process.wait(60) == 0
    assert capfd.readouterr() == ("", "")


def test_a_system_without_processes_is_for_the_daemon_to_find(
    workers: EarlyWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert begun(workers) == {}


def test_no_worker_of_a_private_daemon_is_left_over() -> None:
    with gmpd.Executor(1) as pool:
        worker = pool.submit(os.getpid).result()
        coordinator = pool.submit(os.getppid).result()
        with open(f"/proc/{coordinator}/task/{coordinator}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
        assert [pid for pid in children if is_worker(pid)] == [worker]


def is_worker(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        return early.WORKER in file.read().split("\0")
