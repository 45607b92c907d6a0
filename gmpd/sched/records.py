"""The records of the coordinator's policy: jobs, functions, sessions, Ps. No rules live here.

A record never knows a socket, a frame's meaning or the time; payloads are opaque bytes. Each record
has a bounded ``repr`` for bug reports: numbers and names, no users' values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from gmpd.protocol import Options, Outcome
from gmpd.sched.per_function import FunctionCounts
from gmpd.sched.states import JobState

#: A P that holds work and is silent for this long is probed: a G's time slice (Go:
#: ``forcePreemptNS``), so that one that hands a long G off speaks in time. While it moves, the
#: probes get rarer, down to one per PROBE_EVERY_MAX_NS.
PROBE_AFTER_NS = 10_000_000
PROBE_EVERY_MAX_NS = 1_000_000_000

Buffers: TypeAlias = Sequence[Any]
NO_BUFFERS: Buffers = ()


@dataclass(frozen=True)
class Policy:
    """Numbers that the policy obeys; ``config`` has their defaults and reasons. Times in ns."""

    queue_jobs: int = 1_000_000
    queue_bytes: int = 1 << 30
    window: int = 65_536
    #: Jobs of a client beyond which none more is answered by its worker.
    answered_max: int = 4
    credit_ns: int = 2_000_000
    credit_max: int = 256
    started_max: int = 10_000
    #: As credit_ns, but of each core of a host: the work of the time in which a batch gets there,
    #: and the outcomes of the last one come back.
    host_credit_ns: int = 30_000_000
    #: Bytes of outcomes that a client has not confirmed: beyond the first no more are sent to it,
    #: beyond the second no more of its jobs are leased.
    outbox_bytes: int = 16 << 20
    results_bytes: int = 64 << 20
    strikes: int = 3
    #: Bytes of captured output that are kept of one attempt, and of all that run.
    job_output: int = 64 << 10
    output: int = 64 << 20
    #: How long the jobs beside one that ends with its worker may continue.
    grace_ns: int = 5_000_000_000
    #: Isolated jobs that may run at once, and workers kept ready for more of them.
    isolated: int = 1
    isolated_spares: int = 0
    seed: int = 1


#: A client confirms outcomes of more bytes as soon as it has read them (``submit.core.ACK_BYTES``).
READ_BYTES = 1 << 20
#: Characters of a name, and rows of a collection, in a record's ``repr``.
NAME_SHOWN = 60
ROWS_SHOWN = 5


def some(rows: Collection[object]) -> str:
    """A collection in a record's ``repr``: the first rows, and how many there are."""
    shown = ", ".join(str(each) for each in islice(rows, ROWS_SHOWN))
    return f"[{shown}]" if len(rows) <= ROWS_SHOWN else f"[{shown}, ... {len(rows)} in all]"


def earliest(*times: int | None) -> int | None:
    """The first of some moments, of which there may be none."""
    first = None
    for at in times:
        if at is not None and (first is None or at < first):
            first = at
    return first


class Function:
    """One function that jobs call. ``est_ns`` is the running average of the time it occupies a P.

    The average is exponential, 1/8 of each new value (as TCP's round trip: quick, not jumpy), and
    is shared by all sessions that use the same function: what is learned stays learned.
    """

    __slots__ = (
        "bulky", "counts", "est_ns", "fid", "jobs", "key", "kills", "kind", "name", "needs",
        "payload", "users",
    )  # fmt: skip

    def __init__(
        self, fid: int, key: tuple[Any, ...], payload: bytes, needs: tuple[Function, ...] = ()
    ) -> None:
        self.fid = fid
        self.key = key
        self.kind, self.name = key[0], key[1]
        self.payload = payload
        #: Parts of a program that a worker is taught first. Each counts this among its users.
        self.needs = needs
        #: None until the first job of it has ended: unknown functions go out one at a time.
        self.est_ns: int | None = None
        #: It has given results that count as time.
        self.bulky = False
        #: Of its ended jobs; None until the first one has ended.
        self.counts: FunctionCounts | None = None
        #: Numbers of sessions that mean it, and its unfinished jobs. Forgotten, here and in
        #: workers, when neither is left.
        self.users = 0
        self.jobs = 0
        #: When jobs of it ended their workers, the last few times: see ``suspects``.
        self.kills: tuple[int, ...] = ()

    def __repr__(self) -> str:
        est = "unknown" if self.est_ns is None else f"{self.est_ns / 1e6:.3f} ms"
        return (
            f"<Function {self.fid} {self.kind} {self.name[:NAME_SHOWN]!r} takes {est},"
            f" {self.jobs} jobs, {self.users} users, {len(self.kills)} kills>"
        )


class Job:
    """One accepted job; states.py says which part owns it when."""

    __slots__ = (
        "accepted_ns", "attempt", "buffers", "cancelling", "deaths", "due_ns", "est_ns", "fn",
        "leased_ns", "moved", "moves", "nbytes", "options", "p", "payload", "seq", "session",
        "spared", "state", "streamed", "suspected", "token", "withheld",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        seq: int,
        fn: Function,
        options: Options | None,
        payload: bytes,
        buffers: Buffers,
        nbytes: int,
        state: JobState,
        accepted_ns: int,
    ) -> None:
        self.session = session
        self.seq = seq
        self.fn = fn
        self.options = options
        self.payload = payload
        self.buffers = buffers
        self.nbytes = nbytes
        self.accepted_ns = accepted_ns
        #: Since when it waits: its delay, or the time between two attempts, was over then.
        self.due_ns = accepted_ns
        self.state = state
        self.attempt = 1
        self.deaths = 0
        #: Attempts that ended because another job ended their worker: they use up no retry.
        self.spared = 0
        #: It waits among the jobs of suspect functions.
        self.suspected = False
        #: The P that holds the lease, and its token; meaningless unless leased.
        self.p: PRecord | None = None
        self.token = 0
        #: The cost of this lease, of its P's credit.
        self.est_ns = 0
        self.cancelling = False
        self.leased_ns = 0
        #: It was taken from a victim and is not leased again yet; and how often it was taken.
        self.moved = False
        self.moves = 0
        #: Items already went to the client: a second attempt would repeat them.
        self.streamed = False
        #: Its result stays in its worker, as its client takes none.
        self.withheld = False

    @property
    def may_retry(self) -> bool:
        """Whether its ``retries`` allow another attempt."""
        retries: int = self.option("retries", 0)
        return self.used <= retries

    @property
    def used(self) -> int:
        """Attempts that count against ``retries``."""
        return self.attempt - self.spared

    def next_attempt(self, *, spared: bool = False) -> None:
        """Another attempt begins to wait. ``spared``: the last one uses up no retry."""
        self.attempt += 1
        self.spared += spared
        self.p = None
        self.withheld = False
        if self.options is not None and self.options.backoff_fn is not None:
            self.options = replace(self.options, attempt=self.used)

    def option(self, name: str, default: Any) -> Any:
        return default if self.options is None else self.options.get(name, default)

    @property
    def is_isolated(self) -> bool:
        """Whether it has a worker for itself."""
        return self.options is not None and self.options.isolate

    @property
    def id(self) -> str:
        """As its client and the log have it."""
        return self.session.id_of(self.seq)

    @property
    def is_unique(self) -> bool:
        """Whether it has a ``unique`` key."""
        return self.options is not None and self.options.unique is not None

    @property
    def is_limited(self) -> bool:
        """Whether it waits for a limit before it waits for a worker."""
        return self.options is not None and self.options.limit is not None

    def story(self) -> str:
        where = f"P{self.p.p} epoch {self.p.epoch} token {self.token}" if self.p else "no P"
        name, fn = self.session.name[:NAME_SHOWN], self.fn.name[:NAME_SHOWN]
        return f"job {name}/{self.seq} {fn} is {self.state.name}, attempt {self.attempt}, {where}"

    def __repr__(self) -> str:
        flags = [each for each in _FLAGS if getattr(self, each)]
        return f"<{self.story()}{', ' if flags else ''}{', '.join(flags)}>"


#: Flags of a job that its ``repr`` names when they are set.
_FLAGS = ("cancelling", "moved", "streamed", "suspected", "withheld")


class Overrun:
    """An attempt of ``job`` whose time limit has passed and whose frame has not ended.

    ``waits``: the job, if it gets another attempt when the frame has ended. Otherwise its outcome
    was reported, and the frame's value is dropped.
    """

    __slots__ = ("job", "limit", "since_ns", "until_ns", "waits")

    def __init__(self, job: Job, now: int, limit: Any = None) -> None:
        self.job = job
        #: Its place in the limit of its key (``gates.Pass``), until the frame has ended.
        self.limit = limit
        self.since_ns = now
        self.waits: Job | None = None
        #: The job waits until then.
        self.until_ns = 0

    def __repr__(self) -> str:
        waits = "nothing waits for its end" if self.waits is None else "another attempt waits"
        return f"<Overrun since {self.since_ns} ns, {waits}: {self.job.story()}>"


class Outcomes:
    """Outcomes that wait to be sent to one session, in the columns of protocol.Done."""

    __slots__ = ("buffers", "nbytes", "payloads", "ran_us", "seqs", "specials")

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.payloads: list[bytes] = []
        self.ran_us: list[int] = []
        self.specials: dict[int, tuple[Outcome, dict[str, Any]]] = {}
        self.buffers: list[Buffers] = []
        self.nbytes = 0

    def __repr__(self) -> str:
        special = f", {len(self.specials)} not plainly OK" if self.specials else ""
        return f"<Outcomes of seqs {some(self.seqs)}, {self.nbytes} bytes{special}>"

    def split(self, most: int) -> Outcomes:
        """Take the first of them, up to ``most`` bytes, at least one."""
        rows = nbytes = 0
        for payload, own in zip(self.payloads, self.buffers, strict=True):
            size = len(payload) + sum(map(len, own))
            if rows and nbytes + size > most:
                break
            rows += 1
            nbytes += size
        first = Outcomes()
        first.seqs, self.seqs = self.seqs[:rows], self.seqs[rows:]
        first.payloads, self.payloads = self.payloads[:rows], self.payloads[rows:]
        first.ran_us, self.ran_us = self.ran_us[:rows], self.ran_us[rows:]
        first.buffers, self.buffers = self.buffers[:rows], self.buffers[rows:]
        first.specials = {i: each for i, each in self.specials.items() if i < rows}
        self.specials = {i - rows: each for i, each in self.specials.items() if i >= rows}
        first.nbytes = nbytes
        self.nbytes -= nbytes
        return first


class Failure(NamedTuple):
    """A failed attempt of a client's job, which the shell reports."""

    id: str
    fn: str
    client: str
    outcome: Outcome
    attempt: int
    #: Another attempt follows.
    again: bool
    #: Beside ``payload``, the error.
    text: str
    payload: bytes
    #: Where it ran; None: nowhere, or in an isolated worker.
    p: int | None = None

    def __repr__(self) -> str:
        again = ", tried again" if self.again else ""
        return (
            f"<Failure {self.outcome.name} of job {self.id} {self.fn[:NAME_SHOWN]} of"
            f" {self.client[:NAME_SHOWN]!r}, attempt {self.attempt}{again}>"
        )


@dataclass(eq=False, repr=False)
class Session:
    """One client. ``link`` is the shell's name for the way to it; opaque here. ``key`` is how the
    ids of its jobs begin. ``owner``: whose jobs these are, by the name of a key; empty for all
    programs of this machine.

    ``parent``: the client is a worker, the home of Gs whose children run elsewhere as jobs.
    """

    sid: int
    link: Any
    name: str
    parent: PRecord | None = None
    key: str = ""
    owner: str = ""
    jobs: dict[int, Job] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=Outcomes)
    #: It keeps jobs refused for lack of room until it is offered room.
    waits: bool = False
    #: It wants to be told how far its jobs are.
    watches: bool = False
    #: It takes values from workers.
    answers: bool = False
    #: It retries by itself: it gets a TIMEOUT only when the frame has ended.
    patient: bool = False
    #: Bytes of the arguments of its unfinished jobs.
    nbytes: int = 0
    #: It takes no results: none of its jobs is leased until it has taken some.
    full: bool = False
    #: Results that workers keep, by seq, and the bytes of each; and those that were asked for.
    kept: dict[int, int] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    #: Outcomes handed to the shell, and those that the client said it has.
    delivered: int = 0
    acked: int = 0
    #: Bytes of outcomes on their way: beyond Policy.outbox_bytes more wait in ``outcomes``.
    unacked_bytes: int = 0
    #: Of delivered batches: outcomes up to their ends, their bytes, so that an Ack gives the right
    #: number back, and when they were sent.
    batches: deque[tuple[int, int, int]] = field(default_factory=deque)

    def __repr__(self) -> str:
        flags = f"{', takes no results' if self.full else ''}{', waits' if self.waits else ''}"
        return (
            f"<Session {self.sid} {self.name[:NAME_SHOWN]!r}: {len(self.jobs)} jobs,"
            f" {len(self.functions)} functions, {self.delivered} outcomes sent,"
            f" {self.acked} acknowledged, {self.untaken} bytes not{flags}>"
        )

    def id_of(self, seq: int) -> str:
        """The id of one of its jobs."""
        return f"{self.key}{seq & 0xFFFFFFFF:08x}"

    @property
    def untaken(self) -> int:
        """Bytes of outcomes that it has not confirmed: held here, or on their way to it."""
        return self.outcomes.nbytes + self.unacked_bytes

    @property
    def unread_since_ns(self) -> int | None:
        """When it was sent so much that it confirms it as soon as it has read it, which it has not;
        None: it reads, as far as can be known."""
        nbytes = 0
        if self.unacked_bytes > READ_BYTES:
            for _, size, sent_ns in self.batches:
                nbytes += size
                if nbytes > READ_BYTES:
                    return sent_ns
        return None

    @property
    def owed(self) -> int:
        """Jobs without an acknowledged outcome: bounded by the window."""
        return len(self.jobs) + len(self.outcomes.seqs) + self.delivered - self.acked


class PRecord:
    """The coordinator's side of one P: its leases and what it is worth asking for.

    ``fresh`` and ``started`` map tokens to jobs in order of lease; together they are its leases.
    """

    __slots__ = (
        "aside", "asked", "children", "collected", "cores", "deaf", "deaf_ns", "defined",
        "draining", "ending", "epoch", "finished", "fresh", "host", "next_token", "overrunning",
        "p", "probe_at_ns", "probe_every_ns", "ready", "session", "started", "steal_hits",
        "steal_misses", "stolen_from", "stolen_to", "used_ns", "withheld",
    )  # fmt: skip

    def __init__(self, p: int, epoch: int) -> None:
        self.p = p
        #: Of the worker that houses it: +1 with every new worker; older messages are not believed.
        self.epoch = epoch
        #: The machine that it is a bridge to, and the cores there; empty and 1 on this machine.
        self.host = ""
        self.cores = 1
        self.ready = False
        self.draining = False
        #: It drains because its worker is to be replaced, which may be called off.
        self.ending = False
        self.fresh: dict[int, Job] = {}
        self.started: dict[int, Job] = {}
        #: Of ``fresh``: what its worker has set aside, and begins after others. Read ``set_aside``.
        self.aside: set[int] = set()
        #: Attempts that left their lease at their time limit, and whose frames have not ended.
        self.overrunning: dict[int, Overrun] = {}
        #: Leases that have ended, and whose results their worker keeps: their client takes none.
        self.withheld: dict[int, Job] = {}
        #: Sum of est_ns over ``fresh``: what it has been given and not yet begun.
        self.used_ns = 0
        #: Tokens are per P and rise over its whole life, epochs included: none is ever used twice.
        self.next_token = 1
        #: Functions that this epoch's worker has been told.
        self.defined: set[int] = set()
        #: As the client of its children that run elsewhere; None until the first one leaves.
        self.session: Session | None = None
        #: Fresh children that its worker said it has: a hint, true when it was sent.
        self.children = 0
        #: It was asked for children and has not answered yet.
        self.asked = False
        #: When to probe it, and how long after that again; 0: not before it is heard
        #: of or given work. Only while it holds something.
        self.probe_at_ns = 0
        self.probe_every_ns = PROBE_AFTER_NS
        #: Its run loop stood still when it was looked at: it is stopped, or in C code, or in a step
        #: of a coroutine that lasts. It gets nothing more while another P hears, and takes nothing.
        self.deaf = False
        #: Since when, or when it was so last.
        self.deaf_ns = 0
        #: Leases whose outcomes were read from the shared memory of a silent worker.
        self.collected: set[int] = set()
        self.finished = 0
        self.stolen_to = 0
        self.stolen_from = 0
        self.steal_hits = 0
        self.steal_misses = 0

    def __repr__(self) -> str:
        flags = [each for each in ("ready", "draining", "deaf", "asked") if getattr(self, each)]
        held = {
            "fresh": self.fresh,
            "started": self.started,
            "aside": self.aside,
            "overrunning": self.overrunning,
            "withheld": self.withheld,
        }
        leases = "".join(f", {name} {some(tokens)}" for name, tokens in held.items() if tokens)
        on = f" on {self.host[:NAME_SHOWN]} with {self.cores} cores" if self.host else ""
        return (
            f"<P{self.p} epoch {self.epoch}{on} {' '.join(flags) or 'without a worker'}{leases},"
            f" {self.used_ns / 1e6:.3f} ms of credit used, next token {self.next_token}>"
        )

    def add_counts(self, other: PRecord) -> None:
        """Count what another worker of this P has counted as its own."""
        self.finished += other.finished
        self.stolen_to += other.stolen_to
        self.stolen_from += other.stolen_from
        self.steal_hits += other.steal_hits
        self.steal_misses += other.steal_misses

    def is_deaf_for(self, ns: int, now: int) -> bool:
        """Whether it has been deaf for ``ns``."""
        return self.deaf and now - self.deaf_ns >= ns

    def set_aside(self) -> set[int]:
        """Leases that have not begun, and that its worker begins after others."""
        if self.aside:
            self.aside &= self.fresh.keys()
        return self.aside

    def job(self, token: int) -> Job | None:
        """The job of a lease whose outcome is not known."""
        return self.started.get(token) or self.fresh.get(token) or self.withheld.get(token)

    def job_of(self, token: int) -> Job | None:
        """The job of a lease whose frame has not ended, be its outcome known or not."""
        overrun = self.overrunning.get(token)
        return self.job(token) if overrun is None else overrun.job

    @property
    def begun(self) -> int:
        """Leases that its worker began and has not ended."""
        return len(self.started) + len(self.overrunning)

    @property
    def is_holding(self) -> bool:
        """Whether it holds leases or children, so that its worker must report."""
        return self.ready and bool(self.fresh or self.started)

    def own_children(self) -> int | None:
        """The session to pass over for this P: its own children, while it has more at home."""
        session = self.session
        return session.sid if session is not None and self.children else None

    def end_lease(self, token: int) -> Job | None:
        """Release a lease, and the credit that it used; None when it is not held."""
        job = self.fresh.pop(token, None)
        if job is not None:
            self.used_ns -= job.est_ns
            return job
        return self.started.pop(token, None) or self.withheld.pop(token, None)
