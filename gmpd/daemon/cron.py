"""Periodic jobs in the daemon: the schedules that were declared, and the policy that runs them.

Schedules are known when the first worker has imported the daemon's modules. With the first one the
store is opened; a daemon without schedules opens none and computes nothing. A private daemon runs
none: it belongs to one program.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from gmpd import protocol
from gmpd.codec import encode_call, to_plain
from gmpd.config import Scheduled
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import Asker, DurableJobs, named_function
from gmpd.daemon.registry import Registry
from gmpd.daemon.sqlite_jobs import content_digest
from gmpd.errors import ConfigError
from gmpd.job_ids import new_job_id
from gmpd.periodic import CatchUp, Overlap, Schedule, zone_named
from gmpd.sched.cron import Cron, Entry, Periodic
from gmpd.sched.stored import (
    GONE,
    DropSchedule,
    LoadSchedules,
    NewJob,
    SaveSchedule,
    StoredSchedule,
    StoredState,
    StoreFailure,
    Verdict,
)

log = logging.getLogger("gmpd.cron")

#: The clock may be set while the loop sleeps by another one: it is looked at this often (ms).
LOOK_MS = 30_000

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule, and the job that each of its ticks is."""

    schedule: Schedule
    function: str
    #: The arguments, as in Submit; they are plain.
    call: bytes
    options: protocol.Options
    expires_ms: int | None
    keep_ms: int
    once: bool
    #: Where it was declared.
    source: str

    def call_at(self, tick: int) -> bytes:
        """The arguments of a tick (ms since 1970)."""
        if self.schedule.tick_as is None:
            return self.call
        args, kwargs, _ = to_plain(self.call)
        moment = datetime.fromtimestamp(tick / 1000, zone_named(self.schedule.tz))
        named = {**kwargs, self.schedule.tick_as: moment.isoformat()}
        return encode_call(self.function, tuple(args), named, plain=True).data


class CronJobs(Asker):
    """``configured``: the tables ``[cron.NAME]``. ``send`` sends a reply to a client."""

    def __init__(
        self,
        configured: Mapping[str, Scheduled],
        registry: Registry,
        durable: DurableJobs,
        send: Callable[[Any, protocol.Reply], None],
        deadlines: Deadlines,
        *,
        private: bool,
    ) -> None:
        self._configured = configured
        self._registry = registry
        self._durable = durable
        self._send = send
        self._deadline = deadlines.new(self._due)
        self._plans: dict[str, Plan] = {}
        self._policy: Cron | None = None
        self._loading = False
        self._draining = False
        #: Why no schedule runs; empty: they do, or there is none.
        self.failure = ""
        self._next_request = 1
        self._asked: dict[int, Callable[[bool, Any], None]] = {}
        if not private:
            registry.on_report = self._reported

    # -- which there are ---------------------------------------------------------------------------

    def _reported(self) -> None:
        """A worker has imported the modules of this daemon."""
        plans = self._declared()
        for name, each in self._configured.items():  # the operator's word counts
            plans[name] = _configured(each, self._registry.functions.get(each.function))
        if plans == self._plans and (self._policy is not None or self._loading):
            return
        if missing := self._missing(plans):
            for name, why in missing.items():
                log.error("cron.%s.function: %s; its jobs are blocked until then", name, why)
        self._plans = plans
        if plans or self._durable.is_open:
            self._begin()

    def _missing(self, plans: dict[str, Plan]) -> dict[str, str]:
        """Schedules whose functions cannot be imported, and why."""
        known = self._registry.missing
        return {
            name: known[plan.function] for name, plan in plans.items() if plan.function in known
        }

    def _declared(self) -> dict[str, Plan]:
        return {
            schedule.name: _plan(function, schedule)
            for function in self._registry.scheduled
            for schedule in function.schedules
        }

    def _begin(self) -> None:
        if self._policy is not None:
            self._policy.declare(self._specs())
            self._set_deadline()
        elif not self._loading:
            try:
                self._durable.operate(LoadSchedules(), self._loaded)
                self._loading = True
            except ConfigError as error:
                self._fail(str(error))

    def _loaded(self, answer: Any) -> None:
        self._loading = False
        if isinstance(answer, StoreFailure):
            self._fail(answer.text)
            return
        self._policy = Cron(self, answer)
        self._policy.declare(self._specs())
        self._set_deadline()

    def _fail(self, why: str) -> None:
        self.failure = why
        log.error("no schedule runs: %s", why)

    def _specs(self) -> dict[str, Periodic]:
        return {
            name: Periodic(
                name, plan.schedule.when, plan.schedule.ticks(), plan.schedule.catch_up,
                plan.schedule.waits,
            )
            for name, plan in self._plans.items()
        }  # fmt: skip

    # -- time --------------------------------------------------------------------------------------

    def _due(self, _now: int) -> None:
        if self._policy is not None and not self._draining:
            self._policy.tick()
            self._set_deadline()

    def _set_deadline(self) -> None:
        assert self._policy is not None
        if self._draining or not self._plans:
            self._deadline.set(None)
            return
        next_ms = self._policy.next_ms()
        wait_ms = LOOK_MS if next_ms is None else min(LOOK_MS, next_ms - self.wall_ms())
        self._deadline.set(time.monotonic_ns() + max(0, wait_ms) * 1_000_000)

    def drain(self) -> None:
        """No tick becomes a job any more."""
        self._draining = True
        self._deadline.set(None)

    # -- what the policy needs (sched.cron.Ports) --------------------------------------------------

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def save(self, row: StoredSchedule) -> None:
        """Store a row."""
        self._durable.operate(SaveSchedule(row), _ignore)

    def drop(self, name: str) -> None:
        """Forget a row."""
        self._durable.operate(DropSchedule(name), _ignore)

    def job_id(self, name: str, tick: int) -> bytes:
        """The id of a tick's job."""
        return tick_id(name, tick)

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        """Store the job of a tick, and the row with it."""
        policy = self._policy
        assert policy is not None

        def told(ok: bool, value: Any) -> None:
            if not ok:
                log.error("the tick of schedule %s is not stored yet: %s", name, value)
                policy.stored(name, tick, None, b"")
            else:
                policy.stored(name, tick, Verdict(value["verdicts"][0]), bytes(value["ids"][0]))

        self._put(name, row.job, tick, row, told)

    def _put(
        self,
        name: str,
        id_: bytes,
        tick: int,
        row: StoredSchedule | None,
        told: Callable[[bool, Any], None],
    ) -> None:
        plan, now_ms = self._plans[name], self.wall_ms()
        function, packed = named_function(plan.function), _encode(plan.options)
        call = plan.call_at(tick)
        job = NewJob(
            id=id_,
            digest=content_digest(function.digest, packed, call, ()),
            function=function.digest,
            client=f"cron {name}",
            priority=plan.options.priority,
            options=packed,
            payload=call,
            buffers=(),
            created_ms=now_ms,
            run_at_ms=now_ms,
            expires_ms=None if plan.expires_ms is None else now_ms + plan.expires_ms,
            keep_ms=plan.keep_ms,
            unique=plan.options.unique or f"cron {name}",
            once=plan.once,
            limit=plan.options.limit[0] if plan.options.limit else "",
        )
        self._durable.put_tick(self, self._request(told), job, function, row)

    def await_end(self, name: str, job: bytes) -> None:
        """Tell the policy when this job has ended."""
        policy = self._policy
        assert policy is not None

        def told(ok: bool, value: Any) -> None:
            if not ok:
                return  # the store has failed, and the daemon ends
            if value is False:
                policy.ended(name, job, GONE, "")
            else:
                state = StoredState(value["state"]).name.lower()
                policy.ended(name, job, state, value["text"])

        self._durable.await_end(self, self._request(told), job)

    def missed(self, name: str, n: int) -> None:
        """Ticks were left out, as nothing ran them in time."""
        log.warning("schedule %s: %d ticks were missed", name, n)

    def _request(self, told: Callable[[bool, Any], None]) -> int:
        request = self._next_request
        self._next_request += 1
        self._asked[request] = told
        return request

    def replied(self, request: int, *, ok: bool, value: Any) -> None:
        """The answer to a question about durable jobs."""
        self._asked.pop(request)(ok, value)
        if self._policy is not None:
            self._set_deadline()

    # -- clients -----------------------------------------------------------------------------------

    def summary(self) -> tuple[int, dict[str, str]]:
        """How many schedules there are; those that cannot run, and why."""
        if self.failure:
            return len(self._plans), dict.fromkeys(self._plans, self.failure)
        return len(self._plans), self._missing(self._plans)

    def listing(self) -> dict[str, Any]:
        """The question ``cron``: all schedules, by name, and why none of them runs."""
        return {"failure": self.failure, "schedules": [self._told(n) for n in sorted(self._plans)]}

    def _told(self, name: str) -> dict[str, Any]:
        plan = self._plans[name]
        entry = None if self._policy is None else self._policy.entries.get(name)
        row = StoredSchedule(name, "", 0) if entry is None else entry.row
        return {
            "name": name,
            "when": plan.schedule.when,
            "function": plan.function,
            "source": plan.source,
            "catch_up": plan.schedule.catch_up.value,
            "overlap": "queue" if plan.schedule.waits else "skip",
            "paused": row.paused,
            "next_ms": None if entry is None or row.paused else self._next_ms(entry),
            "tick_ms": row.tick_ms or None,
            "job": row.job,
            "outcome": row.outcome,
            "text": row.text,
            "waiting": len(row.pending),
            "skipped": row.skipped,
            "missed": row.missed,
            "problem": self._registry.missing.get(plan.function, ""),
        }

    def _next_ms(self, entry: Entry) -> int | None:
        return entry.spec.ticks.after(max(entry.row.decided_ms, self.wall_ms()))

    def change(self, peer: bytes, request: int, method: str, name: str) -> None:
        """The questions ``cron_run``, ``cron_pause``, ``cron_resume``. Raises ConfigError."""
        policy, is_known = self._policy, name in self._plans
        if is_known and policy is None:
            raise ConfigError(self.failure or "the schedules are being loaded: ask again")
        if is_known and method == "cron_run":
            self._put(name, new_job_id(), self.wall_ms(), None, self._ran(peer, request))
            return
        if is_known and policy is not None:
            policy.pause(name) if method == "cron_pause" else policy.resume(name)
            self._set_deadline()
        self._send(peer, protocol.Reply(request, True, {"known": is_known}))

    def _ran(self, peer: bytes, request: int) -> Callable[[bool, Any], None]:
        def told(ok: bool, value: Any) -> None:
            if ok:
                is_new = value["verdicts"][0] == Verdict.NEW
                value = {"known": True, "job": bytes(value["ids"][0]), "new": is_new}
            self._send(peer, protocol.Reply(request, ok, value))

        return told


def tick_id(name: str, tick: int) -> bytes:
    """The id of a tick's job: a UUIDv8, the time in front as in a UUIDv7."""
    digest = blake2b(f"{name}\0{tick}".encode(), digest_size=10, person=b"gmpd cron tick").digest()
    tail = bytearray(digest)
    tail[0] = 0x80 | tail[0] & 0x0F
    tail[2] = 0x80 | tail[2] & 0x3F
    return tick.to_bytes(6, "big") + bytes(tail)


def _plan(function: protocol.Declaration, declared: protocol.DeclaredSchedule) -> Plan:
    schedule = Schedule(
        cron=declared.cron, every_ms=declared.every_ms, tz=declared.tz, name=declared.name,
        catch_up=CatchUp(declared.catch_up),
        overlap=None if declared.overlap is None else Overlap(declared.overlap),
        tick_as=declared.tick_as,
    )  # fmt: skip
    return Plan(
        schedule,
        function.name,
        declared.call,
        _durable(function.options or protocol.Options()),
        None if function.expires is None else int(function.expires * 1000),
        int(function.keep * 1000),
        function.once,
        function.name.partition(":")[0],
    )


def _configured(scheduled: Scheduled, declared: protocol.Declaration | None) -> Plan:
    """A table of the configuration: its options come before those that ``@gmpd.job`` declares."""
    schedule, options, given = scheduled.schedule, scheduled.options, scheduled.given
    declared = declared or protocol.Declaration(name=scheduled.function)
    told = protocol.options(options.to_wire()) or protocol.Options()
    changed = {name: getattr(told, name) for name in told.__struct_fields__ if name in given}
    expires = options.expires if "expires" in given else declared.expires
    keep = options.keep if "keep" in given else declared.keep
    call = encode_call(scheduled.function, tuple(schedule.args), schedule.kwargs or {}, plain=True)
    return Plan(
        schedule,
        scheduled.function,
        call.data,
        _durable(msgspec.structs.replace(declared.options or protocol.Options(), **changed)),
        None if expires is None else int(expires * 1000),
        int(keep * 1000),
        options.once if "once" in given else declared.once,
        scheduled.where,
    )


def _durable(options: protocol.Options) -> protocol.Options:
    """The output of durable jobs is captured, unless it is said that it is not."""
    if options.capture is None:
        return msgspec.structs.replace(options, capture=True)
    return options


def _ignore(_answer: Any) -> None:
    """A store that fails ends the daemon."""
