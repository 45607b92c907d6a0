"""The last events of workers that have ended, for traces: leaving and isolated workers send theirs
before they end (``recording.tail``); those of a worker that was killed are lost, and that is said.

Bounded by bytes and by number, the oldest go first.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from gmpd.daemon.supervisor import WorkerProcess
from gmpd.sched.events import Exit

#: Bytes of all rings together, and workers.
BYTES_MAX: Final = 16 << 20
KEPT_MAX: Final = 1000


class PastRing(NamedTuple):
    """A worker that has ended: its number of a P or an isolated worker, and a packed ``RingDump``;
    ``lost`` says why there is none."""

    p: int
    epoch: int
    pid: int
    isolated: bool
    ended_ns: int
    ring: bytes
    lost: str


class PastRings:
    """Rings of the workers of one daemon that have ended."""

    def __init__(self) -> None:
        self._kept: deque[PastRing] = deque()
        self._nbytes = 0

    def add(self, worker: WorkerProcess, end: Exit, ran: bool, now: int) -> None:
        """A worker has ended; ``ran``: it had begun jobs."""
        if not (worker.ring_tail or ran):
            return
        lost = "" if worker.ring_tail else f"its events are lost with its worker, which {end.text}"
        self._kept.append(
            PastRing(
                worker.of_p, worker.epoch, worker.process.pid, worker.isolated, now,
                worker.ring_tail, lost,
            )
        )  # fmt: skip
        self._nbytes += len(worker.ring_tail)
        while len(self._kept) > KEPT_MAX or self._nbytes > BYTES_MAX:
            self._nbytes -= len(self._kept.popleft().ring)

    def rows(self, since_ns: int) -> list[dict[str, Any]]:
        """Events of workers that have ended since then, as workers answer ``trace``."""
        return [
            {
                "p": past.p, "answered": True, "isolated": past.isolated, "ended": past.ended_ns,
                "status": {"p": past.p, "epoch": past.epoch, "pid": past.pid, "state": "dead"},
                **({"missing": past.lost} if past.lost else {"ring": past.ring}),
            }
            for past in self._kept
            if past.ended_ns >= since_ns
        ]  # fmt: skip
