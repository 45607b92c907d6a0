"""A simulation of one coordinator with many hosts: the real policy and bridges, a virtual clock.

``gmpd.sched`` and the bridge's ``Relay`` and ``Line`` run as they are; processes are servers of one
thread each that take the measured CPU time for each message and job; hosts are cores that run what
comes in order. No dice but the seed's: the same arguments give the same run. Times are integers, in
nanoseconds, unless a name says otherwise.

Simplified: what agent and daemon of a host use is not taken from the cores of that host, and jobs
that have reached a host are not moved between its cores.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from gmpd import protocol
from gmpd.cluster.batches import BATCH_BYTES, Numbered
from gmpd.cluster.exchange import Ask, Told
from gmpd.cluster.line import Line
from gmpd.cluster.relay import Relay
from gmpd.daemon.outcomes import GATHER_MAX, GATHER_NS
from gmpd.sched import events
from gmpd.sched import instructions as do
from gmpd.sched.leavers import HOSTS_FROM
from gmpd.sched.records import Policy
from gmpd.sched.schedt import Sched

S = 1_000_000_000
#: Jobs of one message of a client; messages that the coordinator takes in one turn.
SUBMITTED, TURN_MAX = 512, 64
CLIENTS = 2
#: A host's daemon tells of jobs that run for longer.
TOLD_NS = 10_000_000
#: Jobs for each core before the measured ones: the policy learns how long they run.
WARM = 4
#: The number of this machine's P.
HERE = 0
LEASE_S = 10.0


class Costs(NamedTuple):
    """CPU time of a process for each job and message, and latencies; microseconds.

    ``host``: daemon and agent of a host. ``worker_job``: beside the job itself. ``way``: of an
    exchange with a host, one way. ``hop``: of a message between processes of this machine.
    """

    client_job: float
    coordinator_job: float
    coordinator_message: float
    bridge_job: float
    bridge_exchange: float
    host_job: float
    host_message: float
    host_exchange: float
    worker_job: float
    way: float
    hop: float


class Clock:
    """Virtual time: acts, in the order of their times."""

    def __init__(self) -> None:
        self.now = S
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._n = 0

    def at(self, when: int, act: Callable[[], None]) -> None:
        self._n += 1
        heapq.heappush(self._heap, (max(when, self.now), self._n, act))

    def step(self) -> bool:
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        act()
        return True


class Server:
    """A process of one thread: what comes waits until it is free, and is taken in turns."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.inbox: deque[Any] = deque()
        self.used = 0
        self._free_at = 0
        self._turn_is_due = False

    def put(self, message: Any) -> None:
        self.inbox.append(message)
        self.look()

    def look(self, when: int = 0) -> None:
        """Have a turn, as soon as it may."""
        if not self._turn_is_due:
            self._turn_is_due = True
            self.clock.at(max(when, self._free_at), self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        us, sent = self.turn()
        cost = int(us * 1000)
        self.used += cost
        self._free_at = self.clock.now + cost
        if sent:
            self.clock.at(self._free_at, partial(_all, sent))
        if self.inbox:
            self.look()

    def turn(self) -> tuple[float, list[Callable[[], None]]]:
        """Its CPU time in microseconds, and what happens at its end."""
        raise NotImplementedError


class Coordinator(Server):
    """The real policy."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self.world = world
        policy = Policy(queue_jobs=1 << 30, window=1 << 30, seed=world.seed)
        self.sched = Sched(policy)
        #: CPU time that the policy really took.
        self.policy_ns = 0
        self._deadline = 0

    def tell(self, event: Any) -> list[do.Instruction]:
        began = time.thread_time_ns()
        given = self.sched.handle(event, self.clock.now)
        self.policy_ns += time.thread_time_ns() - began
        return given

    def turn(self) -> tuple[float, list[Callable[[], None]]]:
        costs, us = self.world.costs, 0.0
        for _ in range(min(TURN_MAX, len(self.inbox))):
            event, jobs = self.inbox.popleft()
            us += costs.coordinator_message + jobs * costs.coordinator_job / 3
            self.tell(event)
        sent: list[Callable[[], None]] = []
        while given := self.tell(events.TurnEnded()):
            for each in given:
                us += self._obey(each, sent)
        self._set_deadline()
        return us, sent

    def _obey(self, instruction: do.Instruction, sent: list[Callable[[], None]]) -> float:
        world, costs = self.world, self.world.costs
        match instruction:
            case do.LeaseJobs():
                sent.append(world.leases(instruction))
                jobs = len(instruction.payloads)
            case do.Revoke(p, tokens, thief, asked_ns):
                offered = world.offered[p.p]
                got = [token for token in tokens if token in offered]
                offered.difference_update(got)
                thief_p = None if thief is None else thief.p
                self.tell(events.Revoked(p.p, tokens, got, thief_p, asked_ns))
                return costs.coordinator_message
            case do.Probe(p):
                self.tell(events.Probed(p.p, moves=True, asleep=False))
                return 0.0
            case do.SendOutcomes(session, outcomes):
                jobs = len(outcomes.seqs)
                sent.append(world.outcomes(session.sid, jobs))
            case _:
                return 0.0
        return costs.coordinator_message + jobs * costs.coordinator_job / 3

    def _set_deadline(self) -> None:
        due = self.sched.next_deadline()
        if due is not None and due != self._deadline:
            self._deadline = due
            self.clock.at(due, self.look)


class Worker(Server):
    """The P of this machine."""

    def __init__(self, world: World, p: int) -> None:
        super().__init__(world.clock)
        self.world = world
        self.p = p

    def turn(self) -> tuple[float, list[Callable[[], None]]]:
        world, us = self.world, 0.0
        ended: list[tuple[int, int]] = []
        while self.inbox and us * 1000 < GATHER_NS and len(ended) < GATHER_MAX:
            token, number = self.inbox.popleft()
            if world.claim(self.p, token):
                us += world.lengths[number] / 1000 + world.costs.worker_job
                ended.append((token, world.lengths[number] // 1000))
        if not ended:
            return us, []
        message = _finished(ended)
        return us, [world.later(lambda: world.finished(self.p, message))]


class Bridge(Server):
    """``gmpd.cluster.bridge`` with the real relay and line."""

    def __init__(self, world: World, p: int, cores: int) -> None:
        super().__init__(world.clock)
        self.world, self.p = world, p
        self.relay = Relay(f"h{p}", cores, lambda token: world.claim(p, token), 64 << 20)
        self.relay.welcome = _WELCOME
        self.line = Line("bridge", "life", LEASE_S, 0.0, world.clock.now / S)
        self.host = Host(world, self, cores)
        self.exchanges = 0

    def turn(self) -> tuple[float, list[Callable[[], None]]]:
        relay, line, costs, jobs, answers = self.relay, self.line, self.world.costs, 0, 0
        now_s = self.clock.now / S
        while self.inbox:
            match self.inbox.popleft():
                case (int(number), Told() as told):
                    answers += 1
                    for frames in line.answered(number, told, now_s):
                        relay.heard(frames)
                case message:
                    jobs += len(message.payloads)
                    relay.told(message, [])
        if line.room:
            relay.pump()
        relay.confirm(now=bool(relay.to_host) or not line.is_away)
        while relay.to_host:
            line.say(relay.to_host.popleft())
        sent: list[Callable[[], None]] = []
        while (ask := line.next_ask(now_s, relay.ahead.gather_s())) is not None:
            self.exchanges += 1
            sent.append(self.world.later(partial(self.host.put, ask), costs.way))
        while relay.to_coordinator:
            message, _ = relay.to_coordinator.popleft()
            if isinstance(message, protocol.Finished):
                jobs += len(message.tokens)
            sent.append(self.world.later(partial(self.world.from_bridge, self.p, message)))
        return answers * costs.bridge_exchange + jobs * costs.bridge_job / 2, sent


class Host(Server):
    """The agent with its daemon, and the cores."""

    def __init__(self, world: World, bridge: Bridge, cores: int) -> None:
        super().__init__(world.clock)
        self.world, self.bridge = world, bridge
        self.free = [0] * cores
        self.busy = 0
        self.said, self.told, self.got, self.latest = Numbered(), 0, 0, 0
        self.waiting: dict[int, Ask] = {}
        self._gathering = 0
        self._ends: list[tuple[int, int, int]] = []
        self._flush_at = 0

    def turn(self) -> tuple[float, list[Callable[[], None]]]:
        """Exchanges that have come, and outcomes of the daemon."""
        costs, us = self.world.costs, 0.0
        while self.inbox:
            message = self.inbox.popleft()
            if isinstance(message, Ask):
                us += costs.host_exchange
                us += self._take(message, us)
            else:
                self.said.add(message)
                us += costs.host_message
        return us, [self._look]

    def _take(self, ask: Ask, us: float) -> float:
        costs, jobs = self.world.costs, 0
        assert ask.first <= self.got, "exchanges come in order"
        self.said.got(ask.got)
        new = ask.messages[self.got - ask.first :]
        self.got += len(new)
        self.latest = max(self.latest, ask.number)
        if ask.alone:
            self.told = ask.got
        self.waiting[ask.number] = ask
        for frames in new:
            message = protocol.unpack(frames[0], protocol.FROM_CLIENT)
            if isinstance(message, protocol.Submit):
                at = self.clock.now + int(us * 1000)
                self._begin(message, at)
                jobs += len(message.payloads)
        return jobs * costs.host_job + len(new) * costs.host_message

    def _begin(self, message: protocol.Submit, at: int) -> None:
        """Each job on the core that is free first."""
        host_job, own = int(self.world.costs.host_job * 1000), self.world.costs.worker_job * 1000
        for token, payload in enumerate(message.payloads, message.first_seq):
            at += host_job  # the daemon has come to it
            length = self.world.lengths[int(payload)]
            start = max(at, self.free[0])
            end = start + length + int(own)
            heapq.heapreplace(self.free, end)
            self.busy += end - start
            heapq.heappush(self._ends, (end, token, length // 1000))
            if length > TOLD_NS:
                running = [protocol.pack(protocol.Running([token]))]
                self.clock.at(start + TOLD_NS, partial(self.put, running))
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Outcomes leave the workers in messages."""
        if self._ends and self._flush_at <= self.clock.now:
            self._flush_at = max(self.clock.now, self._ends[0][0]) + GATHER_NS
            self.clock.at(self._flush_at, self._flush)

    def _flush(self) -> None:
        ended = []
        while self._ends and self._ends[0][0] <= self.clock.now:
            _, token, ran_us = heapq.heappop(self._ends)
            ended.append((token, ran_us))
        if ended:
            tokens, took_us = [token for token, _ in ended], [us for _, us in ended]
            done = protocol.Done(tokens, [b"r"] * len(ended), took_us, None, None)
            self.put([protocol.pack(done)])
        self._flush_soon()

    def _look(self) -> None:
        """As ``Agent._wait``: which exchange returns, and when."""
        if not self.waiting:
            return
        number = min(self.waiting)
        news = self.said.end > self.told
        if news and self.waiting[number].gather_s:
            if self._gathering != number:
                self._gathering = number
                when = self.clock.now + int(self.waiting[number].gather_s * S)
                self.clock.at(when, lambda: self._answer(number))
        elif news or self.latest > number:
            self._answer(number)

    def _answer(self, number: int) -> None:
        if self.waiting.pop(number, None) is None:
            return
        first = self.told
        messages = self.said.since(first, BATCH_BYTES)
        self.told += len(messages)
        told = Told("life", self.clock.now / S, self.got, first, messages)
        self.world.later(partial(self.bridge.put, (number, told)), self.world.costs.way)()
        self._look()


@dataclass
class Report:
    """Figures of a run."""

    jobs: int
    jobs_per_s: float
    makespan_s: float
    #: By the sum of the jobs' lengths over all cores; None for jobs without a length.
    by_ideal: float | None
    #: Shares of one core.
    coordinator: float
    bridge: float
    bridge_most: float
    busy: float
    jobs_per_exchange: float
    policy_us: float = field(compare=False)


class World:
    """``lengths``: of the jobs. Beside the hosts, this machine has one P."""

    def __init__(
        self, hosts: int, cores: int, lengths: Sequence[int], costs: Costs, seed: int = 1
    ) -> None:
        self.clock, self.costs, self.seed = Clock(), costs, seed
        self.cores = hosts * cores + 1
        warm = WARM * self.cores
        self.lengths = [*(lengths[n % len(lengths)] for n in range(warm)), *lengths]
        self.offered: dict[int, set[int]] = {}
        self.coordinator = Coordinator(self)
        self.workers: dict[int, Worker | Bridge] = {HERE: Worker(self, HERE)}
        self.bridges = [Bridge(self, HOSTS_FROM + n, cores) for n in range(hosts)]
        self.workers |= {bridge.p: bridge for bridge in self.bridges}
        self.ended = 0
        self._delivered: dict[int, int] = {}
        self._seqs: dict[int, int] = {}
        tell = self.coordinator.tell
        for _ in range(CLIENTS):
            sid = self.coordinator.sched.next_sid
            tell(events.SessionOpened(sid, f"c{sid}", f"c{sid}"))
            tell(events.Defined(sid, protocol.Define(0, "name", "m:f", b""), b"m:f"))
            self._delivered[sid] = self._seqs[sid] = 0
        tell(events.WorkerReady(HERE, 1))
        for bridge in self.bridges:
            tell(events.WorkerReady(bridge.p, 1, cores, f"h{bridge.p}"))
        self._submit(0, warm)
        self._run_until(warm)

    def later(self, act: Callable[[], None], us: float | None = None) -> Callable[[], None]:
        """Return a function that schedules ``act`` after ``us`` microseconds; None: after a hop."""
        after = int((self.costs.hop if us is None else us) * 1000)
        return lambda: self.clock.at(self.clock.now + after, act)

    def claim(self, p: int, token: int) -> bool:
        offered = self.offered[p]
        if token not in offered:
            return False
        offered.remove(token)
        return True

    def leases(self, lease: do.LeaseJobs) -> Callable[[], None]:
        p, first, payloads = lease.p.p, lease.first_token, lease.payloads
        tokens = range(first, first + len(payloads))
        self.offered.setdefault(p, set()).update(tokens)
        worker = self.workers[p]

        def arrive() -> None:
            if isinstance(worker, Bridge):
                worker.put(protocol.Assign(lease.fn.fid, first, None, [*payloads], None, 0))
                return
            for each in zip(tokens, map(int, payloads), strict=True):
                worker.put(each)

        return self.later(arrive)

    def outcomes(self, sid: int, jobs: int) -> Callable[[], None]:
        def arrive() -> None:
            self.ended += jobs
            self._delivered[sid] += jobs
            # Confirmed with other messages of the client.
            self.coordinator.tell(events.Acknowledged(sid, self._delivered[sid]))

        return self.later(arrive)

    def from_bridge(self, p: int, message: Any) -> None:
        if isinstance(message, protocol.Finished):
            self.finished(p, message)
        elif isinstance(message, protocol.Started):
            self.coordinator.put((events.Started(p, 1, message.tokens), 0))

    def finished(self, p: int, message: protocol.Finished) -> None:
        jobs = len(message.tokens)
        self.coordinator.put((events.Finished(p, 1, message, [()] * jobs), jobs))

    def _submit(self, first: int, jobs: int) -> None:
        """Each client submits its part in messages, as fast as it can."""
        for n, sid in enumerate(self._seqs):
            numbers = range(first + n, first + jobs, CLIENTS)
            when = self.clock.now
            for at in range(0, len(numbers), SUBMITTED):
                payloads = [b"%d" % number for number in numbers[at : at + SUBMITTED]]
                message = protocol.Submit(0, self._seqs[sid], None, payloads, None)
                self._seqs[sid] += len(payloads)
                when += int(len(payloads) * self.costs.client_job * 1000)
                event = events.Submitted(sid, message, [()] * len(payloads))
                self.clock.at(when, partial(self.coordinator.put, (event, len(payloads))))

    def _run_until(self, ended: int) -> None:
        while self.ended < ended:
            assert self.clock.step(), f"{ended - self.ended} jobs never end"

    def run(self) -> Report:
        """Submit all jobs at once, until the last outcome has come."""
        warm, began = self.ended, self.clock.now
        own = self.lengths[warm:]
        used = self.coordinator.used, [bridge.used for bridge in self.bridges]
        exchanges = sum(bridge.exchanges for bridge in self.bridges)
        busy = sum(bridge.host.busy for bridge in self.bridges)
        self.coordinator.policy_ns = 0
        self._submit(warm, len(own))
        self._run_until(warm + len(own))
        took = self.clock.now - began
        ideal = max(sum(own) / self.cores, max(own))
        bridges = [
            (bridge.used - before) / took
            for bridge, before in zip(self.bridges, used[1], strict=True)
        ]
        exchanges = sum(bridge.exchanges for bridge in self.bridges) - exchanges
        busy = sum(bridge.host.busy for bridge in self.bridges) - busy
        return Report(
            len(own),
            len(own) / took * S,
            took / S,
            took / ideal if ideal else None,
            (self.coordinator.used - used[0]) / took,
            sum(bridges) / len(bridges),
            max(bridges),
            busy / took / (self.cores - 1),
            len(own) / max(1, exchanges),
            self.coordinator.policy_ns / len(own) / 1000,
        )


_WELCOME = protocol.Welcome(protocol.VERSION, 1, 1 << 30, 1 << 14, 1 << 30, protocol.DaemonInfo())


def _finished(ended: list[tuple[int, int]]) -> protocol.Finished:
    took_us = [us for _, us in ended]
    payloads = [b"r"] * len(ended)
    tokens = [token for token, _ in ended]
    return protocol.Finished(tokens, payloads, took_us, [*took_us], None, None)


def _all(acts: Sequence[Callable[[], None]]) -> None:
    for act in acts:
        act()
