"""The first time that a worker needs a function: its module is imported, by one job; others wait.

A job that waits for another one's import has been taken up, and no line of its function has run.
Should the worker die meanwhile (the import crashes, or a neighbour), it has not begun, and is not
to blame. So it says in the shared memory that it waits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from gmpd.codec import finding
from gmpd.daemon.shm import WorkerShm

T = TypeVar("T")


class Firsts:
    """Modules that jobs of this worker import just now."""

    def __init__(self, shm: WorkerShm) -> None:
        self._shm = shm
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def resolve(self, token: int, name: str, resolve: Callable[[], T]) -> T:
        """``resolve()``, which imports the module of ``name`` if that is not imported."""
        module = name.partition(":")[0]
        if finding.is_imported(module):
            return resolve()
        with self._lock:
            waits = module in self._busy or module in sys.modules
            if not waits:
                self._busy.add(module)
            place = self._shm.queue_up(token) if waits else None
        try:
            return resolve()
        finally:
            with self._lock:
                if not waits:
                    self._busy.discard(module)
                elif place is not None:
                    self._shm.waits_no_more(place)
