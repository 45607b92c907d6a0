"""The workers' side of the coordinator: messages from, to and between workers.

It knows the connections of live workers. Other modules report their deaths to it; it knows nothing
else of processes, and never unpacks a user's value.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import msgspec

from gmpd import protocol, versions
from gmpd.daemon import job_messages
from gmpd.daemon.faults import Faults
from gmpd.daemon.logs import RateLimitedLog
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.registry import Registry
from gmpd.daemon.supervisor import WorkerProcess
from gmpd.daemon.traffic import BYTES_PER_TURN, Traffic
from gmpd.errors import ProtocolError
from gmpd.netpoll import Lane, Router
from gmpd.sched import events
from gmpd.sched.leavers import p_of
from gmpd.sched.records import PRecord
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: Lanes of clients that a worker is lent: each is a descriptor more of a process whose jobs need
#: some.
LENT_MAX = 16

#: As ``clients.MESSAGES_PER_TURN``.
MESSAGES_PER_TURN = 64


class Workers:
    """Every worker that said Hello, by the routing id of its connection.

    ``welcome`` gives the answer to a Hello; ``answered`` takes the number of an administrative
    question, the P and epoch of a worker, and its answer.
    """

    def __init__(
        self,
        sched: Sched,
        pool: WorkerPool,
        router: Router,
        answered: Callable[[int, tuple[int, int], Any], None],
        traffic: Traffic,
        welcome: Callable[[], protocol.Welcome],
        faults: Faults,
    ) -> None:
        self._sched = sched
        self._pool = pool
        self._router = router
        self._answered = answered
        self._traffic = traffic
        self._welcome = welcome
        self._faults = faults
        self._processes: dict[bytes, WorkerProcess] = {}
        #: Under ``gmpd serve --watch``: called with the files of modules that workers imported.
        self.on_imported: Callable[[list[str]], None] = _nothing
        #: Called with jobs that ended, before the policy hears of them: P, tokens, times (us), now;
        #: if one of them ran for ``noticed_us`` or longer.
        self.on_finished: Callable[[PRecord, list[int], list[int], int], None] = _unwatched
        self.noticed_us = 0
        #: Called with a bridge whose host says that it is about to end, and why.
        self.on_leaves: Callable[[WorkerProcess, str], None] = _unasked
        self.registry = Registry()
        self._warn_dropped = RateLimitedLog(log.warning)

    # -- they speak --------------------------------------------------------------------------------

    def receive(self) -> bool:
        """Take a turn's worth of messages; whether there may be more."""
        traffic = self._traffic
        enough = traffic.bytes_in + BYTES_PER_TURN
        for n in range(MESSAGES_PER_TURN):
            if traffic.bytes_in >= enough:
                return True
            received = self._router.recv(expected=not n)
            if received is None:
                return False
            self._take(*received)
        return True

    def receive_lane(self, lane: Lane) -> bool:
        """Take a turn's worth of messages that have come over a lane; whether there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            received = self._router.recv_lane(lane)
            if received is None:
                return False
            self._take(*received)
        return True

    def _take(self, peer: bytes, frames: list[Any]) -> None:
        try:
            message = protocol.unpack(frames[0], protocol.FROM_WORKER, len(frames) - 1)
            self._traffic.count_in(message, frames)
            self._heard(peer, message, frames[1:])
        except ProtocolError as error:
            self._sched.counters.dropped["bad_worker_message"] += 1
            self._warn_dropped(time.monotonic_ns(), "dropped a message of a worker: %s", error)
            self._replace(peer, str(error))
        except Exception as error:  # noqa: BLE001 - a bug: see daemon.faults
            worker = self._processes.get(peer)
            whose = "an unknown worker" if worker is None else str(worker)
            self._faults.failed(whose, f"a message of {whose}", error)
            self._replace(peer, f"{type(error).__name__}: {error}")

    def _replace(self, peer: bytes, why: str) -> None:
        """End a worker one of whose messages was not handled: its outcomes may be lost, and their
        jobs would never end."""
        worker = self._processes.get(peer)
        if worker is not None and not worker.expected:  # else it is ending already
            log.error("%s is replaced: one of its messages was not handled: %s", worker, why)
            self._pool.supervisor.kill(worker)

    def _heard(  # noqa: C901, PLR0915 - a case per message
        self, peer: bytes, message: protocol.FromWorker, frames: list[Any]
    ) -> None:
        worker = self._processes.get(peer)
        record = None
        if worker is not None:
            worker.heard()
            record = self._sched.record(worker.p)
        if worker is None or record is None:
            self._heard_without_p(peer, worker, message)
            return
        p, epoch, now = worker.p, worker.epoch, time.monotonic_ns()
        handle = self._sched.handle
        match message:
            case protocol.Finished():
                self._finished(worker, record, message, frames, now)
            case protocol.Started(tokens):
                handle(events.Started(p, epoch, tokens), now)
            case protocol.Aside(tokens):
                handle(events.SetAside(p, epoch, tokens), now)
            case protocol.Returned(tokens):
                handle(events.Returned(p, epoch, tokens), now)
            case protocol.Leaves(reason):
                self.on_leaves(worker, reason)
            case protocol.Withheld(tokens, nbytes):
                handle(events.Withheld(p, epoch, tokens, nbytes), now)
            case protocol.Unfit(reason, wear):
                handle(events.Heard(p, epoch), now)
                self._pool.recycling.worn(worker, wear, reason, now)
            case protocol.Imported(paths):
                self.on_imported(paths)
            case protocol.Expired(tokens):
                handle(events.Expired(p, epoch, tokens), now)
            case protocol.Output():
                handle(events.Printed(p, epoch, message), now)
            case protocol.Progress():
                handle(events.Progressed(p, epoch, message), now)
            case protocol.Kept(tokens):
                handle(events.NotCancelled(p, epoch, tokens), now)
            case protocol.Answer(request, value):
                handle(events.Heard(p, epoch), now)
                self._answered(request, (p_of(p), epoch), value)
            case protocol.Children(n, asked):
                handle(events.ChildrenCounted(p, epoch, n, asked), now)
            case protocol.Route():
                handle(events.Heard(p, epoch), now)
                self._route(worker, message, frames)
            case protocol.Define() | protocol.Undefine() | protocol.Submit() | protocol.Cancel():
                handle(events.ParentOpened(p, epoch), now)
                assert record.session is not None  # else that was refused
                job_messages.apply(self._sched, record.session, message, frames, now)
            case protocol.Items(job, payloads, counts):
                buffers = protocol.split_buffers(counts, len(payloads), frames)
                handle(events.ItemsYielded(p, epoch, job, payloads, buffers), now)
            case protocol.Hello() | protocol.Fault():
                self._heard_without_p(peer, worker, message)
            case protocol.Bye() | protocol.RingTail():
                _takes_leave(worker, message)
            case _:
                assert_never(message)

    def _finished(
        self, worker: WorkerProcess, record: PRecord, message: protocol.Finished,
        frames: list[Any], now: int,
    ) -> None:  # fmt: skip
        tokens = message.tokens
        if max(message.ran_us, default=0) >= self.noticed_us:
            self.on_finished(record, tokens, message.ran_us, now)
        worker.finished += len(tokens)
        if worker.finished >= worker.recycle_at:
            self._pool.recycling.used_up(worker)
        buffers = protocol.split_buffers(message.buffer_counts, len(tokens), frames)
        self._sched.handle(events.Finished(worker.p, worker.epoch, message, buffers), now)
        worker.shm.acknowledge(worker.finished)

    def _heard_without_p(
        self, peer: bytes, worker: WorkerProcess | None, message: protocol.FromWorker
    ) -> None:
        """A message that is about no P, or of a worker that has none (yet)."""
        if isinstance(message, protocol.Hello):
            self._greet(peer, message)
        elif worker is not None and isinstance(message, protocol.Fault):
            self._send(worker, protocol.Stop(False))  # it waits for that
            self._pool.faulted(worker, message)
        else:
            self._sched.counters.dropped["unknown_worker"] += 1

    def _greet(self, peer: bytes, message: protocol.Hello) -> None:
        info = message.info
        worker = None
        if info.p is not None and info.epoch is not None:
            worker = self._pool.supervisor.worker_of(info.p, info.epoch)
        if worker is None or not secrets.compare_digest(info.secret, worker.secret):
            raise ProtocolError("a Hello for a worker, without the secret of that worker")
        if why := _changed(message):
            log.error("%s cannot serve: %s", worker, why)
            worker.fault = why
            self._pool.supervisor.kill(worker)
            return
        serves = info.serves
        self.registry.reported(info)
        if not serves:
            pass  # it is only here to say why
        elif worker.isolated:
            self._sched.handle(events.IsolatedReady(worker.p), time.monotonic_ns())
        else:
            now = time.monotonic_ns()
            if worker.p < 0:
                self._pool.recycling.promote(worker, now)
            host = worker.host
            cores, name = (1, "") if host is None else (host.cores, host.name)
            self._sched.handle(events.WorkerReady(worker.p, worker.epoch, cores, name), now)
        worker.peer = peer
        self._processes[peer] = worker
        self._router.identified()
        worker.heard()
        welcome = self._welcome()
        if info.lane:
            info_back = msgspec.structs.replace(
                welcome.info, lane=self._router.open_lane(info.lane)
            )
            welcome = msgspec.structs.replace(welcome, info=info_back)
        self._send(worker, welcome)
        if serves:
            self._pool.ready(worker)

    def _route(self, worker: WorkerProcess, message: protocol.Route, frames: Sequence[Any]) -> None:
        """Pass a message on; its sender learns it if the worker that it is for is gone."""
        to = self._pool.supervisor.worker_of(message.p, message.epoch)
        if to is not None and to.peer in self._processes:
            source = msgspec.structs.replace(message, p=worker.of_p, epoch=worker.epoch)
            self._send(to, source, frames)
        else:
            self._send(worker, protocol.Lost(message.p, message.epoch))

    # -- they are told -----------------------------------------------------------------------------

    def tell(self, p: PRecord, message: protocol.ToWorker, frames: Sequence[Any] = ()) -> None:
        """Send to the worker that houses this epoch of a P; nothing when that is gone."""
        worker = self._pool.supervisor.worker_of(p.p, p.epoch)
        if worker is not None and worker.peer in self._processes:
            self._send(worker, message, frames)

    def _send(
        self, worker: WorkerProcess, message: protocol.ToWorker, frames: Sequence[Any] = ()
    ) -> None:
        data = protocol.pack(message)
        self._traffic.count_out(message, len(data))
        # One that cannot be reached is dying: its pidfd brings its leases back.
        if self._router.send(worker.peer, [data, *frames]):
            worker.watch.wrote(time.monotonic_ns())

    def lend(self, worker: WorkerProcess, client: int, lane: Lane | None) -> bool:
        """Whether a worker may send over the lane of a client; it is lent now, if need be."""
        if client in worker.lent:
            return True
        if lane is None or len(worker.lent) >= LENT_MAX or worker.peer not in self._processes:
            return False
        message = protocol.Lend(client)
        data = protocol.pack(message)
        if not self._router.lend(worker.peer, data, lane):
            return False
        worker.lent.add(client)
        self._traffic.count_out(message, len(data))
        worker.watch.wrote(time.monotonic_ns())
        return True

    def unlend(self, client: int) -> None:
        """A client has gone: the workers close their ends of its lane."""
        for worker in self._processes.values():
            if client in worker.lent:
                worker.lent.discard(client)
                self._send(worker, protocol.Unlend(client))

    def stop(self) -> None:
        """All of them end now; their unsent outcomes are lost."""
        for worker in self._processes.values():
            worker.expected = True
            self._send(worker, protocol.Stop(False))

    # -- they end ----------------------------------------------------------------------------------

    def gone(self, worker: WorkerProcess) -> None:
        """It has died: read the messages that it sent before the outcomes in its shared memory."""
        while self.receive():
            pass
        if (lane := self._router.lane_of(worker.peer)) is not None:
            while self.receive_lane(lane):
                pass
            self._router.drop_lane(worker.peer)
        self._processes.pop(worker.peer, None)
        for other in self._processes.values():
            self._send(other, protocol.Lost(worker.of_p, worker.epoch))

    def take_disconnects(self) -> None:
        """Ends of connections say nothing here: a death is told by the kernel."""
        self._router.take_disconnects()


def _unwatched(_p: PRecord, _tokens: list[int], _ran_us: list[int], _now: int) -> None:
    pass


def _takes_leave(worker: WorkerProcess, message: protocol.Bye | protocol.RingTail) -> None:
    match message:
        case protocol.Bye():
            worker.expected = True
        case protocol.RingTail(ring):
            worker.ring_tail = ring
        case _:
            assert_never(message)


def _unasked(_worker: WorkerProcess, _reason: str) -> None:
    pass


def _nothing(_paths: list[str]) -> None:
    pass


def _changed(message: protocol.Hello) -> str:
    """Why a worker does not fit this daemon, which started it; "" if it does."""
    try:
        protocol.agree(message)
    except ProtocolError as error:
        why = str(error)
    else:
        why = versions.conflict(msgspec.structs.asdict(message.info), "the new worker")
    if not why:
        return ""
    return f"{why}: what is installed has changed since the daemon began, restart the daemon"
