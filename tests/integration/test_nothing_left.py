"""The watch over processes that tests leave sees children and orphans."""

from __future__ import annotations

import subprocess
import sys

from tests import leaks
from tests.support import wait_until


def test_a_child_is_seen_while_it_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        wait_until(lambda: child.pid in leaks.processes(), "the child is seen")
        child.communicate(b"\n")
    assert child.pid not in leaks.processes()


def test_an_orphan_is_seen_too() -> None:
    """As a worker whose coordinator was killed: no longer our child, but still ours."""
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])\n"
        "print(child.pid, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        orphan = int(parent.stdout.readline())
        assert parent.wait(30) == 0
        # Its environment is there a moment after its program has begun.
        wait_until(lambda: orphan in leaks.processes(), "it is seen")
        parent.stdin.close()
        wait_until(lambda: orphan not in leaks.processes(), "the orphan is gone")
