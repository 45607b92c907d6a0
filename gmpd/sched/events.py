"""The events of the policy, as values: one class each, the counterpart of ``instructions``.

Events name sessions, Ps and leases by their numbers, never by records, so a recorded history
can be given to another policy, which then decides the same. Columns of a message (outcomes, jobs,
items) stay columns: one event per message, however many jobs it is about.

A struct of msgspec costs 45 ns to make, a NamedTuple 200, a frozen dataclass 400.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from gmpd import protocol
from gmpd.sched.records import Buffers

#: Columns of up to this many rows are kept in a history as they are; of longer ones the length.
KEPT_ROWS = 8
#: Characters of a text that are kept.
KEPT_TEXT = 120


class Exit(NamedTuple):
    """How a worker ended, as the kernel told it. ``signal`` is a name like SIGKILL, or empty."""

    pid: int
    signal: str
    exitcode: int | None
    text: str


class Kept(Struct, frozen=True, gc=False):
    """The copy of an event with values or long columns that a history keeps: numbers and a name."""

    kind: str
    whose: str
    number: int
    rows: int
    first: int | None
    about: str = ""
    #: Said after ``about``.
    n: int | None = None

    def __repr__(self) -> str:
        where = "" if self.first is None else f" from {self.first}"
        about = f", {self.about[:KEPT_TEXT]}" if self.about else ""
        n = "" if self.n is None else f" {self.n}"
        return f"{self.kind}({self.whose}{self.number}, {self.rows} rows{where}{about}{n})"


class Event(Struct, frozen=True, gc=False):
    """Something that happened. ``kept`` is the copy for the history: bounded, without users'
    values."""

    def kept(self) -> Event | Kept:
        return self


# -- clients: sessions by their numbers ----------------------------------------------------------


class OfSession(Event, frozen=True, gc=False):
    """An act of a client. ``sid``: the number of its session."""

    sid: int

    def _kept(self, numbers: Sequence[int]) -> Event | Kept:
        if len(numbers) <= KEPT_ROWS:
            return self
        return Kept(type(self).__name__, "session ", self.sid, len(numbers), numbers[0])


class SessionOpened(OfSession, frozen=True, gc=False):
    """A client said Hello. ``sid`` is ``Sched.next_sid``. ``link`` is opaque: the shell's name for
    the way to it. ``waits``: it is offered room after it was refused some. ``key``: how the ids of
    its jobs begin. ``owner``: the name of the key of a client of another machine; else empty."""

    link: bytes | str
    name: str
    waits: bool = False
    key: str = ""
    owner: str = ""
    #: It wants to be told how far its jobs are.
    watches: bool = False
    #: It takes values from workers.
    answers: bool = False


class Defined(OfSession, frozen=True, gc=False):
    """A session names a function; ``digest`` tells payloads apart."""

    message: protocol.Define
    digest: bytes

    def kept(self) -> Kept:
        message = self.message
        return Kept("Defined", "session ", self.sid, 1, message.fid, message.name[:KEPT_TEXT])

    def __repr__(self) -> str:
        return repr(self.kept())


class Undefined(OfSession, frozen=True, gc=False):
    """A session will not use these functions any more."""

    fids: list[int]

    def kept(self) -> Event | Kept:
        return self._kept(self.fids)


class Submitted(OfSession, frozen=True, gc=False):
    """A session submits jobs; ``buffers`` has those of each. ``unregistered``: why they are to be
    refused, as their function is not registered."""

    message: protocol.Submit
    buffers: Sequence[Buffers]
    unregistered: str = ""

    def kept(self) -> Kept:
        message = self.message
        return Kept(
            "Submitted", "session ", self.sid, len(message.payloads), message.first_seq,
            "function", message.fid,
        )  # fmt: skip

    def __repr__(self) -> str:
        return repr(self.kept())


class RoomDeclined(OfSession, frozen=True, gc=False):
    """A session needs none of the room that it was offered, and waits for none."""


class StartsRecalled(OfSession, frozen=True, gc=False):
    """Attempts that began before this daemon count for this limit: their ages (ns), the oldest
    first."""

    limit: tuple[str, int, int, float]
    ago_ns: tuple[int, ...]

    def kept(self) -> Event | Kept:
        return self._kept(self.ago_ns)


class Cancelled(OfSession, frozen=True, gc=False):
    """A session cancels these jobs of its own; ``force``: also those that do not stop."""

    seqs: list[int]
    force: bool = False

    def kept(self) -> Event | Kept:
        return self._kept(self.seqs)


class Recalled(OfSession, frozen=True, gc=False):
    """A session asks for these jobs back, unless they have begun."""

    seqs: list[int]

    def kept(self) -> Event | Kept:
        return self._kept(self.seqs)


class Pulled(OfSession, frozen=True, gc=False):
    """A session has room for ``n`` more items of a generator job."""

    seq: int
    n: int


class Acknowledged(OfSession, frozen=True, gc=False):
    """A session has received ``outcomes`` outcomes since it was opened."""

    outcomes: int


class SessionClosed(OfSession, frozen=True, gc=False):
    """A client left, or was given up."""


ClientEvent: TypeAlias = (
    SessionOpened | Defined | Undefined | Submitted | RoomDeclined | StartsRecalled | Cancelled
    | Recalled | Pulled | Acknowledged | SessionClosed
)  # fmt: skip


# -- workers: messages of one epoch of a P, or of an isolated worker -----------------------------


class FromWorker(Event, frozen=True, gc=False):
    """A worker sent a message, so its run loop lives. Of another epoch than its P's: dropped."""

    p: int
    epoch: int

    @property
    def rows(self) -> int:
        """How much is dropped with it when it is of another epoch."""
        return 1


class Heard(FromWorker, frozen=True, gc=False):
    """A message without meaning for the policy, but that the worker lives."""


class _AboutTokens(FromWorker, frozen=True, gc=False):
    """About leases, by their tokens."""

    tokens: list[int]

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def kept(self) -> Event | Kept:
        if len(self.tokens) <= KEPT_ROWS:
            return self
        return Kept(type(self).__name__, "P", self.p, len(self.tokens), self.tokens[0])


class Started(_AboutTokens, frozen=True, gc=False):
    """These began and did not end at once."""


class SetAside(_AboutTokens, frozen=True, gc=False):
    """These wait in their worker while it begins others."""


class Returned(_AboutTokens, frozen=True, gc=False):
    """The bridge to a host has these back, and they have not begun there."""


class Withheld(_AboutTokens, frozen=True, gc=False):
    """These have ended, and their worker keeps the results until it is asked for them; ``nbytes``
    of each."""

    nbytes: list[int]


class Expired(_AboutTokens, frozen=True, gc=False):
    """The time limits of these have passed, and their frames have not ended."""


class NotCancelled(_AboutTokens, frozen=True, gc=False):
    """A cancel came too late for these."""


class Finished(FromWorker, frozen=True, gc=False):
    """Outcomes of leases, in the columns of their message; ``buffers`` has those of each."""

    message: protocol.Finished
    buffers: Sequence[Buffers]

    @property
    def rows(self) -> int:
        return len(self.message.tokens)

    def kept(self) -> Kept:
        return _kept_outcomes("Finished", self.p, self.message)

    def __repr__(self) -> str:
        return repr(self.kept())


class ItemsYielded(FromWorker, frozen=True, gc=False):
    """A generator job yielded."""

    token: int
    payloads: list[bytes]
    buffers: list[Buffers]

    def kept(self) -> Kept:
        return Kept("ItemsYielded", "P", self.p, len(self.payloads), self.token)

    def __repr__(self) -> str:
        return repr(self.kept())


class Progressed(FromWorker, frozen=True, gc=False):
    """Jobs told how far they are, in the columns of their message."""

    message: protocol.Progress

    @property
    def rows(self) -> int:
        return len(self.message.jobs)

    def kept(self) -> Kept:
        jobs = self.message.jobs
        return Kept("Progressed", "P", self.p, len(jobs), jobs[0] if jobs else None)

    def __repr__(self) -> str:
        return repr(self.kept())


class Printed(FromWorker, frozen=True, gc=False):
    """Captured jobs have printed, in the columns of their message."""

    message: protocol.Output

    @property
    def rows(self) -> int:
        return len(self.message.jobs)

    def kept(self) -> Kept:
        jobs = self.message.jobs
        return Kept("Printed", "P", self.p, len(jobs), jobs[0] if jobs else None)

    def __repr__(self) -> str:
        return repr(self.kept())


class ChildrenCounted(FromWorker, frozen=True, gc=False):
    """A worker has ``n`` fresh children. ``asked``: this answers AskChildren, and those that it
    gives were submitted before."""

    n: int
    asked: bool = False


WorkerEvent: TypeAlias = (
    Heard | Started | SetAside | Returned | Withheld | Expired | NotCancelled | Finished
    | ItemsYielded | ChildrenCounted | Progressed | Printed
)  # fmt: skip


# -- Ps and isolated workers come and go ---------------------------------------------------------


class OfPool(Event, frozen=True, gc=False):
    """Processes start and end, or limits of all Ps change."""


class WorkerReady(OfPool, frozen=True, gc=False):
    """A worker said Hello: P ``p`` lives in it from now on.

    ``host``: the name of the machine that it is a bridge to, which has ``cores``; empty: this one.
    """

    p: int
    epoch: int
    cores: int = 1
    host: str = ""


class ParentOpened(OfPool, frozen=True, gc=False):
    """A worker becomes the client of its Gs' children that leave it, unless it is already.

    Refused (ProtocolError) when it is dead or was replaced: its parents have ended with it.
    """

    p: int
    epoch: int


class Drained(OfPool, frozen=True, gc=False):
    """P ``p`` gets no more jobs, and finishes claimed ones."""

    p: int


class Left(OfPool, frozen=True, gc=False):
    """The worker of P ``p`` gives it to a successor, which says ``WorkerReady`` when it is. It gets
    no more jobs, finishes claimed ones, and has a number of its own from now on (``leavers``)."""

    p: int


class Removed(OfPool, frozen=True, gc=False):
    """A P that was shrunk away has ended."""

    p: int


class WorkerDied(OfPool, frozen=True, gc=False):
    """The kernel confirmed that the worker of P ``p`` is gone.

    ``executing``: tokens that it had begun (from its claim table); ``culprit``: the one that was
    running at the moment of death. ``unbegun``: of those that it had taken up, the ones that waited
    for an import: no line of their functions has run. Results that it left behind come
    before, in ``OutcomesRecovered``.
    """

    p: int
    executing: Collection[int]
    culprit: int | None
    end: Exit
    unbegun: Collection[int] = ()

    def kept(self) -> Kept:
        text = f"culprit {self.culprit}, {self.end.text}"[:KEPT_TEXT]
        return Kept("WorkerDied", "P", self.p, len(self.executing), None, text)


class Severed(OfPool, frozen=True, gc=False):
    """The bridge to the host that is P ``p`` is gone, and its jobs there may run on: ``WorkerDied``
    follows once they cannot. Those that it had sent are in ``Claimed`` before."""

    p: int


class IsolatedReady(OfPool, frozen=True, gc=False):
    """An isolated worker said Hello."""

    p: int


class IsolatedUnfit(OfPool, frozen=True, gc=False):
    """An isolated worker said that it cannot serve, and is about to end."""

    p: int


class IsolatedDied(OfPool, frozen=True, gc=False):
    """The kernel confirmed that an isolated worker is gone, or it could not be started.

    ``begun``: tokens that it had begun; ``why``: what it said was wrong before it ended.
    """

    p: int
    begun: Collection[int]
    end: Exit
    why: str = ""

    def kept(self) -> Kept:
        text = f"{self.end.text} {self.why}"[:KEPT_TEXT]
        return Kept("IsolatedDied", "P", self.p, len(self.begun), None, text)


class IsolatedRenewed(OfPool, frozen=True, gc=False):
    """Workers that are kept ready for isolated jobs have old code."""


class IsolatedLimited(OfPool, frozen=True, gc=False):
    """The limit of isolated jobs that run at once, from now on."""

    limit: int


class Stalled(OfPool, frozen=True, gc=False):
    """``why`` no P can get a worker; empty: one has, or may again."""

    why: str

    def kept(self) -> Stalled:
        return self if len(self.why) <= KEPT_TEXT else Stalled(self.why[:KEPT_TEXT])


class Draining(OfPool, frozen=True, gc=False):
    """No more jobs are taken; those that there are, are finished."""


PoolEvent: TypeAlias = (
    WorkerReady | ParentOpened | Drained | Left | Removed | WorkerDied | Severed | IsolatedReady
    | IsolatedUnfit | IsolatedRenewed | IsolatedDied | IsolatedLimited | Stalled | Draining
)  # fmt: skip


# -- answers to instructions, found in memory that workers share; and the end of a turn ----------


class OfShell(Event, frozen=True, gc=False):
    """The shell has executed an instruction."""


class Probed(OfShell, frozen=True, gc=False):
    """Answers ``Probe``: whether the run loop of P ``p`` moves, or sleeps as it may; else it is
    deaf."""

    p: int
    moves: bool
    asleep: bool


class Claimed(OfShell, frozen=True, gc=False):
    """A deaf worker has begun these, and could not say so."""

    p: int
    tokens: list[int]

    def kept(self) -> Event | Kept:
        if len(self.tokens) <= KEPT_ROWS:
            return self
        return Kept("Claimed", "P", self.p, len(self.tokens), self.tokens[0])


class Revoked(OfShell, frozen=True, gc=False):
    """Answers ``Revoke``: ``got`` was not claimed, and never will be under these tokens. The rest
    of ``tokens`` is claimed: it runs, or ended a moment ago. ``thief``: the P that it was for."""

    p: int
    tokens: Collection[int]
    got: Collection[int]
    thief: int | None
    asked_ns: int

    def kept(self) -> Kept:
        about = "revoked" if self.thief is None else f"for P{self.thief}, revoked"
        first = next(iter(self.tokens), None)
        return Kept("Revoked", "P", self.p, len(self.tokens), first, about, len(self.got))


class OutcomesRecovered(OfShell, frozen=True, gc=False):
    """Outcomes in the memory of a worker that is deaf, or dead, and did not send them. A deaf one
    may still send the same."""

    p: int
    message: protocol.Finished
    buffers: Sequence[Buffers]

    def kept(self) -> Kept:
        return _kept_outcomes("OutcomesRecovered", self.p, self.message)

    def __repr__(self) -> str:
        return repr(self.kept())


class TurnEnded(Event, frozen=True, gc=False):
    """All messages of the turn are handled: the policy decides."""


Answer: TypeAlias = Probed | Claimed | Revoked | OutcomesRecovered

AnyEvent: TypeAlias = ClientEvent | WorkerEvent | PoolEvent | Answer | TurnEnded


def _kept_outcomes(kind: str, p: int, message: protocol.Finished) -> Kept:
    tokens, specials = message.tokens, message.specials
    first = tokens[0] if tokens else None
    if specials:
        return Kept(kind, "P", p, len(tokens), first, "not plainly OK", len(specials))
    return Kept(kind, "P", p, len(tokens), first)
