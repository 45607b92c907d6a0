"""The seeded world of the ledger, with isolated jobs and their workers in it.

Beside what holds there: never two attempts of an isolated job at once, nor more of them than may,
nor a second job for a worker; and in the end no unneeded worker is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gmpd.protocol import Outcome
from gmpd.sched.events import Exit
from gmpd.sched.instructions import Instruction, Kill, LeaseJobs, Probe, StartIsolated
from gmpd.sched.isolated import ISOLATED_FROM, IsolatedP, Stage
from tests.desk import KILLED
from tests.sim.test_ledger_world import Worker, World, assert_repeats, live_all

SEEDS = 100
STEPS = 150
LIMIT = 3
SPARES = 1
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"priority": 3},
    {"delay": 0.004},
    {"retries": 2},
    {"timeout": 0.1},
    {"timeout": 0.004, "retries": 3},
)
SLOW = Exit(0, "", None, "could not be started")


class Process(Worker):
    """An isolated worker: at most one job, then it ends."""

    record: IsolatedP

    def __init__(self, record: IsolatedP) -> None:
        super().__init__(record)
        self.killed = False
        self.had_one = False


class IsolatedWorld(World):
    def __init__(self, seed: int) -> None:
        super().__init__(seed, isolated=LIMIT, isolated_spares=SPARES)
        self.processes: dict[int, Process] = {}

    def acts(self) -> list[tuple[Callable[[], None], float]]:
        """Five times as many that concern isolated jobs as others."""
        ordinary = super().acts()
        often = sum(weight for _, weight in ordinary) / 4
        return [
            *ordinary,
            (self.submit_isolated, 3 * often),
            (self.greet, 4 * often),
            (self.run_isolated, 6 * often),
            (self.confirm_death, 6 * often),
            (self.break_isolated, 1 * often),
        ]

    def decide(self, after_ms: float) -> None:
        super().decide(after_ms)
        isolated = self.sched.isolated
        assert isolated.ps.keys() == self.processes.keys()
        assert sum(bool(p.fresh or p.begun) for p in self.processes.values()) <= LIMIT
        assert isolated.used <= LIMIT + SPARES
        for process in self.processes.values():
            held = process.record
            assert process.offered | process.begun.keys() == (
                held.fresh.keys() | held.started.keys() | held.overrunning.keys()
            )

    def obey(self, instruction: Instruction) -> None:
        match instruction:
            case StartIsolated(p):
                assert p >= ISOLATED_FROM
                self.processes[p] = Process(self.sched.isolated.ps[p])
            case Kill(p):
                if p.p in self.processes:
                    self.processes[p.p].killed = True
            case LeaseJobs(p, _, _, first, payloads, _) if p.p in self.processes:
                process = self.processes[p.p]
                assert not process.had_one, "a second job in the same process"
                assert not process.killed
                assert len(payloads) == 1
                process.had_one = True
                process.fresh[first] = payloads[0]
                process.offered.add(first)
            case Probe(p) if p.p in self.processes:
                moves = self.dice.random() < 0.5
                self.desk.probed(p, moves=moves, asleep=not moves and self.dice.random() < 0.5)
            case _:
                if getattr(instruction, "p", None) is None or instruction.p.p < ISOLATED_FROM:  # type: ignore[union-attr]
                    super().obey(instruction)

    # -- acts

    def any_process(self) -> Process | None:
        return self.dice.choice(list(self.processes.values())) if self.processes else None

    def submit_isolated(self) -> None:
        if (client := self.any_client()) is None:
            return
        options = self.dice.choice(OPTIONS)
        n = self.dice.randint(1, 6)
        for seq in self.desk.submit(client, n, "m:slow", isolate=True, **options):
            self.submitted[client.sid][seq] = 1 + int(options.get("retries", 0))

    def greet(self) -> None:
        process = self.any_process()
        if process is not None and process.record.stage is Stage.STARTING and not process.killed:
            self.desk.isolated_ready(process.record.p)
            if self.dice.random() < 0.1:
                self.desk.isolated_unfit(process.record.p)
                self.end(process)

    def run_isolated(self) -> None:
        """The job begins; perhaps says so; perhaps ends, also when it was killed meanwhile."""
        if (process := self.any_process()) is None:
            return
        for token in list(process.fresh):
            self._begin(process, token)
            return
        for token, told in list(process.begun.items()):
            if not told and self.dice.random() < 0.5:
                process.begun[token] = True
                self.desk.start(process.record, [token], 1)
            elif self.dice.random() < 0.5:
                del process.begun[token]
                self.frames.discard(process.frames.pop(token))
                self._end(process, token, self.dice.choice((Outcome.OK, Outcome.ERROR)))

    def confirm_death(self) -> None:
        """Processes that were killed, or have had their job, die sooner or later."""
        for process in list(self.processes.values()):
            over = process.had_one and not process.fresh and not process.begun
            if (process.killed or over) and self.dice.random() < 0.5:
                self.end(process)

    def break_isolated(self) -> None:
        """It dies by itself, in whatever stage."""
        if (process := self.any_process()) is not None:
            self.end(process)

    def end(self, process: Process) -> None:
        del self.processes[process.record.p]
        self.frames -= set(process.frames.values())
        end = KILLED if self.dice.random() < 0.9 else SLOW
        self.desk.isolated_died(process.record.p, set(process.begun), end)

    def settle(self) -> None:
        for _ in range(3000):
            for process in list(self.processes.values()):
                self.finish_isolated(process)
            for client in self.clients:
                self.desk.ack(client, client.delivered)
            self.decide(50)
            waiting = self.sched.isolated.queue or self.sched.held_back or self.sched.delays
            if not waiting and not any(p.had_one for p in self.processes.values()):
                break
        super().settle()
        for _ in range(3):
            for process in list(self.processes.values()):
                self.finish_isolated(process)
            self.decide(20_000)

    def finish_isolated(self, process: Process) -> None:
        if process.record.stage is Stage.STARTING:
            self.desk.isolated_ready(process.record.p)
        for token in list(process.fresh):
            self._begin(process, token)
        for token in list(process.begun):
            del process.begun[token]
            self.frames.discard(process.frames.pop(token))
            self._end(process, token, Outcome.OK)
        if process.killed or process.had_one:
            self.end(process)

    def check(self) -> None:
        super().check()
        assert self.sched.isolated.quiet
        assert len(self.processes) == (SPARES if self.sched.isolated.started else 0)


def live(seed: int) -> IsolatedWorld:
    world = IsolatedWorld(seed)
    world.live(STEPS)
    return world


def moves(world: IsolatedWorld) -> dict[str, int]:
    retried = sum(world.sched.counters.retried.values())
    return {"started": world.sched.isolated.started, "retried": retried}


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_isolated_job_ends_exactly_once(first: int) -> None:
    total = live_all(first, live, moves)
    for seen in ("ok", "error", "timeout", "cancelled", "lost", "started", "retried"):
        assert total[seen], f"the worlds are too tame: nothing was {seen}"


def test_a_seed_repeats_its_world_exactly() -> None:
    assert_repeats(live, 7)
