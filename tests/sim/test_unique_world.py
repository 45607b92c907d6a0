"""The ledger's world with unique keys and ``expires``: one job of a key at a time, every job ends
once, and nothing begins that has expired."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gmpd.sched.records import Job
from gmpd.sched.uniques import Uniques
from tests.sim import test_ledger_world as ledger_world
from tests.sim.test_ledger_world import STEPS, Worker, World, live_all

SEEDS = 40
UNIQUE = [
    {"unique": key, "on_held": policy} for key in "ab" for policy in ("return", "replace", "raise")
]
OPTIONS = (
    *({**options, **each} for options in ledger_world.OPTIONS for each in UNIQUE),
    *({**options, "expires": 0.05} for options in ledger_world.OPTIONS),
    {"unique": "a", "expires": 0.03, "limit": ("l", 1, 0, 0.0)},
    *ledger_world.OPTIONS,
)


def key_of(job: Job) -> Any:
    return job.option("unique", None)


class UniqueWorld(World):
    def __init__(self, seed: int, **policy: int) -> None:
        super().__init__(seed, **policy)
        self.options = OPTIONS
        self.shared = 0

    def _begin(self, worker: Worker, token: int) -> None:
        job = worker.record.fresh.get(token)
        if token in worker.offered and job is not None and job.is_unique:
            others = [
                other
                for record in self.sched.ps.values()
                for other in record.started.values()
                if other is not job and other.is_unique and key_of(other) == key_of(job)
            ]
            assert not others, f"two at once: {job.story()}, {others}"
        super()._begin(worker, token)

    def has_run(self, sid: int, seq: int) -> bool:
        if not super().has_run(sid, seq):
            self.shared += 1  # it followed another one
        return True

    def check(self) -> None:
        super().check()
        assert not self.sched.uniques.by_key
        assert not self.sched._ledger.withdrawn


def live(seed: int) -> UniqueWorld:
    world = UniqueWorld(seed)
    world.live(STEPS)
    return world


def more(world: World) -> dict[str, int]:
    assert isinstance(world, UniqueWorld)
    ends = [details for got in world.desk.outcomes.values() for _, _, details in got]
    return {
        "shared": world.shared,
        "expired": sum("expired" in each for each in ends),
        "refused": sum("holder" in each for each in ends),
        "replaced": sum("replaced it" in each.get("text", "") for each in ends),
        "rejected": world.sched.counters.rejected["unique"],
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_one_job_of_a_key_at_a_time_and_each_ends_once(first: int) -> None:
    total: Counter[str] = live_all(first, live, more)
    for each in ("ok", "error", "cancelled", "lost", "shared", "expired", "refused", "replaced"):
        assert total[each], f"the worlds are too tame: nothing was {each}"


def test_a_key_that_is_free_before_its_job_has_ended_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admit = Uniques.admit

    def hasty(uniques: Uniques, job: Any) -> Any:
        replaced = admit(uniques, job)
        if replaced is not None:
            uniques.ended(replaced)
        return replaced

    monkeypatch.setattr(Uniques, "admit", hasty)
    with pytest.raises(AssertionError, match="two at once"):
        [live(seed) for seed in range(SEEDS)]
