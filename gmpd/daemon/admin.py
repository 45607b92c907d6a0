"""Administrative calls of clients, and the answers: state, size and end of the daemon, its Gs.

A call changes state only by the coordinator's own methods. Questions that only workers can answer
are passed on (``Fanout``). A worker may be deaf (a coroutine that does not await, C code that holds
the GIL) or die: then its status is the answer, at the latest when the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec.msgpack import encode

from gmpd import protocol
from gmpd.config import Config
from gmpd.cpus import check_procs
from gmpd.daemon.cron import CronJobs
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.gateway import TellPage
from gmpd.daemon.kept_failures import KeptFailures
from gmpd.daemon.past_rings import PastRings
from gmpd.daemon.recycling import Told
from gmpd.daemon.snapshot import (
    Observed,
    cluster_status,
    former_status,
    isolated_status,
    p_status,
    snapshot,
)
from gmpd.daemon.timelines import REQUEST, Timelines
from gmpd.daemon.watched import QUESTIONS
from gmpd.daemon.workers import Workers
from gmpd.errors import ConfigError
from gmpd.runtime.ring import Ring, RingDump
from gmpd.sched.isolated import ISOLATED_FROM, Stage
from gmpd.sched.leavers import number_beside, p_of
from gmpd.sched.records import PRecord
from gmpd.status import PStatus

WorkerQuestion: TypeAlias = Literal["stacks", "sched", "gs", "trace", "g"]
#: Questions that only workers can answer.
ASKED_OF_WORKERS: Final[dict[str, WorkerQuestion]] = {
    "stacks": "stacks",
    "sched": "sched",
    "gs": "gs",
    "trace": "trace",
    "g": "g",
}
#: Gs shown of each P, unless asked for more; and at most, more than a person reads.
STACKS_GS = 1000
STACKS_GS_MAX = 100_000
#: Bytes of all stacks together in one reply.
STACKS_BYTES = 8 << 20
#: Events of all workers together in one reply, and seconds that they go back.
TRACE_BYTES = 64 << 20
TRACE_S = 10.0
TRACE_S_MAX = 3600.0
#: Seconds for workers to answer, unless told otherwise; and at most: the client waits as well.
STACKS_WAIT_S = 2.0
STACKS_WAIT_S_MAX = 20.0
#: Questions that may wait for workers at a time: people ask them, and each answer may be large.
OPEN_MAX = 64

#: A worker, for as long as it lives: its P and epoch.
Who: TypeAlias = tuple[int, int]


def _nothing() -> None:
    pass


@dataclass(slots=True)
class FanoutCall:
    """One call that was passed on. ``peer`` and ``request`` are where its reply goes."""

    peer: bytes
    request: int
    due_ns: int
    #: Workers that have not answered.
    silent: set[Who]
    #: Of those that were asked: the ones that serve no P, as they have left it or are isolated.
    left: Collection[Who] = ()
    answers: dict[Who, Any] = field(default_factory=dict)
    #: Of ``trace``: since when.
    since_ns: int | None = None
    #: Gets the value of the reply instead of a peer.
    told: Callable[[dict[str, Any]], None] | None = None


class Fanout:
    """All calls that wait for workers, by the number under which those were asked. ``changed`` is
    called when one was asked or answered: it may be over. Knows no socket, no clock, no status."""

    def __init__(self, changed: Callable[[], None] = _nothing) -> None:
        self._changed = changed
        self._open: dict[int, FanoutCall] = {}
        self._next = 1

    def open(
        self,
        peer: bytes,
        request: int,
        asked: Iterable[Who],
        due_ns: int,
        left: Collection[Who] = (),
    ) -> int:
        """Begin one; its number. ConfigError when too many are open."""
        return self.begin(FanoutCall(peer, request, due_ns, set(asked), left))

    def begin(self, call: FanoutCall) -> int:
        """As ``open``."""
        if len(self._open) >= OPEN_MAX:
            raise ConfigError(f"{OPEN_MAX} questions to workers wait already: ask again later")
        number = self._next
        self._next += 1
        self._open[number] = call
        self._changed()
        return number

    def answered(self, number: int, who: Who, value: Any) -> None:
        """A worker's answer; one that comes late, or was not asked for, changes nothing."""
        call = self._open.get(number)
        if call is not None and who in call.silent:
            call.silent.remove(who)
            call.answers[who] = value
            self._changed()

    def take(self, now: int, alive: Iterable[Who]) -> list[FanoutCall]:
        """Remove the calls that are over: all have answered or are not ``alive``, or it is late."""
        alive = set(alive)
        over = [
            number
            for number, call in self._open.items()
            if not call.silent & alive or call.due_ns <= now
        ]
        return [self._open.pop(number) for number in over]

    def next_due(self) -> int | None:
        """When the next one ends for want of an answer."""
        return min((call.due_ns for call in self._open.values()), default=None)

    def __bool__(self) -> bool:
        return bool(self._open)


class Administered(Observed, Protocol):
    """A daemon, as its administration needs it."""

    config: Config
    workers: Workers
    deadlines: Deadlines
    durable: DurableJobs
    cron: CronJobs
    failures: KeptFailures

    reload: Callable[[str, Told | None], int]
    ask_page: Callable[[TellPage], object]
    ring: Ring | None

    def drain(self, reason: str, *, at_once: bool = False) -> None: ...


@dataclass(slots=True)
class Waiter:
    """A client that waits for the end of a reload."""

    peer: bytes
    request: int
    workers: int = 0


class AdminApi:
    """Answers all clients. ``fanout`` has the calls that wait for answers of workers."""

    def __init__(self, daemon: Administered) -> None:
        self._c = daemon
        self._deadline = daemon.deadlines.new(self._due)
        self.fanout = Fanout(self._deadline.now)
        #: The last events of workers that have ended.
        self.past_rings = PastRings()
        self.timelines = Timelines(daemon, self._status, self._reply)
        #: Questions that are answered when the daemon ends.
        self._end_watchers: list[tuple[bytes, int]] = []

    def answer(
        self, peer: bytes, request: int, method: str, params: dict[str, Any]
    ) -> protocol.Reply | None:
        """The reply to a question; None when it comes later."""
        try:
            what = ASKED_OF_WORKERS.get(method)
            if what is not None and self._ask_workers(peer, request, what, params):
                return None
            if method in ("snapshot", "status") and self._c.durable.refresh_status(
                partial(self._tell_status, peer, request)
            ):
                return None
            if method == "volatile_jobs":
                page = self._c.durable.views.page(params, self._c.clients.sees(peer))
                return protocol.Reply(request, True, page)
            if self._is_told_later(peer, request, method, params):
                return None
            if method == "reload" and params.get("wait") is True:
                waiter = Waiter(peer, request)
                waiter.workers = self._c.reload("asked to reload", partial(self._reloaded, waiter))
                return None
            value = {"ps": []} if what is not None else self._value(method, params)
            if method in ("drain", "stop") and params.get("wait") is True:
                self._end_watchers.append((peer, request))
                return None
        except ConfigError as error:
            return protocol.Reply(request, False, str(error))
        return protocol.Reply(request, True, value)

    def _is_told_later(
        self, peer: bytes, request: int, method: str, params: dict[str, Any]
    ) -> bool:
        """Whether a part of the daemon answers it, now or later."""
        match method:
            case "jobs":
                self._c.durable.list_jobs(peer, request, params, self._c.clients.sees(peer))
            case "job_counts":
                self._c.durable.count(peer, request, self._c.clients.sees(peer))
            case "cron_run" | "cron_pause" | "cron_resume":
                self._c.cron.change(peer, request, method, str(params.get("name")))
            case "page":
                self._c.ask_page(partial(self._tell_page, peer, request))
            case "timeline":
                self.timelines.ask(peer, request, params)
            case _:
                return False
        return True

    def _tell_page(self, peer: bytes, request: int, url: str | None, problem: str) -> None:
        value = {"url": url, "problem": problem}
        self._c.clients.send(peer, protocol.Reply(request, True, value))

    def _tell_status(self, peer: bytes, request: int) -> None:
        value = msgspec.to_builtins(snapshot(self._c))
        self._c.clients.send(peer, protocol.Reply(request, True, value))

    def _value(self, method: str, params: dict[str, Any]) -> Any:
        if method.startswith("cluster"):
            return self._cluster(method, params)
        look = QUESTIONS.get(method)
        return self._call(method, params) if look is None else look(self._c)

    def _cluster(self, method: str, params: dict[str, Any]) -> Any:
        hosts = self._c.hosts
        match method:
            case "cluster_up":
                words = [params.get(name, "") for name in ("engine", "address", "scheduler_file")]
                if not all(isinstance(word, str) for word in words) or not words[0]:
                    raise ConfigError(f"an engine and its address are texts, not {words!r}")
                hosts.up(*words)
                return {}
            case "cluster_down":
                return {"hosts": hosts.down()}
            case _:
                return msgspec.to_builtins(cluster_status(self._c))

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "ping":
                limit_s = self._c.config.daemon.drain_timeout
                return {"unfinished": self._c.sched.unfinished, "drain_timeout": limit_s}
            case "snapshot" | "status":
                return msgspec.to_builtins(snapshot(self._c))
            case "cron":
                return self._c.cron.listing()
            case "failures":
                return self._c.failures.answer(params)
            case "procs":
                n = params.get("n")
                if type(n) is not int or n < 1:
                    raise ConfigError(f"procs must be a whole number from 1 on, not {n!r}")
                check_procs(n)
                return {"procs": n, "before": self._c.pool.resize(n)}
            case "reload":
                return {"workers": self._c.reload("asked to reload", None)}
            case "drain":
                self._c.drain("asked to drain")
                return {}
            case "stop":
                self._c.drain("asked to stop", at_once=True)
                return {}
            case _:
                known = (
                    "ping, status, failures, stacks, sched, gs, g, trace, timeline, jobs,"
                    " volatile_jobs, job_counts, cron, cron_run, cron_pause, cron_resume, procs,"
                    " cluster, cluster_up, cluster_down,"
                    f" page, reload, drain, stop, {', '.join(QUESTIONS)}"
                )
                raise ConfigError(f"no such question: {method!r} (known: {known})")

    def _reloaded(self, waiter: Waiter, problem: str) -> None:
        value = {"workers": waiter.workers, **({"problem": problem} if problem else {})}
        self._c.clients.send(waiter.peer, protocol.Reply(waiter.request, True, value))

    def ending(self, lost: int, functions: list[str]) -> None:
        """The daemon ends: tell the watchers of its end how many jobs it did not finish."""
        for peer, request in self._end_watchers:
            value = {"lost": lost, "functions": functions}
            self._c.clients.send(peer, protocol.Reply(request, True, value))
        self._end_watchers.clear()

    # -- what workers are asked --------------------------------------------------------------------

    def _ask_workers(
        self,
        peer: bytes,
        request: int,
        what: WorkerQuestion,
        params: dict[str, Any],
        told: Callable[[dict[str, Any]], None] | None = None,
    ) -> bool:
        """Ask one P or all of them for their Gs, the leaving workers too if that is for their
        stacks, isolated ones too for a trace; False when there is no such P."""
        p, limit = params.get("p"), params.get("limit", STACKS_GS)
        wait_s = params.get("wait_s", STACKS_WAIT_S)
        ps = [each for each in range(self._c.pool.procs) if p in (None, each)]
        records = [record for each in ps if (record := self._c.sched.ps.get(each)) is not None]
        leaving = self._c.sched.leaving.values() if what in ("stacks", "trace") else ()
        left = [record for record in leaving if p in (None, p_of(record.p))]
        if what == "trace" and p is None:
            isolated = self._c.sched.isolated.ps.values()
            left += [record for record in isolated if record.stage is Stage.RUNNING]
        vacant = {(each, 0) for each in ps} - {(record.p, 0) for record in records}
        asked = vacant | {who_is(record) for record in (*records, *left)}
        if type(limit) is not int or not 1 <= limit <= STACKS_GS_MAX:
            raise ConfigError(f"limit must be 1 to {STACKS_GS_MAX}, not {limit!r}")
        if type(wait_s) not in (int, float) or not 0 < wait_s <= STACKS_WAIT_S_MAX:
            raise ConfigError(f"wait_s must be more than 0, to {STACKS_WAIT_S_MAX}, not {wait_s!r}")
        if not asked:
            return False
        now, since_ns = time.monotonic_ns(), None
        question = {"limit": limit, "nbytes": STACKS_BYTES // len(asked)}
        if what == "g":
            key = "token" if "token" in params else "id"
            number = params.get(key)
            if type(p) is not int or type(number) is not int or number < 0:
                raise ConfigError(f"a G is named by its P and its {key}, not {p!r} and {number!r}")
            question[key] = number
        if what == "trace":
            since_ns = since(params, now)
            nbytes = min(TRACE_BYTES // len(asked), self._c.config.limits.value_bytes)
            question = {"since_ns": since_ns, "nbytes": nbytes}
        due_ns = now + int(wait_s * 1e9)
        call = FanoutCall(peer, request, due_ns, asked, [*map(who_is, left)], {}, since_ns, told)
        number = self.fanout.begin(call)
        for record in (*records, *left):
            self._c.workers.tell(record, protocol.Ask(number, what, question))
        return True

    def worker_answered(self, request: int, who: Who, value: Any) -> None:
        """A worker has answered."""
        if request == REQUEST:
            self.timelines.answered(who, value)
        else:
            self.fanout.answered(request, who, value)

    def _reply(self, peer: bytes, request: int, value: dict[str, Any]) -> None:
        self._c.clients.send(peer, protocol.Reply(request, True, value))

    def trace(self, told: Callable[[dict[str, Any]], None]) -> None:
        """Ask all workers for their last events; ``told`` gets the reply."""
        self._ask_workers(b"", 0, "trace", {}, told)

    def worker_died(self) -> None:
        """A worker that was asked may be among the dead."""
        self.timelines.worker_died()
        if self.fanout:
            self._deadline.now()

    def _due(self, now: int) -> None:
        """Questions whose workers have answered, or whose time is over, get their replies."""
        sched = self._c.sched
        able = [who_is(record) for record in sched.ps.values() if record.ready]
        able += map(who_is, (*sched.leaving.values(), *sched.isolated.ps.values()))
        for call in self.fanout.take(now, able):
            if call.told is not None:
                call.told(self._told(call))
            else:
                reply = protocol.Reply(call.request, True, self._told(call))
                self._c.clients.send(call.peer, reply)
        self._deadline.set(self.fanout.next_due())

    def _told(self, call: FanoutCall) -> dict[str, Any]:
        """The answers of workers; of one that did not answer, its status."""
        answers: list[dict[str, Any]] = []
        for who in sorted(call.silent | call.answers.keys()):
            answer = call.answers.get(who)
            if answer is None and who in call.left and not self._is_beside(who):
                continue  # it had nothing more to do, and has ended
            if isinstance(answer, dict) and "story" in answer:  # a ring is bytes
                answer["job"] = self._job_of(who, answer["story"]["token"])
            status = msgspec.to_builtins(self._status(who))
            known = {"p": who[0], "answered": answer is not None, "status": status}
            more = {"ring": answer} if isinstance(answer, bytes) else answer or {}
            if call.since_ns is not None:
                known |= {"isolated": who[0] >= ISOLATED_FROM, "ended": None}
            answers.append(known | more)
        value: dict[str, Any] = {"ps": answers}
        if call.since_ns is not None:
            told = {(row["p"], row["status"]["epoch"]) for row in answers}
            past = self.past_rings.rows(call.since_ns)
            answers += (row for row in past if (row["p"], row["status"]["epoch"]) not in told)
            value |= self._traced(call.since_ns)
        return value

    def _traced(self, since_ns: int) -> dict[str, Any]:
        """The coordinator's own part of a trace."""
        ring = self._c.ring
        own = RingDump(keeps=False) if ring is None else ring.dump(since_ns, TRACE_BYTES)
        return {"since": since_ns, "now": time.monotonic_ns(), "coordinator": encode(own)}

    def _job_of(self, who: Who, token: int) -> str:
        """The id of the job of a lease, as its client has it; empty if it has none."""
        record = self._c.sched.ps.get(who[0])
        job = record.job_of(token) if record is not None and record.epoch == who[1] else None
        return "" if job is None or job.session.parent is not None else job.id

    def _is_leaving(self, who: Who) -> bool:
        return number_beside(*who) in self._c.sched.leaving

    def _is_beside(self, who: Who) -> bool:
        """Whether it lives, and serves no P."""
        return self._is_leaving(who) or who[0] in self._c.sched.isolated.ps

    def _status(self, who: Who) -> PStatus:
        """Status of a worker that was just asked, and may have left its P or ended since."""
        p, epoch = who
        now = time.monotonic_ns()
        if p >= ISOLATED_FROM:
            return isolated_status(self._c, p)
        if self._is_leaving(who):
            return former_status(self._c, self._c.sched.leaving[number_beside(p, epoch)], now)
        serving = self._c.sched.ps.get(p)
        if serving is not None and serving.epoch > epoch > 0:
            return PStatus(p, epoch=epoch)  # dead
        return p_status(self._c, p, now)


def who_is(record: PRecord) -> Who:
    """The worker that a record is about."""
    return p_of(record.p), record.epoch


def since(params: dict[str, Any], now: int) -> int:
    """From when on events are asked for. A machine may run for less time than that."""
    last_s = params.get("last_s", TRACE_S)
    if type(last_s) not in (int, float) or not 0 < last_s <= TRACE_S_MAX:
        raise ConfigError(f"last_s must be more than 0, to {TRACE_S_MAX:g}, not {last_s!r}")
    return max(0, now - int(last_s * 1e9))
