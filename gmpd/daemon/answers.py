"""Values that a worker tells a client itself, over the client's lane, of which the coordinator has
lent it its end.

The order is what no death, cancel or steal may see through (``tests/sim/test_answers_world.py``):
the outcome is stored in shared memory, the worker takes the *right to answer* beside the lease's
claim, it answers, and then it tells the coordinator. A lane that is full, or whose client has gone,
takes nothing: then the coordinator has the value, as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gmpd.netpoll import LANE_BYTES, LentLane
from gmpd.protocol import Outcome, Value, pack

if TYPE_CHECKING:
    from gmpd.daemon.attempt import Attempt
    from gmpd.daemon.shm import WorkerShm


class Answers:
    """The lanes that this worker was lent, by the numbers of their clients."""

    def __init__(self, shm: WorkerShm) -> None:
        self._shm = shm
        self._lanes: dict[int, LentLane] = {}

    def lend(self, client: int, fd: int | None) -> None:
        """The descriptor of a client's lane; None: there was no room for it in this process."""
        if fd is not None:
            self._lanes[client] = LentLane(fd)

    def give_back(self, client: int) -> None:
        """It is not needed any more."""
        if (lane := self._lanes.pop(client, None)) is not None:
            lane.close()

    def tell(self, attempt: Attempt, ran_us: int) -> bool:
        """Tell its client the outcome of an attempt, which is stored; whether it is on its way.

        No more than a value: an error has a way of its own, and frames do not fit. Nor that of a
        job which has told its progress, which would come behind it.
        """
        leased = attempt.leased
        if leased is None or leased.client is None or attempt.outcome is not Outcome.OK:
            return False
        lane = self._lanes.get(leased.client)
        if lane is None or attempt.out_buffers or attempt.has_progress:
            return False
        if len(attempt.data) > LANE_BYTES:  # or all of it is copied in vain
            return False
        if not self._shm.claims.take_right(attempt.token):
            return False
        return lane.send(pack(Value(leased.seq(attempt.token), attempt.data, ran_us)))
