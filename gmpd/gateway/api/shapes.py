"""The types of the JSON API: parameters, bodies and answers. Their checks, the OpenAPI document and
the texts in it follow from these declarations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

from gmpd.job import PRIORITY_MAX, RETRIES_MAX, SECONDS_MAX, TEXT_MAX
from gmpd.status import Cluster, PStatus, Status

#: Rows of one answer.
PAGE_MAX = 500

Limit: TypeAlias = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="The most rows.")]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000, description="Rows that are skipped.")]
Name: TypeAlias = Annotated[str, Meta(max_length=200)]
JobId: TypeAlias = Annotated[
    str, Meta(pattern="^[0-9a-f]{32}$", description="The id of a job: 32 hex digits.")
]
PNumber: TypeAlias = Annotated[int, Meta(ge=0, le=65_535, description="The number of a P.")]
#: Where a page of jobs begins: among volatile jobs, or among durable ones.
Place: TypeAlias = Annotated[
    str,
    Meta(
        pattern="^(v[0-9]{1,12}[.][0-9]{1,6}|d[0-9]{1,15})$",
        description="``next`` of the answer before.",
    ),
]
JobState: TypeAlias = Literal[
    "queued", "running", "blocked", "done", "failed", "cancelled", "expired", "quarantined",
    "unknown",
]  # fmt: skip
GState: TypeAlias = Literal["runnable", "running", "syscall", "waiting", "dead"]


class Params(Struct, forbid_unknown_fields=True):
    """The parameters of a request: those of the path, then those of the query, then headers."""


class Answer(Struct, kw_only=True):
    """The base of answers."""


class Problem(Answer):
    """Why a request was refused."""

    error: str
    #: The parameter or the field that is wrong, as a path; empty if it is none.
    field: str = ""
    #: The remedy.
    hint: str = ""


# -- parameters ----------------------------------------------------------------------------------


class NoParams(Params):
    """None."""


class OfSubmit(Params):
    """The trace that a job belongs to: headers of W3C Trace Context."""

    traceparent: Annotated[str, Meta(description="The span that the job is a child of.")] = ""
    tracestate: Annotated[str, Meta(description="What vendors add to it.")] = ""


class OfP(Params):
    """One P."""

    p: PNumber


class OfGs(Params):
    """Which Gs, in what order, and which page."""

    p: PNumber | None = None
    state: GState | None = None
    function: Annotated[Name, Meta(description="Part of a function's name.")] = ""
    sort: Literal["id", "state", "function", "since_s", "p", "reason"] = "since_s"
    order: Literal["down", "up"] = "down"
    offset: Offset = 0
    limit: Limit = 100


class OfG(Params):
    """One G."""

    p: PNumber
    id: Annotated[int, Meta(ge=0, le=2**53, description="The number of a G on its P.")]
    epoch: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class OfJobs(Params):
    """Which jobs, and which page."""

    kind: Literal["all", "volatile", "durable"] = "all"
    state: JobState | None = None
    function: Annotated[Name, Meta(description="``module:function``.")] = ""
    after: Place | None = None
    limit: Limit = 100


class OfFailures(Params):
    """Which failures."""

    function: Annotated[Name, Meta(description="``module:function``.")] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 20


class OfJob(Params):
    """One job."""

    id: JobId


class OfLog(Params):
    """The output of one attempt of a job."""

    id: JobId
    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class OfStream(Params):
    """How often."""

    period_ms: Annotated[
        int, Meta(ge=200, le=60_000, description="The least time between two snapshots.")
    ] = 250


# -- bodies --------------------------------------------------------------------------------------


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request."""


class CallOptions(Body):
    """Options of a job; those that are left out are as its function declares them."""

    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] | None = None
    priority: Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] | None = None
    delay: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] | None = None
    expires: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] | None = None
    keep: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] | None = None
    unique: Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)] | None = None


class NewJob(Body):
    """A call of a registered function; it becomes a durable job."""

    function: Annotated[
        str,
        Meta(min_length=3, max_length=200, description="``module:function``, a registered one."),
    ]
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: CallOptions = field(default_factory=CallOptions)


class CancelJob(Body):
    """How to cancel."""

    #: A function that does not stop ends with its worker.
    force: bool = False


class Nothing(Body):
    """An empty object."""


# -- answers -------------------------------------------------------------------------------------


class Snapshot(Answer):
    """The status of the daemon, as ``gmpd status --json`` prints it."""

    #: Since the coordinator made it.
    age_s: float
    #: Whether the coordinator answered in time.
    up: bool
    snapshot: Status


class Ps(Answer):
    """All Ps."""

    age_s: float
    up: bool
    ps: list[PStatus]


class Hosts(Answer):
    """The engine of the cluster, and its hosts."""

    age_s: float
    up: bool
    cluster: Cluster


class OneP(Answer):
    """One P."""

    age_s: float
    up: bool
    p: PStatus


class GInfo(Answer):
    """One G."""

    id: int
    p: int
    state: GState
    #: Why it waits, in Go's words.
    reason: str
    function: str
    #: How long it is in its state, if that is known.
    since_s: float | None
    #: It is a job's own G, and not a child or a task.
    job: bool
    #: The M that runs its plain function.
    m: int | None
    why: Why


class GEventInfo(Answer):
    """An event of a G. ``step``: it ran for ``took_s``, and then waited for ``reason``; ``wake``:
    it became ready; ``handoff``: its P passed to another M after ``took_s``, as it was ``reason``;
    ``back``: it continues with P; ``failed``."""

    kind: Literal["step", "wake", "handoff", "back", "failed"]
    #: Since it ended.
    ago_s: float
    took_s: float
    reason: str


class OneG(Answer):
    """One G, as its worker tells it. Of one that does not answer in time there is only
    ``silence``, why."""

    p: int
    id: int
    epoch: int
    pid: int | None
    answered: bool
    silence: str
    g: GInfo | None
    #: Go's dump of it: header, frames, and its creator.
    stack: str
    #: The id of the job that it belongs to; empty if it has none.
    job: str
    #: Its last events, the oldest first; children and asyncio tasks have none.
    story: list[GEventInfo]


class Gs(Answer):
    """A page of Gs. Of very many some thousands are looked at: ``seen`` of ``total``."""

    gs: list[GInfo]
    #: Gs that the filter lets through, among those that were seen.
    matching: int
    seen: int
    total: int
    #: Ps that did not answer in time.
    silent: list[int]


class Progress(Answer):
    """How far a job is, in a unit of its own."""

    done: float
    total: float | None
    note: str


class JobInfo(Answer):
    """One job. Times are seconds since 1970."""

    id: str
    function: str
    state: JobState
    durable: bool
    client: str
    priority: int
    attempt: int
    deaths: int
    created: float
    began: float | None
    ended: float | None
    run_at: float
    expires: float | None
    p: int | None
    pid: int | None
    unique: str | None
    text: str
    progress: Progress | None


class JobPage(Answer):
    """A page of jobs, the newest first: volatile ones, then durable ones."""

    jobs: list[JobInfo]
    #: ``after=`` for the next page; null after the last.
    next: str | None
    #: Durable jobs by state.
    counts: dict[str, int]


class AttemptInfo(Answer):
    """One attempt of a job."""

    n: int
    outcome: str
    text: str
    began: float | None
    ended: float | None
    ran_s: float
    p: int | None
    pid: int | None
    strikes: int
    traceback: str


class Why(Answer):
    """Why a job or a G is where it is. ``code``: of a closed list, for programs; ``facts``: what
    the sentence says, as data."""

    code: str
    sentence: str
    #: The remedy; empty if nothing has to.
    hint: str
    facts: dict[str, Any]


class JobStory(Answer):
    """A job with its attempts."""

    job: JobInfo
    why: Why
    story: list[AttemptInfo]


class ErrorInfo(Answer):
    """The exception of a job, as texts."""

    type: str
    message: str
    traceback: str


class JobResult(Answer):
    """How a job ended. Bytes in a value are ``{"base64": ...}``."""

    id: str
    #: False: it has not ended, and the rest says nothing.
    ended: bool
    outcome: str = ""
    value: Any = None
    error: ErrorInfo | None = None
    ran_s: float = 0.0
    attempt: int = 0
    text: str = ""


class JobLog(Answer):
    """The output of an attempt, as far as it is kept."""

    #: 0: there is no output of any.
    attempt: int
    text: str
    #: Bytes before ``text`` that are not kept.
    left_out: int
    #: It runs, and may print more.
    runs: bool


class Accepted(Answer):
    """A job that is on disk."""

    id: str
    #: False: another job with its ``unique`` key has not ended, and ``id`` is that one.
    new: bool


class Changed(Answer):
    """Whether the change was made."""

    id: str
    changed: bool
    #: Why not; else empty.
    why: str = ""


class FailureInfo(Answer):
    """A failed attempt of a job. The texts are the user's: cut, and without control characters."""

    #: Of all failures since the daemon began.
    number: int
    #: Unix seconds.
    at: float
    id: str
    function: str
    client: str
    outcome: Literal["error", "timeout", "lost"]
    #: Where it ran; null: nowhere, or in an isolated worker.
    p: int | None
    attempt: int
    #: Another attempt follows.
    again: bool
    #: Of an error: the class, its message, its traceback.
    type: str
    message: str
    traceback: str
    #: Beside it, as of a lost worker.
    text: str


class Failures(Answer):
    """The last failures, the newest first."""

    failures: list[FailureInfo]
    #: Failures that the daemon keeps, and all since it began.
    kept: int
    failed: int


class ClientInfo(Answer):
    """One client."""

    sid: int
    name: str
    #: The name of its key, if it is on another machine.
    key: str
    #: That have not ended.
    jobs: int
    argument_bytes: int
    #: Results that it has not taken.
    result_bytes: int
    outcomes: int
    functions: int
    #: Its jobs are held back, as it takes no results.
    takes_no_results: bool
    #: It is the store, whose jobs are the durable ones.
    store: bool


class Clients(Answer):
    """Connected clients, the newest first: the first hundreds of ``total``."""

    clients: list[ClientInfo]
    total: int


class Setting(Answer):
    """One key of the configuration. ``value`` is written as in a file, without secrets."""

    key: str
    value: str
    doc: str
    default: bool
    #: flag, environment, file, system or default; and the file and line, or the variable.
    layer: str
    where: str


class Settings(Answer):
    """The configuration in effect."""

    settings: list[Setting]


class Registered(Answer):
    """A function that may be called by its name, and the options that it declares."""

    name: str
    options: dict[str, Any]


class RegisteredOnes(Answer):
    """Registered functions: the first hundreds of ``total``."""

    functions: list[Registered]
    total: int


class FunctionInfo(Answer):
    """Totals of the ended jobs of one function. Times in seconds: from started to finished, of that
    on a P, and of the waits of its attempts."""

    function: str
    finished: dict[str, int]
    time_s: float
    on_p_s: float
    run_p50_s: float
    run_p99_s: float
    wait_p50_s: float
    wait_p99_s: float


class Functions(Answer):
    """The busiest functions, and ``_other`` for the rest."""

    functions: list[FunctionInfo]


class Finding(Answer):
    """A problem and its remedy. ``facts``: the numbers in ``what``."""

    code: str
    about: str
    level: Literal["warn", "bad"]
    what: str
    fix: str
    facts: dict[str, str | int | float]


class Warnings(Answer):
    """Problems of the daemon, as far as it knows."""

    warnings: list[Finding]


class QueueOfP(Answer):
    """The leases of a P; functions by their place in ``names``."""

    p: int
    fresh: list[int]
    #: Of its fresh ones: begun after others.
    aside: int
    #: Function, job, seconds since it was leased.
    begun: list[tuple[int, str, float]]


class Picture(Answer):
    """The queues by function: the first jobs of each."""

    queue: list[int] = field(name="global")
    ps: list[QueueOfP]
    names: list[str]


class Watched(Answer):
    """The data of the event ``snapshot``."""

    seq: int
    age_s: float
    up: bool
    snapshot: Status
    picture: Picture


class Lost(Answer):
    """The data of the event ``lost``: the number of events for which this reader was too slow."""

    events: int


class Gone(Answer):
    """The data of the event ``gone``: the coordinator does not answer."""

    error: str
