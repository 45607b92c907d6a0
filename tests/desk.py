"""A coordinator's policy on a desk: events by hand, instructions as lists, time as a number.

For tests of gmpd.sched. ``Desk`` plays the shell: it keeps what the policy wants sent, and checks
the ledger's invariants after each decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from gmpd.protocol import Define, Finished, Outcome, Report, Submit
from gmpd.protocol import options as wire_options
from gmpd.sched.instructions import Deliver, Dispatch, Exit, Instruction
from gmpd.sched.records import Policy, PRecord, Session
from gmpd.sched.schedt import Sched

T = TypeVar("T")

MS = 1_000_000
KILLED = Exit(pid=77, signal="SIGKILL", exitcode=None, text="killed by signal 9")


class Desk:
    def __init__(self, **policy: Any) -> None:
        self.sched = Sched(Policy(**policy))
        self.now = 1_000 * MS
        self.next_seq: dict[int, int] = {}
        self.fids: dict[tuple[int, str], int] = {}
        #: All outcomes delivered, in order: (session id, seq) -> how it ended and what it gave.
        self.outcomes: dict[tuple[int, int], list[tuple[Outcome, bytes, dict[str, Any]]]] = {}
        self.log: list[Instruction] = []

    # -- clients

    def client(self, name: str = "c", *, waits: bool = False) -> Session:
        session = self.sched.open_session(name, name, waits=waits)
        self.next_seq[session.sid] = 0
        return session

    def parent(self, p: PRecord) -> Session:
        """The worker of ``p`` as the client of its children."""
        session = self.sched.parent_session(p, p.epoch)
        self.next_seq.setdefault(session.sid, 0)
        return session

    def define(self, session: Session, fn: str, kind: str = "name") -> int:
        key = session.sid, fn
        if key not in self.fids:
            self.fids[key] = len(self.fids)
            payload = b"" if kind == "name" else fn.encode()
            self.sched.define(session, Define(self.fids[key], kind, fn, payload), fn.encode())
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
        self.sched.submit(session, message, [()] * n, self.now)
        return seqs

    def leased(self, **options: Any) -> tuple[PRecord, Session, int]:
        """P0, a client, and the seq of its job that P0 was handed."""
        p, client = self.sched.p_ready(0, 1), self.client()
        (seq,) = self.submit(client, 1, **options)
        self.take()
        return p, client, seq

    def begun(self, **options: Any) -> tuple[PRecord, Session, int]:
        """As ``leased``, and the job has started."""
        p, client, seq = self.leased(**options)
        self.start(p)
        return p, client, seq

    # -- workers

    def finish(
        self,
        p: PRecord,
        tokens: Iterable[int] | None = None,
        outcome: Outcome = Outcome.OK,
        *,
        occupied_ms: float = 0.01,
        payload: bytes = b"r",
        epoch: int | None = None,
    ) -> None:
        """The worker ends hand-outs (all of them by default)."""
        ended = [*p.started, *p.fresh] if tokens is None else list(tokens)
        special: dict[int, tuple[Outcome, Report | None]] | None = None
        if outcome is not Outcome.OK:
            special = dict.fromkeys(range(len(ended)), (outcome, None))
        took = [int(occupied_ms * 1000)] * len(ended)
        message = Finished(ended, [payload] * len(ended), took, took, special, None)
        own = p.epoch if epoch is None else epoch
        self.sched.finished(p, own, message, [()] * len(ended), self.now)

    def start(self, p: PRecord, tokens: Iterable[int] | None = None) -> list[int]:
        begun = list(p.fresh) if tokens is None else list(tokens)
        self.sched.started(p, p.epoch, begun, self.now)
        return begun

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

    def take(self, after_ms: float = 0) -> list[Instruction]:
        """Let time pass, and the policy decide."""
        self.now += int(after_ms * MS)
        instructions = self.sched.take(self.now)
        self.sched.validate()
        self.log += instructions
        for deliver in only(instructions, Deliver):
            self._receive(deliver)
        return instructions

    def _receive(self, deliver: Deliver) -> None:
        out = deliver.outcomes
        for i, (seq, payload) in enumerate(zip(out.seqs, out.payloads, strict=True)):
            kind, details = out.specials.get(i, (Outcome.OK, {}))
            got = (Outcome(kind), payload, details)
            self.outcomes.setdefault((deliver.session.sid, seq), []).append(got)

    def ended(self, session: Session, seq: int) -> Outcome | None:
        """The one outcome of a job, or None so far."""
        got: list[Any] = self.outcomes.get((session.sid, seq), [])
        assert len(got) <= 1, got
        return got[0][0] if got else None

    def details(self, session: Session, seq: int) -> dict[str, Any]:
        return self.outcomes[session.sid, seq][0][2]


def only(instructions: Sequence[Instruction], kind: type[T]) -> list[T]:
    return [each for each in instructions if isinstance(each, kind)]


def handed(instructions: Sequence[Instruction]) -> list[tuple[int, int]]:
    """(P, number of jobs) of each hand-out."""
    return [(each.p.p, len(each.payloads)) for each in only(instructions, Dispatch)]


def payloads(instructions: Sequence[Instruction]) -> list[bytes]:
    """What was handed out, in order."""
    return [payload for each in only(instructions, Dispatch) for payload in each.payloads]
