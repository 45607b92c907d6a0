"""The fields of messages: limits, codes, and types with their ranges.

Its counterpart is ``messages``, which is made of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta, Struct

from gmpd.bykey import INTERVAL_MAX, LIMIT_MAX
from gmpd.job import (
    FACTOR_MAX,
    KEEP_S,
    PRIORITY_MAX,
    RETRIES_MAX,
    RETRY_ON_MAX,
    SECONDS_MAX,
    TEXT_MAX,
)

#: The first field of every Hello: a stray program is told apart from an old gmpd.
MAGIC = "gmpd"

#: The newest version this module speaks, and the oldest. 1: before messages were checked by types;
#: without codes in Gone, Refused and Fault. 3 brought durable jobs.
VERSION = 3
VERSION_MIN = 2

#: The role of a peer that only asks, and the oldest version whose daemons it can ask.
ADMIN = "admin"
ADMIN_VERSION_MIN = 1

#: Most jobs in one Submit or Assign: bounds the time that one message can hold a loop (about 4 ms).
BATCH_JOBS_MAX = 4096

#: Most bytes of envelope in one frame beside the largest user value that is allowed: what is
#: gathered with it, and the columns of numbers. A larger frame is refused by the socket itself,
#: and the connection with it.
ENVELOPE_SLACK = 1 << 20

#: A sender that gathers values into one message sends it at this many bytes of them: with one more
#: value, and the columns (4,096 jobs, 40 bytes each), that stays below the slack.
GATHER_BYTES = 1 << 19

#: Bytes that a generator job may be ahead of its reader, plus one item. The reader pulls when it
#: has used up half of them, so a worker that waits for it is not waited for.
STREAM_BYTES = 2 << 20

#: The out-of-band frames of one value, or of all values of a message.
Buffers: TypeAlias = Sequence[Any]


#: Most rows of any other column: a window of jobs and what gathers beside it.
ROWS_MAX = 1 << 20

#: Most functions that a daemon's modules declare, and most characters of the name of one.
DECLARED_MAX = 1 << 16
FUNCTION_NAME_MAX = 1024
#: Most schedules of one function.
SCHEDULES_MAX = 1024

#: Numbers on the wire end here. They only count up, so none comes near; sums of two fit 64 bits.
NUMBER_MAX = 1 << 62


class Outcome(IntEnum):
    """How a job ended. Names in lower case are the metrics' ``outcome`` label."""

    OK = 0
    ERROR = 1
    TIMEOUT = 2
    CANCELLED = 3
    LOST = 4
    #: Not accepted at all: a named limit refused it. Never counted as finished.
    REJECTED = 5


class ChanOp(IntEnum):
    """Operations on a channel between workers; see ``runtime.remote``."""

    #: To the home, without an answer.
    INCREF = 1
    DECREF = 2
    CLOSE = 3
    ACK = 4
    CANCEL = 5
    #: To the sender of a channel in a child's result: it has arrived.
    UNPIN = 15
    #: To the home, answered.
    RECV = 6
    SEND = 7
    LEN = 8
    CLOSE_ASKED = 9
    TRY_RECV = 16
    #: Answers.
    VALUE = 10
    DONE = 11
    END = 12
    PANIC = 13
    REFUSED = 14
    #: To TRY_RECV: it would have to wait.
    EMPTY = 17


class Refusal(IntEnum):
    """Why a peer, or a message of it, is refused: ``Refused.code``."""

    #: No common version of the protocol.
    VERSION = 0
    #: ``limits.sessions`` clients are connected.
    SESSIONS = 1
    #: A message was not what it may be; it changed nothing.
    MALFORMED = 2
    #: Handling a message failed: the session is over.
    FAILED = 3
    #: Python, gmpd, pickle or cloudpickle of the two sides are unsafe for each other's values.
    INCOMPATIBLE = 4
    #: The key of this client, which is on another machine, is not known any more, or does not allow
    #: this.
    NOT_ALLOWED = 5


class Wear(IntEnum):
    """Why a worker needs a successor: ``Unfit.wear``."""

    #: Its process lacks what jobs need: it claims nothing more.
    UNFIT = 0
    #: It has begun as many jobs as ``limits.worker_calls`` allows: it claims nothing more.
    USED = 1
    #: It is larger than ``recycle.memory``: it claims on until it is told to stop.
    LARGE = 2


class Ending(IntEnum):
    """Why a daemon ends: ``Gone.code``."""

    #: It was told to, or its starter ended.
    STOPPED = 0
    #: No worker can be started.
    NO_WORKERS = 1
    #: The initializer of its workers failed.
    INITIALIZER = 2


class Stage(IntEnum):
    """Where a worker failed before it could serve: ``Fault.stage``."""

    IMPORT = 0
    INITIALIZER = 1
    #: Of the bridge to a host: that takes no work, or takes it no more.
    HOST = 2


# -- what fields hold ----------------------------------------------------------------------------

Number: TypeAlias = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Numbers: TypeAlias = Annotated[list[Number], Meta(max_length=ROWS_MAX)]
Values: TypeAlias = Annotated[list[bytes], Meta(max_length=ROWS_MAX)]
#: Of the jobs of one batch.
BatchValues: TypeAlias = Annotated[list[bytes], Meta(min_length=1, max_length=BATCH_JOBS_MAX)]
#: The id of a durable job, a UUIDv7 that its client made.
JobId: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
JobIds: TypeAlias = Annotated[list[JobId], Meta(min_length=1, max_length=BATCH_JOBS_MAX)]
#: Ids of the jobs of one message, in one.
LeasedIds: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16 * BATCH_JOBS_MAX)]
#: A question about durable jobs, or a change of them.
JobQuestion: TypeAlias = Literal[
    "find", "result", "story", "log", "call", "cancel", "force", "retry", "remove"
]
#: Milliseconds since 1970; or of a duration.
Millis: TypeAlias = Number
#: How far a job is, in a unit of its own.
Amount: TypeAlias = (
    Annotated[int, Meta(ge=0, le=NUMBER_MAX)] | Annotated[float, Meta(ge=0, le=NUMBER_MAX)]
)
#: The note of a progress: the worker cuts it.
Note: TypeAlias = Annotated[str, Meta(max_length=TEXT_MAX)]
#: How many frames belong to each value of a message.
Counts: TypeAlias = Numbers | None
#: Parameters of administrative calls.
Scalar: TypeAlias = bool | int | float | str | None
ShortText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
#: ``module:function``.
FunctionName: TypeAlias = Annotated[str, Meta(min_length=3, max_length=FUNCTION_NAME_MAX)]
#: How a function travels (by a name to import, a name of its program, or by value), or a part of
#: its program; "registered": a name that a worker's modules must have declared.
FunctionKind: TypeAlias = Annotated[str, Meta(pattern=r"^(name|main|pickle|part|registered)\Z")]
WaitKind: TypeAlias = Annotated[str, Meta(pattern=r"^(name|main|pickle|registered|declared)\Z")]
#: From 0 to a year.
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
#: As ``gmpd.job.Backoff``: base, cap, factor, jitter.
BackoffNumbers: TypeAlias = tuple[
    Seconds,
    Seconds,
    Annotated[float, Meta(ge=1, le=FACTOR_MAX)],
    Annotated[float, Meta(ge=0, le=1)],
]
#: Which limit refused a job.
Reason: TypeAlias = Literal[
    "draining",
    "window",
    "queue_jobs",
    "queue_bytes",
    "too_large",
    "not_registered",
    "limit_keys",
    "unique",
]
#: Key, jobs at once, starts, and the interval of those in seconds; 0: not limited.
Limit: TypeAlias = tuple[
    ShortText,
    Annotated[int, Meta(ge=0, le=LIMIT_MAX)],
    Annotated[int, Meta(ge=0, le=LIMIT_MAX)],
    Annotated[float, Meta(ge=0, le=INTERVAL_MAX)],
]


class DeclaredSchedule(Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """A ``periodic.Schedule``. ``call``: its arguments as in Submit, which are plain."""

    name: ShortText
    cron: Annotated[str, Meta(max_length=TEXT_MAX)] = ""
    every_ms: Number = 0
    tz: ShortText = "UTC"
    catch_up: Literal["none", "last", "all"] = "last"
    overlap: Literal["skip", "queue"] | None = None
    call: bytes
    tick_as: ShortText | None = None


class Declaration(Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """A function that ``@gmpd.job`` marks in a module of ``daemon.imports`` (``is_job``), or that
    has schedules: its name (``module:function``) and what its author declared."""

    name: FunctionName
    is_job: bool = False
    schedules: Annotated[list[DeclaredSchedule], Meta(max_length=SCHEDULES_MAX)] = []
    options: Options | None = None
    #: Options that the store alone keeps (seconds).
    expires: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] | None = None
    keep: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = KEEP_S
    once: bool = False


class Info(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A peer's description of itself in Hello. Later versions may add keys."""

    pid: Number = 0
    #: Versions; see ``gmpd.versions``.
    python: str = ""
    gmpd: str = ""
    pickle: Number = 0
    cloudpickle: str = ""
    #: Of a client: its name, that it holds refused jobs until it is offered room, and that it
    #: exchanges plain data only.
    name: str = ""
    waits: bool = False
    plain: bool = False
    #: Its end of a lane (``netpoll.lane``), if it has one.
    lane: Annotated[bytes, Meta(max_length=8)] = b""
    #: It wants to be told how far its jobs are.
    progress: bool = False
    #: It takes values from workers, over its lane.
    answers: bool = False
    #: Of a worker: its P and epoch, 32 bytes that only the spawned process was given, and whether
    #: it will serve at all (else a Fault follows).
    p: Number | None = None
    epoch: Number | None = None
    secret: bytes = b""
    serves: bool = True
    #: The functions that the modules of ``daemon.imports`` declare; None: it imports none.
    declared: Annotated[list[Declaration], Meta(max_length=DECLARED_MAX)] | None = None
    #: Functions of the daemon's own schedules that it cannot have, and why.
    missing: Annotated[dict[FunctionName, str], Meta(max_length=DECLARED_MAX)] = {}


class DaemonInfo(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A daemon's description of itself in Welcome. Later versions may add keys."""

    procs: Number = 0
    pid: Number = 0
    version: str = ""
    python: str = ""
    #: To a client of another machine: the role of its key, and whether it exchanges plain data
    #: only.
    role: str = ""
    plain: bool = False
    #: The daemon's end of a lane, if the peer's Hello named one.
    lane: bytes = b""


class Options(
    Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, frozen=True, gc=False
):
    """The options of jobs, as ``JobOptions.to_wire()`` gives them; defaults are left out."""

    name: ShortText | None = None
    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 0
    timeout: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] | None = None
    priority: Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] = 0
    delay: Seconds = 0.0
    unique: ShortText | None = None
    #: When another job has that key; see ``bykey.Unique``.
    on_held: Literal["return", "replace", "raise"] = "return"
    expires: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] | None = None
    limit: Limit | None = None
    durable: bool = False
    isolate: bool = False
    plain: bool = False
    kill_after: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] | None = None
    #: The waits before further attempts; names of the exceptions that allow one.
    backoff: BackoffNumbers | None = None
    retry_on: (
        Annotated[tuple[ShortText, ...], Meta(min_length=1, max_length=RETRY_ON_MAX)] | None
    ) = None
    #: A function that says the wait: kind, name and payload, as in Define; "declared": the one that
    #: the job's function declares. It is told the number of the attempt, which the daemon adds.
    backoff_fn: tuple[WaitKind, str, bytes] | None = None
    attempt: Number | None = None
    #: Whether what it prints is sent to the coordinator.
    capture: bool | None = None
    #: A generator job: how many items may be ahead of its reader.
    stream: Number | None = None
    #: A child of a G in another worker: ``(p, epoch)`` of its home.
    child: tuple[Number, Number] | None = None
    #: The job that such a child belongs to, and the number of its attempt: for what it logs.
    root: tuple[JobId, Number] | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """An option by name; ``default`` when it is not set."""
        value = getattr(self, name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return getattr(self, name) is not None


class Report(TypedDict, total=False):
    """Details of an outcome beside its value, from the worker."""

    #: A child whose function or arguments could not be had there: it goes home.
    unopened: bool
    #: Numbers of the channels in its value.
    gift: Numbers
    #: Its error is none that is tried again; the wait that its function chose; why that chose none.
    final: bool
    wait_s: Seconds
    remark: str
    #: Of a job that ran on another machine: the name of that host.
    host: str
    #: ``text`` is for people; all else for programs.
    text: str
    # LOST: how the worker ended, and whose fault that was.
    pid: Number
    signal: str
    exitcode: int | None
    poisoned: bool
    culprit: str
    blamed: bool


class Details(Report, total=False):
    """Details of an outcome to the client."""

    p: Number
    attempt: Number
    waited_us: Number
    #: It ran, or was to run, in a worker of its own.
    isolated: bool
    #: TIMEOUT: its frame has not ended.
    runs_on: bool
    #: LOST: it had not begun.
    unstarted: bool
    # REJECTED: why, how many would fit now, when to try again (seconds), and that Room follows.
    reason: Reason
    room: Number
    retry_after: Seconds
    told: bool
    #: The job that has the ``unique`` key.
    holder: str
    #: TIMEOUT: it could not begin in time.
    expired: bool
    #: CANCELLED: it had not begun when its client asked for it back.
    recalled: bool


#: Row -> how it ended and what is to be said of it, for all rows that are not plainly OK.
Specials: TypeAlias = dict[Number, tuple[Outcome, Details | None]]
Reports: TypeAlias = dict[Number, tuple[Outcome, Report | None]]


class GRow(TypedDict):
    """One G: ``since_s`` is how long it is in its state, None if that is not known; ``job``: it is
    a job's own; ``m``: the number of the thread that runs its plain function."""

    id: Number
    state: Literal["runnable", "running", "syscall", "waiting", "dead"]
    reason: str
    function: str
    since_s: float | None
    job: bool
    m: Number | None


class GEvent(TypedDict):
    """An event of a job's G: how long ago it ended, the time that it took, and a wait reason."""

    kind: Literal["step", "wake", "handoff", "back", "failed"]
    ago_us: Number
    took_us: Number
    reason: str


class GStory(TypedDict):
    """The story of one G: ``token`` of the lease that it belongs to, 0 if none; its last events;
    how many children it waits for, and some of them."""

    token: Number
    events: Annotated[list[GEvent], Meta(max_length=ROWS_MAX)]
    awaits: Number
    children: Annotated[list[GRow], Meta(max_length=ROWS_MAX)]


class StackDump(TypedDict):
    """A worker's Gs in words: ``gs`` in all, ``shown`` of them in ``text``."""

    text: str
    gs: Number
    shown: Number
    #: Of ``gs``: the rows, and no text.
    rows: NotRequired[Annotated[list[GRow], Meta(max_length=ROWS_MAX)]]
    #: Of ``g``, beside its row and its stack.
    story: NotRequired[GStory]
