"""A worker's beats: four times a second while it is active, and once more after that.

A beat shows the histograms in shared memory, and looks whether the process is still fit; the last
one gives memory back to the system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gmpd.allocator import TRIM_BYTES, give_back
from gmpd.daemon.shm import WorkerShm
from gmpd.runtime.loop import Loop
from gmpd.runtime.stats import histograms

#: Seconds between two beats.
BEAT_S = 0.25


class Beats:
    """Only the M that holds P calls it. ``looks`` are called with each beat."""

    def __init__(self, loop: Loop, shm: WorkerShm, looks: Sequence[Callable[[], None]]) -> None:
        self._loop = loop
        self._shm = shm
        self._looks = looks
        #: Bytes of values that went through since memory was given back.
        self.moved = 0
        self._due = False
        #: Gs that had run at the last beat.
        self._ran = 0

    def soon(self) -> None:
        """Something has happened: a beat follows."""
        if not self._due:
            self._due = True
            self._loop.p_callbacks.later(BEAT_S, self._beat)

    def _beat(self) -> None:
        for look in self._looks:
            look()
        # An async job may be busy for long without an outcome: continue while Gs run.
        ran = self._loop.p.runq.schedtick + self._loop.p.runq.inherited
        self._due = ran != self._ran
        self._ran = ran
        if self._due:
            self._loop.p_callbacks.later(BEAT_S, self._beat)
        else:
            self._shm.rest()
            if self.moved > TRIM_BYTES:
                self.moved = 0
                give_back()
        self._shm.publish_histograms(histograms(self._loop.p))
