"""The runtime directory, its lock and its discovery file when processes die or have children."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gmpd import rundir
from gmpd.errors import DaemonUnreachable
from gmpd.rundir import Discovery, Lock


@pytest.fixture
def place(short_tmp: Path) -> Path:
    return rundir.prepare(short_tmp / "run")


def test_a_dead_daemon_keeps_nobody_out_and_its_files_are_recognised(place: Path) -> None:
    program = (
        "import os, signal, socket, sys\n"
        "from gmpd import rundir\n"
        "place = sys.argv[1]\n"
        "lock = rundir.Lock.acquire(place)\n"
        "socket.socket(socket.AF_UNIX).bind(place + '/client.sock')\n"
        "rundir.write_discovery(place, rundir.Discovery.of_this_process(\n"
        "    version='1', started_at=1.5, endpoints={}, http=None))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", program, str(place)], check=False)
    assert died.returncode == -9
    (place / "notes.txt").write_text("not ours to remove")
    with pytest.raises(DaemonUnreachable, match=r"\(pid \d+\) is dead"):
        rundir.read_discovery(place)
    with Lock.acquire(place) as lock:
        assert lock.clear_stale() == ["client.sock", "gmpd.json"]
        assert lock.clear_stale() == []
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_the_lock_is_not_inherited_by_children(place: Path) -> None:
    child_waits = [sys.executable, "-c", "input()"]
    with Lock.acquire(place) as lock:
        with subprocess.Popen(child_waits, stdin=subprocess.PIPE, close_fds=False) as child:
            lock.release()
            with Lock.acquire(place):
                assert child.poll() is None
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.close()
            assert child.wait(30) == 0


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        record = Discovery.of_this_process(version="1", started_at=1.5, endpoints={}, http=None)
        assert replace(record, pid=child.pid).is_gone
