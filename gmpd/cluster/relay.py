"""From a worker's messages to a client's and back: what the bridge says to either side, without IO.

The coordinator sees a worker that claims its leases when it sends them; the daemon on the host sees
a client whose jobs have the tokens for numbers. Values pass as bytes.

    Assign, Define, Undefine, Cancel, Pull  ──▶  Submit, Define, Undefine, Cancel, Pull, Ack
    Finished, Started, Returned, Expired, Items, Progress, Kept
                                       ◀──  Done, Running, Items, Progress, Kept

A host that leaves is asked for the jobs that have not begun there (Recall).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec.msgpack import encode
from msgspec.structs import replace

from gmpd import protocol
from gmpd.cluster.batches import BATCH_BYTES, Ahead
from gmpd.cluster.occupancy import Occupancy
from gmpd.codec import encode_error
from gmpd.errors import GmpdError, ProtocolError, Unserializable
from gmpd.protocol import Options, Outcome, Report
from gmpd.runtime.ring import RingDump

#: Outcomes that the bridge may owe a confirmation, and their bytes: far below the limits at which
#: the daemon on the host holds jobs back (limits.client_window, limits.client_results).
OWED_MAX = 8192
OWED_BYTES = 2 << 20

#: Outcomes of one message to the coordinator, at most.
GATHERED_MAX = 1024

#: Parts of an outcome's details that the coordinator needs to know.
_PASSED = ("final", "wait_s", "remark", "pid", "signal", "exitcode", "poisoned", "culprit",
           "blamed")  # fmt: skip


class Sent(NamedTuple):
    """A job at the host: its function, and what it counts for until it has begun (ns)."""

    fid: int
    est_ns: int


class Lot:
    """Leases of one message that were not claimed yet."""

    def __init__(self, message: protocol.Assign, buffers: list[protocol.Buffers]) -> None:
        self.fid = message.fid
        self.options = at_host(message.options)
        self.first = message.first_token
        self.payloads = message.payloads
        self.buffers = buffers
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.payloads) - self.at

    def size(self, row: int) -> int:
        """Bytes of the arguments of one."""
        return len(self.payloads[row]) + sum(map(len, self.buffers[row]))


def at_host(options: Options | None) -> Options | None:
    """The options for the daemon on the host: all that is decided here is left out."""
    if options is None:
        return None
    told = replace(
        options, retries=0, delay=0.0, unique=None, on_held="return", expires=None, limit=None,
        durable=False, isolate=False, backoff=None, capture=None, child=None, root=None,
    )  # fmt: skip
    return None if told == Options() else told


class Relay:
    """``claim``: makes a lease this process's own, unless it was revoked. ``frame_bytes``: the
    largest arguments that the engine takes."""

    def __init__(
        self, host: str, cores: int, claim: Callable[[int], bool], frame_bytes: int
    ) -> None:
        self._host = host
        self._claim = claim
        self._frame_bytes = frame_bytes
        self.ahead = Ahead(cores)
        self._occupancy = Occupancy(cores)
        #: To the host's daemon: frames. To the coordinator: messages, and their further frames.
        self.to_host: deque[list[bytes]] = deque()
        self.to_coordinator: deque[tuple[protocol.FromWorker, list[Any]]] = deque()
        self._lots: deque[Lot] = deque()
        #: At the host, and not ended; of these, what the host has not begun as far as it said.
        self.sent: dict[int, Sent] = {}
        self._unbegun: dict[int, Sent] = {}
        #: Of these, those of which the coordinator does not know that they were claimed.
        self._unreported: set[int] = set()
        self._revoked = False
        self.welcome: protocol.Welcome | None = None
        #: Why the host serves no more.
        self.failure = ""
        #: Whether a function has run on there past its time limit: the host does not say when it
        #: has ended.
        self.runs_on = False
        #: Outcomes that came, and that were confirmed; bytes of those between.
        self._received = self._acked = self._owed = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at the host."""
        return not self.sent

    @property
    def waits(self) -> bool:
        """Whether leases wait here."""
        return bool(self._lots)

    # -- the coordinator speaks --------------------------------------------------------------------

    def told(self, message: protocol.ToWorker, frames: list[Any]) -> None:
        """A message of the coordinator, except Stop."""
        match message:
            case protocol.Assign(payloads=payloads, buffer_counts=counts):
                buffers = protocol.split_buffers(counts, len(payloads), frames)
                self._lots.append(Lot(message, buffers))
            case protocol.Define(fid, name=name):
                self._occupancy.define(fid, name)
                self._to_host(message)
            case protocol.Undefine(fids):
                for fid in fids:
                    self.ahead.forget(fid)
                    self._occupancy.forget(fid)
                self._to_host(message)
            case protocol.Cancel(tokens):
                if there := [token for token in tokens if token in self.sent]:
                    self._to_host(protocol.Cancel(there))
            case protocol.Pull(token, _):
                if token in self.sent:
                    self._to_host(message)
            case protocol.Ask():
                self.to_coordinator.append((self._answer(message), []))
            case _:
                pass  # about channels and children: none of a host's are known here

    def recall(self) -> None:
        """Have the host give back what has not begun there. Messages keep their order, so a job of
        which it has not heard yet comes back as well."""
        if self._unbegun:
            self._to_host(protocol.Recall(sorted(self._unbegun)))

    def _to_host(self, message: protocol.Message, frames: Sequence[Any] = ()) -> None:
        self.to_host.append([protocol.pack(message), *map(bytes, frames)])

    def _answer(self, asked: protocol.Ask) -> protocol.Answer:
        """No Gs of the host are known here, and no events."""
        match asked.what:
            case "trace":
                return protocol.Answer(asked.request, encode(RingDump(keeps=False)))
            case "timeline":
                params = asked.params
                told = self._occupancy.read(params.get("since_ns", 0), params.get("until_ns", 0))
                return protocol.Answer(asked.request, encode(told))
            case _:
                text = "" if asked.what in ("gs", "g") else "its Gs are on another machine\n"
                return protocol.Answer(asked.request, protocol.StackDump(text=text, gs=0, shown=0))

    # -- jobs go there -----------------------------------------------------------------------------

    def pump(self) -> None:
        """Claim and send as much as the host is to have."""
        lots, nbytes = self._lots, 0
        while lots and self.welcome is not None and nbytes < BATCH_BYTES:
            lot = lots[0]
            room = min(self.ahead.room(lot.fid), lot.left)
            if room <= 0:
                break
            nbytes += self._send(lot, room)
            if not lot.left:
                lots.popleft()
        self._report()

    def _send(self, lot: Lot, room: int) -> int:
        """Send the next jobs of a lot in one message; their bytes."""
        first, row, too_large = lot.at, lot.at, -1
        end = min(first + room, len(lot.payloads))
        while row < end:
            if not self._claim(lot.first + row):
                self._revoked = True
                break
            if lot.size(row) > self._frame_bytes:
                too_large = row
                break
            row += 1
        lot.at = min(row + 1, end)  # after the one that was revoked, or is too large
        nbytes = self._submit(lot, first, row) if row > first else 0
        if too_large >= 0:
            self._refuse(lot, too_large)
        return nbytes

    def _refuse(self, lot: Lot, row: int) -> None:
        """A job is larger than what the engine carries."""
        error = Unserializable(
            f"the arguments have {lot.size(row)} bytes, and the engine takes {self._frame_bytes} to"
            f" host {self._host}: write them to a file that both machines have, and send the path"
        )
        report = self._report_of({"final": True})
        self._finished([lot.first + row], [encode_error(error)], [0], {0: (Outcome.ERROR, report)})

    def _submit(self, lot: Lot, first: int, end: int) -> int:
        est_ns, n = self.ahead.est_ns(lot.fid), end - first
        job = Sent(lot.fid, est_ns)
        tokens = range(lot.first + first, lot.first + end)
        self.sent.update(dict.fromkeys(tokens, job))
        self._unbegun.update(dict.fromkeys(tokens, job))
        self._unreported.update(tokens)
        self.ahead.sent(est_ns * n, n)
        counts, frames = protocol.join_buffers(lot.buffers[first:end])
        payloads = lot.payloads[first:end]
        self._to_host(protocol.Submit(lot.fid, tokens[0], lot.options, payloads, counts), frames)
        return sum(map(len, payloads)) + sum(map(len, frames))

    def _report(self) -> None:
        """Leases that were claimed use no credit any more: the coordinator is told when it could
        give others instead."""
        if self._revoked or (self._unreported and not self._lots):
            self._revoked = False
            tokens = sorted(self._unreported)
            self._unreported.clear()
            self.to_coordinator.append((protocol.Started(tokens), []))

    # -- the host speaks ---------------------------------------------------------------------------

    def heard(self, frames: list[bytes], now_ns: int = 0) -> None:
        """A message of the daemon there. Raises ProtocolError for what is none."""
        message = protocol.unpack(frames[0], protocol.TO_CLIENT, len(frames) - 1)
        match message:
            case protocol.Done():
                self._done(message, frames[1:], now_ns)
            case protocol.Running(jobs):
                self._begun(jobs, now_ns)
            case protocol.Items():
                self.to_coordinator.append((message, frames[1:]))
            case protocol.Progress() | protocol.Kept():
                self.to_coordinator.append((message, []))
            case protocol.Welcome():
                self.welcome = message
            case protocol.Refused(reason=reason):
                self.failure = reason
            case protocol.Gone(reason):
                self.failure = f"its daemon has stopped: {reason}"
            case _:
                pass  # answers to questions that nothing here asks

    def _begun(self, jobs: Sequence[int], now_ns: int) -> None:
        unbegun, begun = self._unbegun, []
        for token in jobs:
            if (job := unbegun.pop(token, None)) is not None:
                begun.append(job)
                self._occupancy.begun(token, job.fid, now_ns)
        self.ahead.begun(sum(job.est_ns for job in begun), len(begun))
        self._unreported.difference_update(jobs)
        tokens = [token for token in jobs if token in self.sent]
        self.to_coordinator.append((protocol.Started(tokens), []))

    def _done(self, message: protocol.Done, frames: list[bytes], now_ns: int) -> None:
        self._received += len(message.jobs)
        self._owed += sum(map(len, message.payloads)) + sum(map(len, frames))
        begun_ns = begun = 0
        is_watched = self._occupancy.is_watched(now_ns)
        for token, ran_us in zip(message.jobs, message.ran_us, strict=True):
            job = self.sent.pop(token, None)
            if job is None:
                continue
            self.ahead.learn(job.fid, ran_us * 1000)
            is_told = token not in self._unbegun
            if not is_told:
                del self._unbegun[token]
                begun_ns += job.est_ns
                begun += 1
            if is_watched or is_told:
                self._occupancy.ended(token, job.fid, ran_us * 1000, now_ns)
        self.ahead.begun(begun_ns, begun)
        self._unreported.difference_update(message.jobs)
        specials, overran, recalled = self._specials(message)
        if overran:
            self.runs_on = True
            self.to_coordinator.append((protocol.Expired(overran), []))
        if recalled:
            self.to_coordinator.append((protocol.Returned(recalled), []))
        self._finished(
            message.jobs, message.payloads, message.ran_us, specials, message.buffer_counts, frames,
            left_out=[*overran, *recalled],
        )  # fmt: skip

    def confirm(self, *, now: bool) -> None:
        """Tell the daemon there which outcomes have come, with other messages (``now``), or when
        they are many: it holds jobs back beyond a limit."""
        if now or self._owed > OWED_BYTES or self._received - self._acked > OWED_MAX:
            self._owed = 0
        else:
            return
        if self._received > self._acked:
            self._acked = self._received
            self._to_host(protocol.Ack(self._received))

    def _specials(self, message: protocol.Done) -> tuple[protocol.Reports, list[int], list[int]]:
        """How those ended that are not plainly OK; those whose frames run on at the host; and those
        that came back from there."""
        reports: protocol.Reports = {}
        overran: list[int] = []
        recalled: list[int] = []
        for row, (outcome, details) in (message.specials or {}).items():
            known: dict[str, Any] = dict(details or {})
            if known.get("runs_on"):
                overran.append(message.jobs[row])
            elif known.get("recalled"):
                recalled.append(message.jobs[row])
            elif outcome is Outcome.REJECTED:
                known["text"] = f"was refused there: {known.get('text') or known.get('reason')}"
                reports[row] = Outcome.LOST, self._report_of(known)
            elif outcome is not Outcome.OK:
                reports[row] = Outcome(outcome), self._report_of(known)
        return reports, overran, recalled

    def _report_of(self, details: dict[str, Any]) -> Report:
        report: dict[str, Any] = {name: details[name] for name in _PASSED if name in details}
        report["host"] = self._host
        if text := details.get("text"):
            report["text"] = f"{text} (on host {self._host})"
        return report  # type: ignore[return-value]

    def _finished(
        self,
        tokens: list[int],
        payloads: list[bytes],
        ran_us: list[int],
        specials: protocol.Reports,
        counts: list[int] | None = None,
        frames: list[Any] | None = None,
        left_out: Sequence[int] = (),
    ) -> None:
        if left_out:
            tokens, payloads, ran_us, specials, counts, frames = _without(
                set(left_out), tokens, payloads, ran_us, specials, counts, frames or []
            )
        if tokens:
            message = protocol.Finished(tokens, payloads, ran_us, ran_us, specials or None, counts)
            self._gather(message, frames or [])

    def _gather(self, message: protocol.Finished, frames: list[Any]) -> None:
        """Outcomes of one exchange in few messages: the daemon there says some in each of its
        turns, and each message costs the coordinator as much as ten jobs."""
        last, last_frames = self.to_coordinator[-1] if self.to_coordinator else (None, [])
        if (
            not isinstance(last, protocol.Finished)
            or len(last.tokens) + len(message.tokens) > GATHERED_MAX
            or _nbytes(last, last_frames) + _nbytes(message, frames) > protocol.GATHER_BYTES
        ):
            self.to_coordinator.append((message, frames))
            return
        rows = len(last.tokens)
        if last.buffer_counts or message.buffer_counts:
            zeros = [0] * len(message.tokens)
            last.buffer_counts = (last.buffer_counts or [0] * rows) + (
                message.buffer_counts or zeros
            )
            last_frames += frames
        if message.specials:
            moved = {rows + row: report for row, report in message.specials.items()}
            last.specials = {**(last.specials or {}), **moved}
        last.tokens += message.tokens
        last.payloads += message.payloads
        last.ran_us += message.ran_us
        if last.occupied_us is not last.ran_us:
            last.occupied_us += message.occupied_us


def _nbytes(message: protocol.Finished, frames: list[Any]) -> int:
    return sum(map(len, message.payloads)) + sum(map(len, frames))


def _without(
    left_out: set[int],
    tokens: list[int],
    payloads: list[bytes],
    ran_us: list[int],
    specials: protocol.Reports,
    counts: list[int] | None,
    frames: list[Any],
) -> tuple[list[int], list[bytes], list[int], protocol.Reports, list[int] | None, list[Any]]:
    """The columns of a message without some of its jobs."""
    buffers = protocol.split_buffers(counts, len(tokens), frames)
    rows = [row for row, token in enumerate(tokens) if token not in left_out]
    counts, frames = protocol.join_buffers([buffers[row] for row in rows])
    return (
        [tokens[row] for row in rows],
        [payloads[row] for row in rows],
        [ran_us[row] for row in rows],
        {at: specials[row] for at, row in enumerate(rows) if row in specials},
        counts,
        frames,
    )


class HostLost(GmpdError):
    """The host of a bridge is gone, or does not take work: said to the coordinator as a Fault."""


def unreadable(error: ProtocolError) -> str:
    """Why a host serves no more whose daemon said something that none says."""
    return f"its daemon said what this gmpd does not understand: {error}"
