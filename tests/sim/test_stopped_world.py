"""A worker that stops at each of its steps, beside another one that is idle.

The policy, the effects, the links' counts and the shared memory are the daemon's own; the worker,
libzmq's threads and the clock are played here, a step at a time. Wherever the worker stops, jobs
that it has not claimed run elsewhere, and results that it stored are delivered, within a few
probes; when it goes on, nothing runs twice.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from gmpd import protocol
from gmpd.config import Config
from gmpd.daemon import coordinator, effects, workers
from gmpd.daemon.coordinator import Coordinator
from gmpd.daemon.effects import Effects
from gmpd.daemon.faults import Faults
from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.daemon.supervisor import WorkerProcess
from gmpd.daemon.traffic import Traffic
from gmpd.daemon.workers import Workers
from gmpd.protocol import Outcome
from gmpd.sched.records import PROBE_AFTER_NS, PROBE_EVERY_MAX_NS
from tests.desk import MS, Desk

#: Time of a step of a worker, or of a thread of libzmq.
STEP_NS = 10_000
#: Jobs of a message.
JOBS = 4
#: More jobs come at every so many steps.
MORE_EVERY = 13
#: Within this time all is done: a look that sees it moving, one that does not, and their jobs.
SOON_NS = 4 * PROBE_AFTER_NS


class Process:
    """A worker as its own memory sees it: a loop that takes a step when it is asked to."""

    def __init__(self, p: int, world: World) -> None:
        shm, fd = WorkerShm.create("gmpd-test")
        self.shm = WorkerShm(fd)
        os.close(fd)
        process: Any = SimpleNamespace(pid=os.getpid())
        self.record = WorkerProcess(p, 1, process, -1, shm, b"secret", None, 0, ready=True)
        self.record.peer = b"%d" % p
        self.world = world
        #: The socket's buffers, and libzmq's queues: on their way in and out.
        self.buffer_in: deque[Any] = deque()
        self.queue_in: deque[Any] = deque()
        self.queue_out: deque[Any] = deque()
        self.sent = 0
        #: A job that parks, and when it ends.
        self.parked: int | None = None
        self.wake_ns: int | None = None
        #: Claimed, and its outcome is not stored yet.
        self.claimed: int | None = None
        self.stopped = False
        self._loop = self.loop()

    def close(self) -> None:
        self.shm.close()
        self.record.shm.close()

    def step(self) -> None:
        next(self._loop)

    def carry_in(self) -> None:
        if self.buffer_in:
            self.queue_in.append(self.buffer_in.popleft())

    def carry_out(self) -> None:
        if self.queue_out:
            self.world.inbox.append((self.record.peer, self.queue_out.popleft()))

    @property
    def sleeps(self) -> bool:
        return bool(self.shm.slots[Slot.ASLEEP_NS]) and not self.queue_in and not self._is_due()

    def _is_due(self) -> bool:
        return self.wake_ns is not None and self.world.desk.now >= self.wake_ns

    def loop(self) -> Iterator[None]:
        """The writes of ``runtime.poller`` and ``daemon.worker`` to shared memory, in order."""
        slots, fresh, rounds = self.shm.slots, deque[tuple[int, str]](), 0
        while True:
            slots[Slot.ROUND] = rounds << 1 | 1
            yield
            slots[Slot.ASLEEP_NS] = self.world.desk.now
            yield
            while not self.queue_in and not self._is_due():
                yield
            slots[Slot.ASLEEP_NS] = 0
            yield
            rounds += 1
            slots[Slot.ROUND] = rounds << 1
            yield
            while self.queue_in:
                message = self.queue_in.popleft()
                yield
                if isinstance(message, protocol.Assign):
                    first = message.first_token
                    fresh.extend(
                        (first + i, data.decode()) for i, data in enumerate(message.payloads)
                    )
                self.shm.took()
                yield
            revoked, ended = False, []
            if self._is_due() and self.parked is not None:
                yield from self._store(self.parked, "parked")
                ended.append((self.parked, "parked"))
                self.wake_ns = self.parked = None
            while fresh:
                token, name = fresh.popleft()
                yield
                if not self.shm.begin(token, self.world.desk.now):
                    revoked = True
                    continue
                self.claimed = token
                self.world.ran[name] += 1
                yield
                self.shm.pause()
                if name == "park":
                    self.claimed, self.parked = None, token
                    yield from self._send(protocol.Started([token]))
                    continue
                yield from self._store(token, name)
                ended.append((token, name))
            if revoked:
                yield from self._send(protocol.Started([]))
            if ended:
                yield from self._flush(ended)

    def _store(self, token: int, name: str) -> Iterator[None]:
        self.shm.store(token, Outcome.OK, name.encode(), 10, 10)
        self.claimed = None
        self.world.stored.add(name)
        yield

    def _flush(self, ended: list[tuple[int, str]]) -> Iterator[None]:
        self.sent += len(ended)
        self.shm.sent(self.sent)
        yield
        took = [10] * len(ended)
        payloads = [name.encode() for _, name in ended]
        tokens = [token for token, _ in ended]
        yield from self._send(protocol.Finished(tokens, payloads, took, took, None, None))

    def _send(self, message: protocol.Message) -> Iterator[None]:
        self.shm.sends()
        yield
        self.queue_out.append(message)
        yield


class World:
    """Two of them, and the coordinator. ``lazy``: libzmq's threads run when the loop sleeps."""

    process: type[Process] = Process

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lazy: bool) -> None:
        self.desk = desk = Desk()
        clock = SimpleNamespace(monotonic_ns=lambda: desk.now)
        for module in (coordinator, effects, workers):
            monkeypatch.setattr(module, "time", clock)
        self.lazy = lazy
        self.inbox: deque[tuple[bytes, Any]] = deque()
        #: How often each job was begun, and what came back.
        self.ran = Counter[str]()
        self.done = Counter[str]()
        #: Whose outcome is in shared memory.
        self.stored = set[str]()
        self.processes = {p: self.process(p, self) for p in (0, 1)}
        self.victim = self.processes[0]
        self.steps = 0
        self._connect()
        self.client = desk.client()
        for _ in range(2):  # P1 has learned of the function as well, and how quick it is
            self.submit("warm", "warm")
            self.until_done()

    def _connect(self) -> None:
        supervisor: Any = SimpleNamespace(
            processes={p: each.record for p, each in self.processes.items()},
            worker_of=lambda p, _epoch: self.processes[p].record,
        )
        pool: Any = SimpleNamespace(supervisor=supervisor, ready=lambda _worker: None)
        sched = self.desk.sched
        router: Any = self
        none: Any = None
        self.workers = Workers(sched, pool, router, none, Traffic(), none, Faults(sched))
        self.coordinator: Any = SimpleNamespace(
            sched=sched, _effects=Effects(Config(), sched, pool, self.workers, router, none)
        )
        for process in self.processes.values():
            self.workers._processes[process.record.peer] = process.record
            self.desk.ready(process.record.p)

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    # -- its links

    def recv(self, *, expected: bool = False) -> Any:
        if not self.inbox:
            return None
        peer, message = self.inbox.popleft()
        return peer, [protocol.pack(message)]

    def lane_of(self, peer: bytes) -> Any:
        return None

    def drop_lane(self, peer: bytes) -> None:
        pass

    def send(self, to: Any, what: Any, _frames: Any = ()) -> bool:
        """To a worker's socket, or to the client."""
        if isinstance(what, list):
            message = protocol.unpack(what[0], protocol.TO_WORKER)
            self.processes[int(to)].buffer_in.append(message)
        elif isinstance(what, protocol.Done):
            self.done.update(data.decode() for data in what.payloads)
        return True

    # -- time

    def submit(self, *names: str) -> None:
        desk, client = self.desk, self.client
        fid, first = desk.define(client, "m:f"), desk.next_seq[client.sid]
        desk.next_seq[client.sid] += len(names)
        payloads = [name.encode() for name in names]
        desk.submitted(client, protocol.Submit(fid, first, None, payloads, None))
        self.turn()

    def turn(self) -> None:
        """Of the coordinator."""
        self.workers.receive()
        Coordinator._decide(self.coordinator)
        self.desk.sched.validate()

    def step(self) -> None:
        """A step of time for all that are not stopped."""
        self.desk.now += STEP_NS
        for process in self.processes.values():
            if not process.stopped:
                self._move(process)
        due = self.desk.sched.next_deadline()
        if self.inbox or (due is not None and due <= self.desk.now):
            self.turn()
        self.steps += 1

    def _move(self, process: Process) -> None:
        """One step of one of its threads."""
        wire = process.buffer_in or process.queue_out
        if wire and (process.sleeps or not self.lazy):
            process.carry_in()
            process.carry_out()
        else:
            process.step()

    def is_quiet(self) -> bool:
        """All that are not stopped sleep, and no message is on its way."""
        going = [process for process in self.processes.values() if not process.stopped]
        wires = any(each.buffer_in or each.queue_out for each in going)
        return not self.inbox and not wires and all(each.sleeps for each in going)

    def until(self, ns: int) -> None:
        """Live until then."""
        while self.desk.now < ns:
            if self.is_quiet():
                wakes = [each.wake_ns for each in self.processes.values() if not each.stopped]
                times = [ns, self.desk.sched.next_deadline(), *wakes]
                self.desk.now = max(self.desk.now, min(t for t in times if t is not None) - STEP_NS)
            self.step()

    def park(self) -> None:
        """A coroutine waits in the worker that is to be stopped."""
        self.submit("park")
        self.until_done()
        (self.victim,) = [each for each in self.processes.values() if each.parked is not None]

    @property
    def n_parked(self) -> int:
        return sum(each.parked is not None for each in self.processes.values())

    def until_done(self) -> None:
        while self.desk.sched.unfinished > self.n_parked or not self.is_quiet():
            self.step()
            assert self.steps < 10_000, "it hangs"


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[World] = []

    def make(*, lazy: bool) -> World:
        while made:
            made.pop().close()
        made.append(World(monkeypatch, lazy=lazy))
        return made[-1]

    yield make
    while made:
        made.pop().close()


def names(of: str) -> list[str]:
    return [f"{of}{i}" for i in range(JOBS)]


def check(world: World, jobs: list[str], stopped_at: int, where: str) -> None:
    """Jobs that it did not claim are done soon; all are, once, when it goes on."""
    world.until(world.desk.now + SOON_NS)
    lost = world.victim.claimed is not None
    missing = set(jobs) - world.done.keys()
    assert len(missing) <= lost, f"{where}, step {stopped_at}: {missing} wait for it"
    world.victim.stopped = False
    world.steps = 0
    world.until_done()
    assert {name: world.done[name] for name in jobs} == dict.fromkeys(jobs, 1), where
    assert {name: world.ran[name] for name in jobs} == dict.fromkeys(jobs, 1), where
    assert not world.desk.sched.counters.dropped, where


@pytest.mark.parametrize("lazy", [False, True], ids=["prompt", "lazy"])
@pytest.mark.parametrize("parked", [False, True], ids=["free", "parked"])
def test_a_worker_that_stops_anywhere_holds_up_no_job(
    worlds: Any, lazy: bool, parked: bool
) -> None:
    """Both Ps get jobs, then more of them while the first ones run."""
    for more_at in range(0, 40, MORE_EVERY):
        for stop_at in count(more_at):
            world = worlds(lazy=lazy)
            if parked:
                world.submit("park")
                world.until_done()
            world.submit(*names("a"), *names("b"))
            for _ in range(more_at):
                world.step()
            world.submit(*names("c"))
            for _ in range(stop_at - more_at):
                world.step()
            if world.is_quiet():
                break
            world.victim.stopped = True
            jobs = [*names("a"), *names("b"), *names("c")]
            check(world, jobs, stop_at, f"more at {more_at}")


@pytest.mark.parametrize("lazy", [False, True], ids=["prompt", "lazy"])
def test_a_worker_that_wakes_by_itself_and_stops_is_found_within_a_second(
    worlds: Any, lazy: bool
) -> None:
    """It was seen asleep; then a coroutine ended, and its result is in libzmq's queue, or not."""
    for stop_at in count():
        world = worlds(lazy=lazy)
        world.park()
        world.until(world.desk.now + 3 * PROBE_EVERY_MAX_NS)
        world.victim.wake_ns = world.desk.now + MS
        world.until(world.victim.wake_ns)
        for _ in range(stop_at):
            world.step()
        if world.done["parked"]:
            break
        world.victim.stopped = True
        world.until(world.desk.now + PROBE_EVERY_MAX_NS + SOON_NS)
        assert world.done["parked"] == ("parked" in world.stored), stop_at
        world.victim.stopped = False
        world.steps = 0
        world.until_done()
        assert world.done["parked"] == 1
        assert not world.desk.sched.counters.dropped
    assert stop_at > 4
