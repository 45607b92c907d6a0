"""The wire, whole: who may say what to whom, in which form, within which limits.

This module is the specification; coordinator, workers, clients and gateway import it and nothing
describes a message anywhere else. It must never know a socket, a clock, or how to unpack a user's
value: arguments and results pass as opaque bytes.

**Transport.** A message is a list of frames. Frame 0 is a msgpack array ``[kind, field, ...]``;
the fields are those of the message's class below, in order. Further frames are the out-of-band
buffers of the values in it (large NumPy arrays, for example): ``buffer_counts`` says how many
belong to each value, ``None`` that there are none at all.

**Handshake.** A peer's first message is ``Hello``. Its form never changes, in any version. The
coordinator answers ``Welcome`` with the version that both speak, or ``Refused`` naming the versions
of both sides; until then anything else is dropped and counted.

**Batches.** Jobs, outcomes and tokens travel in columns, many in a message. A sender sends at once
when nothing is under way and gathers when something is.

**Credit.** No socket limit ever applies: a client has at most ``Welcome.window`` jobs without an
acknowledged outcome, a worker holds what the coordinator's policy gave it.

**Identity.** A job is ``(session, seq)`` to its client and to the coordinator, ``token`` to its
worker. A token names *one* hand-out of one job to one worker; it is never used again, so a message
about an older hand-out is recognised, dropped and counted. A rejected or malformed message
changes nothing.

    client ──── Hello Define Undefine Submit Cancel Ack Pull Call Bye ───▶ coordinator
    client ◀─────── Welcome Refused Done Items Running Kept Reply Gone ── coordinator
    worker ── Hello Finished Started Expired Kept Items Fault Bye ───────▶ coordinator
    worker ◀─────── Welcome Define Undefine Assign Cancel Pull Stop ────── coordinator
    worker ──────── Children Define Undefine Submit Cancel ──────────────▶ coordinator
    worker ◀─────── StealChildren Done ─────────────────────────────────── coordinator
    worker ◀─────── Route Lost ─────────────────────────────────────────── coordinator
    worker ──────── Route ───────────────────────────────────────────────▶ coordinator
    worker ──────── Answer ──────────────────────────────────────────────▶ coordinator
    worker ◀─────── Ask ────────────────────────────────────────────────── coordinator

Lines five and six are children of Gs that run in another worker: there, their home is a client.
Route is a letter from one worker to another about a channel, passed on unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import msgpack

from gmpd.errors import ProtocolError

#: The first field of every Hello: a stray program is told apart from an old gmpd.
MAGIC = "gmpd"

#: The newest version this module speaks, and the oldest. Equal until a second one exists.
VERSION = 1
VERSION_MIN = 1

#: Most jobs in one Submit or Assign: bounds the time that one message can hold a loop (about 4 ms).
BATCH_JOBS_MAX = 4096

#: Most bytes of envelope in one frame beside the largest user value that is allowed: what is
#: gathered with it, and the columns of numbers. A larger frame is refused by the socket itself,
#: and the connection with it.
ENVELOPE_SLACK = 1 << 20

#: Whoever gathers values into one message sends it once it has so many bytes of them: with one more
#: value, and the columns (4,096 jobs, 40 bytes each), that stays below the slack.
GATHER_BYTES = 1 << 19

#: The out-of-band frames of one value, or of all values of a message.
Buffers: TypeAlias = Sequence[Any]


class Outcome(IntEnum):
    """How a job ended. Names in lower case are the metrics' ``outcome`` label."""

    OK = 0
    ERROR = 1
    TIMEOUT = 2
    CANCELLED = 3
    LOST = 4
    #: Not accepted at all: a named limit refused it. Never counted as finished.
    REJECTED = 5


class Kind(IntEnum):
    """The first field of an envelope. Numbers are never reused."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    DEFINE = 4
    UNDEFINE = 5
    SUBMIT = 6
    DONE = 7
    CANCEL = 8
    ACK = 9
    CALL = 10
    REPLY = 11
    BYE = 12
    GONE = 13
    ITEMS = 14
    PULL = 15
    RUNNING = 16
    KEPT = 17
    ASSIGN = 18
    STARTED = 19
    # 20 and 21 asked a victim for jobs; what it has not claimed is taken without asking now.
    FAULT = 22
    STOP = 23
    FINISHED = 24
    ROOM = 26
    WAIVE = 27
    # 25 told what a worker has counted; that is in its page now.
    STEAL_CHILDREN = 30
    CHILDREN = 31
    ROUTE = 32
    LOST = 33
    EXPIRED = 34
    ASK = 40
    ANSWER = 41


class ChanOp(IntEnum):
    """What one worker tells another about a channel; see ``runtime.remote``."""

    #: To the home, without an answer.
    HOLD = 1
    RELEASE = 2
    CLOSE = 3
    ACK = 4
    CANCEL = 5
    #: To who gave a channel as a child's result: it has arrived.
    THANKS = 15
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


# -- both ways, the handshake --------------------------------------------------------------------


class Hello(NamedTuple):
    """First message of every peer. ``role`` is ``client`` or ``worker``.

    ``info`` of a client: ``pid``, ``name``, ``python``. Of a worker: ``p``, ``epoch``, ``pid``,
    ``secret`` (32 bytes that only the spawned process was given).
    """

    magic: str
    version_min: int
    version_max: int
    role: str
    session: bytes
    info: dict[str, Any]


class Welcome(NamedTuple):
    """The peer is known. ``window``: most jobs a client may have without acknowledged outcome."""

    version: int
    epoch: int
    window: int
    batch_jobs: int
    value_bytes: int
    info: dict[str, Any]


class Refused(NamedTuple):
    """The peer is not served: ``reason`` in words, and the versions that this side speaks."""

    version_min: int
    version_max: int
    reason: str


# -- client to coordinator -----------------------------------------------------------------------


class Define(NamedTuple):
    """Function number ``fid`` of this sender from now on. ``kind``: ``name`` (to import), ``main``
    (a name that parts of its program define), ``pickle``; or ``part``: names of a program with
    their values, which is no function but what others need.

    ``needs``: numbers of parts of this sender that must be there first. A part is the same for all
    that call it by the same name; its payload may be empty for who does not bring it.
    """

    fid: int
    kind: str
    name: str
    payload: bytes
    needs: list[int] = []  # noqa: RUF012 - nobody appends to it


class Submit(NamedTuple):
    """Jobs ``first_seq``, ``first_seq + 1``, ...: one per payload, all of one function.

    ``options`` is ``JobOptions.to_wire()``: None when all are default.
    """

    fid: int
    first_seq: int
    options: dict[str, Any] | None
    payloads: list[bytes]
    buffer_counts: list[int] | None


class Cancel(NamedTuple):
    """Please end these jobs: seqs from a client, tokens to a worker.

    Each is answered: ``Done`` with CANCELLED when it had not started (or was a coroutine, which is
    cancelled where it waits), or ``Kept`` when it runs and cannot be stopped.
    """

    jobs: list[int]


class Ack(NamedTuple):
    """Outcomes received so far in this session: cumulative, so a lost one does no harm."""

    outcomes: int


class Pull(NamedTuple):
    """Room for ``n`` more items of a generator job (seq from a client, token to a worker)."""

    job: int
    n: int


class Call(NamedTuple):
    """An administrative question: answered by Reply with the same ``request`` number."""

    request: int
    method: str
    params: dict[str, Any]


class Waive(NamedTuple):
    """Of the Room that you told of I need no more than I have used, and wait for none."""


class Bye(NamedTuple):
    """An orderly end: what is still queued of this session is dropped at once."""

    reason: str


# -- coordinator to client -----------------------------------------------------------------------


class Done(NamedTuple):
    """Outcomes, in columns; ``jobs`` are seqs.

    ``payloads``: the value for OK, ``codec.encode_error`` for ERROR, ``b""`` otherwise.
    ``ran_us``: time from start to end, microseconds.
    ``specials``: index -> ``[outcome, details]`` for all that are not plainly OK. ``details``:
    ``p pid attempt waited_us`` and, by outcome, ``signal exitcode text poisoned culprit blamed``
    (LOST), ``text room retry_after told`` (REJECTED).
    """

    jobs: list[int]
    payloads: list[bytes]
    ran_us: list[int]
    specials: dict[int, list[Any]] | None
    buffer_counts: list[int] | None


class Items(NamedTuple):
    """Values yielded by a generator job, in order."""

    job: int
    payloads: list[bytes]
    buffer_counts: list[int] | None


class Running(NamedTuple):
    """These jobs have started and did not end at once."""

    jobs: list[int]


class Kept(NamedTuple):
    """A Cancel came too late: these run and cannot be stopped."""

    jobs: list[int]


class Room(NamedTuple):
    """There is room for so many of the jobs that were refused (``told`` in the details of their
    outcomes): it is kept for you for a moment. Only to a client whose Hello has ``waits``, and to
    be answered by Submit, or by Waive."""

    jobs: int


class Reply(NamedTuple):
    """The answer to a Call: a value, or an error text when ``ok`` is false."""

    request: int
    ok: bool
    value: Any


class Gone(NamedTuple):
    """The daemon stops: no more will come. Jobs without an outcome are lost."""

    reason: str


# -- coordinator to worker -----------------------------------------------------------------------


class Undefine(NamedTuple):
    """Forget these functions. To a worker: no job of theirs is left; from a client: no more will be
    submitted, those that were go on."""

    fids: list[int]


class Assign(NamedTuple):
    """Jobs with tokens ``first_token``, ``first_token + 1``, ... to run, all of one function.
    ``stolen`` of them, counted as the first ones, were another P's before."""

    fid: int
    first_token: int
    options: dict[str, Any] | None
    payloads: list[bytes]
    buffer_counts: list[int] | None
    stolen: int


class StealChildren(NamedTuple):
    """Give up to ``n`` fresh children of your Gs, the older half of them: Define and Submit, then
    Children with ``asked``, even if none were given."""

    n: int


class Ask(NamedTuple):
    """A question that only the worker can answer: by Answer with the same number.

    ``what``: ``stacks``, with ``limit`` Gs and ``nbytes`` of text at most.
    """

    request: int
    what: str
    params: dict[str, Any]


class Stop(NamedTuple):
    """``drain``: finish what was claimed, then end; the rest is revoked. Else end now.

    It is also the answer to a Fault.
    """

    drain: bool


# -- worker to coordinator -----------------------------------------------------------------------


class Finished(NamedTuple):
    """Outcomes, in columns, as in Done; ``tokens`` instead of seqs.

    ``occupied_us``: how long each job kept P from others (a coroutine that waits does not, nor does
    a blocked job once P was handed off): the measure of credit.
    """

    tokens: list[int]
    payloads: list[bytes]
    ran_us: list[int]
    occupied_us: list[int]
    specials: dict[int, list[Any]] | None
    buffer_counts: list[int] | None


class Started(NamedTuple):
    """These left the fresh ones and did not end at once: they run, are parked or blocked.

    Without tokens: what was to be run had been revoked; the worker is there, and free.
    """

    tokens: list[int]


class Expired(NamedTuple):
    """The time limits of these have passed and their frames have not ended: their clients need not
    wait. ``Finished`` follows for each when its frame has ended, whatever that gave."""

    tokens: list[int]


class Children(NamedTuple):
    """So many fresh children wait here. Sent when that turns from none to some and back, not per
    child; ``asked``: in answer to StealChildren."""

    n: int
    asked: bool


class Answer(NamedTuple):
    """To an Ask. ``value`` for ``stacks``: ``text``, ``gs`` in all, ``shown`` of them."""

    request: int
    value: dict[str, Any]


class Route(NamedTuple):
    """A letter of worker ``(p, epoch)``; on its way to the coordinator, to that worker.

    About channel ``chan`` of one of them: see ``ChanOp``. ``payload`` and the frames are a value.
    """

    p: int
    epoch: int
    op: int
    chan: int
    req: int
    length: int
    payload: bytes


class Lost(NamedTuple):
    """Worker ``(p, epoch)`` is no more: expect nothing from it."""

    p: int
    epoch: int


class Fault(NamedTuple):
    """An import or the initializer failed: it cannot serve. ``error``: codec.encode_error."""

    stage: str
    error: bytes


Message: TypeAlias = (
    Hello | Welcome | Refused | Define | Submit | Cancel | Ack | Pull | Call | Waive | Bye | Done
    | Items | Running | Room | Kept | Reply | Gone | Undefine | Assign | Stop | Finished | Started
    | Expired | Fault | StealChildren | Children | Ask | Answer | Route | Lost
)  # fmt: skip
FromClient: TypeAlias = (
    Hello | Define | Undefine | Submit | Cancel | Ack | Pull | Call | Waive | Bye
)
ToClient: TypeAlias = Welcome | Refused | Done | Items | Running | Kept | Room | Reply | Gone
FromWorker: TypeAlias = (
    Hello | Finished | Started | Kept | Items | Fault | Bye
    | Children | Define | Undefine | Submit | Cancel | Answer | Route | Expired
)  # fmt: skip
ToWorker: TypeAlias = (
    Welcome | Refused | Define | Undefine | Assign | Cancel | Pull | Stop
    | StealChildren | Done | Ask | Route | Lost
)  # fmt: skip


# -- shapes: what each field may hold ------------------------------------------------------------

_U64 = 1 << 64


def _uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < _U64


def _text(value: Any) -> bool:
    return type(value) is str


def _bin(value: Any) -> bool:
    return type(value) is bytes


def _flag(value: Any) -> bool:
    return type(value) is bool


def _map(value: Any) -> bool:
    return type(value) is dict


def _maybe_map(value: Any) -> bool:
    return value is None or type(value) is dict


def _op(value: Any) -> bool:
    return type(value) is int and value in _OPS


def _any(_value: Any) -> bool:
    return True


def _uints(value: Any) -> bool:
    if type(value) is not list:
        return False
    if len(value) == 1:  # most often; what follows would take twice as long
        return _uint(value[0])
    # min() and the set of types run in C: about 30 ns an element, a loop of checks ten times that.
    return not value or (set(map(type, value)) == {int} and min(value) >= 0 and max(value) < _U64)


def _maybe_uints(value: Any) -> bool:
    return value is None or _uints(value)


def _bins(value: Any) -> bool:
    if type(value) is not list:
        return False
    return type(value[0]) is bytes if len(value) == 1 else set(map(type, value)) <= {bytes}


def _specials(value: Any) -> bool:
    if value is None:
        return True
    return type(value) is dict and all(
        type(i) is int
        and type(s) is list
        and len(s) == 2
        and s[0] in _OUTCOMES
        and _maybe_map(s[1])
        for i, s in value.items()
    )


_OPS = frozenset(int(op) for op in ChanOp)
_OUTCOMES = frozenset(int(outcome) for outcome in Outcome)
_Check: TypeAlias = Callable[[Any], bool]

_SHAPES: Mapping[type[Any], tuple[Kind, tuple[_Check, ...]]] = {
    Hello: (Kind.HELLO, (_text, _uint, _uint, _text, _bin, _map)),
    Welcome: (Kind.WELCOME, (_uint, _uint, _uint, _uint, _uint, _map)),
    Refused: (Kind.REFUSED, (_uint, _uint, _text)),
    Define: (Kind.DEFINE, (_uint, _text, _text, _bin, _uints)),
    Undefine: (Kind.UNDEFINE, (_uints,)),
    Submit: (Kind.SUBMIT, (_uint, _uint, _maybe_map, _bins, _maybe_uints)),
    Assign: (Kind.ASSIGN, (_uint, _uint, _maybe_map, _bins, _maybe_uints, _uint)),
    Done: (Kind.DONE, (_uints, _bins, _uints, _specials, _maybe_uints)),
    Finished: (Kind.FINISHED, (_uints, _bins, _uints, _uints, _specials, _maybe_uints)),
    Items: (Kind.ITEMS, (_uint, _bins, _maybe_uints)),
    Cancel: (Kind.CANCEL, (_uints,)),
    Ack: (Kind.ACK, (_uint,)),
    Pull: (Kind.PULL, (_uint, _uint)),
    Call: (Kind.CALL, (_uint, _text, _map)),
    Room: (Kind.ROOM, (_uint,)),
    Waive: (Kind.WAIVE, ()),
    Reply: (Kind.REPLY, (_uint, _flag, _any)),
    Bye: (Kind.BYE, (_text,)),
    Gone: (Kind.GONE, (_text,)),
    Running: (Kind.RUNNING, (_uints,)),
    Kept: (Kind.KEPT, (_uints,)),
    Started: (Kind.STARTED, (_uints,)),
    Expired: (Kind.EXPIRED, (_uints,)),
    Fault: (Kind.FAULT, (_text, _bin)),
    Stop: (Kind.STOP, (_flag,)),
    StealChildren: (Kind.STEAL_CHILDREN, (_uint,)),
    Children: (Kind.CHILDREN, (_uint, _flag)),
    Route: (Kind.ROUTE, (_uint, _uint, _op, _uint, _uint, _uint, _bin)),
    Lost: (Kind.LOST, (_uint, _uint)),
    Ask: (Kind.ASK, (_uint, _text, _map)),
    Answer: (Kind.ANSWER, (_uint, _map)),
}

_KIND_OF: Mapping[type[Any], int] = {cls: int(kind) for cls, (kind, _) in _SHAPES.items()}


class Direction(NamedTuple):
    """Which messages may arrive on one kind of link: everything else is refused."""

    name: str
    classes: Mapping[int, tuple[type[Any], tuple[_Check, ...]]]


def _direction(name: str, *classes: type[Any]) -> Direction:
    return Direction(name, {_KIND_OF[cls]: (cls, _SHAPES[cls][1]) for cls in classes})


FROM_CLIENT = _direction(
    "client", Hello, Define, Undefine, Submit, Cancel, Ack, Pull, Call, Waive, Bye
)
TO_CLIENT = _direction(
    "coordinator", Welcome, Refused, Done, Items, Running, Kept, Room, Reply, Gone
)
FROM_WORKER = _direction(
    "worker", Hello, Finished, Started, Kept, Items, Fault, Bye,
    Children, Define, Undefine, Submit, Cancel, Answer, Route, Expired,
)  # fmt: skip
TO_WORKER = _direction(
    "coordinator", Welcome, Refused, Define, Undefine, Assign, Cancel, Pull, Stop,
    StealChildren, Done, Ask, Route, Lost,
)  # fmt: skip

_pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack


def pack(message: Message) -> bytes:
    """The envelope frame of ``message``. Not thread-safe beyond what the GIL gives one C call."""
    packed: bytes = _pack((_KIND_OF[type(message)], *message))
    return packed


def unpack(frame: bytes, direction: Direction) -> Any:
    """The message in an envelope frame, checked field by field.

    Raises ProtocolError saying what is wrong; it never raises anything else, and allocates at most
    a small multiple of the frame's size (msgpack checks every length against the input).
    """
    try:
        fields = msgpack.unpackb(frame, raw=False, strict_map_key=False, use_list=True)
    except Exception as error:  # noqa: BLE001 - msgpack raises a dozen kinds for garbage
        raise ProtocolError(f"not a message: {type(error).__name__}: {error}") from None
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("not a message: no array that begins with a kind")
    entry = direction.classes.get(fields[0])
    if entry is None:
        raise ProtocolError(f"a {direction.name} never sends kind {fields[0]}")
    cls, checks = entry
    values = fields[1:]
    if len(values) != len(checks):
        raise ProtocolError(f"{cls.__name__} has {len(checks)} fields, not {len(values)}")
    for at, check in enumerate(checks):
        if not check(values[at]):
            name, kind = cls._fields[at], type(values[at]).__name__
            raise ProtocolError(f"{cls.__name__}.{name} holds a {kind} it may not")
    message = cls._make(values)
    _check_columns(message)
    return message


def _check_columns(message: Any) -> None:
    """Columns of one message have one length, and it is within bounds."""
    match message:
        case Submit() | Assign():
            rows = len(message.payloads)
            if not 0 < rows <= BATCH_JOBS_MAX:
                raise ProtocolError(f"{rows} jobs in a batch, 1 to {BATCH_JOBS_MAX} are allowed")
        case Done():
            rows = len(message.payloads)
            if not len(message.jobs) == rows == len(message.ran_us):
                raise ProtocolError("Done has columns of different length")
            _check_specials(message.specials, rows)
        case Finished():
            rows = len(message.payloads)
            if not len(message.tokens) == rows == len(message.ran_us) == len(message.occupied_us):
                raise ProtocolError("Finished has columns of different length")
            _check_specials(message.specials, rows)
        case Items():
            rows = len(message.payloads)
        case _:
            return
    counts = message.buffer_counts
    if counts is not None and len(counts) != rows:
        raise ProtocolError("buffer_counts has another length than payloads")


def _check_specials(specials: dict[int, list[Any]] | None, rows: int) -> None:
    if specials and not (min(specials) >= 0 and max(specials) < rows):
        raise ProtocolError("specials names a row that is not there")


def split_buffers(counts: list[int] | None, rows: int, frames: Buffers) -> list[Buffers]:
    """Deal the frames after the envelope out to ``rows`` values.

    Raises ProtocolError when the counts and the frames disagree.
    """
    if counts is None:
        if frames:
            raise ProtocolError(f"{len(frames)} frames that no value claims")
        return [()] * rows
    if sum(counts) != len(frames):
        raise ProtocolError(f"{sum(counts)} buffers announced, {len(frames)} frames came")
    out: list[Buffers] = []
    at = 0
    for count in counts:
        out.append(frames[at : at + count])
        at += count
    return out


def join_buffers(buffers: Sequence[Buffers]) -> tuple[list[int] | None, list[Any]]:
    """The counterpart of split_buffers: ``(buffer_counts, frames)``."""
    if not any(buffers):
        return None, []
    return [len(each) for each in buffers], [frame for each in buffers for frame in each]


def hello(role: str, session: bytes, info: dict[str, Any]) -> Hello:
    """This side's Hello."""
    return Hello(MAGIC, VERSION_MIN, VERSION, role, session, info)


def agree(message: Hello) -> int:
    """The version to speak with this peer; ProtocolError naming both sides' when there is none."""
    if message.magic != MAGIC:
        raise ProtocolError(f"the peer speaks {message.magic[:32]!r}, not {MAGIC}")
    version = min(VERSION, message.version_max)
    if version < max(VERSION_MIN, message.version_min):
        raise ProtocolError(
            f"the peer speaks protocol versions {message.version_min} to {message.version_max}, "
            f"this gmpd {VERSION_MIN} to {VERSION}: install the same gmpd on both sides"
        )
    return version
