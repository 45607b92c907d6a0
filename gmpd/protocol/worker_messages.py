"""The messages that pass between the coordinator and workers alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from gmpd.errors import ProtocolError
from gmpd.protocol.fields import (
    BatchValues,
    ChanOp,
    Counts,
    LeasedIds,
    Number,
    Numbers,
    Options,
    Reports,
    StackDump,
    Stage,
    Values,
    Wear,
)
from gmpd.protocol.message import Envelope, check_counts, check_specials

# -- coordinator to worker -----------------------------------------------------------------------


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
    #: The client, by the number of its Lend, that may be told the values directly.
    client: Number | None = None

    def check(self) -> None:
        rows = len(self.payloads)
        check_counts(self, rows)
        if self.ids is not None and len(self.ids) not in (16 * rows, 12 + 4 * rows):
            raise ProtocolError("ids has another length than payloads")
        if self.attempts is not None and len(self.attempts) != rows:
            raise ProtocolError("attempts has another length than payloads")


class Withhold(Envelope, tag=35):
    """Keep the results of these leases, as their client takes none; ``on`` false: send them."""

    since: ClassVar[int] = 2

    tokens: Numbers
    on: bool


class Lend(Envelope, tag=56):
    """The descriptor that comes with it is the coordinator's end of the lane of client ``client``:
    what is written there, the client reads."""

    since: ClassVar[int] = 3

    client: Number


class Unlend(Envelope, tag=57):
    """The lane of this client is not needed any more."""

    since: ClassVar[int] = 3

    client: Number


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
    a blocked job once P was handed off): the measure of credit. ``told``: all are values that
    their clients have; the payloads are empty.
    """

    carries: ClassVar[bool] = True

    tokens: Numbers
    payloads: Values
    ran_us: Numbers
    occupied_us: Numbers
    specials: Reports | None
    buffer_counts: Counts
    told: bool = False

    def check(self) -> None:
        rows = len(self.payloads)
        if not len(self.tokens) == rows == len(self.ran_us) == len(self.occupied_us):
            raise ProtocolError("Finished has columns of different length")
        check_specials(self.specials, rows)
        check_counts(self, rows)


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


class Returned(Envelope, tag=52):
    """These were claimed and have not begun: the bridge to a host that leaves had sent them there,
    and has them back. They never begin under these tokens."""

    since: ClassVar[int] = 3

    tokens: Numbers


class Leaves(Envelope, tag=53):
    """The host that this is the bridge to is about to end, as it says itself: give it no more, and
    let the bridge end once all that has begun there has."""

    since: ClassVar[int] = 3

    reason: str


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
