"""The ledger's world with a host among its Ps: three cores, claimed and revoked as any other P.

Beside what holds there: no child of a G is leased to the host, none is asked of it, and jobs of
suspect functions stay on this machine.
"""

from __future__ import annotations

import pytest

from gmpd.sched.instructions import AskChildren, Instruction, LeaseJobs
from gmpd.sched.leavers import p_of
from gmpd.sched.records import PRecord
from tests.desk import MS
from tests.sim.test_ledger_world import STEPS, World, live_all

SEEDS = 60
#: The P that is a host's.
HOST = 3
CORES = 3


class HostWorld(World):
    def __init__(self, seed: int) -> None:
        super().__init__(seed, host_credit_ns=6 * MS)
        self.at_host = self.most_at_host = 0
        ready = self.desk.ready

        def ready_there(p: int, epoch: int = 1, cores: int = 1, host: str = "") -> PRecord:
            return ready(p, epoch, *((CORES, "there:1") if p == HOST else (cores, host)))

        self.desk.ready = ready_there  # type: ignore[method-assign]

    def have_children(self) -> None:
        """A bridge tells of none."""
        if (worker := self.any_worker()) is not None and not worker.record.host:
            worker.children = 0 if worker.children else self.dice.randint(1, 40)
            self.desk.children(worker.record, worker.children)

    def obey(self, instruction: Instruction) -> None:
        match instruction:
            case LeaseJobs(p, _, _, _, payloads, _) if p.host:
                assert p_of(p.p) == HOST
                assert all(job.session.parent is None for job in p.fresh.values())
                self.at_host += len(payloads)
                self.most_at_host = max(self.most_at_host, len(p.fresh))
            case AskChildren(p):
                assert not p.host
            case _:
                pass
        super().obey(instruction)


def live(seed: int) -> HostWorld:
    world = HostWorld(seed)
    world.live(STEPS)
    return world


def seen(world: HostWorld) -> dict[str, int]:
    return {
        "at the host": world.at_host,
        "more than one there": world.most_at_host > CORES,
        "stolen": world.sched.counters.steal.count,
        "dropped": world.dropped,
        "children": world.children_given,
        "set aside": world.aside,
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_job_ends_exactly_once(first: int) -> None:
    total = live_all(first, live, seen)
    for each in ("ok", "error", "timeout", "cancelled", "lost", *seen(live(first))):
        assert total[each], f"the worlds are too tame: nothing was {each}"
