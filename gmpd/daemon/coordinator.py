"""The coordinator's shell: takes messages off the sockets, feeds the policy, does what it says.

All decisions are ``sched.schedt``'s; all knowledge of ZeroMQ is ``netpoll``'s; processes are
``supervisor``'s. What is left is the loop. It never unpacks a user's value: payloads are bytes that
come in and go out.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, assert_never

import gmpd
from gmpd import protocol
from gmpd.codec import error_summary
from gmpd.config import Config
from gmpd.cpus import check_procs, starts_at_once
from gmpd.daemon.inquiry import Inquiries, Inquiry
from gmpd.daemon.logs import Seldom
from gmpd.daemon.page import Slot
from gmpd.daemon.snapshot import DEAF_SHOWN_NS, merge_totals, p_status, snapshot
from gmpd.daemon.spill import Left
from gmpd.daemon.supervisor import Child, Supervisor, Surroundings
from gmpd.errors import ConfigError, ProtocolError
from gmpd.netpoll import Gatekeeper, Network, Poller, Router
from gmpd.protocol import Outcome
from gmpd.sched import instructions as do
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.records import Policy, PRecord, Session
from gmpd.sched.restart import RestartPolicy, Restarts
from gmpd.sched.schedt import Sched
from gmpd.sched.steal import SILENT_NS
from gmpd.sched.tally import Histogram

log = logging.getLogger("gmpd.coordinator")

#: Messages taken from one socket before the policy decides: bounds how long a flood on one socket
#: keeps the others waiting, while a batch is still worth deciding about at once.
MESSAGES_PER_TURN = 64

#: After the last outcome was sent, clients get this long to read it before sockets close (s).
FAREWELL_S = 0.5

#: How long a child may take to end after Stop before it is killed (s).
STOP_S = 2.0


#: libzmq tells of a connection's end before the socket itself knows of it: a probe at once may
#: still go through, so there is another after this.
PROBE_AGAIN_NS = 100_000_000

#: How it went with a worker that there never was.
_NO_PROCESS = do.Exit(0, "", None, "could not be started")

#: Gs shown of each P, unless asked for more; and at most, which is more than anybody reads.
STACKS_GS = 1000
STACKS_GS_MAX = 100_000
#: Bytes of all stacks together in one reply.
STACKS_BYTES = 8 << 20
#: Seconds for workers to answer, unless told otherwise; and at most, for the client waits as well.
STACKS_WAIT_S = 2.0
STACKS_WAIT_S_MAX = 20.0


class Coordinator:
    """One daemon. ``run`` serves until it has stopped; everything happens on its thread."""

    def __init__(
        self, config: Config, endpoints: dict[str, str], surroundings: Surroundings, procs: int
    ) -> None:
        self.config = config
        self.procs = procs
        self.epoch = (
            time.time_ns() // 1_000_000
        )  # rises with every boot; nothing outlives a boot yet
        self.started_at = time.time()
        self.sched = Sched(_policy(config, procs))
        self.restarts = Restarts(_restart_policy(config))
        self.supervisor = Supervisor(config, surroundings, procs)
        self.messages_in: Counter[str] = Counter()
        self.messages_out: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.loop_lag = Histogram()
        self.restart_counts: dict[int, Counter[str]] = {}
        #: Counters of workers that are gone, so that totals never go down.
        self.past_stats: dict[int, dict[str, Any]] = {}
        self.past_cpu_s: defaultdict[int, float] = defaultdict(float)
        self.on_ready: Callable[[], None] = _nothing
        #: Called with the time (ns) on every turn of the loop, at least every ``tick_s`` seconds.
        self.on_tick: Callable[[int], None] = _no_tick
        self.tick_s: float | None = None
        self._inquiries = Inquiries()
        self._sessions: dict[bytes, Session] = {}
        self._children: dict[bytes, Child] = {}
        self._respawn: dict[int, int] = {}
        #: Ps that want a worker, in order: so many start at a time.
        self.wanted: dict[int, None] = dict.fromkeys(range(procs))
        self._warn_dropped = Seldom(log.warning)
        self._starts_at_once = starts_at_once()
        self._leaving: set[int] = set()
        #: Vanished clients, in the order in which their grace ends.
        self._lost_sessions: deque[tuple[int, Session]] = deque()
        #: Isolated workers that the system had no process for, and why: for the next turn.
        self._unstarted: list[tuple[int, str]] = []
        #: When to look again who is gone: see ``_client_left``.
        self._probe_at: int | None = None
        self._announced = False
        self._ended = False
        self._drain_until: int | None = None
        self._kill_at: int | None = None
        self._reason = "the daemon was stopped"
        self._poller = Poller()
        self._start_some()
        self._open(endpoints)

    def _open(self, endpoints: dict[str, str]) -> None:
        limit = self.config.limits.value_bytes + protocol.ENVELOPE_SLACK
        self._network = Network()
        self._gate = Gatekeeper(self._network)
        self._clients = Router(self._network, endpoints["client"], value_bytes=limit)
        self._workers = Router(self._network, endpoints["worker"], value_bytes=limit)
        self._poller.add(self._gate.answer, self._gate)
        self._poller.add(self._from_clients, self._clients)
        self._poller.add(self._from_workers, self._workers)
        self._poller.add(self._client_left, self._clients.monitor)
        self._poller.add(self._workers.take_disconnects, self._workers.monitor)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` when a descriptor is readable: signals, the starter's pipe."""
        self._poller.add(callback, fd)

    def unwatch(self, fd: int) -> None:
        self._poller.remove(fd)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped; returns when no worker is left and every socket is closed."""
        try:
            while not self._ended:
                ready = self._poller.wait(self._timeout_s())
                began = time.monotonic_ns()
                for callback in ready:
                    callback()
                self._due(began)
                self._decide()
                now = time.monotonic_ns()
                self.loop_lag.add(now - began)
                self.on_tick(now)
        finally:
            self._close()

    def _decide(self) -> None:
        """Do what the policy says, until nothing of it tells the policy something new."""
        again = True
        while again:
            again = False
            for instruction in self.sched.take(time.monotonic_ns()):
                self._do(instruction)
                again = again or isinstance(instruction, do.Revoke | do.Look)

    def _timeout_s(self) -> float | None:
        if self._unstarted:
            return 0
        deadlines = [*self._respawn.values()]
        if (due := self.sched.next_deadline()) is not None:
            deadlines.append(due)
        ends = (self._drain_until, self._kill_at, self._probe_at)
        deadlines.extend(at for at in ends if at is not None)
        if (due := self._inquiries.next_due()) is not None:
            deadlines.append(due)
        deadlines.extend(at for at, _ in self._lost_sessions)
        deadlines.extend(child.start_by_ns for child in self._starting())
        if not deadlines:
            return self.tick_s
        left_s = max(0, min(deadlines) - time.monotonic_ns()) / 1e9
        return left_s if self.tick_s is None else min(left_s, self.tick_s)

    def _due(self, now: int) -> None:
        """What time alone brings: restarts, the ends of draining and stopping."""
        for p, at in list(self._respawn.items()):
            if at <= now:
                del self._respawn[p]
                self.wanted[p] = None
        self._start_some()
        self._find_lost_clients(now)
        while self._unstarted:
            p, why = self._unstarted.pop()
            self.sched.isolated_died(p, (), _NO_PROCESS, now, why)
        self._tell_inquirers(now)
        for child in self._starting():
            if child.start_by_ns <= now:
                child.fault = "it was not ready within daemon.start_timeout"
                log.error("%s did not start in time", child)
                self.supervisor.kill(child)
        drained = not self.sched.unfinished
        if self._drain_until is not None and (drained or now >= self._drain_until):
            self.stop(self._reason)
        if self._kill_at is not None:
            if now >= self._kill_at:
                for child in list(self.supervisor.children.values()):
                    self.supervisor.kill(child)
                self._kill_at = now + int(STOP_S * 1e9)
            self._ended = not self.supervisor.children

    def _starting(self) -> list[Child]:
        children = self.supervisor.children.values()
        return [child for child in children if not child.ready and not child.expected]

    def drain(self, reason: str) -> None:
        """Take no more jobs; end when all are done, or after ``daemon.drain_timeout``."""
        if self._drain_until is None:
            log.info("draining: %s", reason)
            self.sched.drain()
            self._reason = reason
            self._drain_until = time.monotonic_ns() + int(self.config.daemon.drain_timeout * 1e9)

    def stop(self, reason: str) -> None:
        """End now: outcomes that exist are sent, everything else is lost and said to be."""
        if self._kill_at is not None:
            return
        log.info("stopping: %s", reason)
        self.sched.drain()
        self._reason = reason
        self._respawn.clear()
        self.wanted.clear()
        self._decide()
        for peer in list(self._sessions):
            self._send_client(peer, protocol.Gone(reason))
        for peer, child in list(self._children.items()):
            child.expected = True
            self._workers.send(peer, [protocol.pack(protocol.Stop(False))])
        for child in self.supervisor.children.values():
            if not child.ready or child.isolated:  # the latter's main thread may be the job's
                self.supervisor.kill(child)
        self._kill_at = time.monotonic_ns() + int(STOP_S * 1e9)

    def _close(self) -> None:
        for child in list(self.supervisor.children.values()):
            self.supervisor.kill(child)
            self.supervisor.reap(child)
        self._gate.close()
        self._clients.close(int(FAREWELL_S * 1000))
        self._workers.close()
        self._network.close_gently(int(FAREWELL_S * 1000))
        self._poller.close()

    # -- workers -----------------------------------------------------------------------------------

    def _start_some(self) -> None:
        """Start workers that are wanted, a few at a time: the next when one is ready or gone."""
        room = self._starts_at_once - sum(not child.isolated for child in self._starting())
        for p in list(self.wanted)[: max(0, room)]:
            del self.wanted[p]
            self._spawn(p)

    def _spawn(self, p: int) -> None:
        try:
            child = self.supervisor.spawn(p)
        except OSError as error:
            log.error("no worker for P%d: %s; next try in 1 s", p, error)
            self._respawn[p] = time.monotonic_ns() + 1_000_000_000
            return
        self._poller.add(lambda: self._died(child), child.pidfd)

    def _start_isolated(self, p: int) -> None:
        if self._kill_at is not None:
            return
        try:
            child = self.supervisor.spawn_isolated(p)
        except OSError as error:
            log.error("no worker for an isolated job: %s", error)
            self._unstarted.append((p, str(error)))
            return
        self._poller.add(lambda: self._died(child), child.pidfd)

    def _died(self, child: Child) -> None:
        """The kernel says that a worker ended: take what it left, then tell the policy."""
        self._poller.remove(child.pidfd)
        while self._from_workers():  # what it managed to send comes before what it left behind
            pass
        end = self.supervisor.reap(child)
        now = time.monotonic_ns()
        for peer in [peer for peer, each in self._children.items() if each is child]:
            del self._children[peer]
        for peer in self._children:
            self._tell_worker(peer, protocol.Lost(child.p, child.epoch))
        record = self.sched.record(child.p)
        if record is not None and record.epoch == child.epoch:
            self._bury(record, child, end, now)
        counted = ISOLATED_FROM if child.isolated else child.p
        self.past_stats[counted] = merge_totals(
            self.past_stats.get(counted, {}), child.page.stats(now)
        )
        self.past_cpu_s[counted] += child.cpu_s
        child.page.close()
        if child.isolated:
            log.info("%s %s", child, end.text)
        elif child.p in self._leaving:
            self._leaving.discard(child.p)
            self.sched.remove_p(child.p)
            if child.p < self.procs and self._kill_at is None:  # it was called back meanwhile
                self.wanted[child.p] = None
        elif self._kill_at is None:
            self._replace(child, end, now)

    def _bury(self, record: PRecord, child: Child, end: do.Exit, now: int) -> None:
        """Outcomes that were on their way are used; of the rest, what had begun is lost."""
        held = record.fresh.keys() | record.started.keys()
        left = child.page.left(held)
        if left:
            child.finished += len(left)
            buffers = [each.buffers for each in left]
            self.sched.finished(record, child.epoch, _as_message(left), buffers, now)
        claimed = {token for token in record.fresh if child.page.claims.is_claimed(token)}
        if child.isolated:
            self.sched.isolated_died(child.p, claimed, end, now, child.fault)
            return
        current = child.page.slots[Slot.CURRENT]
        self.sched.p_died(child.p, claimed, current or None, end, now)

    def _replace(self, child: Child, end: do.Exit, now: int) -> None:
        reason = "signal" if end.signal else "exit"
        self.restart_counts.setdefault(child.p, Counter())[reason] += 1
        log.warning("%s %s", child, end.text)
        at = self.restarts.died(child.p, child.finished, end.exitcode, now)
        if at is None:
            log.error("degraded: %s", self.restarts.degraded)
            self._reason = self.restarts.degraded
            if not self._announced or not any(c.ready for c in self._of_ps()):
                self.stop(self._reason)
        else:
            self._respawn[child.p] = at

    def resize(self, procs: int) -> int:
        """Grow or shrink to ``procs`` Ps; gives the number before. No job is lost or repeated.

        Does not wait for workers that are to come: they start a few at a time.
        """
        before, self.procs = self.procs, procs
        self.supervisor.procs = procs
        self.sched.isolated.limit = self.config.limits.isolated or procs
        for p in range(procs):
            if p not in self.supervisor.children and p not in self._respawn:
                self.wanted[p] = None
        for child in self._of_ps():
            p = child.p
            if p >= procs and p not in self._leaving:
                self._leaving.add(p)
                child.expected = True
                if child.ready:
                    self.sched.drain_p(p, time.monotonic_ns())
                else:
                    self.supervisor.kill(child)
        for waiting in (self._respawn, self.wanted):
            for p in [p for p in waiting if p >= procs]:
                del waiting[p]
        return before

    def _of_ps(self) -> list[Child]:
        """Workers of Ps: all but those of isolated jobs."""
        return [child for child in self.supervisor.children.values() if not child.isolated]

    def _from_workers(self) -> bool:
        """Take a turn's worth of messages; whether there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            received = self._workers.recv()
            if received is None:
                return False
            peer, frames = received
            try:
                message = protocol.unpack(frames[0], protocol.FROM_WORKER)
                self._count_in(message, frames)
                self._handle_worker(peer, message, frames[1:])
            except ProtocolError as error:
                self.sched.tally.dropped["bad_worker_message"] += 1
                self._warn_dropped(time.monotonic_ns(), "dropped a message of a worker: %s", error)
        return True

    def _handle_worker(  # noqa: C901 - a case per message
        self, peer: bytes, message: protocol.FromWorker, frames: list[Any]
    ) -> None:
        child = self._children.get(peer)
        if isinstance(message, protocol.Hello):
            self._greet_worker(peer, message)
            return
        record = self.sched.record(child.p) if child is not None else None
        if child is None or record is None:
            self.sched.tally.dropped["unknown_worker"] += 1
            return
        sched, epoch, now = self.sched, child.epoch, time.monotonic_ns()
        child.heard()
        sched.heard(record, epoch, now)
        match message:
            case protocol.Finished():
                rows = len(message.tokens)
                child.finished += rows
                buffers = protocol.split_buffers(message.buffer_counts, rows, frames)
                sched.finished(record, epoch, message, buffers, now)
                child.page.acknowledge(child.finished)
            case protocol.Started(tokens):
                sched.started(record, epoch, tokens)
            case protocol.Kept(tokens):
                sched.kept(record, epoch, tokens)
            case protocol.Answer(request, value):
                self._inquiries.answered(request, child.p, value)
            case protocol.Children(n, asked):
                sched.children(record, epoch, n, asked=asked)
            case protocol.Route():
                self._route(peer, child, message, frames)
            case protocol.Define() | protocol.Submit() | protocol.Cancel():
                session = sched.parent_session(record, epoch)
                self._from_session(session, message, frames, now)
            case protocol.Items():
                rows = len(message.payloads)
                buffers = protocol.split_buffers(message.buffer_counts, rows, frames)
                sched.items(record, epoch, message.job, message.payloads, buffers)
            case protocol.Fault(stage, error):
                self._fault(peer, child, stage, error)
            case protocol.Bye():
                child.expected = True
            case _:
                assert_never(message)

    def _route(
        self, peer: bytes, child: Child, letter: protocol.Route, frames: Sequence[Any]
    ) -> None:
        """Pass a letter on; its sender learns it if the worker that it is for is gone."""
        for to, other in self._children.items():
            if (other.p, other.epoch) == (letter.p, letter.epoch):
                self._tell_worker(to, letter._replace(p=child.p, epoch=child.epoch), frames)
                return
        self._tell_worker(peer, protocol.Lost(letter.p, letter.epoch))

    def _greet_worker(self, peer: bytes, message: protocol.Hello) -> None:
        protocol.agree(message)
        info = message.info
        child = self.supervisor.children.get(info.get("p", -1))
        secret = info.get("secret", b"")
        if (
            child is None
            or not isinstance(secret, bytes)
            or not secrets.compare_digest(secret, child.secret)
        ):
            raise ProtocolError("a Hello that claims to be a worker and has not its secret")
        if child.isolated:
            self.sched.isolated.ready(child.p)
        else:
            self.sched.p_ready(child.p, child.epoch)
        child.ready = True
        self._children[peer] = child
        self._workers.send(peer, [protocol.pack(self._welcome())])
        log.info("%s is ready, epoch %d", child, child.epoch)
        if not (self._announced or self.wanted) and all(c.ready for c in self._of_ps()):
            self._announced = True
            self.on_ready()

    def _fault(self, peer: bytes, child: Child, stage: str, error: bytes) -> None:
        self._workers.send(peer, [protocol.pack(protocol.Stop(False))])  # it waits for that
        summary = error_summary(error)
        text = f"{stage} failed: {summary.type}: {summary.message}"
        log.error("%s\n%s", text, summary.traceback)
        if child.isolated:
            child.fault = text
            self.sched.isolated.broken(child.p)
            return
        if stage == "initializer":
            self.stop(text)  # the pool is broken, as the standard library has it
        self.restarts.degraded = text

    # -- clients -----------------------------------------------------------------------------------

    def _from_clients(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            received = self._clients.recv()
            if received is None:
                return
            peer, frames = received
            try:
                message = protocol.unpack(frames[0], protocol.FROM_CLIENT)
                self._count_in(message, frames)
                self._handle_client(peer, message, frames[1:])
            except ProtocolError as error:
                self.sched.tally.dropped["bad_client_message"] += 1
                self._clients.send(peer, [protocol.pack(_refusal(str(error)))])

    def _handle_client(self, peer: bytes, message: protocol.FromClient, frames: list[Any]) -> None:
        session = self._sessions.get(peer)
        if isinstance(message, protocol.Hello):
            self._greet_client(peer, message)
            return
        if session is None:
            raise ProtocolError("the first message must be Hello")
        match message:
            case protocol.Submit() | protocol.Define() | protocol.Undefine() | protocol.Cancel():
                self._from_session(session, message, frames, time.monotonic_ns())
            case protocol.Ack(outcomes):
                self.sched.ack(session, outcomes)
            case protocol.Pull(seq, n):
                self.sched.pull(session, seq, n)
            case protocol.Call(request, method, params):
                reply = self._answer(peer, request, method, params)
                if reply is not None:
                    self._send_client(peer, reply)
            case protocol.Bye():
                self._drop_session(peer)
            case _:
                assert_never(message)

    def _from_session(
        self,
        session: Session,
        message: protocol.Submit | protocol.Define | protocol.Undefine | protocol.Cancel,
        frames: list[Any],
        now: int,
    ) -> None:
        """What clients say about jobs, and workers about their children that run elsewhere."""
        match message:
            case protocol.Submit():
                buffers = protocol.split_buffers(
                    message.buffer_counts, len(message.payloads), frames
                )
                self.sched.submit(session, message, buffers, now)
            case protocol.Define(payload=payload):
                digest = blake2b(payload, digest_size=16).digest() if payload else b""
                self.sched.define(session, message, digest)
            case protocol.Undefine(fids):
                self.sched.undefine(session, fids)
            case protocol.Cancel(seqs):
                self.sched.cancel(session, seqs, now)
            case _:
                assert_never(message)

    def _greet_client(self, peer: bytes, message: protocol.Hello) -> None:
        try:
            protocol.agree(message)
        except ProtocolError as error:
            self.sched.tally.dropped["version"] += 1
            self._clients.send(peer, [protocol.pack(_refusal(str(error)))])
            return
        if len(self._sessions) >= self.config.limits.sessions:
            self.sched.tally.dropped["sessions"] += 1
            text = f"limits.sessions = {self.config.limits.sessions} clients are connected"
            self._clients.send(peer, [protocol.pack(_refusal(text))])
            return
        if peer not in self._sessions:
            name = str(message.info.get("name", ""))[:64]
            self._sessions[peer] = self.sched.open_session(peer, name)
        self._send_client(peer, self._welcome())

    def _welcome(self) -> protocol.Welcome:
        limits = self.config.limits
        info = {"procs": self.procs, "pid": os.getpid(), "version": gmpd.__version__}
        batch = min(limits.batch_jobs, protocol.BATCH_JOBS_MAX)
        return protocol.Welcome(
            protocol.VERSION, self.epoch, limits.client_window, batch, limits.value_bytes, info
        )

    def _client_left(self) -> None:
        """Some client's connection ended: an empty probe finds which ones cannot be reached."""
        if self._clients.take_disconnects():
            self._probe_at = time.monotonic_ns() + PROBE_AGAIN_NS
            self._probe_clients()

    def _find_lost_clients(self, now: int) -> None:
        if self._probe_at is not None and self._probe_at <= now:
            self._probe_at = None
            self._probe_clients()
        while self._lost_sessions and self._lost_sessions[0][0] <= now:
            self.sched.close_session(self._lost_sessions.popleft()[1], now)

    def _probe_clients(self) -> None:
        for peer in list(self._sessions):
            if not self._clients.send(peer, [protocol.pack(protocol.Running([]))]):
                self._lose_session(peer)

    def _lose_session(self, peer: bytes) -> None:
        """A client vanished without a word: its jobs go on for ``limits.client_grace``."""
        session = self._sessions.pop(peer, None)
        if session is not None:
            grace_ns = int(self.config.limits.client_grace * 1e9)
            self._lost_sessions.append((time.monotonic_ns() + grace_ns, session))

    def _drop_session(self, peer: bytes) -> None:
        session = self._sessions.pop(peer, None)
        if session is not None:
            self.sched.close_session(session, time.monotonic_ns())

    def _answer(
        self, peer: bytes, request: int, method: str, params: dict[str, Any]
    ) -> protocol.Reply | None:
        """The reply to a question; None when workers are to be heard first."""
        try:
            if method == "stacks" and self._ask_stacks(peer, request, params):
                return None
            value = {"ps": []} if method == "stacks" else self._call(method, params)
        except ConfigError as error:
            return protocol.Reply(request, False, str(error))
        return protocol.Reply(request, True, value)

    def _ask_stacks(self, peer: bytes, request: int, params: dict[str, Any]) -> bool:
        """Ask a P, or all of them, for its Gs; False when there is no such P."""
        p, limit = params.get("p"), params.get("limit", STACKS_GS)
        wait_s = params.get("wait_s", STACKS_WAIT_S)
        asked = [each for each in range(self.procs) if p in (None, each)]
        if type(limit) is not int or not 1 <= limit <= STACKS_GS_MAX:
            raise ConfigError(f"limit must be 1 to {STACKS_GS_MAX}, not {limit!r}")
        if type(wait_s) not in (int, float) or not 0 < wait_s <= STACKS_WAIT_S_MAX:
            raise ConfigError(f"wait_s must be more than 0, to {STACKS_WAIT_S_MAX}, not {wait_s!r}")
        if not asked:
            return False
        due_ns = time.monotonic_ns() + int(wait_s * 1e9)
        number = self._inquiries.open(peer, request, asked, due_ns)
        question = {"limit": limit, "nbytes": STACKS_BYTES // len(asked)}
        for each in asked:
            record = self.sched.ps.get(each)
            if record is not None:
                self._send_worker(record, protocol.Ask(number, "stacks", question))
        return True

    def _tell_inquirers(self, now: int) -> None:
        if self._inquiries:
            able = [p for p, record in self.sched.ps.items() if record.ready]
            for inquiry in self._inquiries.take(now, able):
                self._send_client(inquiry.peer, self._told(inquiry))

    def _told(self, inquiry: Inquiry) -> protocol.Reply:
        """What workers answered; of who did not, what its status says."""
        now = time.monotonic_ns()
        answers: list[dict[str, Any]] = []
        for p in sorted(inquiry.silent | inquiry.answers.keys()):
            answer = inquiry.answers.get(p)
            known = {"p": p, "answered": answer is not None, "status": p_status(self, p, now)}
            answers.append(known | (answer or {}))
        return protocol.Reply(inquiry.request, True, {"ps": answers})

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "ping":
                return {}
            case "snapshot" | "status":
                return snapshot(self)
            case "procs":
                n = params.get("n")
                if type(n) is not int or n < 1:
                    raise ConfigError(f"procs must be a whole number from 1 on, not {n!r}")
                check_procs(n)
                return {"procs": n, "before": self.resize(n)}
            case "drain":
                self.drain("asked to drain")
                return {}
            case "stop":
                self.drain("asked to stop")
                self._drain_until = time.monotonic_ns()
                return {}
            case _:
                known = "ping, status, stacks, procs, drain, stop"
                raise ConfigError(f"no such question: {method!r} (known: {known})")

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def dropped(self) -> Counter[str]:
        """All that was refused below and at the protocol."""
        counts = Counter(self.sched.tally.dropped)
        counts["bad_handshake"] += self._clients.bad_handshakes + self._workers.bad_handshakes
        counts["refused_peer"] += self._gate.refused
        return +counts

    # -- doing -------------------------------------------------------------------------------------

    def _do(self, what: do.Instruction) -> None:  # noqa: C901, PLR0915 - a case per instruction
        match what:
            case do.Deliver(session, out):
                counts, frames = protocol.join_buffers(out.buffers)
                self._add_pids(out.specials)
                done = protocol.Done(
                    out.seqs, out.payloads, out.ran_us, out.specials or None, counts
                )
                if session.parent is None:
                    self._send_client(session.link, done, frames)
                else:
                    self._send_worker(session.parent, done, frames)
            case do.Dispatch():
                self._dispatch(what)
            case do.Teach(p, fn):
                self._send_worker(p, protocol.Define(fn.fid, fn.kind, fn.name, fn.payload))
            case do.Forget(p, fids):
                self._send_worker(p, protocol.Undefine(fids))
            case do.AskChildren(p, n):
                self._send_worker(p, protocol.StealChildren(n))
            case do.Look(p):
                self._look(p)
            case do.Collect(p):
                self._collect(p)
            case do.Revoke():
                self._revoke(what)
            case do.CancelAt(p, tokens):
                self._send_worker(p, protocol.Cancel(tokens))
            case do.PullAt(p, token, n):
                self._send_worker(p, protocol.Pull(token, n))
            case do.Retire(p):
                self._send_worker(p, protocol.Stop(True))
            case do.StartIsolated(number):
                self._start_isolated(number)
            case do.Kill(p):
                if (child := self.supervisor.children.get(p.p)) is not None:
                    self.supervisor.kill(child)
            case do.Yielded(session, seq, payloads, buffers):
                counts, frames = protocol.join_buffers(buffers)
                self._send_client(session.link, protocol.Items(seq, payloads, counts), frames)
            case do.TellRunning(session, seqs):
                self._send_client(session.link, protocol.Running(seqs))
            case do.TellKept(session, seqs):
                self._send_client(session.link, protocol.Kept(seqs))
            case _:
                assert_never(what)

    def _dispatch(self, what: do.Dispatch) -> None:
        p, fn, options, first, payloads, buffers = what
        child = self._child(p)
        # From now on the worker may claim these, and they may be revoked.
        displaced = child.page.claims.offer(first, len(payloads)) if child is not None else []
        counts, frames = protocol.join_buffers(buffers)
        self._send_worker(p, protocol.Assign(fn.fid, first, options, payloads, counts), frames)
        if displaced:
            now = time.monotonic_ns()
            self.sched.revoked(do.Revoke(p, displaced, None, now), displaced, now)

    def _revoke(self, what: do.Revoke) -> None:
        child = self._child(what.p)
        got = child.page.claims.revoke(what.tokens) if child is not None else []
        self.sched.revoked(what, got, time.monotonic_ns())

    def _look(self, p: PRecord) -> None:
        """Whether a worker's run loop moves: by its page, nobody is asked."""
        now = time.monotonic_ns()
        child = self._child(p)
        moves, asleep = False, False
        if child is not None:
            slots = child.page.slots
            round_ = slots[Slot.ROUND]
            moves = round_ != child.seen_round or now - child.sent_ns < SILENT_NS
            child.seen_round = round_
            # One that sleeps is woken by what it is sent.
            asleep = bool(slots[Slot.ASLEEP_NS]) and round_ != child.sent_round
            if not (moves or asleep or child.called_deaf) and p.is_deaf_for(DEAF_SHOWN_NS, now):
                child.called_deaf = True
                log.warning("%s is deaf: %s", child, self._what_runs(p, child, now))
        self.sched.looked(p, moves=moves, asleep=asleep, now=now)

    def _what_runs(self, p: PRecord, child: Child, now: int) -> str:
        job = p.job(child.page.slots[Slot.CURRENT])
        if job is None:
            return "its run loop stands still, in no job"
        for_s = (now - child.page.slots[Slot.CURRENT_NS]) / 1e9
        return f"{job.fn.name} of {job.session.name!r} has kept it for {for_s:.2g} s"

    def _collect(self, p: PRecord) -> None:
        """Outcomes that a worker stored and then could not send."""
        child = self._child(p)
        held = p.fresh.keys() | p.started.keys()
        left = child.page.collect(held) if child is not None else []
        if left:
            buffers = [each.buffers for each in left]
            self.sched.collected(p, _as_message(left), buffers, time.monotonic_ns())

    def _child(self, p: PRecord) -> Child | None:
        """The process that houses this epoch of the P, while it is not confirmed dead."""
        child = self.supervisor.children.get(p.p)
        return child if child is not None and child.epoch == p.epoch else None

    def _add_pids(self, specials: dict[int, list[Any]]) -> None:
        for _, details in specials.values():
            child = self.supervisor.children.get(details.get("p", -1))
            if child is not None:
                details.setdefault("pid", child.process.pid)
            if details.get("p", -1) >= ISOLATED_FROM:  # a number that says nothing to a client
                del details["p"]
                details["isolated"] = True

    def _send_client(
        self, peer: bytes, message: protocol.ToClient, frames: Sequence[Any] = ()
    ) -> None:
        data = protocol.pack(message)
        self._count_out(message, data)
        if not self._clients.send(peer, [data, *frames]):
            self._lose_session(peer)

    def _send_worker(
        self, p: PRecord, message: protocol.ToWorker, frames: Sequence[Any] = ()
    ) -> None:
        for peer, child in self._children.items():
            if child.p == p.p and child.epoch == p.epoch:
                child.sent_round = child.page.slots[Slot.ROUND]
                child.sent_ns = time.monotonic_ns()
                self._tell_worker(peer, message, frames)
                return

    def _tell_worker(
        self, peer: bytes, message: protocol.ToWorker, frames: Sequence[Any] = ()
    ) -> None:
        data = protocol.pack(message)
        self._count_out(message, data)
        # One that cannot be reached is dying: its pidfd brings its leases back.
        self._workers.send(peer, [data, *frames])

    def _count_in(self, message: Any, frames: list[Any]) -> None:
        self.messages_in[type(message).__name__.lower()] += 1
        self.bytes_in += sum(len(frame) for frame in frames)

    def _count_out(self, message: Any, data: bytes) -> None:
        self.messages_out[type(message).__name__.lower()] += 1
        self.bytes_out += len(data)


def _as_message(left: list[Left]) -> protocol.Finished:
    specials: dict[int, list[Any]] = {
        i: [each.outcome, None] for i, each in enumerate(left) if each.outcome != Outcome.OK
    }
    return protocol.Finished(
        [each.token for each in left],
        [each.payload for each in left],
        [each.ran_us for each in left],
        [each.occupied_us for each in left],
        specials or None,
        None,
    )


def _refusal(reason: str) -> protocol.Refused:
    return protocol.Refused(protocol.VERSION_MIN, protocol.VERSION, reason)


def _policy(config: Config, procs: int) -> Policy:
    limits, dispatch = config.limits, config.dispatch
    return Policy(
        queue_jobs=limits.queue_jobs,
        queue_bytes=limits.queue_bytes,
        window=limits.client_window,
        credit_ns=int(dispatch.credit_work * 1e9),
        credit_max=dispatch.credit_max,
        started_max=limits.max_gs,
        isolated=limits.isolated or procs,
        isolated_spares=dispatch.isolated_spares,
        seed=int.from_bytes(os.urandom(4), "big"),
    )


def _restart_policy(config: Config) -> RestartPolicy:
    restart = config.restart
    return RestartPolicy(
        backoff_min_ns=int(restart.backoff_min * 1e9),
        backoff_max_ns=int(restart.backoff_max * 1e9),
        storm_deaths=restart.storm_deaths,
        storm_ns=int(restart.storm_window * 1e9),
    )


def _nothing() -> None:
    pass


def _no_tick(_now_ns: int) -> None:
    pass
