"""The threads of a worker whose jobs have lost P, listed where the list survives the process.

After a crash the coordinator knows the thread that crashed (``lastwords``), and finds its job here.
"""

from __future__ import annotations

from gmpd.daemon.attempt import Attempt
from gmpd.daemon.shm import SLOTS, Slot, WorkerShm
from gmpd.runtime.p import M, P


class Beside:
    """The list. One M at a time changes it, under the lock of ``p``."""

    def __init__(self, shm: WorkerShm, p: P) -> None:
        self._slots = shm.slots
        self._free = list(range(SLOTS - 2, Slot.BESIDE - 2, -2))
        self._places: dict[M, int] = {}
        p.on_detached, p.on_attached = self._add, self._discard

    def _add(self, m: M) -> None:
        """Its job goes on without P. Beyond the table's size it is not listed."""
        if self._free and isinstance(m.g, Attempt):
            at = self._places[m] = self._free.pop()
            self._slots[at + 1] = m.g.token
            self._slots[at] = m.ident

    def _discard(self, m: M) -> None:
        """Its job has ended, or has P again."""
        at = self._places.pop(m, None)
        if at is not None:
            self._slots[at] = 0
            self._free.append(at)
