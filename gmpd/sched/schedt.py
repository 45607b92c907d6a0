"""The coordinator's policy: what happened and ``now`` in, instructions out (Go: ``schedt``).

**The tension.** Work should start at once wherever a P is free, so it wants to be handed out early;
and it should never wait behind something long while another P is idle, so it wants to be kept back.

**Rejected.** One queue that workers pull from, a job at a time: fair, but every job costs a round
trip (0.2 ms here) with an idle P in it. Dealing everything out on arrival: no round trips, but a
long job hides all that was dealt behind it until somebody steals it back. Fixed batches: too
long for slow jobs and too short for fast ones, always.

**Chosen.** Credit by *time* (``handout``): a P holds about 2 ms of fresh work. The rest waits in
one queue that is fair between clients (``globq``). What hides all the same behind an unexpectedly
long job is stolen back as soon as another P has nothing (``stealing``). Children of Gs stay in
their worker until another P has nothing (``children``). Isolated jobs wait in a queue of their own,
for workers of their own (``isolated``); and so do jobs of functions that keep ending their workers
(``suspects``).

Here is only what may happen and the order of the decisions. It never reads a clock, rolls dice,
does IO or logs.
"""

from __future__ import annotations

from gmpd.sched.acceptance import Acceptance
from gmpd.sched.audit import audit
from gmpd.sched.backpressure import Backpressure
from gmpd.sched.cancels import Cancels
from gmpd.sched.children import Children
from gmpd.sched.deaths import Deaths
from gmpd.sched.handout import HandOut
from gmpd.sched.instructions import Instruction
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.ps import Ps
from gmpd.sched.records import Failure, Policy, PRecord, Session, earliest
from gmpd.sched.reports import Reports
from gmpd.sched.steal import RandomOrder
from gmpd.sched.stealing import Stealing
from gmpd.sched.streams import Streams
from gmpd.sched.waiting import Waiting


class Sched:
    """The policy, whole. Not for two threads."""

    def __init__(self, policy: Policy) -> None:  # noqa: PLR0915 - a line per event
        self._out: list[Instruction] = []
        order = RandomOrder(policy.seed)
        ps = Ps(self._out)
        ledger = Ledger(policy, ps.forget)
        cancels = Cancels(ledger, self._out)
        children = Children(ledger, ps, cancels, order, self._out)
        self._limits = limits = Limits(ledger, self._out)
        deaths = Deaths(ledger, ps, children, limits)
        reports = Reports(ledger, ps, limits, self._out)
        streams = Streams(ledger, self._out)
        self._handout = HandOut(ledger, ps, limits, self._out)
        self._stealing = Stealing(ledger, ps, order, self._out)
        self._children, self._ledger, self._ps = children, ledger, ps
        self._waiting = Waiting(ledger)
        self._backpressure = Backpressure(ledger, self._out)

        # What may happen, and who sees to it. Clients come, ask and go:
        self.open_session = ledger.open_session
        self.define = ledger.functions.define
        self.undefine = ledger.functions.undefine
        self.submit = Acceptance(ledger, self._waiting).submit
        self.waive = self._waiting.waive
        self.cancel = cancels.cancel
        self.pull = streams.pull
        self.ack = ledger.outboxes.ack
        self.close_session = cancels.close_session
        # Ps come and go:
        self.p_ready = ps.ready
        self.drain_p = ps.drain
        self.remove_p = ps.remove
        self.p_died = deaths.p_died
        self.isolated_died = deaths.isolated_died
        self.stall = deaths.stall
        # Workers speak:
        self.heard = ps.heard
        self.started = reports.started
        self.expired = reports.expired
        self.withheld = reports.withheld
        self.set_aside = reports.set_aside
        self.finished = reports.finished
        self.kept = reports.kept
        self.items = streams.items
        self.children = children.told
        self.parent_session = children.session
        # The shell did what it was told to:
        self.looked = ps.looked
        self.claimed = reports.claimed
        self.revoked = reports.revoked
        self.collected = reports.collected

        # What there is, to look at.
        self.ps = ps.all
        self.queue = ledger.queue
        self.isolated = ledger.isolated
        self.suspects = ledger.suspects
        self.delays = ledger.delays
        self.functions = ledger.functions
        self.tally = ledger.tally
        self.started_max = policy.started_max

    def drain(self) -> None:
        """Take no more jobs; what there is, is finished."""
        self._ledger.draining = True

    # -- decisions -------------------------------------------------------------------------------

    def take(self, now: int) -> list[Instruction]:
        """Decide, and give the shell all that is to be done: after each batch of events."""
        if self._ledger.unfinished:  # else nothing waits, and no P holds anything
            self._ledger.wake_delayed(now)
            self._limits.due(now)
            self._handout.pump(now)
            if not self._ps.look(now):  # else there is another ``take``, that knows who is deaf
                self._stealing.steal(now)
        self._children.ask()
        if not self.isolated.quiet:
            self._handout.isolate(now)
        self._ledger.outboxes.flush(self._out)
        if self._ledger.turned:
            self._backpressure.tell()
        if self._waiting:
            self._out.extend(self._waiting.tell(now))
        taken = self._out.copy()
        self._out.clear()
        return taken

    def next_deadline(self) -> int | None:
        """When ``take`` has something to do even if nothing happens until then.

        To be asked after a ``take`` whose instructions were done: it has looked at all Ps.
        """
        isolated = None if self.isolated.quiet else self.isolated.deadline(self.draining)
        due = earliest(isolated, self._waiting.next_due())
        if not self._ledger.unfinished:
            return due
        return earliest(
            due,
            self.suspects.next_due,
            self.delays.next_due,
            self._limits.next_due(),
            self._ps.next_look,
            self._stealing.next_stale,
        )

    def take_failures(self) -> list[Failure]:
        """Attempts of clients' jobs that did not end well since the last call."""
        taken = self._ledger.failures.copy()
        self._ledger.failures.clear()
        return taken

    # -- questions -------------------------------------------------------------------------------

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
        """Clients of which no jobs are handed out, for they take no results."""
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
        """The P, or the isolated worker, of this number."""
        return self.ps.get(p) or self.isolated.ps.get(p)

    def is_idle(self, record: PRecord) -> bool:
        """Whether it is on the list of Ps without fresh work."""
        return record in self._ps.idle

    def validate(self) -> None:
        """Every invariant across the records; raises InvariantError. For tests, and
        after a handler has failed."""
        audit(self)

    def could_run(self) -> bool:
        """Whether something waits that a P without work has room for: never, after ``take``."""
        return self._handout.could_run()
