"""The coordinator: one loop that reads messages, asks the policy, and executes its decisions.

All decisions are in ``sched.schedt``, all use of ZeroMQ in ``netpoll``. The sides of the daemon are
``clients`` and ``workers``; ``pool`` has the worker processes, and ``effects`` executes
instructions. This module wires them, and has the loop and its end.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gmpd import protocol, rundir
from gmpd.allocator import Trimming, give_back
from gmpd.config import Config
from gmpd.daemon.admin import AdminApi
from gmpd.daemon.clients import Clients
from gmpd.daemon.connection_limit import ConnectionLimit, most_connections
from gmpd.daemon.cron import CronJobs
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.effects import Effects
from gmpd.daemon.failures import FailureLog
from gmpd.daemon.faults import Faults
from gmpd.daemon.gateway import NO_PAGE, TellPage
from gmpd.daemon.hosts import Hosts
from gmpd.daemon.job_views import JobViews
from gmpd.daemon.kept_failures import KeptFailures
from gmpd.daemon.network_clients import AllowList, NetworkClients
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.premises import Premises
from gmpd.daemon.reaper import Reaper
from gmpd.daemon.recycling import Told
from gmpd.daemon.supervisor import SpawnContext, Supervisor, WorkerProcess
from gmpd.daemon.trace_dumps import TraceDumps
from gmpd.daemon.traffic import Traffic
from gmpd.daemon.workers import Workers
from gmpd.keys import KeyDirectory
from gmpd.netpoll import Lane, Network, NetworkRouter, Poller, Router, ZapHandler
from gmpd.runtime.ring import SEARCH, TURN, Kind, Ring
from gmpd.sched import instructions as do
from gmpd.sched.events import Draining, TurnEnded
from gmpd.sched.histogram import Histogram
from gmpd.sched.leavers import p_of
from gmpd.sched.records import Failure, Policy, PRecord, Session, earliest
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: After the last outcome was sent, clients get this long to read it before sockets close (s).
FAREWELL_S = 0.5

#: Functions of lost jobs that are named.
LOST_NAMED = 5

#: How long a worker may take to end after Stop before it is killed (s).
STOP_S = 2.0
#: And how long the kernel may take to end one that was killed, before the daemon ends without it: a
#: process that waits for a lost disk or file server, or that is being traced, may stay for ever.
KILL_S = 8.0

_TURN_ENDED = TurnEnded()

PRIVATE_STORES_NOTHING = (
    "this daemon belongs to one program and ends with it, so it keeps no durable jobs: start one"
    " with `gmpd up`"
)


class Coordinator:
    """One daemon. ``run`` serves until it has stopped; everything happens on its thread."""

    def __init__(
        self,
        config: Config,
        endpoints: dict[str, str],
        context: SpawnContext,
        procs: int,
        *,
        private: bool = False,
    ) -> None:
        self.config = config
        self._private = private
        #: Rises with every boot; nothing outlives a boot yet.
        self.epoch = time.time_ns() // 1_000_000
        self.started_at = time.time()
        self.loop_lag = Histogram()
        #: The last events.
        self.ring = Ring() if config.trace.enabled else None
        self.traffic = Traffic()
        self._failure_log = FailureLog()
        self.failures = KeptFailures()
        self._trimming = Trimming()
        #: Called with the time (ns) on every turn of the loop, at least every ``tick_s`` seconds.
        self.on_tick: Callable[[int], None] | None = None
        self.tick_s: float | None = None
        self._drain_until: int | None = None
        self._kill_at: int | None = None
        self._leave_at = 0
        self._ended = False
        self._reason = "the daemon was stopped"
        #: Why it could not come up; empty when it did.
        self.failure = ""
        self._poller = Poller()
        self.deadlines = Deadlines()
        self.sched = Sched(_policy(config, procs))
        #: The guard of its directory, once there is one.
        self.premises: Premises | None = None
        self.reaper = Reaper()  # a fork: while this process has but one thread
        self.supervisor = Supervisor(config, context, procs, self.reaper)
        self.pool = WorkerPool(
            config, self.sched, self.supervisor, self._started, self._broken, self.deadlines
        )
        #: Begins a reload; one that knows more than the workers takes its place.
        self.reload: Callable[[str, Told | None], int] = self.replace_workers
        #: Tells where the gateway serves, now or later.
        self.ask_page: Callable[[TellPage], object] = lambda tell: tell(None, NO_PAGE)
        self.pool.start_some()  # they take longest: before anything else
        self._open(endpoints)
        self._watch_links()

    def _open(self, endpoints: dict[str, str]) -> None:
        limit = self.config.limits.value_bytes + protocol.ENVELOPE_SLACK
        self._network = Network()
        self._zap = ZapHandler(self._network)
        of_clients, of_workers = most_connections(self.config.limits.sessions)
        self._client_link = Router(
            self._network,
            endpoints["client"],
            value_bytes=limit,
            connections_max=of_clients,
            messages_max=self.config.limits.client_messages,
        )
        self._worker_link = Router(
            self._network, endpoints["worker"], value_bytes=limit, connections_max=of_workers
        )
        #: For clients of other machines.
        self._network_link: Router | None = None
        self._admin = AdminApi(self)
        self._faults = Faults(self.sched)
        self.clients = Clients(
            self.config,
            self.epoch,
            self.sched,
            self._client_link,
            self.traffic,
            lambda: self.procs,
            self._admin.answer,
            self._faults,
            self.deadlines,
        )
        self.clients.awaits_starter = self._private
        self.durable = self.clients.durable = self._durable_jobs()
        self.workers = Workers(
            self.sched,
            self.pool,
            self._worker_link,
            self._admin.worker_answered,
            self.traffic,
            self.clients.welcome,
            self._faults,
        )
        self.dumps = TraceDumps(self._admin.trace, self.config)
        if self.ring is not None:
            self.pool.on_end = self._admin.past_rings.add
        self.workers.on_finished = self._finished
        self.clients.on_left = self.workers.unlend
        self.hosts = self._hosts()
        self.cron = self._periodic_jobs()
        self.pool.recycling.on_renewed = self.durable.retry_blocked
        self._effects = Effects(
            self.config, self.sched, self.pool, self.workers, self.clients, self.durable
        )
        self._effects.ring = self.ring

    def _watch_links(self) -> None:
        self._poller.add(self._zap.answer, self._zap)
        self._poller.add(self.clients.receive, self._client_link)
        self._poller.add(self.workers.receive, self._worker_link)
        for side, link in ((self.clients, self._client_link), (self.workers, self._worker_link)):
            link.watch_lane = partial(self._watch_lane, side)
            link.unwatch_lane = self._unwatch_lane
        self._watch_connections(self._client_link, "clients", self.clients.someone_left)
        self._watch_connections(self._worker_link, "workers", self.workers.take_disconnects)

    def _hosts(self) -> Hosts:
        hosts = Hosts(
            self.config,
            self.sched,
            self.pool,
            self.supervisor.processes.get,
            self.watch,
            self.unwatch,
            self.deadlines,
            self.supervisor.context.lends,
        )
        self.pool.on_bridge, self.pool.on_bridge_end = hosts.serves, hosts.ended
        hosts.on_serves = self.durable.has_hosts
        self.pool.on_bridge_severed, self.workers.on_leaves = hosts.severed, hosts.leaves
        return hosts

    def _watch_lane(self, side: Clients | Workers, lane: Lane) -> None:
        self._poller.add(partial(side.receive_lane, lane), lane.fd)

    def _unwatch_lane(self, lane: Lane) -> None:
        self._poller.remove(lane.fd)

    def _durable_jobs(self) -> DurableJobs:
        return DurableJobs(
            PRIVATE_STORES_NOTHING if self._private else Path(self.config.daemon.state_dir),
            self.sched,
            self.clients.send,
            self.watch,
            self.deadlines,
            JobViews(self.sched, self._pid_of),
            self._have_failed,
            partial(self._broken, code=protocol.Ending.STOPPED),
        )

    def _periodic_jobs(self) -> CronJobs:
        return CronJobs(
            self.config.cron,
            self.workers.registry,
            self.durable,
            self.clients.send,
            self.deadlines,
            private=self._private,
        )

    def _watch_connections(self, link: Router, whose: str, left: Callable[[], None]) -> None:
        assert link.monitor is not None  # it counts its connections
        connection_limit = ConnectionLimit(link, whose, self.deadlines)
        self._poller.add(partial(_connections_changed, left, connection_limit), link.monitor.fd)

    def listen_on_network(self) -> str:
        """Take clients of other machines, as ``[tcp]`` says; the address.

        Raises ConfigError when the keys are missing or cannot be trusted.
        """
        tcp = self.config.tcp
        directory = KeyDirectory(tcp.keys)
        secret = directory.server_secret()
        allowed = AllowList(directory)
        allowed.look()
        router = NetworkRouter(
            self._network,
            f"tcp://{tcp.listen}",
            value_bytes=min(tcp.value_bytes, self.config.limits.value_bytes)
            + protocol.ENVELOPE_SLACK,
            connections_max=tcp.connections,
            messages_max=self.config.limits.client_messages,
            secret=secret,
        )
        self._network_link = router
        self._zap.admit = allowed.admit
        self.clients.network = NetworkClients(
            router,
            allowed,
            self.deadlines,
            self.clients.revoked,
            tcp.value_bytes,
            self.workers.registry,
        )
        if not self.config.daemon.imports:
            self.workers.registry.reported(protocol.Info(declared=[]))
        self._poller.add(self.clients.receive_network, router)
        self._watch_connections(router, "clients of other machines", self.clients.someone_left)
        return router.endpoint

    def _pid_of(self, p: int) -> int | None:
        worker = self.supervisor.processes.get(p)
        return None if worker is None else worker.process.pid

    def live_in(self, lock: rundir.Lock, publish: Callable[[], bool]) -> None:
        """Watch the place where it lives; ``publish`` writes its record there again."""
        routers = self._client_link, self._worker_link
        self.premises = Premises(lock, routers, publish, self._displaced, self.deadlines)
        self.pool.obstacle = self.premises.look

    def _displaced(self, why: str) -> None:
        log.error("%s; this daemon (pid %d) finishes its running jobs and ends", why, os.getpid())
        self.drain(why)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` when a descriptor is readable: signals, the starter's pipe."""
        self._poller.add(callback, fd)

    def unwatch(self, fd: int) -> None:
        self._poller.remove(fd)

    @property
    def procs(self) -> int:
        """How many Ps there are, or are to be."""
        return self.pool.procs

    @property
    def dropped(self) -> Counter[str]:
        """All that was refused below and at the protocol."""
        counts = Counter(self.sched.counters.dropped)
        counts["bad_handshake"] += self._client_link.bad_handshakes
        counts["bad_handshake"] += self._worker_link.bad_handshakes
        if self._network_link is not None:
            counts["bad_handshake"] += self._network_link.bad_handshakes
        counts["refused_peer"] += self._zap.refused
        return +counts

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
                if self.clients.answer_awaiting():
                    self._decide()
                if failures := self.sched.take_failures():
                    self._have_failed(failures)
                if self._trimming.look(self.traffic.bytes_in, began):
                    give_back()
                now = time.monotonic_ns()
                self.loop_lag.add(now - began)
                if self.ring is not None and self.ring.takes_turn(began, now):
                    self._record_turn(self.ring, began, now)
                if self._effects.searching_ns and not self.sched.stealing:
                    self._searched(now)
                if self.on_tick is not None:
                    self.on_tick(now)
        finally:
            self._close()

    def _have_failed(self, failures: Sequence[Failure]) -> None:
        """Attempts did not end well: the log names them, and the last ones are kept."""
        self._failure_log.tell(failures, time.monotonic_ns())
        self.failures.add(failures, time.time())

    def _finished(self, p: PRecord, tokens: list[int], ran_us: list[int], now: int) -> None:
        """Jobs of a P have ended: long ones, or any while the live page watches."""
        timelines = self._admin.timelines
        self.dumps.finished(p, tokens, ran_us, now)
        timelines.finished(p, tokens, ran_us, now)
        self.workers.noticed_us = min(self.dumps.least_us, timelines.least_us(now))

    def _record_turn(self, ring: Ring, began: int, ended: int) -> None:
        ring.add((TURN | len(self.sched.queue) << 8, began, ended, self.sched.unfinished))
        ring.settle(ended)

    def _searched(self, now: int) -> None:
        """The Ps that were asked for children have answered."""
        if self.ring is not None:
            self.ring.add((SEARCH, self._effects.searching_ns, now, 0))
        self._effects.searching_ns = 0

    def _decide(self) -> None:
        """Execute the policy's instructions, until executing them makes no new events."""
        decided = False
        while not decided:
            for instruction in self.sched.handle(_TURN_ENDED, time.monotonic_ns()):
                try:
                    self._effects.execute(instruction)
                except Exception as error:  # noqa: BLE001 - a bug: see daemon.faults
                    self._failed(instruction, error)
            decided = not self.sched.has_news

    def _failed(self, instruction: do.Instruction, error: Exception) -> None:
        """The peer that an instruction was for is disconnected; without one there is no way on."""
        doing = type(instruction).__name__
        session = getattr(instruction, "session", None)
        record = getattr(instruction, "p", None)
        if isinstance(session, Session):
            record = session.parent
        if isinstance(record, PRecord) and (worker := self.supervisor.processes.get(record.p)):
            self._faults.failed(str(worker), f"{doing} for {worker}", error)
            self.supervisor.kill(worker)
        elif isinstance(session, Session):
            whose = f"client {session.name!r}"
            self._faults.failed(whose, f"{doing} for {whose}", error)
            self.clients.disconnect(session.link)
        else:
            raise error

    def _due(self, now: int) -> None:
        """Run due deadlines, and work that was deferred to the end of the turn."""
        self.deadlines.run(now)
        if self._drain_until is not None:
            is_done = not (self.sched.unfinished or self.durable.is_storing)
            if is_done or now >= self._drain_until:
                self.stop(self._reason)
        if self._kill_at is not None:
            if now >= self._kill_at:
                self.pool.kill_all()
                self._kill_at = now + int(STOP_S * 1e9)
            waits = self.supervisor.processes or self.clients.awaits_starter
            self._ended = not waits or now >= self._leave_at

    def _timeout_s(self) -> float | None:
        due = earliest(
            self.sched.next_deadline(),
            self.deadlines.next(),
            self._trimming.next_due,
            self._drain_until,
            self._kill_at,
        )
        if due is None:
            return self.tick_s
        left_s = max(0, due - time.monotonic_ns()) / 1e9
        return left_s if self.tick_s is None else min(left_s, self.tick_s)

    # -- workers start and end ---------------------------------------------------------------------

    def _started(self, worker: WorkerProcess) -> None:
        self._poller.add(lambda: self._died(worker), worker.pidfd)

    def _broken(self, why: str, code: protocol.Ending) -> None:
        """It cannot come up."""
        self.failure = why
        self.stop(why, code)

    def _died(self, worker: WorkerProcess) -> None:
        """The kernel says that a worker ended."""
        self._poller.remove(worker.pidfd)
        if self.ring is not None:
            died = Kind.DIED | p_of(worker.p) << 8
            self.ring.add((died, time.monotonic_ns(), 0, worker.epoch))
        self.workers.gone(worker)
        self.pool.on_exit(worker)
        self._admin.worker_died()

    # -- the end -----------------------------------------------------------------------------------

    def drain(self, reason: str, *, at_once: bool = False) -> None:
        """Take no more jobs; end when all are done, or after ``daemon.drain_timeout``."""
        if self._kill_at is not None:
            return
        if self._drain_until is None:
            log.info("draining: %s", reason)
            self.pool.recycling.stop()
            self.sched.handle(Draining(), time.monotonic_ns())
            self.cron.drain()
            self.durable.drain()
            self._reason = reason
            self._drain_until = time.monotonic_ns() + int(self.config.daemon.drain_timeout * 1e9)
        if at_once:
            self._drain_until = time.monotonic_ns()

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self._drain_until is not None or self._kill_at is not None

    def configure(self, config: Config) -> None:
        """Use settings of which live keys have changed (``config.live``)."""
        self.config = config
        self.supervisor.config = config
        self.pool.configure(config)
        self._effects.configure(config)
        self.dumps.configure(config)
        self.workers.noticed_us = 0  # the next message sets it anew
        logging.getLogger().setLevel(config.daemon.log_level.upper())

    def resize(self, procs: int) -> int:
        """Have another number of Ps; gives the number before."""
        return self.pool.resize(procs)

    def replace_workers(self, why: str, told: Told | None = None) -> int:
        """Replace every worker by one that starts now, one at a time; how many they are."""
        return self.pool.recycling.reload(why, told)

    def stop(self, reason: str, code: protocol.Ending = protocol.Ending.STOPPED) -> None:
        """End now: outcomes that exist are sent, everything else is lost and said to be."""
        if self._kill_at is not None:
            return
        log.info("stopping: %s", reason)
        self.cron.drain()
        self.hosts.stop()
        self.sched.handle(Draining(), time.monotonic_ns())
        self.pool.stop()
        self._decide()
        while self.sched.delivers:
            self._decide()
        self._tell_lost()
        self.clients.farewell(reason, code)
        self.workers.stop()
        self.pool.kill_unready()
        self._drain_until = None  # it was due, and would have the loop turn without a rest
        self._kill_at = time.monotonic_ns() + int(STOP_S * 1e9)
        self._leave_at = self._kill_at + int(KILL_S * 1e9)

    def _tell_lost(self) -> None:
        """Jobs that are not finished, and will not be: to the log, and to the command that ended
        it."""
        held = [
            job.fn.name
            for record in self.sched.records()
            for job in (*record.started.values(), *record.fresh.values())
        ]
        functions = list(dict.fromkeys(held))[:LOST_NAMED]
        if lost := self.sched.unfinished - self.durable.unfinished:
            named = f", running: {', '.join(functions)}" if functions else ""
            log.warning("%d jobs are lost: they had not finished%s", lost, named)
        self._admin.ending(lost, functions)

    @property
    def is_displaced(self) -> bool:
        """Whether another daemon lives in its place."""
        return self.premises is not None and self.premises.is_lost

    def _close(self) -> None:
        if not self.pool.hosts_run_on:
            self.durable.has_no_hosts()
        self.durable.close()
        self.pool.close()
        self.reaper.close()
        if self.is_displaced:
            # libzmq removes the files of its sockets by their names, which are another daemon's
            # now: it stays open, and ends with this process.
            time.sleep(FAREWELL_S)
            return
        self._zap.close()
        self._client_link.close(int(FAREWELL_S * 1000))
        self._worker_link.close()
        if self._network_link is not None:
            self._network_link.close(int(FAREWELL_S * 1000))
        self._network.close_gently(int(FAREWELL_S * 1000))
        self._poller.close()


def _policy(config: Config, procs: int) -> Policy:
    limits, dispatch = config.limits, config.dispatch
    return Policy(
        queue_jobs=limits.queue_jobs,
        queue_bytes=limits.queue_bytes,
        outbox_bytes=limits.client_results // 4,
        results_bytes=limits.client_results,
        window=limits.client_window,
        credit_ns=int(dispatch.credit_work * 1e9),
        credit_max=dispatch.credit_max,
        started_max=limits.max_gs,
        isolated=limits.isolated or procs,
        job_output=limits.job_output,
        output=limits.output,
        isolated_spares=dispatch.isolated_spares,
        grace_ns=int(config.restart.grace * 1e9),
        seed=int.from_bytes(os.urandom(4), "big"),
    )


def _connections_changed(left: Callable[[], None], limit: ConnectionLimit) -> None:
    """The monitor reports: connections ended, or their limit was reached or left."""
    left()
    limit.look()
