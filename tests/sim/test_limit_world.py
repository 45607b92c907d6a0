"""The ledger's world with limits by key: never more of a key at once, or within an interval, than
may be; and every job still ends once, whatever dies, stops, overruns, is stolen or cancelled.

What counts is what workers do: when a frame begins and when it has ended, not what they tell.
Planted faults, each a way to count that looks right, are found.
"""

from __future__ import annotations

from collections import Counter, deque

import pytest

from gmpd.errors import InvariantError
from gmpd.sched.gates import Gates, Pass
from gmpd.sched.records import Job
from tests.desk import MS
from tests.sim import test_ledger_world as ledger_world
from tests.sim.test_ledger_world import STEPS, Worker, World, assert_repeats, live_all, moves

SEEDS = 40
#: Key, at once, starts, seconds.
LIMITS = (("one", 1, 0, 0.0), ("three", 3, 0, 0.0), ("rate", 0, 4, 0.3), ("both", 2, 5, 0.05))
OPTIONS = (
    tuple({**options, "limit": limit} for limit in LIMITS for options in ledger_world.OPTIONS)
    + ledger_world.OPTIONS
)


class LimitWorld(World):
    """The world, in which most jobs have limits."""

    def __init__(self, seed: int, **policy: int) -> None:
        super().__init__(seed, **policy)
        self.options = OPTIONS
        #: Live frames of each key, and when the last ones began.
        self.live_frames = Counter[str]()
        self.begun_at = {key: deque[int](maxlen=starts or 1) for key, _, starts, _ in LIMITS}
        self.key_of: dict[tuple[int, int], str] = {}
        self.were_full = Counter[str]()
        self.waited = 0

    def _begin(self, worker: Worker, token: int) -> None:
        job = worker.record.fresh.get(token)
        if token in worker.offered and job is not None and job.is_limited:
            assert job.options is not None
            assert job.options.limit is not None
            key, _, starts, seconds = job.options.limit
            before = self.begun_at[key]
            if starts and len(before) == starts:
                apart = self.desk.now - before[0]
                assert apart >= seconds * 1e9, f"{starts + 1} starts of {key} in {apart / MS} ms"
            before.append(self.desk.now)
            self.key_of[job.session.sid, job.seq] = key
        super()._begin(worker, token)
        self.count_frames()

    def count_frames(self) -> None:
        at_once = Counter(key for each in self.frames if (key := self.key_of.get(each)))
        for key, most, _, _ in LIMITS:
            assert not most or at_once[key] <= most, f"{at_once[key]} of {key} at once"
            self.were_full[key] += bool(most) and at_once[key] == most

    def step(self) -> None:
        super().step()
        self.waited = max(self.waited, self.sched.gates.waiting)

    def settle(self) -> None:
        super().settle()
        self.decide(1000)
        known = self.sched.gates.by_key.values()
        assert all(gate.inside for gate in known), "a key without jobs is known"


def live(seed: int) -> LimitWorld:
    world = LimitWorld(seed)
    world.live(STEPS)
    return world


def more(world: World) -> dict[str, int]:
    assert isinstance(world, LimitWorld)
    return {**moves(world), "waited": world.waited, **world.were_full}


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_no_more_run_than_may_and_every_job_ends_once(first: int) -> None:
    total = live_all(first, live, more)
    seen = ["stolen", "revoked", "withheld", "overran", "tried again after that"]
    for each in ("ok", "error", "timeout", "cancelled", "lost", "waited", "one", "three", *seen):
        assert total[each], f"the worlds are too tame: nothing was {each}"


def test_a_seed_repeats_its_world_exactly() -> None:
    assert_repeats(live, 5)


# -- planted faults --------------------------------------------------------------------------------


def freed_at_the_limit(gates: Gates, job: Job, now: int) -> None:
    """The place of a frame that overruns is given away with the outcome."""
    gates.ended(job, now)


def counted_when_they_pass(gates: Gates, held: Pass, now: int) -> None:
    """A start is dated to when its job passed."""
    held.started = True
    held.gate.starting -= 1
    held.gate.count_start(now - 100 * MS)
    gates._news[held.gate] = None


def kept_by_a_dead_worker(gates: Gates, held: Pass) -> None:
    """A place is not given back when its job is lost."""
    held.gate.starting -= not held.started


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("overruns", freed_at_the_limit),
        ("_start", counted_when_they_pass),
        ("_leave", kept_by_a_dead_worker),
    ],
)
def test_a_planted_fault_is_found(
    method: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gates, method, fault)
    with pytest.raises((AssertionError, InvariantError)):
        [live(seed) for seed in range(SEEDS)]
