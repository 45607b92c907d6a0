"""The coordinator's policy: events and ``now`` in, instructions out (Go: ``schedt``).

**The tension.** Work should start at once wherever a P is free, so it wants to be leased early;
and it should never wait behind something long while another P is idle, so it wants to be kept back.

**Rejected.** One queue that workers pull from, a job at a time: fair, but every job costs a round
trip (0.2 ms here) with an idle P in it. Dealing everything out on arrival: no round trips, but a
long job delays all jobs dealt behind it until they are stolen. Fixed batches: too long for slow
jobs and too short for fast ones.

**Chosen.** Credit by *time* (``leasing``): a P holds about 2 ms of fresh work, and more of it while
nothing else waits (``backlog``). The rest waits in one queue that is fair between clients
(``globq``). A job queued behind an unexpectedly long one is stolen as soon as another P has nothing
(``steal``). Children of Gs stay in their worker until another P has nothing (``children``).
Isolated jobs wait in a queue of their own, for workers of their own (``isolated``); and so do jobs
of functions that keep ending their workers (``suspects``). Jobs with limits wait for those first
(``gates``).

This module only maps events (``events``) to parts, and orders the decisions. It never reads a
clock, uses randomness, does IO or logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, assert_never, get_args

from gmpd.errors import InvariantError, ProtocolError
from gmpd.sched import events
from gmpd.sched.admission import Admission, RoomQueue
from gmpd.sched.audit import audit
from gmpd.sched.backpressure import Backpressure
from gmpd.sched.cancels import Cancels
from gmpd.sched.children import Children
from gmpd.sched.deaths import Deaths
from gmpd.sched.events import AnyEvent, TurnEnded
from gmpd.sched.history import History
from gmpd.sched.instructions import Instruction, Kill
from gmpd.sched.lease_events import LeaseEvents
from gmpd.sched.leasing import Leasing
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.ps import Ps
from gmpd.sched.random_order import RandomOrder
from gmpd.sched.records import Failure, Policy, PRecord, Session, earliest
from gmpd.sched.replacing import Replacing
from gmpd.sched.seen import Seen
from gmpd.sched.steal import Steals
from gmpd.sched.streams import Streams
from gmpd.sched.withdrawals import Withdrawals


class Sched:
    """The policy, whole. Not for two threads."""

    def __init__(self, policy: Policy) -> None:
        self._out: list[Instruction] = []
        order = RandomOrder(policy.seed)
        ps = Ps(self._out)
        ledger = Ledger(policy, ps.forget)
        self._limits = limits = Limits(ledger, self._out)
        self._replacing = replacing = Replacing(ledger, ps, limits, self._out)
        cancels = Cancels(ledger, replacing, self._out)
        children = Children(ledger, ps, cancels, order, self._out)
        self._cancels = cancels
        self._deaths = Deaths(ledger, ps, children, limits, replacing)
        self._lease_events = LeaseEvents(ledger, ps, limits, replacing, self._out)
        self._streams = Streams(ledger, self._out)
        self._seen = Seen(ledger, self._out)
        self._leasing = Leasing(ledger, ps, limits, self._out)
        self._steals = Steals(ledger, ps, order, self._out)
        self._children, self._ledger, self._ps = children, ledger, ps
        self._rooms = RoomQueue(ledger)
        self._withdrawals = Withdrawals(ledger, self._out)
        self._admission = Admission(ledger, self._rooms, self._withdrawals)
        self._backpressure = Backpressure(ledger, self._out)

        # Queries.
        #: Whether events came since the last turn: executing its instructions is one way they do.
        self.has_news = False
        self.history = History()
        self._keep = self.history.add
        #: For each class of event the method that handles its union. One look-up: isinstance of a
        #: struct costs 85 ns unless it is exactly of that class.
        self._group: dict[type, Callable[[Any, int], None]] = {
            **dict.fromkeys(get_args(events.WorkerEvent), self._worker_said),
            **dict.fromkeys(get_args(events.ClientEvent), self._client_did),
            **dict.fromkeys(get_args(events.PoolEvent), self._pool_changed),
            **dict.fromkeys(get_args(events.Answer), self._shell_answered),
        }
        self.ps = ps.all
        self.leaving = ps.leaving
        self.sessions = ledger.sessions
        self.queue = ledger.queue
        self.isolated = ledger.isolated
        self.suspects = ledger.suspects
        self.delays = ledger.delays
        self.progress = ledger.progress
        self.gates = ledger.gates
        self.output = ledger.output
        self.uniques = ledger.uniques
        self.functions = ledger.functions
        self.counters = ledger.counters
        self.started_max = policy.started_max
        self.strikes = policy.strikes

    def __repr__(self) -> str:
        return (
            f"<Sched: {len(self.ps)} Ps, {len(self.sessions)} sessions, {self.unfinished} jobs"
            f" unfinished, {self.queue!r}>"
        )

    # -- events ----------------------------------------------------------------------------------

    def handle(self, event: AnyEvent, now: int) -> list[Instruction]:
        """One event. Instructions come in batches: ``TurnEnded`` returns those of all events of the
        turn, other events return an empty list.

        Raises ProtocolError and changes nothing if the peer may not send this message. Any
        other error is a bug of gmpd, and carries the last events as a note.
        """
        kind = type(event)
        try:
            if kind is TurnEnded:
                self.has_news = False
                return self._decide(now)
            self.has_news = True
            self._keep((now, event.kept()))
            self._group[kind](event, now)
        except ProtocolError:
            raise
        except Exception as error:
            error.add_note(self.story())
            raise
        return []

    def _worker_said(self, event: events.WorkerEvent, now: int) -> None:  # noqa: C901 - a case per event
        p = event.p
        record = self.ps.get(p) or self.isolated.ps.get(p) or self._ps.leaving.get(p)
        if record is None or record.epoch != event.epoch:
            self.counters.dropped["stale_epoch"] += event.rows
            return
        self._ps.heard(record, now)
        leases = self._lease_events
        match event:
            case events.Finished():
                leases.finished(record, event.message, event.buffers, now)
            case events.Started():
                leases.started(record, event.tokens, now)
            case events.ItemsYielded():
                self._streams.items(record, event.token, event.payloads, event.buffers)
            case events.ChildrenCounted():
                self._children.counted(record, event.n, asked=event.asked)
            case events.SetAside():
                leases.set_aside(record, event.tokens)
            case events.Returned():
                leases.returned(record, event.tokens, now)
            case events.Withheld():
                leases.withheld(record, event.tokens, event.nbytes, now)
            case events.Expired():
                leases.expired(record, event.tokens, now)
            case events.NotCancelled():
                leases.not_cancelled(record, event.tokens)
            case events.Progressed():
                self._seen.progressed(record, event.message)
            case events.Printed():
                self._seen.printed(record, event.message)
            case events.Heard():
                pass
            case _:
                assert_never(event)

    def _client_did(self, event: events.ClientEvent, now: int) -> None:  # noqa: C901 - as above
        ledger = self._ledger
        session = ledger.sessions.get(event.sid)
        if session is None:
            if isinstance(event, events.SessionOpened):
                ledger.open_session(
                    event.link, event.name, waits=event.waits, key=event.key, owner=event.owner,
                    watches=event.watches, answers=event.answers,
                )  # fmt: skip
            elif not isinstance(event, events.SessionClosed):  # a session may end twice
                raise InvariantError(f"session {event.sid} is not open: {event}")
            return
        match event:
            case events.Submitted():
                self._admission.submit(
                    session, event.message, event.buffers, now, event.unregistered
                )
            case events.Acknowledged():
                ledger.outboxes.ack(session, event.outcomes)
            case events.Defined():
                ledger.functions.define(session, event.message, event.digest)
            case events.Undefined():
                ledger.functions.undefine(session, event.fids)
            case events.Cancelled():
                self._cancels.cancel(session, event.seqs, now, force=event.force)
            case events.Recalled():
                self._withdrawals.recall(session, event.seqs, now)
            case events.StartsRecalled():
                ledger.gates.recall(event.limit, [now - ago_ns for ago_ns in event.ago_ns])
            case events.Pulled():
                self._streams.pull(session, event.seq, event.n)
            case events.RoomDeclined():
                self._rooms.waive(session)
            case events.SessionClosed():
                self._cancels.close_session(session, now)
            case events.SessionOpened():
                raise InvariantError(f"session {event.sid} is open already: {event}")
            case _:
                assert_never(event)

    def _pool_changed(self, event: events.PoolEvent, now: int) -> None:  # noqa: C901 - as above
        match event:
            case events.WorkerReady():
                self._ps.ready(event.p, event.epoch, event.cores, event.host)
            case events.ParentOpened():
                self._children.open_parent(event.p, event.epoch, now)
            case events.Drained():
                self._ps.drain(event.p, now)
            case events.Left():
                self._children.renumbered(event.p, self._ps.leave(event.p, now))
            case events.Removed():
                self._ps.remove(event.p)
            case events.WorkerDied():
                self._deaths.worker_died(event, now)
            case events.Severed():
                self._deaths.severed(event.p, now)
            case events.IsolatedReady():
                self.isolated.ready(event.p)
            case events.IsolatedUnfit():
                self.isolated.broken(event.p)
            case events.IsolatedRenewed():
                self._out.extend(Kill(record) for record in self.isolated.renew())
            case events.IsolatedDied():
                self._deaths.isolated_died(event, now)
            case events.IsolatedLimited():
                self.isolated.limit = event.limit
            case events.Stalled():
                self._ledger.stalled = event.why
            case events.Draining():
                self._ledger.draining = True
            case _:
                assert_never(event)

    def _shell_answered(self, event: events.Answer, now: int) -> None:
        record = self.record(event.p)
        if record is None:  # removed meanwhile, and all that it held is elsewhere
            return
        match event:
            case events.Probed():
                self._ps.probed(record, moves=event.moves, asleep=event.asleep, now=now)
            case events.Claimed():
                self._lease_events.claimed(record, event.tokens, now)
            case events.OutcomesRecovered():
                self._lease_events.recovered(record, event.message, event.buffers, now)
            case events.Revoked():
                thief = None if event.thief is None else self.ps.get(event.thief)
                self._lease_events.revoked(record, event, thief, now)
            case _:
                assert_never(event)

    # -- decisions -------------------------------------------------------------------------------

    def _decide(self, now: int) -> list[Instruction]:
        """The instructions of this turn."""
        ledger, out = self._ledger, self._out
        self._let_wait(now)
        if ledger.unfinished:
            self._leasing.pump(now)
            self._leasing.take_back(now)
        isolated = self.isolated
        if not isolated.quiet:
            self._leasing.isolate(now)
        # Else another turn follows, which knows the deaf Ps.
        if ledger.unfinished and not self._ps.probe(isolated.ps, now):
            self._steals.steal(now)
        if self._children.parents:
            self._children.ask()
        ledger.outboxes.flush(out, now)
        if ledger.turned or ledger.releasing:
            self._backpressure.tell()
        if self._rooms.is_used:
            out.extend(self._rooms.tell(now))
        if not out:
            return []
        taken = out.copy()
        out.clear()
        self._keep((now, [*map(type, taken)]))
        return taken

    def _let_wait(self, now: int) -> None:
        """As time has passed: jobs begin to wait for a worker, or end."""
        ledger = self._ledger
        if self._replacing.is_used:
            self._replacing.due(now)
        if ledger.unfinished:  # else nothing waits, and no P holds anything
            if ledger.expiry.next_due is not None:
                self._withdrawals.expire(now)
            ledger.wake_delayed(now)
            self._limits.due(now)
        if ledger.gates.by_key:
            ledger.gates.open(now)

    def next_deadline(self) -> int | None:
        """When ``TurnEnded`` will act even if no other event comes until then.

        To be asked after one whose instructions were done: it has looked at all Ps.
        """
        ledger = self._ledger
        if ledger.outboxes.is_pending:
            return 0
        due = None if self.isolated.quiet else self.isolated.deadline(ledger.draining)
        if self._rooms.is_used:
            due = earliest(due, self._rooms.next_due())
        if ledger.gates.by_key:
            if ledger.gates.is_pending:
                return 0
            due = earliest(due, ledger.gates.next_due())
        if self._replacing.is_used:
            due = earliest(due, self._replacing.next_due())
        if not ledger.unfinished:
            return due
        return earliest(
            due,
            self.suspects.next_due,
            self.delays.next_due,
            self._ledger.expiry.next_due,
            self._limits.next_due(),
            self._ps.next_probe,
            self._steals.next_stale,
        )

    def take_failures(self) -> list[Failure]:
        """Attempts of clients' jobs that did not end well since the last call."""
        taken = self._ledger.failures
        if taken:
            self._ledger.failures = []
        return taken

    # -- questions -------------------------------------------------------------------------------

    @property
    def delivers(self) -> bool:
        """Whether the next turn delivers outcomes that the last one has left."""
        return self._ledger.outboxes.is_pending

    @property
    def next_sid(self) -> int:
        """The number of the next session."""
        return self._ledger.next_sid

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self._ledger.draining

    @property
    def stalled(self) -> str:
        """Why no P can get a worker, so that all jobs are refused; empty: one has, or may."""
        return self._ledger.stalled

    @property
    def unfinished(self) -> int:
        """Jobs that were accepted and have not ended."""
        return self._ledger.unfinished

    @property
    def nbytes(self) -> int:
        """Payload bytes of all unfinished jobs and of outcomes not yet sent."""
        return self._ledger.nbytes

    @property
    def arguments(self) -> int:
        """Bytes of the arguments of all unfinished jobs."""
        return self._ledger.jobs_nbytes

    @property
    def untaken(self) -> int:
        """Bytes of outcomes that clients have not confirmed."""
        return sum(session.untaken for session in self._ledger.sessions.values())

    @property
    def full(self) -> list[Session]:
        """Clients whose jobs are not leased, as they take no results."""
        return [session for session in self._ledger.sessions.values() if session.full]

    @property
    def held_back(self) -> int:
        """Their jobs that wait."""
        return sum(queue.held_back for queue in self._ledger.queues)

    @property
    def stealing(self) -> bool:
        """Whether a P was asked for children and has not answered: Ps without work search."""
        return any(record.asked for record in self.ps.values())

    def record(self, p: int) -> PRecord | None:
        """The P, or the leaving or isolated worker, of this number."""
        return self._ps.record(p) or self.isolated.ps.get(p)

    def records(self) -> Iterator[PRecord]:
        """Records of all Ps, leaving and isolated workers."""
        yield from self._ps.records()
        yield from self.isolated.ps.values()

    def is_idle(self, record: PRecord) -> bool:
        """Whether it is on the list of Ps without fresh work."""
        return record in self._ps.idle

    def validate(self) -> None:
        """Every invariant across the records; raises InvariantError. For tests, and
        after a handler has failed."""
        try:
            audit(self)
        except InvariantError as error:
            error.add_note(self.story())
            raise

    def story(self) -> str:
        """The last events and decisions, as text for a bug report."""
        lines = self.history.lines() or ["none"]
        return "\n".join(["the last events:", *lines])

    def could_run(self) -> bool:
        """Whether a job is queued for which an idle P has room: never, after a turn."""
        return self._leasing.could_run()
