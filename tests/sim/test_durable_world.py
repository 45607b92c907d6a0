"""A seeded world around durable jobs: the real policy and the real tables, crashes at every step.

The store applies operations later, some at a time, and its answers come later still. A crash of the
coordinator ends all workers, loses what was not applied and what was not told, and boots again from
the tables. Clients ask again for what was not answered. Whatever happens: an acknowledged job comes
to one end, which stays; two attempts never run at once; ``once=True`` never starts twice; nothing
starts after its end was told, or after its ``expires``. Planted faults, one per promise, are found.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import sys
from collections import Counter, deque
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
import pytest

from gmpd import protocol
from gmpd.daemon.sqlite_jobs import JobTables, content_digest
from gmpd.daemon.sqlite_schema import SCHEMA
from gmpd.protocol import Outcome
from gmpd.sched import events
from gmpd.sched import instructions as do
from gmpd.sched.durable import Durable, Told
from gmpd.sched.durable_ends import Judge
from gmpd.sched.durable_limits import Sizes
from gmpd.sched.records import Failure, Session
from gmpd.sched.stored import (
    Answer,
    Find,
    Finish,
    NewJob,
    Operation,
    PutJobs,
    PutResult,
    Results,
    StoredFunction,
    StoredState,
    Story,
    Verdict,
)
from tests.desk import MS, Desk

SEEDS = 1000
STEPS = 150
LINK = "store"
FUNCTION = StoredFunction(b"f" * 16, "name", "tasks:work", b"")
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"retries": 2}, {"timeout": 0.05, "retries": 3})
W = TypeVar("W", bound="World")
UNENDED = "SELECT 1 FROM jobs WHERE ended_ms IS NULL LIMIT 1"
encode = msgspec.msgpack.encode


@cache
def _database() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(SCHEMA)
    return db


def empty_database() -> sqlite3.Connection:
    """One for all worlds, one after the other: its statements stay prepared."""
    db = _database()
    if db.in_transaction:  # of a world that has failed
        db.rollback()
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        db.execute(f"DELETE FROM {table}")
    return db


class Attempt:
    """A lease of a worker. ``begun``: its frame lives. ``overran``: its limit has passed."""

    def __init__(self, id_: bytes) -> None:
        self.id = id_
        self.begun = self.overran = False


class World:
    """One coordinator after the other, and the clients of all of them."""

    options: tuple[dict[str, Any], ...] = OPTIONS
    sizes = Sizes()
    clock_was_set = False

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.wall = self.turned = 1_000_000
        self.db = empty_database()
        self.jobs: dict[bytes, NewJob] = {}
        self.acknowledged: set[bytes] = set()
        self.cancelled: set[bytes] = set()
        #: Those that no worker had when a cancel was answered, and which coordinator did.
        self.stopped: dict[bytes, int] = {}
        #: Some client asked to run it again: its end may change.
        self.revived: set[bytes] = set()
        #: The end that some client was told.
        self.told: dict[bytes, int] = {}
        self.starts: Counter[bytes] = Counter()
        self.boots = self.expired = 0
        self.boot()

    # -- the coordinator

    def boot(self) -> None:
        """The next coordinator; the last one's workers are dead."""
        self.boots += 1
        self.db.execute("DROP TABLE IF EXISTS temp.taken")
        self.tables = JobTables(self.db)
        self.boot_tables()
        self.queue: deque[tuple[Operation, Told]] = deque()
        self.answers: deque[tuple[Told, Answer]] = deque()
        self.requests: dict[int, Callable[[Any], None]] = {}
        self.desk = Desk(recorded=False, seed=self.boots)
        session = self.desk.client(LINK)
        self.make_patient(session)
        counters = self.desk.sched.counters
        self.durable = Durable(self, session.sid, Judge(3, self.dice.random), counters, self.sizes)
        self.workers: dict[int, dict[int, Attempt]] = {}
        for p in (0, 1):
            self.start_worker(p, 1)
        self.turn()

    def boot_tables(self) -> None:
        self.tables.boot(self.wall)

    def make_patient(self, session: Session) -> None:
        session.patient = True

    def start_worker(self, p: int, epoch: int) -> None:
        self.desk.ready(p, epoch)
        self.workers[p] = {}

    # -- ports of the policy

    def wall_ms(self) -> int:
        return self.wall

    def store(self, operation: Operation, told: Told) -> None:
        self.queue.append((operation, told))

    def feed(self, event: events.ClientEvent) -> None:
        self.desk.tell(event)

    def failed(self, failure: Failure) -> None:
        assert bytes.fromhex(failure.id) in self.jobs

    def live_log(self, seq: int, after: int) -> None:
        """It is not asked for here."""

    def where(self, seq: int) -> dict[str, Any]:
        """As ``live_log``."""
        return {}

    def limit(self, key: str) -> None:
        """As ``live_log``."""

    def overrunning(self) -> set[int]:
        return {
            overrun.job.seq
            for record in self.desk.sched.ps.values()
            for overrun in record.overrunning.values()
        }

    def reply(self, link: Any, request: int, *, ok: bool, value: Any) -> None:
        assert ok, value
        self.requests.pop(request)(value)

    # -- steps

    def ask(self, then: Callable[[Any], None]) -> int:
        request = len(self.requests) + self.dice.getrandbits(40)
        self.requests[request] = then
        return request

    def enqueue(self) -> None:
        given = self.dice.choice(self.options)
        options, limit = encode(protocol.Options(**given)), given.get("limit", ("",))[0]
        once = self.dice.random() < 0.2
        later = self.dice.choice((0, 0, 30))
        expires = self.wall + self.dice.choice((5, 50)) if self.dice.random() < 0.2 else None
        jobs = []
        for _ in range(self.dice.randint(1, 3)):
            id_ = self.dice.randbytes(16)
            digest = content_digest(FUNCTION.digest, options, id_, ())
            jobs.append(
                NewJob(
                    id_, digest, FUNCTION.digest, "c", self.dice.randint(0, 1), options, id_, (),
                    self.wall, self.wall + later, expires, once=once,
                    limit=limit,
                )
            )  # fmt: skip
            self.jobs[id_] = jobs[-1]
        self.send(jobs)

    def enqueue_again(self) -> None:
        """A client that got no answer asks again, with the same ids."""
        waiting = [job for id_, job in self.jobs.items() if id_ not in self.acknowledged]
        if waiting:
            self.send([self.dice.choice(waiting)])

    def send(self, jobs: list[NewJob]) -> None:
        def answered(value: Any) -> None:
            assert set(value["verdicts"]) <= {Verdict.NEW, Verdict.SAME}
            self.acknowledged.update(job.id for job in jobs)

        self.durable.enqueue("client", self.ask(answered), jobs, [FUNCTION])

    def wait_for_one(self) -> None:
        if self.acknowledged:
            id_ = self.dice.choice(sorted(self.acknowledged))
            self.durable.await_result("client", self.ask(lambda value: self.end(id_, value)), id_)

    def end(self, id_: bytes, value: Any) -> None:
        assert value is not False, "an acknowledged job is unknown"
        state = value["state"]
        before = self.told.setdefault(id_, state)
        assert before == state or id_ in self.revived, "an end that was told has changed"
        assert state != StoredState.DONE or id_ not in self.live(), "it still runs"

    def revive(self) -> None:
        failed = [id_ for id_, state in self.told.items() if state != StoredState.DONE]
        if failed:
            id_ = self.dice.choice(sorted(failed))
            self.revived.add(id_)
            self.durable.revive("client", self.ask(lambda _: None), [id_])

    def cancel(self) -> None:
        if self.acknowledged:
            id_ = self.dice.choice(sorted(self.acknowledged))
            self.cancelled.add(id_)

            def answered(value: Any) -> None:
                (result,) = self.tables.do(Results((id_,)))  # type: ignore[misc]
                if not result and id_ not in self.revived:
                    assert id_ in value["asked"], "it has not ended, and was not cancelled"
                    if id_ not in self.held():
                        self.stopped[id_] = self.boots

            self.durable.cancel("client", self.ask(answered), [id_])

    def apply(self) -> None:
        """The store commits the next few operations."""
        n = min(len(self.queue), self.dice.randint(1, 4))
        if n:
            batch = [self.queue.popleft() for _ in range(n)]
            self.db.execute("BEGIN")
            answers = self.tables.do_all([operation for operation, _ in batch])
            self.db.execute("COMMIT")
            for (_, told), answer in zip(batch, answers, strict=True):
                self.answers.append((told, answer))

    def deliver(self) -> None:
        if self.answers:
            told, answer = self.answers.popleft()
            told(answer)

    def turn(self) -> None:
        self.turned = self.wall
        again = True
        while again:
            again = False
            for instruction in self.desk.take():
                again = self.execute(instruction) or again

    def execute(self, instruction: do.Instruction) -> bool:
        """Whether it is answered."""
        match instruction:
            case do.LeaseJobs(p, _, _, first, payloads):
                for token, payload in enumerate(payloads, first):
                    self.workers[p.p][token] = Attempt(payload)
            case do.SendOutcomes(_, outcomes):
                self.durable.ended(outcomes)
            case do.NotifyRunning(_, seqs):
                self.durable.running(seqs)
            case do.Revoke(p, tokens):
                held = self.workers[p.p]
                got = [token for token in tokens if token in held and not held[token].begun]
                for token in got:
                    del held[token]
                self.desk.revoked(instruction, got)
                return True
            case do.Probe(p):
                self.desk.probed(p, moves=True, asleep=False)
                return True
            case do.CancelAt(p, tokens):
                held = self.workers[p.p]
                unbegun = [token for token in tokens if token in held and not held[token].begun]
                for token in unbegun:
                    del held[token]
                if unbegun:
                    self.desk.finish(p, unbegun, Outcome.CANCELLED)
                if begun := [token for token in tokens if token in held]:
                    self.desk.not_cancelled(p, begun)
            case _:
                pass
        return False

    # -- workers

    def live(self) -> list[bytes]:
        return [
            attempt.id for held in self.workers.values() for attempt in held.values()
            if attempt.begun
        ]  # fmt: skip

    def held(self) -> set[bytes]:
        """Jobs that some worker has: it may begin them until it hears that they are cancelled."""
        return {attempt.id for held in self.workers.values() for attempt in held.values()}

    def a_lease(self, *, begun: bool) -> tuple[int, int, Attempt] | None:
        leases = [
            (p, token, attempt) for p, held in self.workers.items()
            for token, attempt in held.items() if attempt.begun is begun
        ]  # fmt: skip
        return self.dice.choice(leases) if leases else None

    def begin(self) -> None:
        if (lease := self.a_lease(begun=False)) is None:
            return
        p, token, attempt = lease
        id_ = attempt.id
        assert id_ not in self.live(), "two attempts at once"
        if id_ not in self.revived:
            assert self.stopped.get(id_) != self.boots, "it starts after it was cancelled"
            assert id_ not in self.told, "it starts after its end was told"
            assert not (self.jobs[id_].once and self.starts[id_]), "once=True starts twice"
            expires = None if self.clock_was_set else self.jobs[id_].expires_ms
            assert expires is None or self.turned < expires, "it starts after its expires"
        self.starts[id_] += 1
        attempt.begun = True
        self.desk.start(self.desk.sched.ps[p], [token])

    def finish(self) -> None:
        if (lease := self.a_lease(begun=True)) is None:
            return
        p, token, attempt = lease
        if attempt.overran and self.dice.random() < 0.8:
            return  # such frames last
        del self.workers[p][token]
        outcome = self.dice.choice((Outcome.OK, Outcome.OK, Outcome.ERROR))
        self.desk.finish(self.desk.sched.ps[p], [token], outcome)

    def overrun(self) -> None:
        """The time limit of an attempt passes, and its frame lives on."""
        lease = self.a_lease(begun=True)
        if lease is None:
            return
        p, token, attempt = lease
        if b"timeout" in self.jobs[attempt.id].options and not attempt.overran:
            attempt.overran = True
            self.desk.expired(self.desk.sched.ps[p], [token])

    def kill_worker(self) -> None:
        p = self.dice.choice((0, 1))
        held, self.workers[p] = self.workers[p], {}
        begun = [token for token, attempt in held.items() if attempt.begun]
        self.desk.died(p, begun, self.dice.choice([None, *begun]))
        self.start_worker(p, self.desk.sched.ps[p].epoch + 1)

    def pass_time(self) -> None:
        ms = self.dice.choice((1, 10, 60, 200))
        self.wall += ms
        self.desk.now += ms * MS
        self.durable.tick()

    def crash(self) -> None:
        self.boot()

    # -- all of it

    def live_for(self, steps: int) -> None:
        moves: list[Callable[[], None]] = [
            self.enqueue, self.enqueue_again, self.wait_for_one, self.revive, self.apply,
            self.apply, self.deliver, self.deliver, self.deliver, self.turn, self.turn,
            self.begin, self.begin, self.finish, self.finish, self.overrun, self.overrun,
            self.pass_time, self.pass_time,
        ]  # fmt: skip
        rare = [self.kill_worker, self.crash, self.cancel]
        for _ in range(steps):
            self.dice.choice(rare if self.dice.random() < 0.06 else moves)()

    def come_to_rest(self) -> None:
        """No more faults: everything that was acknowledged ends."""
        calm = [self.apply, self.deliver, self.turn, self.begin, self.finish, self.pass_time]
        for _ in range(400):
            for move in calm:
                move()
            if not self.queue and not self.db.execute(UNENDED).fetchone():
                break
        assert not self.unended(), "these never ended"
        for id_ in sorted(self.acknowledged):
            (result,) = self.tables.do(Results((id_,)))  # type: ignore[misc]
            self.end(id_, msgspec.to_builtins(result, builtin_types=(bytes,)))
            if self.jobs[id_].once and id_ not in self.revived:
                assert self.starts[id_] <= 1
            if result.state is StoredState.CANCELLED:  # type: ignore[union-attr]
                assert self.may_be_cancelled(id_)
            if result.state is StoredState.EXPIRED:  # type: ignore[union-attr]
                assert self.jobs[id_].expires_ms is not None
                self.expired += 1

    def counted(self) -> tuple[int, Counter[str], int]:
        """Jobs, those that have ended by outcome, further attempts: as the policy counts."""
        counters = self.desk.sched.counters
        return counters.submitted, counters.finished, counters.retried.total()

    def stored(self) -> tuple[int, Counter[str], int]:
        """The same, by the tables."""
        found = [id_ for id_ in self.jobs if self.tables.do(Find((id_,))) != (None,)]
        ends: Any = self.tables.do(Results(tuple(found)))
        stories: Any = [self.tables.do(Story(id_)) for id_ in found]
        names = {StoredState.EXPIRED: "timeout", StoredState.CANCELLED: "cancelled"}
        outcomes = Counter(names.get(each.state, each.outcome) for each in ends if each)
        return len(found), outcomes, sum(len(story) - 1 for story in stories)

    def may_be_cancelled(self, id_: bytes) -> bool:
        return id_ in self.cancelled

    def unended(self) -> list[bytes]:
        ids = sorted(self.acknowledged)
        rows: Any = self.tables.do(Results(tuple(ids)))
        return [id_ for id_, row in zip(ids, rows, strict=True) if row is None or row is False]


def live(seed: int, world: type[W]) -> W:
    """One world, from its boot to its rest."""
    it = world(seed)
    try:
        it.live_for(STEPS)
        it.come_to_rest()
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return it


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_acknowledged_jobs_end_once_whatever_crashes(first: int) -> None:
    worlds = [live(seed, World) for seed in range(first, first + 100)]
    assert sum(world.boots for world in worlds) > 100
    assert sum(len(world.told) for world in worlds) > 500
    assert sum(world.expired for world in worlds) > 50


def test_a_worker_begins_a_job_between_the_answer_to_its_cancel_and_the_next_turn() -> None:
    live(1462, World)


class CalmWorld(World):
    """The coordinator does not crash, and nobody has jobs run again."""

    def crash(self) -> None:
        self.kill_worker()

    def revive(self) -> None:
        self.cancel()


def test_the_counts_of_the_policy_are_those_of_the_tables() -> None:
    jobs, ends, again = 0, Counter[str](), 0
    for seed in range(40):
        world = live(seed, CalmWorld)
        assert world.counted() == world.stored(), f"seed {seed}"
        jobs, ends, again = jobs + world.stored()[0], ends + world.stored()[1], again
        again += world.stored()[2]
    assert ends.total() == jobs, "all have ended"
    assert set(ends) == {"ok", "error", "timeout", "cancelled", "lost"}, f"too tame: {ends}"
    assert again > 50


def test_a_job_expires_while_it_waits_for_its_next_attempt() -> None:
    world = World(1)
    options = encode(protocol.Options(retries=1, backoff=(3600, 3600, 1, 0)))
    id_ = b"i" * 16
    digest = content_digest(FUNCTION.digest, options, id_, ())
    job = NewJob(
        id_, digest, FUNCTION.digest, "c", 0, options, id_, (), world.wall, world.wall,
        world.wall + 60_000,
    )  # fmt: skip
    world.jobs[id_] = job
    world.send([job])
    while not world.live():
        for move in (world.apply, world.deliver, world.turn, world.begin):
            move()
    ((p, token),) = [(p, token) for p, held in world.workers.items() for token in held]
    world.desk.finish(world.desk.sched.ps[p], [token], Outcome.ERROR)
    world.turn()
    assert world.durable.next_ms() <= world.wall + 60_000


# -- planted faults --------------------------------------------------------------------------------


class AcknowledgedBeforeTheFlush(World):
    """The answer about new jobs does not wait for the transaction."""

    def store(self, operation: Operation, told: Told) -> None:
        super().store(operation, told)
        if isinstance(operation, PutJobs) and not operation.take:
            self.queue.pop()
            self.queue.append((operation, lambda _: None))
            n = len(operation.jobs)
            ids = tuple(job.id for job in operation.jobs)
            told(PutResult((Verdict.NEW,) * n, (0,) * n, ids))


class EndsToldBeforeTheyAreStored(World):
    """A client is told of an end that is still on its way to the disk."""

    def store(self, operation: Operation, told: Told) -> None:
        super().store(operation, told)
        if isinstance(operation, Finish):
            self.queue.pop()
            self.queue.append((operation, lambda _: None))
            told(None)


class StartsOfOnceForgotten(World):
    """A boot does not look which jobs had left the store."""

    def boot_tables(self) -> None:
        self.db.execute(
            "UPDATE jobs SET state = ? WHERE state = ?", (StoredState.QUEUED, StoredState.LEASED)
        )
        super().boot_tables()


class AttemptsBesideOverrunningOnes(World):
    """A time limit is taken for the end of the frame."""

    def make_patient(self, session: Session) -> None:
        session.patient = False

    def execute(self, instruction: do.Instruction) -> bool:
        if isinstance(instruction, do.SendOutcomes):
            for _, details in instruction.outcomes.specials.values():
                details.pop("runs_on", None)
        return super().execute(instruction)


class NoDurability(World):
    """The tables lose their last transaction at a crash, as without a flush."""

    def apply(self) -> None:
        super().apply()
        self.before = getattr(self, "after", self.db.serialize())
        self.after = self.db.serialize()

    def crash(self) -> None:
        if hasattr(self, "before"):
            self.db.deserialize(self.before)
            self.after = self.before
        self.boot()


class DeathsNotConfirmed(World):
    """A silent worker is taken for dead, as by a lease that ends by time: its frames live on."""

    def boot(self) -> None:
        self.ghosts: list[bytes] = []
        super().boot()

    def kill_worker(self) -> None:
        before = self.live()
        super().kill_worker()
        self.ghosts += set(before) - set(self.live())

    def live(self) -> list[bytes]:
        return [*super().live(), *self.ghosts]


class NoRecoveryBarrier(World):
    """The next coordinator does not wait for the end of the last one's workers."""

    ghosts: tuple[bytes, ...] = ()

    def crash(self) -> None:
        self.ghosts = tuple(self.live())
        super().crash()

    def live(self) -> list[bytes]:
        return [*super().live(), *self.ghosts]


class EpochsForgotten(World):
    """Messages of a dead worker are taken for those of its successor: the planted fault."""

    def boot(self) -> None:
        self.late: list[tuple[int, int]] = []
        super().boot()

    def crash(self) -> None:
        late = [(p, token) for p, held in self.workers.items() for token in held]
        super().crash()
        self.late = late

    def finish(self) -> None:
        for p, token in self.late:
            attempt = self.workers[p].get(token)
            if attempt is not None and attempt.begun:
                self.late.remove((p, token))
                self.desk.finish(self.desk.sched.ps[p], [token], Outcome.OK)
                return
        super().finish()


@pytest.mark.parametrize(
    ("world", "seed"),
    [
        (DeathsNotConfirmed, 15),
        (NoRecoveryBarrier, 9),
        (EpochsForgotten, 349),
        (AcknowledgedBeforeTheFlush, 0),
        (EndsToldBeforeTheyAreStored, 18),
        (StartsOfOnceForgotten, 16),
        (AttemptsBesideOverrunningOnes, 224),
        (NoDurability, 9),
    ],
)
def test_a_planted_fault_is_found(world: type[World], seed: int) -> None:
    """``seed``: the first that found it; when the worlds change, another may."""
    assert finds(world, seed) or seeds_to_find(world) <= SEEDS


def finds(world: type[World], seed: int) -> bool:
    try:
        live(seed, world)
    except (AssertionError, KeyError):
        return True
    return False


def seeds_to_find(world: type[World], most: int = SEEDS) -> int:
    """How many worlds it takes; more than ``most`` if that many do not find it."""
    return next((seed + 1 for seed in range(most) if finds(world, seed)), most + 1)


def hunt(world: type[World]) -> None:
    """The planted faults, then worlds without end: `python -m tests.sim.test_durable_world`."""
    for faulty in world.__subclasses__():
        if faulty.__module__ == world.__module__:
            print(f"{faulty.__name__}: found after {seeds_to_find(faulty)} worlds", flush=True)
    first = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    for seed in itertools.count(first):
        live(seed, world)
        if seed % 1000 == 999:
            print(f"{seed + 1 - first:,} worlds: nothing found", flush=True)


if __name__ == "__main__":
    hunt(World)
