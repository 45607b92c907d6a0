"""The world of the ledger with long backlogs: credit grows, and is taken back, all the time.

After each decision that comes to rest no job waits for more than the usual credit of others.
"""

from __future__ import annotations

import pytest

from gmpd.sched.backlog import DEAF_NS, GROWTH_MAX
from tests.sim.test_ledger_world import STEPS, World, assert_repeats, live_all

SEEDS = 60
BACKLOG = 250
#: Longer than any of a world's functions takes by its average, and than a child's credit.
MOST_NS = 2_000_000 * (GROWTH_MAX + 2)


class BacklogWorld(World):
    """Clients submit many jobs of one function at once."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.grown = 0

    def submit(self) -> None:
        if (client := self.any_client()) is None or self.dice.random() < 0.7:
            super().submit()
            return
        for seq in self.desk.submit(client, BACKLOG, "m:slow"):
            self.submitted[client.sid][seq] = 1

    def decide(self, after_ms: float) -> None:
        super().decide(after_ms)
        usual = self.desk.policy.credit_ns
        turn = self.sched.queue.turn()
        for worker in self.workers.values():
            record = worker.record
            aside = record.set_aside()
            jobs = [
                job
                for token, job in record.fresh.items()
                if token not in aside and job.session.parent is None
            ]
            own_ns = sum(job.est_ns for job in jobs)
            assert own_ns <= MOST_NS
            if own_ns <= 2 * usual:
                continue
            self.grown += 1
            assert not record.is_deaf_for(DEAF_NS, self.desk.now)
            assert not aside
            if turn is None or record.draining:
                continue
            head = turn[2][0]
            most = max(job.option("priority", 0) for job in jobs)
            assert head.option("priority", 0) <= most
            if head.option("priority", 0) == most:
                assert head.session is jobs[-1].session, "another client waits for all of these"
                assert self.sched.queue.lone() is not None


def live(seed: int) -> BacklogWorld:
    world = BacklogWorld(seed)
    world.live(STEPS)
    return world


def moves(world: BacklogWorld) -> dict[str, int]:
    return {"grown": world.grown, "revoked": world.revoked, "dropped": world.dropped}


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_job_ends_exactly_once(first: int) -> None:
    total = live_all(first, live, moves)
    for each in ("ok", "error", "cancelled", "lost", "grown", "revoked", "dropped"):
        assert total[each], f"the worlds are too tame: nothing was {each}"


def test_a_seed_repeats_its_world_exactly() -> None:
    assert_repeats(live, 7)
