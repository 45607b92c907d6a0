"""The watch over what tests leave behind sees what it must: or its silence would mean nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.support import wait_until


def test_a_child_is_seen_while_it_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        wait_until(lambda: child.pid in conftest._processes(), "the child is seen")
        child.communicate(b"\n")
    assert child.pid not in conftest._processes()


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
        assert parent.wait(10) == 0
        # Its environment is there a moment after its program has begun.
        wait_until(lambda: orphan in conftest._processes(), "it is seen")
        parent.stdin.close()
        wait_until(lambda: orphan not in conftest._processes(), "the orphan is gone")


def test_a_descriptor_is_seen_while_it_is_open() -> None:
    before = conftest._descriptors()
    reading, writing = os.pipe()
    assert {fd for fd, _ in conftest._descriptors() - before} == {reading, writing}
    os.close(reading)
    os.close(writing)
    assert conftest._descriptors() == before


def test_the_files_of_a_daemon_are_seen(tmp_path: Path, short_tmp: Path) -> None:
    (tmp_path / "gmpd.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    assert conftest._daemon_files(tmp_path) == ["gmpd.json"]
    path = short_tmp / "worker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert conftest._daemon_files(short_tmp) == ["worker.sock"]
    path.unlink()


def test_waiting_for_a_fact_ends_with_a_sentence() -> None:
    with pytest.raises(AssertionError, match=r"after 0.01 s still not so: pigs fly \(last: 0\)"):
        wait_until(lambda: 0, "pigs fly", timeout=0.01)
    assert wait_until(lambda: 7, "seven") == 7
