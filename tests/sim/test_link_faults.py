"""Wrong ways to hand jobs over, planted into the worlds of the ledger and of stopped workers.

Each is a variant of the protocol that looks right: steals in one phase, outcomes acknowledged that
no process has, messages lost with a worker and not made good, messages of the last worker obeyed by
the next one, and two ends that stop to read while they cannot write. Variants about deaths and
restarts are planted into the world of durable jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gmpd import protocol
from gmpd.errors import InvariantError
from gmpd.sched.instructions import Instruction, Revoke
from tests.sim import test_stopped_world as stopped_world
from tests.sim.test_ledger_world import STEPS, Worker, World

SEEDS = 100


class OnePhaseSteals(World):
    """Revoked jobs go to the thief at once, though their worker may have claimed them meanwhile."""

    def obey(self, instruction: Instruction) -> None:
        if isinstance(instruction, Revoke):
            if (victim := self.workers.get(instruction.p.p)) is not None:
                victim.offered -= set(instruction.tokens)
            self.desk.revoked(instruction, instruction.tokens)
        else:
            super().obey(instruction)

    def decide(self, after_ms: float) -> None:
        """Without the comparison of the claims with the leases, which would find it first."""
        for instruction in self.desk.take(after_ms):
            self.obey(instruction)


class AcknowledgedUnread(World):
    """Outcomes are acknowledged before they are read, and their worker keeps them no longer."""

    def recover(self, worker: Worker) -> None:
        for token in worker.unsent.keys() - worker.collected:
            worker.begun[token] = True  # for all that is known
        worker.unsent.clear()


class LossesNotMadeGood(World):
    """A worker dies with messages that were not delivered, and its claims are not read."""

    def claimed(self, worker: Worker) -> list[int]:
        return [token for token, told in worker.begun.items() if told]


class OldLinksObeyed(World):
    """The next worker of a P gets the leases that were on their way to the last one."""

    def __init__(self, seed: int, **policy: int) -> None:
        super().__init__(seed, **policy)
        self.on_their_way: dict[int, list[tuple[int, int]]] = {}

    def recover(self, worker: Worker) -> None:
        super().recover(worker)
        jobs = [worker.record.fresh[token] for token in worker.offered]
        self.on_their_way[worker.record.p] = [(job.session.sid, job.seq) for job in jobs]

    def spawn(self) -> None:
        before = set(self.workers)
        super().spawn()
        for p in self.workers.keys() - before:
            for job in self.on_their_way.pop(p, ()):
                assert job not in self.frames, "attempts overlap"
                self.runs[job] += 1
                self.frames.add(job)


VARIANTS = (OnePhaseSteals, AcknowledgedUnread, LossesNotMadeGood, OldLinksObeyed)


@pytest.mark.parametrize("world", VARIANTS)
def test_a_wrong_variant_is_found(world: type[World]) -> None:
    assert seeds_to_find(world) <= SEEDS


def seeds_to_find(world: type[World]) -> int:
    """How many worlds it takes."""
    for seed in range(SEEDS):
        try:
            world(seed).live(STEPS)
        except (AssertionError, InvariantError):
            return seed + 1
    return SEEDS + 1


# -- pipes that are full ---------------------------------------------------------------------------


class BlockingProcess(stopped_world.Process):
    """Its way out holds one message; while that is full it reads nothing."""

    def _send(self, message: protocol.Message) -> Iterator[None]:
        while self.queue_out or any(peer == self.record.peer for peer, _ in self.world.inbox):
            yield
        yield from super()._send(message)


class BlockingWorld(stopped_world.World):
    """The coordinator reads nothing while a worker's way in is full."""

    process = BlockingProcess

    def recv(self, *, expected: bool = False) -> Any:
        if any(each.buffer_in or each.queue_in for each in self.processes.values()):
            return None
        return super().recv(expected=expected)


def steps_to_hang(world: type[stopped_world.World], patch: pytest.MonkeyPatch) -> int | None:
    """At which step of the first jobs more of them have to come, so that none ends any more."""
    for step in range(40):
        it = world(patch, lazy=True)
        try:
            it.submit("park", *stopped_world.names("a"))
            for _ in range(step):
                it.step()
            it.submit(*stopped_world.names("b"))
            it.until_done()
        except AssertionError:
            assert it.inbox, "it hangs for another reason"
            return step
        finally:
            it.close()
    return None


def test_two_ends_that_wait_for_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_to_hang(BlockingWorld, monkeypatch) is not None
    assert steps_to_hang(stopped_world.World, monkeypatch) is None


if __name__ == "__main__":
    for variant in VARIANTS:
        print(f"{variant.__name__}: found after {seeds_to_find(variant)} worlds")
    with pytest.MonkeyPatch.context() as patched:
        print(f"BlockingWorld: hangs with jobs at step {steps_to_hang(BlockingWorld, patched)}")
