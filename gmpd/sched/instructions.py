"""The instructions of the policy: the shell executes them, in this order.

The counterpart is schedt.Sched, which emits them. An instruction is complete: the shell never has
to ask back.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from gmpd.protocol import Options, Output, Progress
from gmpd.sched.records import Buffers, Function, Outcomes, PRecord, Session, some


class DefineAt(NamedTuple):
    """Tell a worker about a function before its first job arrives."""

    p: PRecord
    fn: Function


class UndefineAt(NamedTuple):
    """Tell a worker that a function is gone."""

    p: PRecord
    fids: list[int]

    def __repr__(self) -> str:
        return f"UndefineAt({self.p!r}, {some(self.fids)})"


class LeaseJobs(NamedTuple):
    """Lease jobs of one session with consecutive tokens, alike in function and options. ``stolen``
    of them, counted as the first ones, were another P's before. ``attempts``: the number of each;
    None: the first. ``answers``: their worker may tell their client the values, if it can."""

    p: PRecord
    fn: Function
    options: Options | None
    first_token: int
    payloads: list[bytes]
    buffers: list[Buffers]
    stolen: int
    session: Session
    seqs: list[int]
    attempts: list[int] | None
    answers: bool = False

    def __repr__(self) -> str:
        return (
            f"LeaseJobs({self.p!r}, {self.fn!r}, {len(self.payloads)} jobs from token"
            f" {self.first_token}, {self.stolen} stolen)"
        )


class Probe(NamedTuple):
    """See in this P's shared memory whether its run loop moves. The shell answers at once, with
    ``events.Probed``.

    The P holds work and has sent no message for a while.
    """

    p: PRecord


class RecoverOutcomes(NamedTuple):
    """Take the outcomes that lie in this P's shared memory: its worker does not send them.

    The shell answers at once, with ``events.OutcomesRecovered``.
    """

    p: PRecord


class Revoke(NamedTuple):
    """Revoke those of these leases that the worker has not claimed, in shared memory.

    The shell answers at once, with ``events.Revoked``. ``thief``: the P that gets them, if it is a
    steal.
    """

    p: PRecord
    tokens: list[int]
    thief: PRecord | None
    asked_ns: int

    def __repr__(self) -> str:
        return f"Revoke({self.p!r}, {some(self.tokens)}, for {self.thief!r})"


class AskChildren(NamedTuple):
    """Steal: ask a P for up to ``n`` fresh children of its Gs."""

    p: PRecord
    n: int


class Withhold(NamedTuple):
    """Have a worker keep the results of these leases, as their client takes none; or, with
    ``on`` false, send it."""

    p: PRecord
    tokens: list[int]
    on: bool

    def __repr__(self) -> str:
        return f"Withhold({self.p!r}, {some(self.tokens)}, {self.on})"


class CancelAt(NamedTuple):
    """Ask a worker to end these leases."""

    p: PRecord
    tokens: list[int]

    def __repr__(self) -> str:
        return f"CancelAt({self.p!r}, {some(self.tokens)})"


class PullAt(NamedTuple):
    """Pass stream credit on to the worker that runs the generator."""

    p: PRecord
    token: int
    n: int


class SendOutcomes(NamedTuple):
    """Send outcomes to a client."""

    session: Session
    outcomes: Outcomes


class SendItems(NamedTuple):
    """Send items of a generator job to its client."""

    session: Session
    seq: int
    payloads: list[bytes]
    buffers: list[Buffers]

    def __repr__(self) -> str:
        return f"SendItems({self.session!r}, seq {self.seq}, {len(self.payloads)} items)"


class NotifyRunning(NamedTuple):
    """Tell a client that these jobs have started."""

    session: Session
    seqs: list[int]

    def __repr__(self) -> str:
        return f"NotifyRunning({self.session!r}, {some(self.seqs)})"


class NotifyProgress(NamedTuple):
    """Tell a client how far its jobs are."""

    session: Session
    message: Progress

    def __repr__(self) -> str:
        return f"NotifyProgress({self.session!r}, {some(self.message.jobs)})"


class PassOutput(NamedTuple):
    """Tell a worker what children of its Gs have printed elsewhere."""

    session: Session
    message: Output

    def __repr__(self) -> str:
        return f"PassOutput({self.session!r}, {some(self.message.jobs)})"


class NotifyNotCancelled(NamedTuple):
    """Tell a client that these cancels came too late."""

    session: Session
    seqs: list[int]

    def __repr__(self) -> str:
        return f"NotifyNotCancelled({self.session!r}, {some(self.seqs)})"


class GrantRoom(NamedTuple):
    """Offer a waiting client room for this many jobs."""

    session: Session
    jobs: int


class Retire(NamedTuple):
    """Let a worker finish its started jobs, give back the rest, and end."""

    p: PRecord


class StartIsolated(NamedTuple):
    """Start a worker for an isolated job."""

    p: int


class Kill(NamedTuple):
    """End a worker now, whatever it does: of an isolated job, or (``why`` is a text) of a P that
    gets another one."""

    p: PRecord
    why: str = ""


Instruction: TypeAlias = (
    DefineAt | UndefineAt | LeaseJobs | Probe | RecoverOutcomes | Revoke | AskChildren | Withhold
    | CancelAt | PullAt | SendOutcomes | SendItems | NotifyRunning | NotifyProgress
    | PassOutput | NotifyNotCancelled | GrantRoom | Retire | StartIsolated | Kill
)  # fmt: skip
