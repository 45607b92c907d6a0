"""Daemons whose directory is removed or taken; processes that jobs started, when the daemon or a
worker is killed; where workers and their children run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import gmpd
from gmpd import rundir
from gmpd.errors import DaemonUnreachable, GmpdError, WorkerLost
from tests.daemon_process import Daemon
from tests.support import go_on, stop, wait_until


def found(directory: Path) -> int | None:
    try:
        return rundir.read_discovery(directory).pid
    except (DaemonUnreachable, GmpdError):
        return None


def remove_all(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_sockets(directory: Path) -> None:
    for path in directory.glob("*.sock"):
        path.unlink()


def remove_record(directory: Path) -> None:
    (directory / "gmpd.json").unlink()


def move_away(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


REMOVALS = [remove_all, remove_sockets, remove_record, move_away]


@pytest.mark.parametrize("remove", REMOVALS)
def test_what_is_removed_from_the_runtime_directory_is_put_back(
    short_tmp: Path, remove: Callable[[Path], None]
) -> None:
    place = short_tmp / "run"
    place.mkdir(mode=0o700)
    settings = {"GMPD_HTTP__ENABLED": "false", "GMPD_STATE_DIR": str(short_tmp / "state")}
    with Daemon(place, **settings) as daemon:
        wait_until(lambda: found(place), "it is there", timeout=30)
        with gmpd.Client(str(place)) as early:
            assert early.submit(divmod, 7, 2).result(20) == (3, 1)
            remove(place)
            with pytest.raises(WorkerLost):
                early.submit(os._exit, 9).result(20)
            assert early.submit(divmod, 7, 2).result(20) == (3, 1)
            wait_until(
                lambda: (
                    found(place) == daemon.process.pid
                    and (place / "client.sock").exists()
                    and (place / "worker.sock").exists()
                ),
                "all is there again",
                timeout=20,
            )
            with gmpd.Client(str(place)) as late:
                assert late.submit(divmod, 7, 2).result(20) == (3, 1)
    assert daemon.process.returncode == 0
    shutil.rmtree(place.with_name("elsewhere"), ignore_errors=True)


def test_a_daemon_whose_place_is_taken_gives_way(short_tmp: Path) -> None:
    place = short_tmp / "run"
    place.mkdir(mode=0o700)
    quiet = {"GMPD_HTTP__ENABLED": "false", "GMPD_STATE_DIR": str(short_tmp / "state")}
    first = Daemon(place, **quiet)
    second = None
    try:
        wait_until(lambda: found(place), "it is there", timeout=30)
        client = gmpd.Client(str(place))
        running = client.submit(sum, range(10))
        assert running.result(20) == 45
        stop(first.process.pid)  # so that it cannot be quicker
        shutil.rmtree(place)
        place.mkdir(mode=0o700)
        second = Daemon(place, **quiet)
        wait_until(lambda: found(place) == second.process.pid, "the second one", timeout=30)
        go_on(first.process.pid)
        assert first.process.wait(30) == 0
        client.close()
        with gmpd.Client(str(place)) as other:
            assert other.submit(divmod, 7, 2).result(20) == (3, 1)
            assert other.call("status")["pid"] == second.process.pid
            assert other.call("status")["procs"] == 2
    finally:
        first.close()
        if second is not None:
            second.close()


def start_child(mark: str) -> int:
    """A job's own process, that would live on."""
    child = subprocess.Popen(["sleep", "600"])
    Path(mark).write_text(str(child.pid))
    return child.wait()


def written(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def ended(pid: int) -> bool:
    """Gone, or dead and not reaped by its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


@pytest.mark.kills_daemon
def test_what_jobs_have_started_ends_when_the_daemon_is_killed(short_tmp: Path) -> None:
    daemon = Daemon(
        short_tmp, GMPD_HTTP__ENABLED="false", PYTHONPATH=os.pathsep.join(sys.path[:1] + sys.path)
    )
    try:
        wait_until(lambda: found(short_tmp), "it is there", timeout=30)
        client = gmpd.Client(str(short_tmp))
        marks = [str(short_tmp / "plain"), str(short_tmp / "isolated")]
        client.submit(start_child, marks[0])
        client.options(isolate=True).submit(start_child, marks[1])
        pids = [int(wait_until(partial(written, mark), "it runs") or 0) for mark in marks]
        daemon.process.kill()
        daemon.process.wait(30)
        for pid in pids:
            wait_until(partial(ended, pid), "what the job started has ended")
        client.close()
    finally:
        daemon.close()


def test_children_of_jobs_may_use_all_cores(no_daemon: None) -> None:
    ask = "import os; print(len(os.sched_getaffinity(0)))"
    cores = len(os.sched_getaffinity(0))
    for pin in ("false", "true"):
        env = {**os.environ, "GMPD_DAEMON__PIN": pin, "GMPD_CLIENT__ANNOUNCE": "false"}
        code = (
            "import gmpd, os, subprocess, sys\n"
            "with gmpd.Client() as c:\n"
            f"    words = [sys.executable, '-c', {ask!r}]\n"
            "    print(c.submit(subprocess.check_output, words).result(30).decode().strip())\n"
            "    print(len(c.submit(os.sched_getaffinity, 0).result(30)))\n"
            "with gmpd.Executor(1) as e:\n"
            "    print(len(e.submit(os.sched_getaffinity, 0).result(30)))\n"
        )
        said = subprocess.check_output([sys.executable, "-c", code], env=env, text=True)
        pinned = 1 if pin == "true" else cores
        assert [int(n) for n in said.split()] == [cores, pinned, cores if cores > 1 else pinned]
