"""A handler that raises: its peer is disconnected, the others are served, the log has the story."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gmpd import protocol, versions
from gmpd.client.connection import ClientConnection, T
from gmpd.config import Config
from gmpd.daemon.clients import READ_WHY_NS, Clients
from gmpd.daemon.coordinator import Coordinator
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.faults import Faults
from gmpd.daemon.job_views import JobViews
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.traffic import Traffic
from gmpd.daemon.workers import Workers
from gmpd.errors import InvariantError
from gmpd.netpoll import Connection
from gmpd.sched import events
from gmpd.sched import instructions as do
from gmpd.sched.cancels import Cancels
from gmpd.sched.events import TurnEnded, WorkerReady
from gmpd.sched.records import Policy
from gmpd.sched.schedt import Sched
from gmpd.sched.states import JobState


class FakeRouter:
    """A socket on the desk: what comes in, what went out, which peers were cut off."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self.sent: list[tuple[bytes, Any]] = []
        self.were_cut: list[Connection] = []
        self.last_peer = b""

    def say(self, peer: bytes, message: protocol.Message) -> None:
        self.inbox.append((peer, [protocol.pack(message)]))

    def recv(self, *, expected: bool = False) -> Any:
        if not self.inbox:
            return None
        self.last_peer = self.inbox[0][0]
        return self.inbox.popleft()

    def send(self, peer: bytes, frames: Any) -> bool:
        self.sent.append((peer, protocol.unpack(frames[0], protocol.TO_CLIENT)))
        return True

    def identified(self) -> None:
        pass

    def drop_lane(self, peer: bytes) -> None:
        pass

    def last_connection(self) -> Connection:
        return Connection(int(self.last_peer), 0)

    def cut(self, connection: Connection) -> None:
        self.were_cut.append(connection)


class Desk:
    def __init__(self) -> None:
        router: Any = FakeRouter()
        self.router = router
        self.sched = Sched(Policy())
        self.faults = Faults(self.sched)
        self.deadlines = Deadlines()
        self.clients = Clients(
            Config(),
            1,
            self.sched,
            self.router,
            Traffic(),
            lambda: 1,
            self.ask,
            self.faults,
            self.deadlines,
        )
        self.clients.durable = DurableJobs(
            "none here", self.sched, lambda *_: None, lambda *_: None, self.deadlines,
            JobViews(self.sched, lambda _: None), lambda _: None, lambda _: None,
        )  # fmt: skip
        for peer in (b"1", b"2"):
            self.router.say(peer, protocol.hello("client", b"", {"name": f"c{peer.decode()}"}))
        self.clients.receive()
        self.router.sent.clear()

    def ask(self, _peer: bytes, request: int, method: str, _params: Any) -> protocol.Reply | None:
        if method == "raise":
            raise IndexError("a bug")
        return protocol.Reply(request, True, {})

    def submit(self, peer: bytes) -> None:
        self.router.say(peer, protocol.Define(1, "name", "m:f", b""))
        self.router.say(peer, protocol.Submit(1, 1, None, [b"x"], None))
        self.clients.receive()

    @property
    def failed(self) -> int:
        return self.sched.counters.dropped["failed_handler"]


def test_one_clients_message_costs_that_client_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    desk.submit(b"1")
    desk.submit(b"2")
    desk.router.say(b"1", protocol.Call(1, "raise", {}))
    desk.router.say(b"2", protocol.Call(2, "ping", {}))
    desk.clients.receive()
    refused, reply = desk.router.sent[-2:]
    assert refused[0] == b"1"
    assert "IndexError: a bug" in refused[1].reason
    assert reply == (b"2", protocol.Reply(2, True, {}))
    assert (len(desk.clients), desk.failed, desk.sched.unfinished) == (1, 1, 1)
    due = desk.deadlines.next()
    assert due is not None
    desk.deadlines.run(due - READ_WHY_NS)
    assert not desk.router.were_cut, "it can read why, first"
    desk.deadlines.run(due)
    assert desk.router.were_cut == [Connection(1, 0)]
    assert desk.deadlines.next() is None
    (told,) = caplog.records
    assert told.exc_info is not None
    (story,) = told.exc_info[1].__notes__  # type: ignore[union-attr]
    assert "Submitted(session 2, 1 rows from 1, function 1)" in story
    assert "Call of client 'c1' failed with IndexError: a bug" in told.getMessage()
    assert "the ledger was audited and is consistent" in told.getMessage()


def test_a_client_that_comes_while_the_daemon_ends_is_told_why_it_ends() -> None:
    desk = Desk()
    desk.clients.farewell("initializer failed", protocol.Ending.INITIALIZER)
    gone = protocol.Gone("initializer failed", protocol.Ending.INITIALIZER)
    assert desk.router.sent == [(b"1", gone), (b"2", gone)]
    desk.router.say(b"3", protocol.hello("client", b"", {"name": "late"}))
    desk.clients.receive()
    _, _, (peer, welcome), last = desk.router.sent
    assert (peer, type(welcome), last) == (b"3", protocol.Welcome, (b"3", gone))


def test_a_ledger_that_is_left_inconsistent_is_called_so(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.submit(b"2")
    job: Any = desk.sched.queue.head()
    job.state = JobState.STARTED  # as a handler might leave it that stops half way
    desk.router.say(b"1", protocol.Call(1, "raise", {}))
    desk.clients.receive()
    assert "THE LEDGER IS INCONSISTENT" in caplog.records[0].getMessage()
    assert desk.failed == 1


def test_a_session_that_cannot_even_be_closed_is_forgotten(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()

    def broken(*_: Any) -> None:
        raise KeyError("half done")

    monkeypatch.setattr(Cancels, "close_session", broken)
    desk.router.say(b"1", protocol.Call(1, "raise", {}))
    desk.clients.receive()
    assert len(desk.clients) == 1
    assert desk.failed == 2
    assert caplog.records[0].levelno == logging.ERROR


class FakeProcess:
    p, epoch, peer, expected = 0, 1, b"w", False

    def heard(self) -> None:
        raise TypeError("a bug")

    def __str__(self) -> str:
        return "worker 7 of P0"


def test_a_worker_whose_message_fails_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    desk, killed = Desk(), []
    worker: Any = FakeProcess()
    desk.sched.handle(WorkerReady(0, 1), 1)

    class Supervisor:
        def kill(self, worker: Any) -> None:
            killed.append(worker)

    class WorkerPool:
        supervisor = Supervisor()

    pool: Any = WorkerPool()
    router: Any = FakeRouter()
    workers = Workers(
        desk.sched, pool, router, Any, Traffic(), desk.clients.welcome, desk.faults  # type: ignore[arg-type]
    )  # fmt: skip
    workers._processes[b"w"] = worker
    router.say(b"w", protocol.Started([1]))
    router.inbox.append((b"w", [b"\xc1"]))
    router.inbox.append((b"stranger", [b"\xc1"]))
    workers.receive()
    assert killed == [worker, worker]
    assert desk.failed == 1
    assert desk.sched.counters.dropped["bad_worker_message"] == 2
    assert "worker 7 of P0 is disconnected" in caplog.records[0].getMessage()


def test_an_instruction_that_cannot_be_done_costs_whom_it_is_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, killed = Desk(), []
    desk.sched.handle(WorkerReady(0, 1), 1)
    coordinator: Any = Coordinator.__new__(Coordinator)
    coordinator.sched, coordinator._faults, coordinator.clients = (
        desk.sched, desk.faults, desk.clients,
    )  # fmt: skip

    class Supervisor:
        processes = {0: "worker 7"}

        def kill(self, worker: str) -> None:
            killed.append(worker)

    coordinator.supervisor = Supervisor()
    desk.submit(b"1")
    session = desk.sched.queue.head().session  # type: ignore[union-attr]
    record = desk.sched.ps[0]
    coordinator._failed(do.NotifyRunning(session, [1]), ValueError("no"))
    assert len(desk.clients) == 1
    coordinator._failed(do.CancelAt(record, [1]), ValueError("no"))
    assert killed == ["worker 7"]
    with pytest.raises(ValueError, match="nobody's"):
        coordinator._failed(do.StartIsolated(1), ValueError("nobody's"))
    assert desk.failed == 2
    assert len(caplog.records) == 1, "seldom: the second is counted, and told with a later one"


def test_whatever_an_instruction_tells_the_policy_is_decided_on_in_the_same_turn() -> None:
    """Any event: no list says which instructions bring one."""
    desk, done = Desk(), []
    desk.submit(b"1")

    class Effects:
        def execute(self, instruction: do.Instruction) -> None:
            if isinstance(instruction, do.Probe):  # real time is far beyond that of the desk
                return
            done.append(type(instruction))
            if len(done) == 1:  # another worker is there, and another job
                desk.sched.handle(WorkerReady(1, 1), 2)
                desk.submit(b"2")

    coordinator: Any = SimpleNamespace(sched=desk.sched, _effects=Effects())
    desk.sched.handle(WorkerReady(0, 1), 1)
    Coordinator._decide(coordinator)
    assert done == [do.DefineAt, do.LeaseJobs] * 2
    assert not desk.sched.has_news


def coordinator_that_stops(desk: Desk, processes: list[str]) -> Any:
    """As far as its end needs it; the workers are these."""
    made: Any = Coordinator.__new__(Coordinator)
    idle = SimpleNamespace(
        due=lambda _now: None, next_due=lambda: None, stop=lambda *_: None, kill_all=lambda: None,
        kill_unready=lambda: None, farewell=lambda *_: None, ending=lambda *_: None,
    )  # fmt: skip
    idle.recycling = idle
    made.sched, made.config = desk.sched, Config()
    made.premises = made._drain_until = made._kill_at = made.tick_s = None
    made.pool = made.clients = made.workers = made._admin = made.hosts = idle
    made.deadlines, made._ended, made._trimming = Deadlines(), False, SimpleNamespace(next_due=None)
    made.cron = SimpleNamespace(drain=lambda: None)
    made.durable = DurableJobs(
        "none here", desk.sched, lambda *_: None, lambda *_: None, made.deadlines,
        JobViews(desk.sched, lambda _: None), lambda _: None, lambda _: None,
    )  # fmt: skip
    made.supervisor = SimpleNamespace(processes=processes)
    made._decide = lambda: None
    return made


def test_a_daemon_that_waits_for_its_workers_ends_rests_meanwhile() -> None:
    coordinator = coordinator_that_stops(Desk(), ["worker 7"])
    coordinator.drain("asked to", at_once=True)
    coordinator._due(time.monotonic_ns())
    assert coordinator._timeout_s() > 1.0
    coordinator.drain("once more")
    assert coordinator._timeout_s() > 1.0
    assert not coordinator._ended


def test_a_daemon_ends_without_a_worker_that_the_kernel_cannot_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    coordinator = coordinator_that_stops(Desk(), ["worker 7"])
    coordinator.stop("asked to")
    now = time.monotonic_ns()
    coordinator._due(now + 5_000_000_000)
    assert not coordinator._ended
    coordinator._due(now + 15_000_000_000)
    assert coordinator._ended
    pool: Any = WorkerPool.__new__(WorkerPool)
    pool._severed = {}
    worker = SimpleNamespace(process=SimpleNamespace(pid=7))
    pool.supervisor = SimpleNamespace(
        processes={0: worker}, kill=lambda _worker: None, has_ended=lambda _worker, within_s: False
    )
    pool.close()
    assert "does not end" in caplog.text


class Bare(ClientConnection):
    """One without a socket, used by one thread."""

    def _do(self, step: Callable[[], T]) -> T:
        return step()

    def _request(self, *_: object) -> None:
        raise AssertionError("it waits for nothing")

    def _relink(self) -> None:
        raise AssertionError("it has no link")

    def _watch_lane(self, fd: int) -> None:
        raise AssertionError("it has no lane")


def test_a_client_whose_own_handler_fails_tells_all_that_wait() -> None:
    """No thread ends silently: every job's future gets an error that says what happened."""
    connection: Any = Bare("ipc://nowhere", "c")
    core = connection._core

    def broken(_frames: Any) -> None:
        raise IndexError("a bug")

    class Frame:
        buffer, more = b"", False

    class Link:
        def take(self, inbox: Any) -> None:
            inbox.append(Frame())

    core.call("status", {}, "sink")
    core.receive, connection._link = broken, Link()
    connection._read()
    assert isinstance(core.lost, InvariantError)
    assert "IndexError: a bug" in str(core.lost)
    assert [sink for sink, _ in core.events] == ["sink"]


def test_a_worker_of_another_version_is_not_let_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The installed gmpd was changed under a running daemon: that is said, not found by a crash."""
    desk, killed = Desk(), []

    class WorkerProcess:
        p, secret, fault = 0, b"s" * 32, ""

        def __str__(self) -> str:
            return "worker 7 of P0"

    worker = WorkerProcess()

    class Supervisor:
        def worker_of(self, p: int, epoch: int) -> Any:
            return worker if (p, epoch) == (0, 1) else None

        def kill(self, worker: Any) -> None:
            killed.append(worker)

    pool: Any = type("WorkerPool", (), {"supervisor": Supervisor()})
    router: Any = FakeRouter()
    workers = Workers(
        desk.sched, pool, router, Any, Traffic(), desk.clients.welcome, desk.faults  # type: ignore[arg-type]
    )  # fmt: skip
    info = {**versions.own(), "p": 0, "epoch": 1, "secret": worker.secret, "python": "3.2.1"}
    router.say(b"w", protocol.hello("worker", b"", info))
    workers.receive()
    assert killed == [worker]
    assert "restart the daemon" in worker.fault
    assert "the new worker has Python 3.2.1, this daemon Python" in caplog.records[0].getMessage()
    assert not workers._processes


def test_a_question_waits_for_the_ends_that_its_client_knows() -> None:
    desk = Desk()
    desk.submit(b"1")
    desk.sched.handle(WorkerReady(0, 1), 1)
    desk.router.say(b"1", protocol.CallAfter(1, "ping", {}, [1, 77]))
    desk.router.say(b"1", protocol.Call(2, "ping", {}))
    desk.router.say(b"1", protocol.CallAfter(3, "raise", {}, [1]))
    desk.clients.receive()
    assert desk.router.sent[-1] == (b"1", protocol.Reply(2, True, {})), "others do not wait"
    assert desk.clients.answer_awaiting()
    assert desk.router.sent[-1] == (b"1", protocol.Reply(2, True, {}))
    desk.sched.handle(TurnEnded(), 2)
    told = protocol.Finished([1], [b""], [1], [1], None, None, True)
    desk.sched.handle(events.Finished(0, 1, told, [()]), 3)
    desk.clients.answer_awaiting()
    assert (b"1", protocol.Reply(1, True, {})) in desk.router.sent
    assert len(desk.clients) == 1, "the question that failed has cost its client the session"
    assert not desk.clients.answer_awaiting()
