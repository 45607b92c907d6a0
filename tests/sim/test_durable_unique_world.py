"""The world of durable jobs with ``unique`` keys, most of which replace others: one of a key runs
at a time, and the last one that was accepted comes to its turn, whatever crashes.

Planted faults, each a wake-up that is forgotten or an end that is not awaited, are found.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from gmpd.daemon.sqlite_jobs import content_digest
from gmpd.protocol import Outcome
from gmpd.sched import instructions as do
from gmpd.sched.durable import Told
from gmpd.sched.stored import (
    Answer,
    Freed,
    NewJob,
    Operation,
    StoredState,
    StoreFailure,
    Story,
    Verdict,
)
from tests.sim.test_durable_world import FUNCTION, World, finds, hunt, live, seeds_to_find

SEEDS = 400


class ReplacingWorld(World):
    def __init__(self, seed: int) -> None:
        #: In which boot it was accepted.
        self.accepted_in: dict[bytes, int] = {}
        self.seen: set[bytes] = set()
        self.tally: Counter[str] = Counter()
        super().__init__(seed)

    def send(self, jobs: list[NewJob]) -> None:
        for n, job in enumerate(jobs):
            if job.id not in self.seen:
                self.seen.add(job.id)
                key = self.dice.choice((None, "a", "b"))
                replaces = key is not None and self.dice.random() < 0.8
                jobs[n] = msgspec.structs.replace(job, unique=key, replaces=replaces)
                self.jobs[job.id] = jobs[n]

        def answered(value: dict[str, bytes]) -> None:
            for job, verdict in zip(jobs, value["verdicts"], strict=True):
                if verdict == Verdict.HELD:
                    assert not job.replaces
                    self.tally["held"] += 1
                    continue
                assert verdict in (Verdict.NEW, Verdict.SAME)
                self.acknowledged.add(job.id)
                self.accepted_in.setdefault(job.id, self.boots)

        self.durable.enqueue("client", self.ask(answered), jobs, [FUNCTION])

    def execute(self, instruction: do.Instruction) -> bool:
        """Some of those that run are coroutines."""
        if isinstance(instruction, do.CancelAt) and self.dice.random() < 0.5:
            held = self.workers[instruction.p.p]
            left = [each for each in instruction.tokens if each in held]
            for token in left:
                del held[token]
            if left:
                self.desk.finish(instruction.p, left, Outcome.CANCELLED)
            return False
        return super().execute(instruction)

    def begin(self) -> None:
        before = set(self.live())
        super().begin()
        for id_ in set(self.live()) - before:
            if (key := self.jobs[id_].unique) is None:
                continue
            others = [
                attempt.id for held in self.workers.values() for attempt in held.values()
                if attempt.begun and attempt.id != id_ and not attempt.overran
                and self.jobs[attempt.id].unique == key
            ]  # fmt: skip
            assert not others, "two of a key at once"
            for (waits,) in self.db.execute(
                "SELECT id FROM jobs WHERE unique_key = ? AND later = 2 AND ended_ms IS NULL",
                (key,),
            ):
                self.tally["waited"] += 1
                since = self.accepted_in.get(waits, self.boots)
                assert since == self.boots, "it starts although it was replaced before the crash"

    def may_be_cancelled(self, id_: bytes) -> bool:
        """Or it was replaced by a later one."""
        if super().may_be_cancelled(id_):
            return True
        story = self.tables.do(Story(id_))
        assert isinstance(story, tuple)
        text = story[-1].text  # type: ignore[union-attr]
        assert text.startswith("replaced by job "), text
        self.tally["replaced"] += 1
        return self.number(bytes.fromhex(text.split()[3])) > self.number(id_)

    def number(self, id_: bytes) -> int:
        (number,) = self.db.execute("SELECT number FROM jobs WHERE id = ?", (id_,)).fetchone()
        return int(number)

    def come_to_rest(self) -> None:
        super().come_to_rest()
        assert not self.tables.uniques._successors


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_the_last_job_of_a_key_runs_alone_whatever_crashes(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + 100):
        total += live(seed, ReplacingWorld).tally
    for each in ("held", "replaced", "waited"):
        assert total[each] > 20, f"too tame: {total}"


def test_a_drained_coordinator_leaves_the_last_job_to_the_next() -> None:
    world = ReplacingWorld(0)
    first, last = b"a" * 16, b"b" * 16
    ends: list[dict[str, object]] = []

    def store(id_: bytes) -> None:
        digest = content_digest(FUNCTION.digest, b"\x80", id_, ())
        job = NewJob(
            id_, digest, FUNCTION.digest, "c", 0, b"\x80", id_, (), world.wall, world.wall,
            unique="a", replaces=True,
        )  # fmt: skip
        world.jobs[id_] = job
        world.seen.add(id_)
        world.send([job])
        settle()

    def settle() -> None:
        for _ in range(20):
            world.apply()
            world.deliver()

    store(first)
    world.durable.await_result("client", world.ask(ends.append), first)
    store(last)
    world.durable.drain([seq for seq, held in world.durable._by_seq.items()])
    world.turn()
    settle()
    (end,) = ends
    assert end["state"] == StoredState.CANCELLED
    assert end["text"] == f"replaced by job {last.hex()} with the same unique key"
    assert not world.starts
    world.crash()
    world.come_to_rest()
    assert world.starts == {last: 1}


# -- planted faults --------------------------------------------------------------------------------


class WakeUpForgotten(ReplacingWorld):
    """The policy does not hear that a job which waited is due."""

    def store(self, operation: Operation, told: Told) -> None:
        def deaf(answer: Answer | StoreFailure) -> None:
            told(None if isinstance(answer, Freed) else answer)

        super().store(operation, deaf)


class ForgottenAtTheBoot(ReplacingWorld):
    """A boot leaves those that wait as they are."""

    def boot_tables(self) -> None:
        self.tables.uniques.boot = lambda now_ms: None  # type: ignore[method-assign]
        super().boot_tables()


class ReplacedRunsAgain(ReplacingWorld):
    """A boot leaves those alone that were replaced."""

    def boot_tables(self) -> None:
        uniques = self.tables.uniques
        uniques.boot = lambda now_ms: uniques.reload()  # type: ignore[method-assign]
        super().boot_tables()


class EndNotAwaited(ReplacingWorld):
    """A job that may run is taken for one that has not begun."""

    def boot_tables(self) -> None:
        uniques = self.tables.uniques
        rivals = uniques.rivals
        uniques.rivals = lambda job: [  # type: ignore[method-assign]
            each._replace(taken=0) for each in rivals(job)
        ]
        super().boot_tables()


class NotWoken(ReplacingWorld):
    """The transaction that ends the holder forgets the one that waits."""

    def boot_tables(self) -> None:
        self.tables.uniques.have_ended = lambda numbers, ids=(): None  # type: ignore[method-assign]
        super().boot_tables()


class ReplacedComesBack(ReplacingWorld):
    """A job that comes back from the policy waits again, although it is replaced."""

    def boot_tables(self) -> None:
        super().boot_tables()
        self.tables.uniques.came_back = (  # type: ignore[method-assign]
            lambda numbers, now_ms: None
        )


@pytest.mark.parametrize(
    ("world", "seed"),
    [
        (WakeUpForgotten, 9),
        (ForgottenAtTheBoot, 13),
        (ReplacedRunsAgain, 13),
        (EndNotAwaited, 2),
        (NotWoken, 0),
        (ReplacedComesBack, 11),
    ],
)
def test_a_planted_fault_is_found(world: type[ReplacingWorld], seed: int) -> None:
    """``seed``: the first that found it; when the worlds change, another may."""
    assert finds(world, seed) or seeds_to_find(world, SEEDS) <= SEEDS


if __name__ == "__main__":
    hunt(ReplacingWorld)
