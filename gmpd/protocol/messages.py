"""Every message: one class each, from whose fields follow its encoding and its check.

A number (``tag``) is never used again. The unions at the end list the messages of each sender.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta, Struct

from gmpd.errors import ProtocolError
from gmpd.protocol.fields import (
    NUMBER_MAX,
    ROWS_MAX,
    Amount,
    BatchValues,
    ChanOp,
    Counts,
    DaemonInfo,
    Ending,
    FunctionKind,
    Info,
    JobIds,
    JobQuestion,
    LeasedIds,
    Millis,
    Note,
    Number,
    Numbers,
    Options,
    Refusal,
    Reports,
    Scalar,
    Specials,
    StackDump,
    Stage,
    Values,
    Wear,
)

#: How ``codec`` names a part: the program in hex, and the part's number there.
_PART_NAME = re.compile(r"(?:[0-9a-f]{2}){1,64}:[0-9]{1,18}", re.ASCII)


def _check_counts(message: Any, rows: int) -> None:
    counts = message.buffer_counts
    if counts is not None and len(counts) != rows:
        raise ProtocolError("buffer_counts has another length than payloads")


def _check_specials(specials: dict[int, Any] | None, rows: int) -> None:
    if specials and max(specials) >= rows:
        raise ProtocolError("specials names a row that is not there")


class Envelope(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The base of every message: an array of its kind and fields."""

    #: The version of the protocol that brought it.
    since: ClassVar[int] = 1
    #: Frames may follow the envelope: out-of-band buffers of its values.
    carries: ClassVar[bool] = False

    def check(self) -> None:
        """Checks that types cannot express. Raises ProtocolError."""


# -- both ways, the handshake --------------------------------------------------------------------


class Hello(Envelope, tag=1):
    """First message of every peer. ``role`` is ``client``, ``worker`` or ``admin``: one that only
    asks (Call), which daemons of every version answer."""

    magic: str
    version_min: Number
    version_max: Number
    role: str
    session: bytes
    info: Info


class Welcome(Envelope, tag=2):
    """The peer is known. ``window``: most jobs a client may have without acknowledged outcome."""

    version: Number
    epoch: Number
    window: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    batch_jobs: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    value_bytes: Number
    info: DaemonInfo


class Refused(Envelope, tag=3):
    """The peer is not served: ``reason`` as text, and the versions that this side speaks. ``code``
    is not sent with VERSION, whose form never changes."""

    version_min: Number
    version_max: Number
    reason: str
    code: Refusal = Refusal.VERSION


# -- client to coordinator -----------------------------------------------------------------------


class Define(Envelope, tag=4):
    """Function number ``fid`` of this sender from now on. ``kind``: ``name`` (to import), ``main``
    (a name that parts of its program define), ``pickle``; or ``part``: names of a program with
    their values, which functions need.

    ``needs``: numbers of parts of this sender that must be there first. A part is the same for all
    that call it by the same name; its payload may be empty if the sender does not bring it.
    """

    fid: Number
    kind: FunctionKind
    name: str
    payload: bytes
    needs: Numbers = []

    def check(self) -> None:
        if self.kind == "part" and not _PART_NAME.fullmatch(self.name):
            raise ProtocolError(f"Define.name: {self.name[:80]!r} is no part of a program")


class Submit(Envelope, tag=6):
    """Jobs ``first_seq``, ``first_seq + 1``, ...: one per payload, all of one function.

    ``options``: None when all are default.
    """

    carries: ClassVar[bool] = True

    fid: Number
    first_seq: Number
    options: Options | None
    payloads: BatchValues
    buffer_counts: Counts

    def check(self) -> None:
        _check_counts(self, len(self.payloads))


class Cancel(Envelope, tag=8):
    """Please end these jobs: seqs from a client, tokens to a worker.

    Each is answered: ``Done`` with CANCELLED when it had not started (or was a coroutine, which is
    cancelled where it waits), or ``Kept`` when it runs and cannot be stopped.
    """

    jobs: Numbers


class ForceCancel(Envelope, tag=49):
    """As ``Cancel``, of a client: workers are replaced to end jobs that do not stop."""

    since: ClassVar[int] = 3

    jobs: Numbers


class Ack(Envelope, tag=9):
    """Outcomes received so far in this session: cumulative, so a lost one does no harm."""

    outcomes: Number


class Pull(Envelope, tag=15):
    """Room for ``n`` more items of a generator job (seq from a client, token to a worker)."""

    job: Number
    n: Number


class Call(Envelope, tag=10):
    """An administrative question: answered by Reply with the same ``request`` number."""

    request: Number
    method: str
    params: dict[str, Scalar]


class Enqueue(Envelope, tag=44):
    """Durable jobs ``ids``, one per payload, all of one function. Answered by Reply once they are
    on disk: with a verdict for each (``sched.stored.Verdict``), and the ids that count.

    ``run_at``: not before then; None: now. ``expires``: not after. ``keep``: how long the result is
    kept. ``once``: no second attempt, whatever happens.
    """

    since: ClassVar[int] = 3
    carries: ClassVar[bool] = True

    request: Number
    fid: Number
    ids: JobIds
    options: Options | None
    payloads: BatchValues
    buffer_counts: Counts
    run_at: Millis | None
    expires: Millis | None
    keep: Millis
    once: bool

    def check(self) -> None:
        if len(self.ids) != len(self.payloads):
            raise ProtocolError("Enqueue has another number of ids than payloads")
        _check_counts(self, len(self.payloads))


class AskJobs(Envelope, tag=45):
    """A question about jobs, or a change of them: answered by Reply with the same number.
    ``result`` is answered when the job has ended. ``call``: its packed arguments. ``log``: the
    output of attempt ``n`` (None: the present or last one) from byte ``after`` on."""

    since: ClassVar[int] = 3

    request: Number
    what: JobQuestion
    ids: JobIds
    n: Number | None = None
    after: Number = 0

    def check(self) -> None:
        if self.what in ("result", "story", "log", "call") and len(self.ids) != 1:
            raise ProtocolError(f"AskJobs: {self.what} is asked of one job at a time")


class Waive(Envelope, tag=27):
    """I decline the rest of the offered room, and am no longer waiting."""


class Bye(Envelope, tag=12):
    """An orderly end: queued jobs of this session are dropped at once."""

    reason: str


# -- coordinator to client -----------------------------------------------------------------------


class Done(Envelope, tag=7):
    """Outcomes, in columns; ``jobs`` are seqs.

    ``payloads``: the value for OK, ``codec.encode_error`` for ERROR, ``b""`` otherwise.
    ``ran_us``: time from start to end, microseconds.
    ``specials``: index -> ``(outcome, details)`` for all that are not plainly OK.
    """

    carries: ClassVar[bool] = True

    jobs: Numbers
    payloads: Values
    ran_us: Numbers
    specials: Specials | None
    buffer_counts: Counts

    def check(self) -> None:
        rows = len(self.payloads)
        if not len(self.jobs) == rows == len(self.ran_us):
            raise ProtocolError("Done has columns of different length")
        _check_specials(self.specials, rows)
        _check_counts(self, rows)


class Items(Envelope, tag=14):
    """Values yielded by a generator job, in order."""

    carries: ClassVar[bool] = True

    job: Number
    payloads: Values
    buffer_counts: Counts

    def check(self) -> None:
        _check_counts(self, len(self.payloads))


class Running(Envelope, tag=16):
    """These jobs have started and did not end at once."""

    jobs: Numbers


class Progress(Envelope, tag=46):
    """How far running jobs are, in columns: tokens from a worker, seqs to a client that asked for
    it in its Hello (``progress``), or to the worker whose Gs' children they are."""

    since: ClassVar[int] = 3

    jobs: Numbers
    done: Annotated[list[Amount], Meta(max_length=ROWS_MAX)]
    total: Annotated[list[Amount | None], Meta(max_length=ROWS_MAX)]
    notes: Annotated[list[Note], Meta(max_length=ROWS_MAX)]

    def check(self) -> None:
        if not len(self.jobs) == len(self.done) == len(self.total) == len(self.notes):
            raise ProtocolError("Progress has columns of different length")


class Output(Envelope, tag=47):
    """More of what captured jobs print, in columns: tokens from a worker, seqs to the worker whose
    Gs' children they are. ``skipped``: bytes before each chunk for which there was no room."""

    since: ClassVar[int] = 3

    jobs: Numbers
    chunks: Values
    skipped: Numbers

    def check(self) -> None:
        if not len(self.jobs) == len(self.chunks) == len(self.skipped):
            raise ProtocolError("Output has columns of different length")


class Kept(Envelope, tag=17):
    """A Cancel came too late: these run and cannot be stopped."""

    jobs: Numbers


class Room(Envelope, tag=26):
    """There is room for ``n`` of the jobs that were refused (``told`` in the details of their
    outcomes): it is kept for you for a moment. Only to a client whose Hello has ``waits``, and to
    be answered by Submit, or by Waive."""

    jobs: Number


class Reply(Envelope, tag=11):
    """The answer to a Call: a value, or an error text when ``ok`` is false."""

    request: Number
    ok: bool
    value: Any


class Gone(Envelope, tag=13):
    """The daemon stops: no message follows. Jobs without an outcome are lost."""

    reason: str
    code: Ending = Ending.STOPPED


# -- coordinator to worker -----------------------------------------------------------------------


class Undefine(Envelope, tag=5):
    """Forget these functions. To a worker: no job of theirs is left; from a client: no more will be
    submitted, those that were continue."""

    fids: Numbers


class Assign(Envelope, tag=18):
    """Jobs with tokens ``first_token``, ``first_token + 1``, ... to run, all of one function.
    ``stolen`` of them, counted as the first ones, were another P's before.

    For what they log: ``ids``, 16 bytes for each, or the 12 bytes that the ids of one client begin
    with and 4 for each; None for children. ``attempts``: the number of each; None: the first.
    """

    carries: ClassVar[bool] = True

    fid: Number
    first_token: Number
    options: Options | None
    payloads: BatchValues
    buffer_counts: Counts
    stolen: Number
    ids: LeasedIds | None = None
    attempts: Numbers | None = None

    def check(self) -> None:
        rows = len(self.payloads)
        _check_counts(self, rows)
        if self.ids is not None and len(self.ids) not in (16 * rows, 12 + 4 * rows):
            raise ProtocolError("ids has another length than payloads")
        if self.attempts is not None and len(self.attempts) != rows:
            raise ProtocolError("attempts has another length than payloads")


class Withhold(Envelope, tag=35):
    """Keep the results of these leases, as their client takes none; ``on`` false: send them."""

    since: ClassVar[int] = 2

    tokens: Numbers
    on: bool


class StealChildren(Envelope, tag=30):
    """Give up to ``n`` fresh children of your Gs, the older half of them: Define and Submit, then
    Children with ``asked``, even if none were given."""

    n: Number


class Ask(Envelope, tag=40):
    """A question that only the worker can answer: by Answer with the same number.

    ``stacks``, or ``sched`` (Go's scheddetail): of ``limit`` Gs and ``nbytes`` of text at most.
    ``gs``: ``limit`` of them as rows. ``trace``: the events since ``since_ns``, ``nbytes`` at most.
    ``timeline``: jobs from ``since_ns`` to ``until_ns`` in about ``rows`` rows.
    ``g``: the G ``id``, or that of the lease ``token``, with its stack and its story.
    """

    request: Number
    what: Literal["stacks", "sched", "gs", "trace", "timeline", "g"]
    params: dict[str, Number]


class Stop(Envelope, tag=23):
    """``drain``: finish what was claimed, then end; the rest is revoked. Else end now.

    It is also the answer to a Fault.
    """

    drain: bool


# -- worker to coordinator -----------------------------------------------------------------------


class Finished(Envelope, tag=24):
    """Outcomes, in columns, as in Done; ``tokens`` instead of seqs.

    ``occupied_us``: how long each job kept P from others (a coroutine that waits does not, nor does
    a blocked job once P was handed off): the measure of credit.
    """

    carries: ClassVar[bool] = True

    tokens: Numbers
    payloads: Values
    ran_us: Numbers
    occupied_us: Numbers
    specials: Reports | None
    buffer_counts: Counts

    def check(self) -> None:
        rows = len(self.payloads)
        if not len(self.tokens) == rows == len(self.ran_us) == len(self.occupied_us):
            raise ProtocolError("Finished has columns of different length")
        _check_specials(self.specials, rows)
        _check_counts(self, rows)


class Started(Envelope, tag=19):
    """These left the fresh ones and did not end at once: they run, are parked or blocked.

    Without tokens: what was to be run had been revoked; the worker is there, and free.
    """

    tokens: Numbers


class Imported(Envelope, tag=48):
    """Under ``gmpd serve --watch``: the worker has imported modules of the project from these
    files."""

    since: ClassVar[int] = 3

    paths: list[str]


class Unfit(Envelope, tag=42):
    """The worker needs a successor: see ``Wear``. ``reason`` is for the log."""

    reason: str
    wear: Wear = Wear.UNFIT


class Aside(Envelope, tag=43):
    """These have not begun, and their worker begins others before them: functions like theirs keep
    its GIL, or as many plain calls run there as may. ``Started`` follows when they begin."""

    since: ClassVar[int] = 2

    tokens: Numbers


class Expired(Envelope, tag=34):
    """The time limits of these have passed and their frames have not ended: their clients need not
    wait. ``Finished`` follows for each when its frame has ended, whatever that gave."""

    since: ClassVar[int] = 2

    tokens: Numbers


class Withheld(Envelope, tag=36):
    """These have ended, and their results are kept here: as Withhold asked, or because more are on
    their way than the coordinator has taken. ``Finished`` follows when it is asked for."""

    since: ClassVar[int] = 2

    tokens: Numbers
    #: Bytes of each result.
    nbytes: Numbers

    def check(self) -> None:
        if len(self.tokens) != len(self.nbytes):
            raise ProtocolError("Withheld has columns of different length")


class Children(Envelope, tag=31):
    """How many fresh children wait here. Sent when there are some, or none again, not per child;
    ``asked``: in answer to StealChildren."""

    n: Number
    asked: bool


class Answer(Envelope, tag=41):
    """To an Ask; to ``trace`` a packed ``runtime.ring.RingDump``, to ``timeline`` a packed
    ``runtime.timeline.Timeline``, which the coordinator only passes on."""

    request: Number
    value: StackDump | bytes


class RingTail(Envelope, tag=50):
    """The last events of a worker that is about to end: a packed ``runtime.ring.RingDump``, kept
    for traces."""

    ring: bytes


class Route(Envelope, tag=32):
    """A message of worker ``(p, epoch)``; on its way to the coordinator, to that worker.

    About channel ``chan`` of one of them: see ``ChanOp``. ``payload`` and the frames are a value.
    """

    carries: ClassVar[bool] = True

    p: Number
    epoch: Number
    op: ChanOp
    chan: Number
    req: Number
    length: Number
    payload: bytes


class Lost(Envelope, tag=33):
    """Worker ``(p, epoch)`` is no more: expect nothing from it."""

    p: Number
    epoch: Number


class Fault(Envelope, tag=22):
    """It cannot serve: the import of ``name``, or the initializer, failed. ``error``:
    codec.encode_error."""

    stage: Stage
    name: str
    error: bytes


FromClient: TypeAlias = (
    Hello
    | Define
    | Undefine
    | Submit
    | Cancel
    | ForceCancel
    | Ack
    | Pull
    | Call
    | Enqueue
    | AskJobs
    | Waive
    | Bye
)
ToClient: TypeAlias = (
    Welcome | Refused | Done | Items | Running | Progress | Kept | Room | Reply | Gone
)  # fmt: skip
FromWorker: TypeAlias = (
    Hello | Finished | Started | Aside | Unfit | Imported | Expired | Progress | Output | Kept
    | Items | Fault | Bye
    | Withheld | Children | Define | Undefine | Submit | Cancel | Answer | RingTail | Route
)  # fmt: skip
ToWorker: TypeAlias = (
    Welcome | Refused | Define | Undefine | Assign | Cancel | Pull | Stop
    | StealChildren | Withhold | Done | Progress | Output | Ask | Route | Lost
)  # fmt: skip


Message: TypeAlias = FromClient | ToClient | FromWorker | ToWorker

#: Kinds of former messages; their numbers are never used again. 20 and 21 asked a victim for jobs,
#: 25 told what a worker has counted.
RETIRED = frozenset({20, 21, 25})
