"""The threads that write logs, in tests that make handlers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gmpd.daemon import log_queue
from tests.support import wait_until


def threads() -> set[str]:
    """Those of this process, also ones that ``threading`` does not know."""
    return set(os.listdir("/proc/self/task"))


@contextmanager
def no_thread_is_left() -> Iterator[None]:
    """Close all handlers. A thread that is left would keep tests of deadlocks from finding any."""
    before = threads()
    yield
    for handler in list(log_queue._HANDLERS):
        handler.close()
    wait_until(lambda: threads() <= before, "the end of the threads that write logs")
