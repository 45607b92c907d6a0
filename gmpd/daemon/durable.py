"""Durable jobs in the daemon: their messages, their store thread, and the policy between them.

The store is opened when a client first asks for durable work, or at the start when there is one
from before: a daemon that is never asked pays nothing. A store that cannot be used refuses durable
work with its reason; everything else is served.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, assert_never

import msgspec

from gmpd import protocol
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable_status import StoreSurvey
from gmpd.daemon.host_mark import clear_mark, set_mark, wait_after
from gmpd.daemon.job_views import JobViews, with_stored
from gmpd.daemon.sqlite_jobs import content_digest
from gmpd.daemon.sqlite_store import SqliteStore
from gmpd.daemon.store import StoreThread
from gmpd.errors import ConfigError, ProtocolError
from gmpd.sched import events
from gmpd.sched.durable import Durable, Told
from gmpd.sched.durable_ends import Judge, known_to
from gmpd.sched.functions import PART
from gmpd.sched.records import Failure, Function, Job, Outcomes, Session
from gmpd.sched.schedt import Sched
from gmpd.sched.stored import (
    Answer,
    Count,
    Find,
    ListJobs,
    NewJob,
    Operation,
    ReadCall,
    Remove,
    StoredFunction,
    StoredSchedule,
    StoredState,
    StoreFailure,
    Story,
    Survey,
    TakeJobs,
    Unblock,
)
from gmpd.sched.uniques import WAITS
from gmpd.status import Blocked
from gmpd.status import Durable as DurableStatus

log = logging.getLogger("gmpd.durable")

#: The link of the session that submits durable jobs: no connection has this name.
LINK = "durable jobs"
#: How long the end of the daemon waits for the store (s): a flush of a busy disk, several times.
CLOSE_S = 10.0
#: Functions whose stored forms are remembered.
_FUNCTIONS_MAX = 1024
#: Jobs of one page, at most.
LIST_MAX = 1000

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Asker(ABC):
    """A part of this process that asks the policy of durable jobs, as clients do."""

    @abstractmethod
    def replied(self, request: int, *, ok: bool, value: Any) -> None:
        """The answer to its question."""


class DurableJobs:
    """``send`` sends a reply to a client. ``watch`` has the loop call back for a descriptor.

    ``place``: the directory of the store; a text instead is why there is none.
    """

    def __init__(
        self,
        place: Path | str,
        sched: Sched,
        send: Callable[[Any, protocol.Reply], None],
        watch: Callable[[int, Callable[[], object]], None],
        deadlines: Deadlines,
        views: JobViews,
        have_failed: Callable[[Sequence[Failure]], None],
        broken: Callable[[str], None],
    ) -> None:
        """``have_failed`` is called with attempts that did not end well, ``broken`` when the store
        can be trusted no more."""
        self._place = place
        self._sched = sched
        self._send = send
        self._watch = watch
        self.views = views
        self._deadline = deadlines.new(self._due)
        self._store: StoreThread | None = None
        self._policy: Durable | None = None
        self._session: Session | None = None
        self._accept_loss = False
        self._survey = StoreSurvey(partial(self.store, Survey()), deadlines)
        #: The lease of hosts, once there was one; and until when those of a former daemon may run
        #: jobs (ns), with the question that waits for it.
        self._lease_s, self._is_marked = 0.0, False
        self._hold_ns = 0
        self._held_back: tuple[TakeJobs, Told] | None = None
        self._have_failed = have_failed
        self._broken = broken
        #: Answers for volatile jobs that wait for the store's: by client and question.
        self._volatile: dict[tuple[Any, int], Any] = {}
        self._stored: dict[int, tuple[StoredFunction, ...]] = {}

    # -- the store ---------------------------------------------------------------------------------

    def resume(self, *, accept_loss: bool = False, lease_s: float = 0.0) -> None:
        """The daemon starts: open the store if there is one, also one that has lost jobs if
        ``accept_loss``. ``lease_s``: of hosts, as configured now."""
        self._accept_loss = accept_loss
        if isinstance(self._place, Path) and (self._place / "jobs.sqlite").exists():
            if wait_s := wait_after(self._place, lease_s):
                log.warning("a daemon with hosts was killed: durable jobs wait for %g s", wait_s)
                self._hold_ns = time.monotonic_ns() + int(wait_s * 1e9)
            self._open()
            if self._policy is not None:
                self._policy.tick()
                self._set_deadline()

    def _open(self) -> Durable:
        if isinstance(self._place, str):
            raise ConfigError(self._place)
        if self._policy is None or self._store is None:
            open_store = partial(SqliteStore, self._place, accept_loss=self._accept_loss)
            self._store = StoreThread(open_store)
            self._watch(self._store.fd, self._answered)
            opened = events.SessionOpened(self._sched.next_sid, LINK, LINK)
            self._sched.handle(opened, time.monotonic_ns())
            self._session = self._sched.sessions[opened.sid]
            self._session.patient = True
            judge = Judge(self._sched.strikes, random.random)
            self._policy = Durable(self, opened.sid, judge, self._sched.counters)
        return self._policy

    def has_hosts(self, lease_s: float) -> None:
        """Jobs may run on hosts from now on."""
        self._lease_s = lease_s
        self._mark()

    def _mark(self) -> None:
        """In the directory that the store makes before its first answer, and so any lease."""
        place = self._place
        if self._lease_s and not self._is_marked and isinstance(place, Path) and place.is_dir():
            self._is_marked = True
            try:
                set_mark(place, self._lease_s)
            except OSError as error:
                log.error(
                    "the next daemon does not know of jobs on hosts if this is killed: %s", error
                )

    def has_no_hosts(self) -> None:
        """The daemon ends, and its hosts have ended their jobs."""
        if self._store is not None and isinstance(self._place, Path) and not self._hold_ns:
            clear_mark(self._place)

    def _release(self, now: int) -> None:
        """Nothing of a former daemon runs on hosts any more."""
        if not self._hold_ns or now < self._hold_ns:
            return
        self._hold_ns = 0
        if not self._lease_s:
            self.has_no_hosts()
        if self._held_back is not None:
            held, self._held_back = self._held_back, None
            self.store(*held)

    def _answered(self) -> None:
        assert self._store is not None
        self._mark()
        was = self._store.failure
        self._store.deliver()
        if self._store.is_broken:
            self._broken(self._store.failure)
        if was:
            log.error("durable jobs are refused: %s", was)
        self._set_deadline()

    def retry_blocked(self) -> None:
        """Try jobs again whose functions could not be imported."""
        if self._policy is not None and self._store is not None and not self._store.failure:
            self._store.do(Unblock(), self._unblocked)

    def _unblocked(self, _answer: Answer | StoreFailure) -> None:
        if self._policy is not None:
            self._policy.is_due(self.wall_ms())
            self._policy.tick()

    def _due(self, now: int) -> None:
        self._release(now)
        if self._policy is not None:
            self._policy.tick()
            self._set_deadline()

    def _set_deadline(self) -> None:
        assert self._policy is not None
        if self._store is not None and self._store.failure:
            self._deadline.set(None)
            return
        wait_ms = max(0, self._policy.next_ms() - self.wall_ms())
        due = time.monotonic_ns() + wait_ms * 1_000_000
        self._deadline.set(min(due, self._hold_ns) if self._hold_ns else due)

    # -- what the policy needs (sched.durable.Ports) -----------------------------------------------

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def store(self, operation: Operation, told: Told) -> None:
        """Have an operation applied."""
        assert self._store is not None
        if self._hold_ns and isinstance(operation, TakeJobs):
            self._held_back = operation, told
            return
        self._store.do(operation, told)

    def feed(self, event: events.ClientEvent) -> None:
        """Give an event to the rest of the policy."""
        self._sched.handle(event, time.monotonic_ns())

    def reply(self, link: Any, request: int, *, ok: bool, value: Any) -> None:
        """Answer a question: of a client, or of a part of this process. Not with what a broken
        store leaves open, which the client asks the next daemon."""
        if self._volatile:
            value = with_stored(self._volatile.pop((link, request), None), value)
        if not ok and self.is_broken:
            return
        if isinstance(link, Asker):
            link.replied(request, ok=ok, value=value)
        else:
            self._send(link, protocol.Reply(request, ok, value))

    def failed(self, failure: Failure) -> None:
        """An attempt did not end well."""
        self._have_failed([failure])

    def identities(self, seqs: Sequence[int]) -> tuple[bytes, list[int]]:
        """Ids of jobs that it has submitted, in one, and the numbers of their attempts."""
        assert self._policy is not None
        ids, attempts = zip(*self._policy.identities(seqs), strict=True)
        return b"".join(ids), list(attempts)

    def live_log(self, seq: int, after: int) -> dict[str, Any] | None:
        """The output of a running attempt from byte ``after`` on; None if it has not begun."""
        job = None if self._session is None else self._session.jobs.get(seq)
        return None if job is None else self.views.log(job, after)

    def where(self, seq: int) -> dict[str, Any]:
        """Where an attempt runs, and how far it is."""
        job = None if self._session is None else self._session.jobs.get(seq)
        return {} if job is None else self.views.live(job)

    def shown_id(self, job: Job) -> str:
        """The id that clients know a leased job by, in hex: of a durable one the store's; empty if
        that is not known."""
        if not job.session.patient:
            return job.id
        if self._policy is None:
            return ""
        ((id_, _),) = self._policy.identities([job.seq])
        return id_.hex() if any(id_) else ""

    def limit(self, key: str) -> dict[str, Any] | None:
        """The limit of a key as it is now."""
        return self.views.limit(key)

    def overrunning(self) -> set[int]:
        """Seqs of attempts whose frames run on although the ledger has reported an end."""
        records = self._sched.records()
        return {
            overrun.job.seq
            for record in records
            for overrun in record.overrunning.values()
            if overrun.job.session is self._session
        }

    # -- clients -----------------------------------------------------------------------------------

    def receive(
        self,
        peer: bytes,
        session: Session,
        message: protocol.Enqueue | protocol.AskJobs,
        frames: list[Any],
        owner: str | None = None,
    ) -> None:
        """A client's message about durable jobs. ``owner``: it may know this owner's jobs only.
        Raises ProtocolError."""
        try:
            if isinstance(message, protocol.AskJobs):
                rest = self._answer_volatile(peer, message, owner)
                if rest is None:
                    return
                message = rest
            policy = self._open()
            match message:
                case protocol.Enqueue():
                    self._enqueue(policy, peer, session, message, frames)
                case protocol.AskJobs(_, _, ids) if owner is None:
                    self._ask(policy, peer, message, tuple(ids))
                case protocol.AskJobs():
                    self._ask_own(policy, peer, message, owner)
                case _:
                    assert_never(message)
        except ConfigError as error:
            self._send(peer, protocol.Reply(message.request, False, str(error)))
        else:
            self._set_deadline()

    def _answer_volatile(
        self, peer: bytes, message: protocol.AskJobs, owner: str | None
    ) -> protocol.AskJobs | None:
        """Answer for volatile jobs; the question that is left for the store, None if there is none.
        The answer waits for that of the store."""
        jobs = self.views.find(message.ids, owner)
        rest = [id_ for id_ in message.ids if id_ not in jobs]
        if not jobs and self._is_used:
            return message
        value = self.views.answer(message, jobs)
        if not rest or not self._is_used:
            self.reply(peer, message.request, ok=True, value=value)
            return None
        self._volatile[peer, message.request] = value
        return msgspec.structs.replace(message, ids=rest)

    @property
    def _is_used(self) -> bool:
        """Whether there is a store: a question opens none."""
        if self._policy is not None:
            return True
        return isinstance(self._place, Path) and (self._place / "jobs.sqlite").exists()

    def _enqueue(
        self,
        policy: Durable,
        peer: bytes,
        session: Session,
        message: protocol.Enqueue,
        frames: list[Any],
    ) -> None:
        fn = session.functions.get(message.fid)
        if fn is None or fn.kind == PART:
            raise ProtocolError(f"Enqueue names function {message.fid}, which was never defined")
        # One that is draining stores them for the next daemon.
        functions = self._stored_functions(fn)
        digest = functions[-1].digest
        options = message.options or protocol.Options()
        packed = _encode(options)
        now_ms = self.wall_ms()
        run_at = message.run_at if message.run_at is not None else now_ms
        run_at = max(run_at, now_ms + int(options.delay * 1000))
        buffers = protocol.split_buffers(message.buffer_counts, len(message.payloads), frames)
        limit = options.limit[0] if options.limit else ""
        jobs = []
        for id_, payload, own in zip(message.ids, message.payloads, buffers, strict=True):
            kept = tuple(map(bytes, own))
            jobs.append(
                NewJob(
                    id_, content_digest(digest, packed, payload, kept), digest, session.name,
                    options.priority, packed, payload, kept, now_ms, run_at, message.expires,
                    message.keep, options.unique, message.once, session.owner, limit,
                    options.on_held == "replace",
                )
            )  # fmt: skip
        policy.enqueue(peer, message.request, jobs, functions)

    def _stored_functions(self, fn: Function) -> tuple[StoredFunction, ...]:
        """A function as the store keeps it, after the parts it needs."""
        found = self._stored.get(fn.fid)
        if found is None:
            parts = [each for part in fn.needs for each in self._stored_functions(part)]
            needs = tuple(self._stored_functions(part)[-1].digest for part in fn.needs)
            digest = _function_digest(fn, needs)
            own = StoredFunction(digest, fn.kind, fn.name, fn.payload, needs)
            found = tuple(dict.fromkeys([*parts, own]))
            if len(self._stored) >= _FUNCTIONS_MAX:
                self._stored.clear()
            self._stored[fn.fid] = found
        return found

    def _ask_own(self, policy: Durable, peer: bytes, message: protocol.AskJobs, owner: str) -> None:
        """The question of a client that may know its own jobs only: others are as unknown."""
        request, ids = message.request, tuple(message.ids)
        if message.what == "find":
            policy.ask(peer, request, Find(ids), owner)
            return

        def found(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                self.reply(peer, request, ok=False, value=answer.text)
                return
            own = tuple(job.id for job in known_to(owner, answer) if job is not None)
            if not own and message.what == "result":
                self.reply(peer, request, ok=True, value=False)
            elif not own and message.what in ("log", "call"):
                self.reply(peer, request, ok=True, value=None)
            elif not own and message.what == "story":
                self.reply(peer, request, ok=True, value=[])
            else:
                self._ask(policy, peer, message, own)

        self.store(Find(ids), found)

    def _ask(
        self,
        policy: Durable,
        peer: bytes,
        message: protocol.AskJobs,
        ids: tuple[bytes, ...],
    ) -> None:
        request = message.request
        match message.what:
            case "find":
                policy.ask(peer, request, Find(ids))
            case "result":
                policy.await_result(peer, request, ids[0])
            case "story":
                policy.ask(peer, request, Story(ids[0]))
            case "call":
                policy.ask(peer, request, ReadCall(ids[0]))
            case "log":
                policy.log(peer, request, ids[0], message.n, message.after)
            case "cancel" | "force":
                policy.cancel(peer, request, ids, force=message.what == "force")
            case "retry":
                policy.revive(peer, request, ids)
            case "remove":
                policy.ask(peer, request, Remove(ids))
            case _:
                assert_never(message.what)

    def list_jobs(
        self, peer: bytes, request: int, params: dict[str, Any], owner: str | None
    ) -> None:
        """The question ``jobs`` of the command line. ``owner``: of this owner's jobs. Raises
        ConfigError."""
        if not self._is_used:
            self.reply(peer, request, ok=True, value=[])
            return
        names = {state.name.lower(): state for state in StoredState}
        state, limit = params.get("state"), params.get("limit", 100)
        function = str(params.get("function") or "")
        if type(limit) is not int or not 1 <= limit <= LIST_MAX:
            raise ConfigError(f"limit must be 1 to {LIST_MAX}, not {limit!r}")
        if state == "running":
            self._open().ask_running(peer, request, function, limit, owner)
            return
        if state is not None and state not in names:
            raise ConfigError(f"no such state: {state!r} (known: running, {', '.join(names)})")
        states = () if state is None else (names[state],)
        before = params.get("before")
        question = ListJobs(states, function, limit, before, owner)
        self._open().ask(peer, request, question)

    def count(self, peer: bytes, request: int, owner: str | None) -> None:
        """The question ``job_counts``: how many jobs are in each state."""
        if not self._is_used:
            self.reply(peer, request, ok=True, value={})
            return
        self._open().ask(peer, request, Count(owner))

    def forget(self, peer: bytes) -> None:
        """A client has gone."""
        self._volatile = {key: each for key, each in self._volatile.items() if key[0] != peer}
        if self._policy is not None:
            self._policy.forget(peer)

    # -- periodic jobs -----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a store in use."""
        return self._policy is not None

    def operate(self, operation: Operation, told: Told) -> None:
        """Have an operation on the store applied. Raises ConfigError when there can be none."""
        self._open()
        self.store(operation, told)

    def put_tick(
        self,
        asker: Asker,
        request: int,
        job: NewJob,
        function: StoredFunction,
        row: StoredSchedule | None,
    ) -> None:
        """Store the job of a schedule, with the row of that; answered as Enqueue is."""
        self._open().enqueue(asker, request, [job], [function], row)
        self._set_deadline()

    def await_end(self, asker: Asker, request: int, id_: bytes) -> None:
        """Answered as AskJobs ``result`` is."""
        self._open().await_result(asker, request, id_)

    # -- the rest of the policy --------------------------------------------------------------------

    def ended(self, outcomes: Outcomes) -> None:
        """Attempts have ended."""
        assert self._policy is not None
        self._policy.ended(outcomes)
        self._set_deadline()

    def running(self, seqs: list[int]) -> None:
        """Attempts have begun."""
        assert self._policy is not None
        self._policy.running(seqs)

    def refresh_status(self, then: Callable[[], object]) -> bool:
        """Call ``then`` once ``status`` has new counts; False: it has them, or there are none."""
        if self._store is None or self._store.failure:
            return False
        return self._survey.refresh(then)

    def status(self) -> DurableStatus:
        """The part of the status of the daemon on durable jobs."""
        store, policy = self._store, self._policy
        if store is None or policy is None:
            return DurableStatus()
        last = self._survey.last
        if store.failure:
            state = "broken" if store.is_broken else "refused"
        else:
            state = "full" if store.is_full else "open"
        return DurableStatus(
            state=state,
            why=store.failure,
            jobs=self._survey.jobs(policy.running_now()),
            blocked=[Blocked(each.name, each.jobs, each.text) for each in last.blocked],
            bytes=last.nbytes,
            window=policy.held,
            commits=store.commits,
            operations=store.operations,
        )

    @property
    def failure(self) -> str:
        """Why durable jobs are refused; empty if they are not, or none was asked for."""
        return "" if self._store is None else self._store.failure

    @property
    def is_broken(self) -> bool:
        """The state of the disk is unknown: this process must end, and the next one reads it."""
        return self._store is not None and self._store.is_broken

    @property
    def unfinished(self) -> int:
        """Jobs of the ledger that are durable: none is lost when the daemon ends."""
        return 0 if self._session is None else len(self._session.jobs)

    @property
    def is_storing(self) -> bool:
        """Whether jobs have ended, and neither the disk nor the clients that wait know it yet."""
        return self._session is not None and self._session.owed > 0 and not self.failure

    # -- the end -----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Submit no more; jobs that no worker has stay in the store."""
        if self._policy is not None and self._session is not None:
            self._policy.drain(
                [seq for seq, job in self._session.jobs.items() if job.state in WAITS]
            )

    def close(self) -> None:
        """Store the ends of jobs, and close."""
        if self._store is not None and not self._store.close(CLOSE_S):
            log.error("the store of durable jobs did not end within %g s", CLOSE_S)


def named_function(name: str) -> StoredFunction:
    """A function that workers import by its name (``module:function``), as the store keeps it."""
    described = _encode(["name", name, b"", ()])
    return StoredFunction(blake2b(described, digest_size=16).digest(), "name", name, b"")


def _function_digest(fn: Function, needs: tuple[bytes, ...]) -> bytes:
    if fn.kind == PART:  # it has a name of its own, and may be large
        return blake2b(f"part {fn.name}".encode(), digest_size=16).digest()
    described = _encode([fn.kind, fn.name, fn.payload, needs])
    return blake2b(described, digest_size=16).digest()
