"""The workers' side of the coordinator: what they say, are told, and write to one another.

It knows the connections of live workers. That one has died it learns from others, and that is all
it knows of processes; it never unpacks a user's value.
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
from gmpd.daemon.fanout import Fanout
from gmpd.daemon.faults import Faults
from gmpd.daemon.logs import Seldom
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.supervisor import Child
from gmpd.daemon.traffic import Traffic
from gmpd.errors import ProtocolError
from gmpd.netpoll import Router
from gmpd.sched import events
from gmpd.sched.records import PRecord
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: As ``clients.MESSAGES_PER_TURN``.
MESSAGES_PER_TURN = 64


class Workers:
    """Every worker that said Hello, by the routing id of its connection.

    ``welcome`` gives the answer to a Hello.
    """

    def __init__(
        self,
        sched: Sched,
        pool: WorkerPool,
        router: Router,
        fanout: Fanout,
        traffic: Traffic,
        welcome: Callable[[], protocol.Welcome],
        faults: Faults,
    ) -> None:
        self._sched = sched
        self._pool = pool
        self._router = router
        self._fanout = fanout
        self._traffic = traffic
        self._welcome = welcome
        self._faults = faults
        self._children: dict[bytes, Child] = {}
        self._warn_dropped = Seldom(log.warning)

    # -- they speak --------------------------------------------------------------------------------

    def receive(self) -> bool:
        """Take a turn's worth of messages; whether there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            received = self._router.recv()
            if received is None:
                return False
            peer, frames = received
            try:
                message = protocol.unpack(frames[0], protocol.FROM_WORKER, len(frames) - 1)
                self._traffic.count_in(message, frames)
                self._heard(peer, message, frames[1:])
            except ProtocolError as error:
                self._sched.tally.dropped["bad_worker_message"] += 1
                self._warn_dropped(time.monotonic_ns(), "dropped a message of a worker: %s", error)
                self._replace(peer, str(error))
            except Exception as error:  # noqa: BLE001 - a bug: see daemon.faults
                child = self._children.get(peer)
                whose = "an unknown worker" if child is None else str(child)
                self._faults.failed(whose, f"a message of {whose}", error)
                self._replace(peer, f"{type(error).__name__}: {error}")
        return True

    def _replace(self, peer: bytes, why: str) -> None:
        """End a worker one of whose messages was not handled: what it said of its jobs is unknown,
        and they would be waited for in vain."""
        child = self._children.get(peer)
        if child is not None and not child.expected:  # else it is ending already
            log.error("%s is replaced: one of its messages was not handled: %s", child, why)
            self._pool.supervisor.kill(child)

    def _heard(  # noqa: C901, PLR0915 - a case per message
        self, peer: bytes, message: protocol.FromWorker, frames: list[Any]
    ) -> None:
        child = self._children.get(peer)
        if isinstance(message, protocol.Hello):
            self._greet(peer, message)
            return
        if child is not None and isinstance(message, protocol.Fault):
            self._router.send(peer, [protocol.pack(protocol.Stop(False))])  # it waits for that
            self._pool.faulted(child, message)
            return
        record = self._sched.record(child.p) if child is not None else None
        if child is None or record is None:
            self._sched.tally.dropped["unknown_worker"] += 1
            return
        p, epoch, now = child.p, child.epoch, time.monotonic_ns()
        child.heard()
        handle = self._sched.handle
        match message:
            case protocol.Finished():
                rows = len(message.tokens)
                child.finished += rows
                buffers = protocol.split_buffers(message.buffer_counts, rows, frames)
                handle(events.Finished(p, epoch, message, buffers), now)
                child.shm.acknowledge(child.finished)
            case protocol.Started(tokens):
                handle(events.Started(p, epoch, tokens), now)
            case protocol.Aside(tokens):
                handle(events.SetAside(p, epoch, tokens), now)
            case protocol.Withheld(tokens):
                handle(events.Withheld(p, epoch, tokens), now)
            case protocol.Unfit(reason):
                handle(events.Heard(p, epoch), now)
                self._pool.retire(child, reason, now)
            case protocol.Expired(tokens):
                handle(events.Expired(p, epoch, tokens), now)
            case protocol.Kept(tokens):
                handle(events.NotCancelled(p, epoch, tokens), now)
            case protocol.Answer(request, value):
                handle(events.Heard(p, epoch), now)
                self._fanout.answered(request, p, value)
            case protocol.Children(n, asked):
                handle(events.ChildrenCounted(p, epoch, n, asked), now)
            case protocol.Route():
                handle(events.Heard(p, epoch), now)
                self._route(child, message, frames)
            case protocol.Define() | protocol.Undefine() | protocol.Submit() | protocol.Cancel():
                handle(events.ParentOpened(p, epoch), now)
                assert record.session is not None  # else that was refused
                job_messages.apply(self._sched, record.session, message, frames, now)
            case protocol.Items(job, payloads, counts):
                buffers = protocol.split_buffers(counts, len(payloads), frames)
                handle(events.ItemsYielded(p, epoch, job, payloads, buffers), now)
            case protocol.Fault():
                pass  # dealt with above: it may come of a worker that has no P yet
            case protocol.Bye():
                child.expected = True
            case _:
                assert_never(message)

    def _greet(self, peer: bytes, message: protocol.Hello) -> None:
        info = message.info
        child = None if info.p is None else self._pool.supervisor.children.get(info.p)
        if child is None or not secrets.compare_digest(info.secret, child.secret):
            raise ProtocolError("a Hello for a worker, without the secret of that worker")
        if why := _changed(message):
            log.error("%s cannot serve: %s", child, why)
            child.fault = why
            self._pool.supervisor.kill(child)
            return
        serves = info.serves
        if not serves:
            pass  # it is only here to say why
        elif child.isolated:
            self._sched.handle(events.IsolatedReady(child.p), time.monotonic_ns())
        else:
            ready = events.WorkerReady(child.p, child.epoch)
            self._sched.handle(ready, time.monotonic_ns())
        child.peer = peer
        self._children[peer] = child
        self._router.greet()
        self._router.send(peer, [protocol.pack(self._welcome())])
        if serves:
            self._pool.ready(child)

    def _route(self, child: Child, message: protocol.Route, frames: Sequence[Any]) -> None:
        """Pass a message on; its sender learns it if the worker that it is for is gone."""
        to = self._pool.supervisor.housing(message.p, message.epoch)
        if to is not None and to.peer in self._children:
            self._send(to, msgspec.structs.replace(message, p=child.p, epoch=child.epoch), frames)
        else:
            self._send(child, protocol.Lost(message.p, message.epoch))

    # -- they are told -----------------------------------------------------------------------------

    def tell(self, p: PRecord, message: protocol.ToWorker, frames: Sequence[Any] = ()) -> None:
        """Send to the worker that houses this epoch of a P; nothing when that is gone."""
        child = self._pool.supervisor.housing(p.p, p.epoch)
        if child is not None and child.peer in self._children:
            child.written_to(time.monotonic_ns())
            self._send(child, message, frames)

    def _send(self, child: Child, message: protocol.ToWorker, frames: Sequence[Any] = ()) -> None:
        data = protocol.pack(message)
        self._traffic.count_out(message, len(data))
        # One that cannot be reached is dying: its pidfd brings its leases back.
        self._router.send(child.peer, [data, *frames])

    def stop(self) -> None:
        """All of them end now; what they have not sent is lost."""
        for child in self._children.values():
            child.expected = True
            self._router.send(child.peer, [protocol.pack(protocol.Stop(False))])

    # -- they end ----------------------------------------------------------------------------------

    def gone(self, child: Child) -> None:
        """It has died: what it managed to send comes before what it left behind."""
        while self.receive():
            pass
        self._children.pop(child.peer, None)
        for other in self._children.values():
            self._send(other, protocol.Lost(child.p, child.epoch))

    def take_disconnects(self) -> None:
        """Ends of connections say nothing here: a death is told by the kernel."""
        self._router.take_disconnects()


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
