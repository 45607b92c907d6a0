"""A fixture for tests that start processes: nothing of theirs is left.

The conftest of a directory imports it. To the thousands of tests that start no process it would be
a tenth of their time.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TypeVar

import pytest
from zmq.utils.garbage import gc as zero_copy

T = TypeVar("T")

#: Everything that this run starts inherits it, also what has lost its parent. Not GMPD_...: the
#: daemon takes those out of the environment of jobs.
BADGE = "PYTEST_SESSION_OF_GMPD"

#: Ended processes and closed descriptors may take a moment to go, on a busy machine.
GRACE_S = 5.0

#: Descriptors of the thread and context that pyzmq keeps for frames that it does not copy.
ZERO_COPY_FDS = 7

#: libuuid, where it is installed, keeps its clock open from the first ``uuid.uuid1()``: Dask's.
CLOCK_OF_UUIDS = "/var/lib/libuuid/clock.txt"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process, and no more descriptors than before, are left by a test that starts processes."""
    alive, open_before, had_thread = processes(), descriptors(), zero_copy.is_alive()
    yield
    leaked = _still(lambda: processes() - alive)
    named = [_describe(pid) for pid in sorted(leaked)]
    for pid in leaked:  # or they would disturb the next test
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if leaked:
        pytest.fail(f"processes left behind: {'; '.join(named)}", pytrace=False)
    opened = _still(lambda: descriptors() - open_before)
    # The first large value of a process: see netpoll's ZERO_COPY_BYTES.
    if len(opened) == ZERO_COPY_FDS and zero_copy.is_alive() and not had_thread:
        return
    if opened:
        names = ", ".join(f"{fd} -> {target}" for fd, target in sorted(opened))
        pytest.fail(f"descriptors left open: {names}", pytrace=False)


def _still(look: Callable[[], set[T]]) -> set[T]:
    """The things that are still there after they had time to go away."""
    nothing = threading.Event()
    deadline = time.monotonic() + GRACE_S
    gc.collect()
    while (found := look()) and time.monotonic() < deadline:
        nothing.wait(0.01)
        gc.collect()
    return found


def processes() -> set[int]:
    """Everything alive that this run started."""
    badge = f"{BADGE}={os.environ[BADGE]}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            mine = badge in (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it ended just now, or belongs to another user
            continue
        # A zombie has no command. The tracker of multiprocessing lives as long as this process.
        if mine and command and b"resource_tracker" not in command:
            found.add(int(entry.name))
    return found


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = "ended meanwhile"
    return f"{pid} ({command.strip()})"


def descriptors() -> set[tuple[int, str]]:
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:  # the listing's own
            continue
        if int(entry.name) != getattr(tracker, "_fd", None) and target != CLOCK_OF_UUIDS:
            found.add((int(entry.name), target))
    return found
