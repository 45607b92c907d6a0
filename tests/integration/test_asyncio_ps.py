"""``python -m asyncio ps`` and ``pstree`` see the tasks of a program and of a worker (3.14+)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rawclient import Boot
from tests.support import wait_until

_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")

pytestmark = [
    pytest.mark.skipif(
        sys.version_info < (3, 14), reason="python -m asyncio ps came with Python 3.14"
    ),
    pytest.mark.skipif(
        os.geteuid() != 0 and _SCOPE.exists() and _SCOPE.read_text().strip() != "0",
        reason="this user may not read other processes (kernel.yama.ptrace_scope)",
    ),
]

PROGRAM = """
import asyncio, gmpd

async def leaf():
    await asyncio.sleep(3600)

async def branch():
    await leaf()

async def child():
    await gmpd.Chan().recv()

async def main():
    gmpd.go(child)
    async with asyncio.TaskGroup() as group:
        group.create_task(branch(), name="named")
        other = group.create_task(branch())
        other.set_name("renamed")
        await asyncio.sleep(0.01)
        print("up", flush=True)

gmpd.run(main())
"""


def seen(verb: str, pid: int) -> str:
    command = [sys.executable, "-m", "asyncio", verb, str(pid)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False).stdout


def test_a_program_shows_its_tasks_and_who_awaits_them() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "up\n"
            # A process is read while it runs: what changed meanwhile is told as an error.
            wait_until(lambda: "renamed" in seen("ps", program.pid), "ps answers", timeout=40)
            rows = seen("ps", program.pid).splitlines()
            (named,) = [row for row in rows if " named " in row]
            assert "sleep -> leaf -> branch" in named
            assert named.split()[-2].startswith("Task-"), "its awaiter is main's task"
            tree = seen("pstree", program.pid)
            assert "(T) named" in tree
            assert "(T) renamed" in tree
            assert tree.index("main") < tree.index("(T) named")
            assert "child" not in tree, "a child of gmpd.go is no task of asyncio's"
        finally:
            program.kill()


def test_a_worker_shows_its_async_jobs(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    ((_, pid, _),) = client.outcomes(client.submit("jobs_for_tests:pid", ()))
    client.submit("asyncio:sleep", (3600,))
    wait_until(lambda: " sleep " in seen("ps", pid), "the job is shown", timeout=40)
    assert "sleep" in seen("pstree", pid)
