"""A coordinator's policy on a desk: events by hand, instructions as lists, time as a number.

For tests of gmpd.sched. ``Desk`` plays the shell: it keeps what the policy wants sent, checks the
ledger's invariants after each decision, and records the history, which ``replay`` repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from gmpd.errors import ProtocolError
from gmpd.protocol import Define, Finished, Outcome, Report, Submit
from gmpd.protocol import options as wire_options
from gmpd.sched import events
from gmpd.sched.events import AnyEvent, Exit
from gmpd.sched.instructions import Instruction, LeaseJobs, Revoke, SendOutcomes
from gmpd.sched.records import Function, Job, Outcomes, Policy, PRecord, Session
from gmpd.sched.schedt import Sched

T = TypeVar("T")

MS = 1_000_000
KILLED = Exit(pid=77, signal="SIGKILL", exitcode=None, text="killed by signal 9")


class Desk:
    """``recorded``: keep the history, and what was decided, for ``replay``."""

    def __init__(self, *, recorded: bool = True, **policy: Any) -> None:
        self._recorded = recorded
        #: The invariants are checked after every so many decisions.
        self.audit_every = 1
        self._turns = 0
        self.policy = Policy(**policy)
        self.sched = Sched(self.policy)
        self.now = 1_000 * MS
        self.next_seq: dict[int, int] = {}
        self.fids: dict[tuple[int, str], int] = {}
        #: All outcomes delivered, in order: (session id, seq) -> how it ended and what it gave.
        self.outcomes: dict[tuple[int, int], list[tuple[Outcome, bytes, dict[str, Any]]]] = {}
        self.log: list[Instruction] = []
        #: Every event and when it was told; and what each turn decided, as values.
        self.history: list[tuple[int, AnyEvent]] = []
        self.decisions: list[list[Any]] = []

    def tell(self, event: AnyEvent) -> None:
        """Something happened."""
        if self._recorded:
            self.history.append((self.now, event))
        assert not self.sched.handle(event, self.now), "instructions come at the end of a turn"

    # -- clients

    def client(self, name: str = "c", *, waits: bool = False, answers: bool = False) -> Session:
        sid = self.sched.next_sid
        self.tell(events.SessionOpened(sid, name, name, waits, answers=answers))
        self.next_seq[sid] = 0
        return self.sched.sessions[sid]

    def parent(self, p: PRecord, epoch: int | None = None) -> Session:
        """The worker of ``p`` as the client of its children."""
        self.tell(events.ParentOpened(p.p, p.epoch if epoch is None else epoch))
        assert p.session is not None
        self.next_seq.setdefault(p.session.sid, 0)
        return p.session

    def defined(self, session: Session, message: Define, digest: bytes) -> None:
        self.tell(events.Defined(session.sid, message, digest))

    def undefine(self, session: Session, fids: list[int]) -> None:
        self.tell(events.Undefined(session.sid, fids))

    def submitted(self, session: Session, message: Submit) -> None:
        self.tell(events.Submitted(session.sid, message, [()] * len(message.payloads)))

    def cancel(self, session: Session, seqs: list[int], *, force: bool = False) -> None:
        self.tell(events.Cancelled(session.sid, seqs, force))

    def recall(self, session: Session, seqs: list[int]) -> None:
        self.tell(events.Recalled(session.sid, seqs))

    def decline_room(self, session: Session) -> None:
        self.tell(events.RoomDeclined(session.sid))

    def pull(self, session: Session, seq: int, n: int) -> None:
        self.tell(events.Pulled(session.sid, seq, n))

    def ack(self, session: Session, outcomes: int) -> None:
        self.tell(events.Acknowledged(session.sid, outcomes))

    def leave(self, session: Session) -> None:
        self.tell(events.SessionClosed(session.sid))

    def define(self, session: Session, fn: str, kind: str = "name") -> int:
        key = session.sid, fn
        if key not in self.fids:
            self.fids[key] = len(self.fids)
            payload = b"" if kind == "name" else fn.encode()
            self.defined(session, Define(self.fids[key], kind, fn, payload), fn.encode())
        return self.fids[key]

    def submit(
        self, session: Session, n: int = 1, fn: str = "m:f", *, kind: str = "name", **options: Any
    ) -> list[int]:
        """``n`` jobs, whose payload is their number; their seqs."""
        fid, first = self.define(session, fn, kind), self.next_seq[session.sid]
        self.next_seq[session.sid] += n
        seqs = list(range(first, first + n))
        message = Submit(
            fid, first, wire_options(options or None), [b"%d" % seq for seq in seqs], None
        )
        self.submitted(session, message)
        return seqs

    def leased(self, **options: Any) -> tuple[PRecord, Session, int]:
        """P0, a client, and the seq of its job that P0 was handed."""
        p, client = self.ready(0), self.client()
        (seq,) = self.submit(client, 1, **options)
        self.take()
        return p, client, seq

    def begun(self, **options: Any) -> tuple[PRecord, Session, int]:
        """As ``leased``, and the job has started."""
        p, client, seq = self.leased(**options)
        self.start(p)
        return p, client, seq

    # -- processes

    def ready(self, p: int, epoch: int = 1, cores: int = 1, host: str = "") -> PRecord:
        """A worker said Hello, or the bridge to a host; its P."""
        self.tell(events.WorkerReady(p, epoch, cores, host))
        return self.sched.ps[p]

    def drain_p(self, p: int) -> None:
        self.tell(events.Drained(p))

    def leave_p(self, p: int) -> None:
        """The worker of P ``p`` gives it to a successor."""
        self.tell(events.Left(p))

    def remove_p(self, p: int) -> None:
        self.tell(events.Removed(p))

    def died(
        self,
        p: int,
        executing: Iterable[int] = (),
        culprit: int | None = None,
        end: Exit = KILLED,
        unbegun: Iterable[int] = (),
    ) -> Job | None:
        """The kernel confirmed a worker's death; the job that ended it."""
        record = self.sched.record(p)
        assert record is not None
        guilty = None if culprit is None else record.job_of(culprit)
        self.tell(events.WorkerDied(p, list(executing), culprit, end, list(unbegun)))
        return guilty

    def severed(self, p: int, claimed: Iterable[int] = ()) -> None:
        """The bridge to a host is gone, and what it claimed may run there."""
        self.tell(events.Claimed(p, list(claimed)))
        self.tell(events.Severed(p))

    def stall(self, why: str) -> None:
        self.tell(events.Stalled(why))

    def drain(self) -> None:
        self.tell(events.Draining())

    def isolated_ready(self, p: int) -> None:
        self.tell(events.IsolatedReady(p))

    def isolated_unfit(self, p: int) -> None:
        self.tell(events.IsolatedUnfit(p))

    def isolated_died(self, p: int, begun: Iterable[int], end: Exit, why: str = "") -> None:
        self.tell(events.IsolatedDied(p, list(begun), end, why))

    # -- workers

    def heard(self, p: PRecord, epoch: int | None = None) -> None:
        self.tell(events.Heard(p.p, p.epoch if epoch is None else epoch))

    def finish(
        self,
        p: PRecord,
        tokens: Iterable[int] | None = None,
        outcome: Outcome = Outcome.OK,
        *,
        occupied_ms: float = 0.01,
        payload: bytes = b"r",
        epoch: int | None = None,
        report: Report | None = None,
        told: bool = False,
    ) -> None:
        """The worker ends leases (all of them by default)."""
        ended = [*p.started, *p.fresh] if tokens is None else list(tokens)
        special: dict[int, tuple[Outcome, Report | None]] | None = None
        if outcome is not Outcome.OK:
            special = dict.fromkeys(range(len(ended)), (outcome, report))
        took = [int(occupied_ms * 1000)] * len(ended)
        message = Finished(ended, [payload] * len(ended), took, took, special, None, told)
        own = p.epoch if epoch is None else epoch
        self.tell(events.Finished(p.p, own, message, [()] * len(ended)))

    def start(
        self, p: PRecord, tokens: Iterable[int] | None = None, epoch: int | None = None
    ) -> list[int]:
        begun = list(p.fresh) if tokens is None else list(tokens)
        self.tell(events.Started(p.p, p.epoch if epoch is None else epoch, begun))
        return begun

    def expired(self, p: PRecord, tokens: list[int], epoch: int | None = None) -> None:
        self.tell(events.Expired(p.p, p.epoch if epoch is None else epoch, tokens))

    def set_aside(self, p: PRecord, tokens: list[int], epoch: int | None = None) -> None:
        self.tell(events.SetAside(p.p, p.epoch if epoch is None else epoch, tokens))

    def returned(self, p: PRecord, tokens: list[int], epoch: int | None = None) -> None:
        """The bridge to a host has these back."""
        self.tell(events.Returned(p.p, p.epoch if epoch is None else epoch, tokens))

    def withheld(self, p: PRecord, tokens: list[int], nbytes: int = 2000) -> None:
        self.tell(events.Withheld(p.p, p.epoch, tokens, [nbytes] * len(tokens)))

    def not_cancelled(self, p: PRecord, tokens: list[int], epoch: int | None = None) -> None:
        self.tell(events.NotCancelled(p.p, p.epoch if epoch is None else epoch, tokens))

    def items(
        self, p: PRecord, token: int, payloads: list[bytes], epoch: int | None = None
    ) -> None:
        own = p.epoch if epoch is None else epoch
        self.tell(events.ItemsYielded(p.p, own, token, payloads, [()] * len(payloads)))

    def children(
        self, p: PRecord, n: int, *, asked: bool = False, epoch: int | None = None
    ) -> None:
        self.tell(events.ChildrenCounted(p.p, p.epoch if epoch is None else epoch, n, asked))

    def teach(self, p: PRecord, client: Session, fn: str, occupied_ms: float) -> None:
        """Let one job of ``fn`` run, so that its time is known."""
        self.submit(client, 1, fn)
        self.take()
        self.finish(p, occupied_ms=occupied_ms)
        self.take()

    def end(
        self,
        p: PRecord,
        tokens: Iterable[int] | None = None,
        outcome: Outcome = Outcome.OK,
        **how: Any,
    ) -> list[Instruction]:
        """``finish``, and what the policy makes of it."""
        self.finish(p, tokens, outcome, **how)
        return self.take()

    def serve(self, p: PRecord, rounds: int, **how: Any) -> None:
        """So often ``p`` is handed what there is for it, and ends that."""
        for _ in range(rounds):
            self.take()
            self.finish(p, **how)
        self.take()

    # -- the shell

    def probed(self, p: PRecord, *, moves: bool, asleep: bool) -> None:
        self.tell(events.Probed(p.p, moves, asleep))

    def claimed(self, p: PRecord, tokens: list[int]) -> None:
        self.tell(events.Claimed(p.p, tokens))

    def recovered(self, p: PRecord, message: Finished) -> None:
        self.tell(events.OutcomesRecovered(p.p, message, [()] * len(message.tokens)))

    def revoked(self, revoke: Revoke, got: Iterable[int]) -> None:
        thief = None if revoke.thief is None else revoke.thief.p
        what = revoke.p.p, revoke.tokens, list(got), thief, revoke.asked_ns
        self.tell(events.Revoked(*what))

    def take(self, after_ms: float = 0) -> list[Instruction]:
        """Let time pass, and the policy decide."""
        self.now += int(after_ms * MS)
        ended = events.TurnEnded()
        instructions = self.sched.handle(ended, self.now)
        if self._recorded:
            self.history.append((self.now, ended))
            self.decisions.append([as_value(each) for each in instructions])
        self._turns += 1
        if self._turns % self.audit_every == 0:
            self.sched.validate()
        self.log += instructions
        for sent in only(instructions, SendOutcomes):
            self._receive(sent)
        return instructions

    def _receive(self, sent: SendOutcomes) -> None:
        out = sent.outcomes
        for i, (seq, payload) in enumerate(zip(out.seqs, out.payloads, strict=True)):
            kind, details = out.specials.get(i, (Outcome.OK, {}))
            got = (Outcome(kind), payload, details)
            self.outcomes.setdefault((sent.session.sid, seq), []).append(got)

    def ended(self, session: Session, seq: int) -> Outcome | None:
        """The one outcome of a job, or None so far."""
        got: list[Any] = self.outcomes.get((session.sid, seq), [])
        assert len(got) <= 1, got
        return got[0][0] if got else None

    def details(self, session: Session, seq: int) -> dict[str, Any]:
        return self.outcomes[session.sid, seq][0][2]


def as_value(it: Any) -> Any:
    """An instruction, with numbers and contents for the records that it is about."""
    match it:
        case PRecord(p=p, epoch=epoch):
            return "P", p, epoch
        case Session(sid=sid, name=name):
            return "session", sid, name
        case Function(fid=fid, name=name):
            return "function", fid, name
        case Outcomes():
            return it.seqs, it.payloads, it.ran_us, it.specials
        case tuple() if hasattr(it, "_fields"):
            return type(it).__name__, *map(as_value, it)
        case _:
            return it


def replay(desk: Desk) -> list[list[Any]]:
    """The decisions of another policy that is given the history of this one."""
    sched = Sched(desk.policy)
    decisions = []
    for now, event in desk.history:
        try:
            instructions = sched.handle(event, now)
        except ProtocolError:
            continue  # refused then, and now
        if isinstance(event, events.TurnEnded):
            decisions.append([as_value(each) for each in instructions])
    return decisions


def only(instructions: Sequence[Instruction], kind: type[T]) -> list[T]:
    return [each for each in instructions if isinstance(each, kind)]


def handed(instructions: Sequence[Instruction]) -> list[tuple[int, int]]:
    """(P, number of jobs) of each lease."""
    return [(each.p.p, len(each.payloads)) for each in only(instructions, LeaseJobs)]


def payloads(instructions: Sequence[Instruction]) -> list[bytes]:
    """The payloads of leased jobs, in order."""
    return [payload for each in only(instructions, LeaseJobs) for payload in each.payloads]
