"""The ledger's world with jobs that only a kill of their worker ends.

Frames ignore cancels and limits, until ``kill_after`` or a forced cancel has their worker killed;
its death is confirmed later. Beside what holds there: such a frame ends within its bound; no worker
is killed for nothing, nor before its other jobs had their grace; no job is blamed for such a death,
and neighbours that are tried again use up no retry. Planted faults are found.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gmpd.errors import InvariantError
from gmpd.protocol import Outcome
from gmpd.sched.deaths import SPARED_MAX
from gmpd.sched.instructions import Instruction, Kill
from gmpd.sched.limits import LOOK_NS
from gmpd.sched.records import PRecord
from gmpd.sched.replacing import FORCE_NS, Replacing, _Ending
from tests.desk import MS
from tests.sim import test_ledger_world as ledger_world
from tests.sim.test_ledger_world import STEPS, Worker, World, live_all, moves

SEEDS = 40
GRACE_NS = 60 * MS
#: A coordinator with nothing to do wakes this often here.
TICK_NS = 20 * MS
OPTIONS: tuple[dict[str, Any], ...] = (
    {"kill_after": 0.02},
    {"kill_after": 0.1, "retries": 2},
    {"kill_after": 0.1, "timeout": 0.03},
    {"kill_after": 0.1, "timeout": 0.03, "retries": 2},
    *ledger_world.OPTIONS,
)


class ReplacedWorld(World):
    def __init__(self, seed: int, **policy: int) -> None:
        super().__init__(seed, grace_ns=GRACE_NS, **policy)
        self.options = OPTIONS
        #: Frames that end with their process only, by worker and token.
        self.stubborn: set[tuple[Worker, int]] = set()
        #: Killed, and their deaths are not confirmed.
        self.killed: list[Worker] = []
        #: When a frame is to be ended, once its other jobs had their grace.
        self.due_ns: dict[tuple[Worker, int], int] = {}
        #: Since when a worker gets no more jobs, as it is to be replaced.
        self.ending_ns: dict[Worker, int] = {}
        self.kills = self.beside = self.spared = self.kept = 0

    def acts(self) -> list[tuple[Callable[[], None], float]]:
        return [*super().acts(), (self.force, 3), (self.confirm_death, 4)]

    def any_worker(self) -> Worker | None:
        worker = super().any_worker()
        return None if worker in self.killed else worker

    # -- frames that do not stop

    def _begin(self, worker: Worker, token: int) -> None:
        job = worker.record.fresh.get(token)
        super()._begin(worker, token)
        if token in worker.begun and job is not None and not self.calm:
            chance = 0.5 if job.option("kill_after", None) is not None else 0.1
            if self.dice.random() < chance:
                self.stubborn.add((worker, token))

    def _finish(self, worker: Worker) -> None:
        if worker in self.killed:
            return
        stuck = self.take_stuck(worker)
        super()._finish(worker)
        worker.begun |= stuck

    def answer_cancel(self) -> None:
        stuck = {worker: self.take_stuck(worker) for worker in self.workers.values()}
        super().answer_cancel()
        for worker, begun in stuck.items():
            worker.begun |= begun

    def take_stuck(self, worker: Worker) -> dict[int, bool]:
        """Its frames that do not end, out of the reach of what would end them."""
        if self.calm:  # a frame that is not ended ends by itself at last
            self.stubborn = {each for each in self.stubborn if each in self.due_ns}
        stuck = [token for token in worker.begun if (worker, token) in self.stubborn]
        return {token: worker.begun.pop(token) for token in stuck}

    # -- kills

    def obey(self, instruction: Instruction) -> None:
        super().obey(instruction)
        if isinstance(instruction, Kill):
            self.kill(self.workers[instruction.p.p])

    def kill(self, worker: Worker) -> None:
        assert worker not in self.killed, "killed twice"
        now = self.desk.now
        guilty = [token for token in worker.begun if self.due_ns.get((worker, token), now) < now]
        assert guilty, "a worker is killed for nothing"
        beside = worker.begun.keys() - worker.record.overrunning.keys()
        if (beside or worker.offered) and worker.record.ending:
            assert now - self.ending_ns.get(worker, now) >= GRACE_NS, "its other jobs had no grace"
        self.beside += len(beside)
        self.kills += 1
        self.killed.append(worker)
        worker.stopped = 1_000_000

    def confirm_death(self) -> None:
        if self.killed:
            self.reap(self.killed.pop(0))

    def reap(self, worker: Worker) -> None:
        self.flush(worker)
        held = [job for token in worker.begun if (job := worker.record.job_of(token)) is not None]
        before = [(job, job.deaths, job.used, job.attempt) for job in held]
        del self.workers[worker.record.p]
        self.frames -= set(worker.frames.values())
        self._orphan(worker)
        p = worker.record.p
        self.desk.died(p, set(worker.begun), self.dice.choice([None, *worker.begun]))
        if worker.retired and p >= 0:
            self.desk.remove_p(p)
        guilty = worker.record.overrunning
        for job, deaths, used, attempt in before:
            assert job.deaths == deaths, f"a strike for a kill: {job.story()}"
            if job.attempt > attempt and job.token not in guilty and job.spared < SPARED_MAX:
                self.spared += job.used == used

    def force(self) -> None:
        if (client := self.any_client()) is None:
            return
        seqs = set(self.some(list(self.submitted[client.sid]))[:3])
        self.desk.cancel(client, list(seqs), force=True)
        due_ns = self.desk.now + FORCE_NS
        for worker in self.workers.values():
            for token in worker.begun.keys() & worker.frames.keys():
                sid, seq = worker.frames[token]
                if sid == client.sid and seq in seqs:
                    self.is_due(worker, token, due_ns)

    def is_due(self, worker: Worker, token: int, at_ns: int) -> None:
        self.due_ns[worker, token] = min(at_ns, self.due_ns.get((worker, token), at_ns))

    # -- time

    def decide(self, after_ms: float) -> None:
        """The coordinator wakes when something is due, and else now and then."""
        until = self.desk.now + int(after_ms * MS)
        self.turn_at(self.desk.now)
        while (now := self.desk.now) < until:
            due = self.sched.next_deadline()
            self.turn_at(min(until, now + TICK_NS, due if due and due > now else until))

    def turn_at(self, at: int) -> None:
        super().decide((at - self.desk.now) / MS)
        due = self.sched.next_deadline()
        if due is not None and due <= self.desk.now:
            super().decide(0)
        self.look()

    def look(self) -> None:
        """Check that each attempt that was to be ended has been, in time."""
        now = self.desk.now
        for worker in self.workers.values():
            record = worker.record
            if record.ending:
                self.ending_ns.setdefault(worker, now)
            elif self.ending_ns.pop(worker, None) is not None:
                self.kept += 1
            for token in worker.begun.keys() & record.started.keys():
                after_s = record.started[token].option("kill_after", None)
                if after_s is not None:
                    self.is_due(worker, token, now + int(after_s * 1e9))
        bound = GRACE_NS + LOOK_NS + 2 * TICK_NS
        for (worker, token), due in list(self.due_ns.items()):
            if worker in self.killed or token not in worker.begun:
                continue
            if self.workers.get(worker.record.p) is worker:
                job = worker.record.job_of(token)
                assert now <= due + bound, f"its worker lives: {job and job.story()}"
        self.due_ns = {
            key: due for key, due in self.due_ns.items()
            if key[1] in key[0].begun and self.workers.get(key[0].record.p) is key[0]
        }  # fmt: skip

    # -- the end

    def settle(self) -> None:
        super().settle()
        for _ in range(200):
            if not self.killed and self.sched.next_deadline() is None:
                return
            self.give_way()
            self.decide(50)
        pytest.fail("frames never ended")

    def give_children(self) -> None:
        super().give_children()
        if self.calm:
            self.give_way()

    def give_way(self) -> None:
        """As ``settle`` goes on: deaths are confirmed."""
        while self.killed:
            self.confirm_death()

    def check(self) -> None:
        super().check()
        for got in self.desk.outcomes.values():
            outcome, _, details = got[0]
            if outcome is Outcome.LOST and "was replaced" in details["text"]:
                assert not details["blamed"], details
                assert not details["poisoned"], details


def live(seed: int) -> ReplacedWorld:
    world = ReplacedWorld(seed)
    world.live(STEPS)
    return world


def more(world: World) -> dict[str, int]:
    assert isinstance(world, ReplacedWorld)
    return {
        **moves(world),
        "killed": world.kills,
        "beside": world.beside,
        "spared": world.spared,
        "kept": world.kept,
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_frames_end_in_time_and_every_job_ends_once(first: int) -> None:
    total = live_all(first, live, more)
    seen = "killed", "beside", "spared", "kept", "told"
    for each in ("ok", "timeout", "cancelled", "lost", *seen):
        assert total[each], f"the worlds are too tame: nothing was {each}"


# -- planted faults --------------------------------------------------------------------------------


def kills_at_once(replacing: Replacing, record: PRecord, ending: _Ending, now: int) -> None:
    """The jobs beside it get no grace."""
    ending.kill_at_ns = min(ending.kill_at_ns, now)
    see_to(replacing, record, ending, now)


def kills_without_a_look(replacing: Replacing, record: PRecord, ending: _Ending, now: int) -> None:
    """The outcomes that a silent worker has stored meanwhile are not read: the fault that was."""
    ending.looked = True
    see_to(replacing, record, ending, now)


def kills_for_deaths(replacing: Replacing, record: PRecord, ending: _Ending, now: int) -> None:
    """A kill is taken for a death: the next attempt does not wait until it is confirmed."""
    see_to(replacing, record, ending, now)
    if ending.killed:
        replacing._limits.died(record, now)


def forgets_why(_replacing: Replacing, record: PRecord) -> None:
    """A kill is taken for a crash, with a culprit."""
    record.ending = False


see_to = Replacing._see_to
FAULTS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("_see_to", kills_at_once),
    ("_see_to", kills_without_a_look),
    ("_see_to", kills_for_deaths),
    ("died", forgets_why),
)


@pytest.mark.parametrize(("method", "fault"), FAULTS)
def test_a_planted_fault_is_found(method: str, fault: Callable[..., None]) -> None:
    assert seeds_to_find(method, fault) <= SEEDS


def seeds_to_find(method: str, fault: Callable[..., None]) -> int:
    """How many worlds it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replacing, method, fault)
        for seed in range(SEEDS):
            try:
                live(seed)
            except (AssertionError, InvariantError):
                return seed + 1
    return SEEDS + 1


def hunt(first: int) -> None:
    """The planted faults, then worlds without end: `python -m tests.sim.test_replaced_world`."""
    for method, fault in FAULTS:
        print(f"{fault.__name__}: found after {seeds_to_find(method, fault)} worlds", flush=True)
    for n in itertools.count(first, 20):
        live_all(n, live, more)
        if (n - first) % 500 == 480:
            print(f"{n + 20 - first:,} worlds: nothing found", flush=True)


if __name__ == "__main__":
    hunt(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
