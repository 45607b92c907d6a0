"""The ledger's world with a host among its Ps: three cores, claimed and revoked as any other P.

Beside what holds there: no child of a G is leased to the host, none is asked of it, and jobs of
suspect functions stay on this machine. The host gives back what has not begun when it leaves; its
bridge is killed, and its attempts run on for a while, beside which no others may begin.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gmpd.sched.instructions import AskChildren, Instruction, LeaseJobs
from gmpd.sched.leavers import p_of
from gmpd.sched.records import PRecord
from tests.desk import MS
from tests.sim.test_ledger_world import STEPS, Worker, World, live_all

SEEDS = 60
#: The P that is a host's.
HOST = 3
CORES = 3


class HostWorld(World):
    def __init__(self, seed: int) -> None:
        super().__init__(seed, host_credit_ns=6 * MS)
        self.at_host = self.most_at_host = self.given_back = self.kept_apart = 0
        #: The bridge that was killed, while its lease lasts.
        self.severed: dict[int, Worker] = {}
        ready = self.desk.ready

        def ready_there(p: int, epoch: int = 1, cores: int = 1, host: str = "") -> PRecord:
            return ready(p, epoch, *((CORES, "there:1") if p == HOST else (cores, host)))

        self.desk.ready = ready_there  # type: ignore[method-assign]

    def acts(self) -> list[tuple[Callable[[], None], float]]:
        return [*super().acts(), (self.give_back, 3), (self.sever, 0.7), (self.end_lease, 1)]

    def host(self) -> Worker | None:
        """The bridge, while it lives."""
        return self.workers.get(HOST)

    def give_back(self) -> None:
        """The host leaves, and the bridge has back what has not begun there: no attempt of it has
        been made."""
        worker = self.host()
        if worker is None or worker.stopped:
            return
        self.says(worker)
        unbegun = [t for t in self.some(list(worker.begun)) if worker.record.job(t) is not None]
        for token in unbegun:
            del worker.begun[token]
            whose = worker.frames.pop(token)
            self.frames.discard(whose)
            self.runs[whose] -= 1
        self.given_back += len(unbegun)
        self.desk.returned(worker.record, unbegun)

    def sever(self) -> None:
        """The bridge is killed: what it sent runs on until the end of its lease."""
        worker = self.host()
        if worker is None or HOST in self.severed:
            return
        self.recover(worker)
        begun = self.claimed(worker)
        self._orphan(worker)
        del self.workers[HOST]
        self.severed[HOST] = worker
        self.desk.severed(HOST, [token for token in begun if token in worker.record.fresh])

    def end_lease(self) -> None:
        """Now nothing of it runs: its frames have ended before."""
        worker = self.severed.pop(HOST, None)
        if worker is None:
            return
        self.frames -= set(worker.frames.values())
        self.kept_apart += len(worker.frames)
        self.desk.died(HOST)
        self.desk.remove_p(HOST)

    def spawn(self) -> None:
        if HOST not in self.severed:
            super().spawn()

    def settle(self) -> None:
        self.end_lease()
        super().settle()

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
        "given back": world.given_back,
        "kept apart": world.kept_apart,
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_job_ends_exactly_once(first: int) -> None:
    total = live_all(first, live, seen)
    for each in ("ok", "error", "timeout", "cancelled", "lost", *seen(live(first))):
        assert total[each], f"the worlds are too tame: nothing was {each}"
