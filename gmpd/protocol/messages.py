"""Every message: one class each, from whose fields follow its encoding and its check.

A number (``tag``) is never used again. The unions at the end list the messages of each sender.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, TypeAlias

from msgspec import Meta

from gmpd.errors import ProtocolError
from gmpd.protocol.fields import (
    NUMBER_MAX,
    ROWS_MAX,
    Amount,
    BatchValues,
    Counts,
    DaemonInfo,
    Ending,
    FunctionKind,
    Info,
    JobIds,
    JobQuestion,
    Millis,
    Note,
    Number,
    Numbers,
    Options,
    Refusal,
    Scalar,
    Specials,
    Values,
)
from gmpd.protocol.message import Envelope, check_counts, check_specials
from gmpd.protocol.worker_messages import (
    Answer,
    Aside,
    Ask,
    Assign,
    Children,
    Expired,
    Fault,
    Finished,
    Imported,
    Leaves,
    Lend,
    Lost,
    Returned,
    RingTail,
    Route,
    Started,
    StealChildren,
    Stop,
    Unfit,
    Unlend,
    Withheld,
    Withhold,
)

#: How ``codec`` names a part: the program in hex, and the part's number there.
_PART_NAME = re.compile(r"(?:[0-9a-f]{2}){1,64}:[0-9]{1,18}", re.ASCII)

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
    needs: Numbers = []  # noqa: RUF012 - msgspec gives each message a list of its own

    def check(self) -> None:
        if self.kind == "part" and not _PART_NAME.fullmatch(self.name):
            raise ProtocolError(f"Define.name: {self.name[:80]!r} is no part of a program")


class Undefine(Envelope, tag=5):
    """Forget these functions. To a worker: no job of theirs is left; from a client: no more will be
    submitted, those that were continue."""

    fids: Numbers


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
        check_counts(self, len(self.payloads))


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


class Recall(Envelope, tag=51):
    """Give these jobs back unless they have begun: ``Done`` with CANCELLED and ``recalled`` for
    each that has not, and never will. The others continue, and nothing is said of them."""

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


class CallAfter(Envelope, tag=54):
    """As ``Call``: answered when ``jobs``, of whose ends workers told the client, have ended."""

    since: ClassVar[int] = 3

    request: Number
    method: str
    params: dict[str, Scalar]
    jobs: Numbers


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
        check_counts(self, len(self.payloads))


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
        check_specials(self.specials, rows)
        check_counts(self, rows)


class Value(Envelope, tag=55):
    """The value of a job, from the worker that ran it: to a client whose Hello has ``answers``,
    over its lane. It is no outcome to be acknowledged; a Done of the same job may follow."""

    since: ClassVar[int] = 3

    job: Number
    payload: bytes
    ran_us: Number


class Items(Envelope, tag=14):
    """Values yielded by a generator job, in order."""

    carries: ClassVar[bool] = True

    job: Number
    payloads: Values
    buffer_counts: Counts

    def check(self) -> None:
        check_counts(self, len(self.payloads))


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


FromClient: TypeAlias = (
    Hello
    | Define
    | Undefine
    | Submit
    | Cancel
    | ForceCancel
    | Recall
    | Ack
    | Pull
    | Call
    | CallAfter
    | Enqueue
    | AskJobs
    | Waive
    | Bye
)
ToClient: TypeAlias = (
    Welcome | Refused | Done | Value | Items | Running | Progress | Kept | Room | Reply | Gone
)  # fmt: skip
FromWorker: TypeAlias = (
    Hello | Finished | Started | Aside | Returned | Leaves | Unfit | Imported | Expired | Progress
    | Output | Kept | Items | Fault | Bye
    | Withheld | Children | Define | Undefine | Submit | Cancel | Answer | RingTail | Route
)  # fmt: skip
ToWorker: TypeAlias = (
    Welcome | Refused | Define | Undefine | Assign | Cancel | Pull | Stop
    | StealChildren | Withhold | Lend | Unlend | Done | Progress | Output | Ask | Route | Lost
)  # fmt: skip


Message: TypeAlias = FromClient | ToClient | FromWorker | ToWorker

#: Kinds of former messages; their numbers are never used again. 20 and 21 asked a victim for jobs,
#: 25 told what a worker has counted.
RETIRED = frozenset({20, 21, 25})
