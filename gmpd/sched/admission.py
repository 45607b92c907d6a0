"""Admission: a batch of jobs is accepted whole, or refused whole with the reason; offers of room.

Every limit on jobs and bytes that are held is checked here, and nowhere else. It does not know
which P will run a job.

**Room.** A client that was refused for lack of room keeps its jobs and waits in ``RoomQueue``. The
client that has waited longest is offered room first, in turns. Offered room is reserved, so that no
newcomer is quicker; for a while only, since the client may have died, or may decline it.

A client that lets an offer expire gets no further offers until it submits: otherwise a client that
is stopped would cost the others one such time in each round.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from gmpd.errors import ProtocolError
from gmpd.protocol import Options, Outcome, Reason, Submit
from gmpd.sched.functions import PART
from gmpd.sched.gates import GATES_MAX
from gmpd.sched.instructions import GrantRoom
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import NO_BUFFERS, Buffers, Function, Job, Session
from gmpd.sched.states import JobState
from gmpd.sched.withdrawals import Withdrawals

#: Refusals after which a client may be told when there is room.
_FOR_A_WHILE = frozenset({"queue_jobs", "queue_bytes"})
#: How long offered room is reserved for a client: far above a round trip, far below a noticeable
#: delay for others. A later Submit is accepted too, if there is still room.
KEEP_NS = 100_000_000


class _Want(NamedTuple):
    jobs: int
    #: Their average size.
    nbytes: int


class _Kept(NamedTuple):
    jobs: int
    #: Of each.
    nbytes: int
    until_ns: int


class RoomQueue:
    """Clients that wait for room, in order, and the room that is reserved for offers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._line: dict[Session, _Want] = {}
        self._kept: dict[Session, _Kept] = {}
        #: Clients that let an offer expire.
        self._absent: dict[Session, _Want] = {}
        #: Whether ``tell`` has something to look at. Without clients that wait, nothing else here
        #: needs to be called.
        self.is_used = False

    def refused(self, session: Session, jobs: int, nbytes: int) -> None:
        """There was no room for ``n`` jobs; their client holds them until it is offered room."""
        self._is_back(session)
        before = self._line.get(session, _Want(0, 0))
        self._line[session] = _Want(before.jobs + jobs, max(before.nbytes, nbytes // jobs))
        self.is_used = True

    def accepted(self, session: Session, jobs: int, now: int) -> None:
        """Count jobs that were accepted."""
        self._is_back(session)
        kept = self._kept.pop(session, None)
        if kept is not None and kept.jobs > jobs:
            self._kept[session] = _Kept(kept.jobs - jobs, kept.nbytes, now + KEEP_NS)

    def _is_back(self, session: Session) -> None:
        if session in self._absent:
            self._line[session] = self._absent.pop(session)

    def waive(self, session: Session) -> None:
        """A client wants no more room: free the room kept for it."""
        self._line.pop(session, None)
        self._kept.pop(session, None)
        self._absent.pop(session, None)

    def kept_from(self, session: Session) -> int:
        """Room that this session may not use, as it is reserved for others."""
        if not self._kept:
            return 0
        return sum(kept.jobs for other, kept in self._kept.items() if other is not session)

    def bytes_for(self, session: Session) -> int:
        """How many more bytes of arguments this session may hold.

        A session that holds some may hold as much as it leaves free: one client alone half of all,
        two a third each; so there is always room for another, whatever they do. A first one may be
        as large as there is room for.
        """
        free = self._ledger.policy.queue_bytes - self._ledger.jobs_nbytes
        if self._kept:
            for other, kept in self._kept.items():
                if other is not session:
                    free -= kept.jobs * kept.nbytes
        held = session.nbytes
        return max(0, (free - held) // 2 if held else free)

    def tell(self, now: int) -> list[GrantRoom]:
        """The offers of room to make now."""
        self._let_lapse(now)
        told: list[GrantRoom] = []
        first: dict[Session, _Want] = {}  # these wait for their own jobs to end
        while self._line:
            session = next(iter(self._line))
            want = self._line.pop(session)
            if not self._ledger.is_open(session):
                continue
            jobs = want.jobs
            if not self._ledger.draining:
                jobs = min(jobs, self._free_jobs(), self._fitting(session, want.nbytes))
            if not jobs:
                first[session] = want
                continue
            if jobs < want.jobs:  # there is more to tell it later, after the others
                self._line[session] = want._replace(jobs=want.jobs - jobs)
            before = self._kept.get(session)
            if before is None:
                self._kept[session] = _Kept(jobs, want.nbytes, now + KEEP_NS)
            else:  # no longer than the first of it, or it would never lapse
                self._kept[session] = _Kept(before.jobs + jobs, want.nbytes, before.until_ns)
            told.append(GrantRoom(session, jobs))
        self._line = first
        self.is_used = bool(first or self._kept or self._absent)
        return told

    def _let_lapse(self, now: int) -> None:
        is_open = self._ledger.is_open
        for session in [session for session in self._absent if not is_open(session)]:
            del self._absent[session]
        for session, kept in list(self._kept.items()):
            if not is_open(session):
                del self._kept[session]
            elif kept.until_ns <= now:
                del self._kept[session]
                if session in self._line:
                    self._absent[session] = self._line.pop(session)

    def _free_jobs(self) -> int:
        """The share of the next in line of the jobs that there is room for."""
        ledger = self._ledger
        free = ledger.policy.queue_jobs - ledger.unfinished
        free -= sum(each.jobs for each in self._kept.values())
        return max(0, -(-free // (len(self._line) + 1)))

    def _fitting(self, session: Session, nbytes: int) -> int:
        """How many jobs of average size this session may bring, beside what it was offered."""
        own = self._kept.get(session)
        room = self.bytes_for(session) - (0 if own is None else own.jobs * own.nbytes)
        return max(0, room // max(1, nbytes))

    def next_due(self) -> int | None:
        """When ``tell`` may offer room although no event came."""
        if not self._line:
            return None
        return min((kept.until_ns for kept in self._kept.values()), default=None)


class Admission:
    """Admits jobs to the ledger."""

    def __init__(self, ledger: Ledger, rooms: RoomQueue, withdrawals: Withdrawals) -> None:
        self._ledger = ledger
        self._rooms = rooms
        self._withdrawals = withdrawals

    def submit(
        self,
        session: Session,
        message: Submit,
        buffers: Sequence[Buffers],
        now: int,
        unregistered: str = "",
    ) -> None:
        """Accept a batch, or refuse all of it with a reason: every job gets an outcome.
        ``unregistered``: the reason to refuse it that the shell has found.

        Raises ProtocolError and changes nothing if the function is unknown or a seq is in use.
        """
        fn = session.functions.get(message.fid)
        if fn is None or fn.kind == PART:
            raise ProtocolError(f"Submit names function {message.fid}, which was never defined")
        n = len(message.payloads)
        seqs = range(message.first_seq, message.first_seq + n)
        if not session.jobs.keys().isdisjoint(seqs):
            raise ProtocolError(f"Submit repeats a seq from {message.first_seq} on")
        if message.options is not None and message.options.on_held == "raise":
            n = self._refuse_held(session, message.options.unique, seqs)
            if not n:
                return
            buffers = buffers[:n]
            message = replace(message, payloads=message.payloads[:n])
        self._admit(session, fn, message, buffers, now, unregistered)

    def _admit(
        self,
        session: Session,
        fn: Function,
        message: Submit,
        buffers: Sequence[Buffers],
        now: int,
        unregistered: str,
    ) -> None:
        payloads, n = message.payloads, len(message.payloads)
        seqs = range(message.first_seq, message.first_seq + n)
        nbytes = sum(map(len, payloads))
        if any(buffers):
            nbytes += sum(len(b) for bs in buffers for b in bs)
        refusal = self._refusal(session, n, nbytes, message.options)
        if unregistered:
            refusal = "not_registered", unregistered, 0
        if refusal is not None:
            told = session.waits and refusal[0] in _FOR_A_WHILE
            if told:
                self._rooms.refused(session, n, nbytes)
            self._reject(session, seqs, *refusal, told=told)
            return
        if self._rooms.is_used:
            self._rooms.accepted(session, n, now)
        options = message.options
        state = JobState.QUEUED if options is None else self._first_state(session, options)
        jobs = self._accept(session, fn, message, buffers, state, now)
        self._ledger.jobs_nbytes += nbytes
        session.nbytes += nbytes
        if options is None:
            self._ledger.put(jobs)
        else:
            self._begin_wait(jobs, options, now)

    def _first_state(self, session: Session, options: Options) -> JobState:
        """Where a new job waits."""
        if options.limit is not None:
            own = not (session.patient or session.owner)
            self._ledger.gates.set(options.limit, newest=own)
        if options.unique is not None:
            return JobState.HELD
        if int(options.delay * 1e9):
            return JobState.DELAYED
        return JobState.QUEUED if options.limit is None else JobState.LIMITED

    def _begin_wait(self, jobs: list[Job], options: Options, now: int) -> None:
        """New jobs with options wait for their time, or for a worker."""
        ledger = self._ledger
        if options.expires is not None:
            ledger.expiry.add(jobs, now + int(options.expires * 1e9))
        if options.unique is not None:
            for job in jobs:
                replaced = ledger.uniques.admit(job)
                if replaced is not None:
                    text = f"job {job.id} with the same unique key replaced it"
                    self._withdrawals.replace(replaced, text, now)
        elif delay_ns := int(options.delay * 1e9):
            ledger.delays.add(jobs, now + delay_ns)
        else:
            ledger.put(jobs)

    def _refuse_held(self, session: Session, key: str | None, seqs: Sequence[int]) -> int:
        """Refuse jobs whose unique key a job has; how many of them, the first, are left."""
        holder = None if key is None else self._ledger.uniques.holder((session.owner, key))
        left = len(seqs) if key is None else int(holder is None)
        if refused := seqs[left:]:
            id_ = session.id_of(seqs[0]) if holder is None else holder.id
            text = f"job {id_} has its unique key {key!r} and has not ended"
            self._reject(session, refused, "unique", text, 0, told=False, holder=id_)
        return left

    def _refusal(
        self, session: Session, n: int, nbytes: int, options: Options | None
    ) -> tuple[Reason, str, int] | None:
        """(reason label, text, room) when a limit refuses ``n`` more jobs."""
        ledger, policy = self._ledger, self._ledger.policy
        if ledger.draining:
            return "draining", "the daemon is draining and takes no more jobs", 0
        owed = session.owed
        # It may have values of jobs that have not ended here.
        window = policy.window + policy.answered_max * session.answers
        if owed + n > window:
            room = max(0, policy.window - owed)
            return "window", f"this client's window of {policy.window} jobs is full", room
        free = policy.queue_jobs - ledger.unfinished - self._rooms.kept_from(session)
        if n > free:
            room = max(0, free)
            return "queue_jobs", f"limits.queue_jobs = {policy.queue_jobs} jobs are held", room
        if nbytes > policy.queue_bytes and n == 1:
            return (
                "too_large",
                f"its arguments have more than limits.queue_bytes = {policy.queue_bytes}",
                0,
            )
        limit = None if options is None else options.limit
        if limit is not None and not ledger.gates.has_room_for(limit[0]):
            return "limit_keys", f"jobs of {GATES_MAX} keys of limit= are held", 0
        room = self._rooms.bytes_for(session)
        if nbytes > room:
            text = (
                f"arguments of {ledger.jobs_nbytes} bytes, {session.nbytes} of them this client's,"
                f" are held; limits.queue_bytes = {policy.queue_bytes}, and a client may hold at"
                " most as much as remains free"
            )
            return "queue_bytes", text, room * n // nbytes
        return None

    def _reject(
        self,
        session: Session,
        seqs: Collection[int],
        label: Reason,
        text: str,
        room: int,
        *,
        told: bool,
        holder: str = "",
    ) -> None:
        if session.parent is None:
            self._ledger.counters.rejected[label] += len(seqs)
        details: dict[str, Any] = {"reason": label, "text": text, "room": room, "retry_after": 0.1}
        if told:
            details["told"] = True
        if holder:
            details["holder"] = holder
        special = Outcome.REJECTED, details
        for seq in seqs:
            self._ledger.outboxes.add(session, seq, b"", NO_BUFFERS, 0, special)

    def _accept(
        self,
        session: Session,
        fn: Function,
        message: Submit,
        buffers: Sequence[Buffers],
        state: JobState,
        now: int,
    ) -> list[Job]:
        jobs = []
        options, seq, mine = message.options, message.first_seq, session.jobs
        parent = session.parent
        for payload, own in zip(message.payloads, buffers, strict=True):
            nbytes = len(payload) + sum(len(b) for b in own) if own else len(payload)
            job = mine[seq] = Job(session, seq, fn, options, payload, own, nbytes, state, now)
            jobs.append(job)
            seq += 1
        n = len(jobs)
        fn.jobs += n
        self._ledger.unfinished += n
        if parent is None:
            if not session.patient:  # a durable job is counted when it is stored
                self._ledger.counters.submitted += n
            return jobs
        for job in jobs:
            job.moved = True
        self._ledger.counters.children += n
        parent.stolen_from += n
        return jobs
