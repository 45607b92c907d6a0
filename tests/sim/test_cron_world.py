"""Periodic jobs in the seeded world of durable jobs: the real policies and the real tables.

Three schedules run beside the jobs of clients, while the coordinator crashes at every step, workers
die, jobs are cancelled and revived, ended ones are forgotten soon, and the clock is set forward and
back. Whatever happens: no tick's job runs again after its end, also when the job is forgotten; two
runs of a schedule never overlap; ``catch_up="all"`` loses no tick, except while the clock stood in
times that had been. Planted faults are found.
"""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.daemon.cron import tick_id
from gmpd.daemon.sqlite_jobs import content_digest
from gmpd.periodic import CatchUp, Every
from gmpd.sched.cron import Cron, Periodic
from gmpd.sched.stored import (
    DropSchedule,
    LoadSchedules,
    NewJob,
    SaveSchedule,
    StoredSchedule,
    StoredState,
    Sweep,
    Verdict,
)
from tests.desk import MS
from tests.sim.test_durable_world import FUNCTION, World, encode, finds, hunt, live, seeds_to_find

SEEDS = 300
PERIOD = 100
#: Ends are forgotten after this (ms): then only the row of the schedule knows of a tick.
KEEP = 20
ASKER = "cron"
SCHEDULES = {
    "all": Periodic("all", "100", Every(PERIOD), CatchUp.ALL, waits=True),
    "last": Periodic("last", "100", Every(PERIOD), CatchUp.LAST, waits=False),
    "queue": Periodic("queue", "300", Every(3 * PERIOD), CatchUp.NONE, waits=True),
}


class CronWorld(World):
    """Its coordinators have schedules."""

    def __init__(self, seed: int) -> None:
        self.cron: Cron | None = None
        self.ticks: dict[bytes, tuple[str, int]] = {}
        #: Ids of jobs whose end is on disk.
        self.ended: set[bytes] = set()
        self.first_ms = 0
        super().__init__(seed)

    # -- the coordinator

    def boot(self) -> None:
        super().boot()
        self.cron = None
        self.store(LoadSchedules(), self.loaded)

    def loaded(self, rows: Any) -> None:
        self.cron = Cron(self, rows)
        self.cron.declare(SCHEDULES)

    # -- ports of the policy

    def save(self, row: StoredSchedule) -> None:
        self.store(SaveSchedule(row), lambda _: None)

    def drop(self, name: str) -> None:
        self.store(DropSchedule(name), lambda _: None)

    def job_id(self, name: str, tick: int) -> bytes:
        return tick_id(name, tick)

    def missed(self, name: str, n: int) -> None:
        assert name != "all", "a tick is lost"

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        cron = self.cron
        assert cron is not None

        def answered(value: Any) -> None:
            cron.stored(name, tick, Verdict(value["verdicts"][0]), bytes(value["ids"][0]))

        job = self.new_job(name, row.job)
        self.durable.enqueue(ASKER, self.ask(answered), [job], [FUNCTION], row)

    def new_job(self, name: str, id_: bytes) -> NewJob:
        options = encode({})
        digest = content_digest(FUNCTION.digest, options, id_, ())
        job = NewJob(
            id_, digest, FUNCTION.digest, "c", 0, options, id_, (), self.wall, self.wall,
            keep_ms=KEEP, unique=f"cron {name}",
        )  # fmt: skip
        self.jobs[id_] = job
        return job

    def await_end(self, name: str, job: bytes) -> None:
        cron = self.cron
        assert cron is not None

        def answered(value: Any) -> None:
            state = "removed" if value is False else StoredState(value["state"]).name.lower()
            cron.ended(name, job, state, "")

        self.durable.await_result(ASKER, self.ask(answered), job)

    # -- steps

    def send(self, jobs: list[NewJob]) -> None:
        super().send([job for job in jobs if job.unique is None])

    def apply(self) -> None:
        """One operation, as in one transaction the next may forget what this one has ended."""
        if not self.queue:
            return
        operation, told = self.queue.popleft()
        self.db.execute("BEGIN")
        self.answers.append((told, self.tables.do(operation)))
        self.db.execute("COMMIT")
        rows = self.db.execute(
            "SELECT id, unique_key, ended_ms FROM jobs WHERE unique_key IS NOT NULL"
        )
        for id_, key, ended_ms in rows:
            self.ticks[id_] = key.removeprefix("cron "), int.from_bytes(id_[:6], "big")
            if ended_ms is not None:
                self.ended.add(id_)
        if self.dice.random() < 0.2:
            self.tables.do(Sweep(self.wall))
        if not self.first_ms:
            row = self.db.execute("SELECT decided_ms FROM schedules WHERE name = 'all'").fetchone()
            self.first_ms = 0 if row is None else row[0]

    def begin(self) -> None:
        before = sum(self.starts.values())
        super().begin()
        if sum(self.starts.values()) == before:
            return
        live = [self.ticks[id_][0] for id_ in self.live() if id_ in self.ticks]
        assert len(live) == len(set(live)), "two runs of a schedule overlap"
        for id_ in self.live():
            if id_ in self.ticks and id_ not in self.revived:
                assert id_ not in self.ended, "a tick's job runs after its end"

    def revive_tick(self) -> None:
        """As `gmpd jobs retry` does."""
        ids = sorted(id_ for id_ in self.ended if id_ in self.ticks)
        if ids:
            id_ = self.dice.choice(ids[-3:])
            self.revived.add(id_)
            self.durable.revive("client", self.ask(lambda _: None), [id_])

    def cancel_tick(self) -> None:
        ids = sorted(self.ticks.keys() - self.ended)
        if ids:
            self.durable.cancel("client", self.ask(lambda _: None), [self.dice.choice(ids)])

    def pass_time(self) -> None:
        super().pass_time()
        if self.cron is not None:
            self.cron.tick()

    def set_clock(self) -> None:
        """By many ticks. Retries that wait for a moment still come; a job that is held expires by
        the clock that is not set."""
        self.clock_was_set = True
        self.wall = max(1_000_000, self.wall + self.dice.choice((-3000, -500, 500, 3000)))
        self.pass_time()

    def live_for(self, steps: int) -> None:
        for _ in range(10):
            super().live_for(steps // 10)
            self.dice.choice((self.set_clock, self.revive_tick, self.cancel_tick, self.crash))()

    def come_to_rest(self) -> None:
        (waits_until,) = self.db.execute("SELECT max(run_at_ms) FROM jobs").fetchone()
        self.wall = max(self.wall, waits_until or 0, *(tick for _, tick in self.ticks.values()), 0)
        for n in range(3000):
            while self.queue:
                self.apply()
            while self.answers:
                self.deliver()
            for move in (self.turn, self.begin, self.finish):
                move()
            if n % 10 == 0 and not self.is_done():
                self.desk.now += PERIOD * MS
                self.wall += 1
                self.durable.tick()
            if self.cron is not None:
                self.cron.tick()
            if self.is_done():
                break
        assert self.is_done(), "ticks wait for ever"
        self.check_ticks()

    def is_done(self) -> bool:
        if self.cron is None or self.queue or self.answers or self.live():
            return False
        return all(
            not (entry.running or entry.storing or entry.row.pending)
            for entry in self.cron.entries.values()
        )

    def check_ticks(self) -> None:
        assert self.cron is not None
        had = {tick for name, tick in self.ticks.values() if name == "all"}
        until = self.cron.entries["all"].row.decided_ms
        wanted = range((self.first_ms // PERIOD + 1) * PERIOD, until + 1, PERIOD)
        assert not set(wanted) - had, "a tick is lost"
        lost = [id_ for id_ in self.ticks if id_ not in self.ended]
        assert not lost, "a tick's job has no end"


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_each_tick_runs_once_whatever_crashes(first: int) -> None:
    worlds = [live(seed, CronWorld) for seed in range(first, first + 100)]
    assert sum(world.boots for world in worlds) > 100
    assert sum(len(world.ticks) for world in worlds) > 1000


# -- planted faults --------------------------------------------------------------------------------


class RowsAfterTheJob(CronWorld):
    """The row of a schedule is stored when the job of its tick was."""

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        cron = self.cron
        assert cron is not None

        def answered(value: Any) -> None:
            verdict, id_ = Verdict(value["verdicts"][0]), bytes(value["ids"][0])
            if verdict is not Verdict.HELD:
                self.save(row)
            cron.stored(name, tick, verdict, id_)

        job = self.new_job(name, row.job)
        self.durable.enqueue(ASKER, self.ask(answered), [job], [FUNCTION])


class RowsBeforeTheJob(CronWorld):
    """A tick is decided on before its job is stored."""

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        self.store(SaveSchedule(row), lambda _: CronWorld.put(self, name, tick, row))


class EndsNotAwaited(CronWorld):
    """A run counts as ended at once."""

    def new_job(self, name: str, id_: bytes) -> NewJob:
        job = super().new_job(name, id_)
        return NewJob(**{**{k: getattr(job, k) for k in job.__struct_fields__}, "unique": None})

    def await_end(self, name: str, job: bytes) -> None:
        assert self.cron is not None
        self.cron.entries[name].running = b""


@pytest.mark.parametrize(
    ("world", "seed"), [(RowsAfterTheJob, 11), (RowsBeforeTheJob, 4), (EndsNotAwaited, 0)]
)
def test_a_planted_fault_is_found(world: type[CronWorld], seed: int) -> None:
    """``seed``: the first that found it; when the worlds change, another may."""
    assert finds(world, seed) or seeds_to_find(world, SEEDS) <= SEEDS


if __name__ == "__main__":
    hunt(CronWorld)
