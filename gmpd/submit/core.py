"""One submitting session, sans-IO: jobs waiting and sent, functions, credit, calls, streams.

Messages go out as lists of frames and come in as lists of frames; no socket, clock, thread or
waiting is here, and nothing here is thread-safe: a face calls it under its own lock. Results are
events, which the face applies to futures outside that lock.

**Ownership.** A job's sink is in ``_jobs`` from submit until it is popped; only the code that pops
it may finish it. So an outcome, a cancel and the loss of the daemon never meet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gmpd import protocol
from gmpd.errors import DaemonUnreachable, GmpdError, another
from gmpd.protocol import Outcome
from gmpd.submit import plain
from gmpd.submit.batch import Batch, Options, Request, cancel_message, unsent_of
from gmpd.submit.checks import (
    check_far,
    check_packs,
    check_scalars,
    check_size,
    pack_options,
    raise_refused,
)
from gmpd.submit.events import Event, ItemsReceived, JobDone, JobNotice, progressed
from gmpd.submit.functions import FunctionTable
from gmpd.submit.questions import AboutDurable, AboutJobs, Questions, ToStore
from gmpd.submit.resend import PERMANENT_REASONS, ResendBuffer, Sent

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import Blob, FunctionRef

#: The most bytes of results between two Acks, because the daemon counts unacknowledged ones, and
#: takes a client that leaves more of them for one that does not read (``sched.records``).
ACK_BYTES = 1 << 20
#: Items that a generator job may be ahead of its reader; topped up when half are used.
STREAM_WINDOW = 64
#: Arguments up to this size are below any limit that can be set.
SMALL_BYTES = 1024

_NOTHING: dict[str, Any] = {}
#: Stands among outcomes for a job that is sent again.
_AGAIN = object()


#: A ``JobDone`` of its fields, without a step of Python: there is one for each job.
_job_done: Callable[[tuple[Outcome, bytes, protocol.Buffers, int, dict[str, Any]]], JobDone]
_job_done = partial(tuple.__new__, JobDone)


class SubmitCore:
    """One session with a coordinator."""

    def __init__(
        self,
        session: bytes,
        info: dict[str, Any],
        *,
        role: str,
        functions_max: int,
        resend: bool = True,
    ) -> None:
        """``functions_max``: how many functions the daemon is told to remember; beyond, it forgets
        the one unused for longest. ``resend``: jobs for which the daemon has no room are sent
        again, see ``retry``."""
        self.session = session
        self.info = info
        self.role = role
        self.welcome: protocol.Welcome | None = None
        self.window = 0
        self.batch_jobs = 0
        #: Why nothing comes any more, once that is so.
        self.lost: Exception | None = None
        #: Jobs that were taken and not sent.
        self.unsent = 0
        #: Messages that have come.
        self.heard = 0
        self.events: deque[Event] = deque()
        #: Takes the end of a job.
        self._add: Callable[[tuple[Any, JobDone]], None] = self.events.append
        #: Of a daemon on another machine, about this key; whether only plain values are exchanged.
        self._far: protocol.DaemonInfo | None = None
        #: The last ones that were found to fit into a message.
        self._packed_options: Options | None = None
        self.is_plain = False
        self._next_seq = 1
        self._jobs: dict[int, Any] = {}
        self.questions = Questions(self._say, self.events.append)
        self._functions_max = functions_max
        self._functions = FunctionTable(functions_max, self._say)
        #: To be sent, in order; those that were refused before are in front.
        self._waiting: deque[Batch] = deque()
        self._resend_buffer = ResendBuffer() if resend else None
        self._open: Batch | None = None
        self._messages: list[list[Any]] = []
        self._sent = 0
        self._received = 0
        self._acked = 0
        self._bytes_since_ack = 0
        self._dropped = 0
        #: Turns the reason of a loss into the error that callers see.
        self.explain: Callable[[Exception], Exception] = lambda error: error

    # -- out -------------------------------------------------------------------------------------

    def hello(self) -> list[Any]:
        """The first message."""
        return [protocol.pack(protocol.hello(self.role, self.session, self.info))]

    def submit(self, ref: FunctionRef, blob: Blob, options: Options | None, sink: Any) -> int:
        """Take one job; returns its number. Raises the error that ended the session."""
        if self.lost is not None:
            raise another(self.lost)
        data, buffers = blob
        batch = self._open
        if (
            batch is None
            or batch.ref != ref
            or batch.options != options
            or len(batch.payloads) >= self.batch_jobs
            or batch.nbytes > protocol.GATHER_BYTES
        ):
            batch = self._open_batch(ref, options)
        payloads = batch.payloads
        seq = batch.first_seq + len(payloads)
        if buffers or batch.buffers is not None:
            batch.add_buffers(buffers)
        # Its place in the batch is its number. An interrupt after this leaves a job without a
        # waiting caller, one before it leaves none.
        payloads.append(data)
        self._jobs[seq] = sink
        self.unsent += 1
        batch.nbytes += len(data)
        return seq

    def submit_alike(self, requests: deque[Request]) -> deque[Request]:
        """``submit`` for the first of ``requests``, as far as they belong to the open batch; the
        sinks get their numbers. Gives ``requests`` with those that are left."""
        batch = self._open
        if batch is not None and batch.buffers is None and self.lost is None:
            self.unsent += batch.take(requests, self._jobs, self.batch_jobs)
        return requests

    def begin_stream(self, ref: FunctionRef, blob: Blob, options: Options | None, sink: Any) -> int:
        """Take one generator job whose values are wanted; as ``submit``."""
        return self.submit(ref, blob, {**(options or {}), "stream": STREAM_WINDOW}, sink)

    def check(self, ref: FunctionRef, blob: Blob, options: Options | None) -> None:
        """Raises Unserializable for what no message takes, before anything of it is kept; and has
        ready what the function needs.

        Needs no lock. A frame that is too large would cost the connection, and with it every job of
        this session; what cannot be packed would fail where the job has long been taken.
        """
        if self._far is not None:
            check_far(self._far, ref, blob)
        if not ref.name.isascii():
            check_packs(ref, "the name of the function", ref.name.encode)
        if options is not None and options is not self._packed_options:
            check_packs(ref, "the options of the function", lambda: pack_options(options))
            self._packed_options = options  # of calls that are alike: never changed
        data, buffers = blob
        if buffers or len(data) > SMALL_BYTES or len(ref.payload) > SMALL_BYTES:
            limit = self.welcome.value_bytes if self.welcome is not None else 0
            check_size(ref, blob, limit, far=self._far is not None)
        if ref.needs:
            self._functions.prepare(ref)

    def _open_batch(self, ref: FunctionRef, options: Options | None) -> Batch:
        self._close_batch()
        batch = Batch(ref, self._next_seq, options)
        self._waiting.append(batch)
        self._open = batch
        return batch

    def _close_batch(self) -> None:
        """The open batch, if there is one, takes no more."""
        batch = self._open
        if batch is not None:
            self._next_seq = batch.first_seq + len(batch.payloads)
            self._open = None

    def _room(self) -> int:
        """How many jobs may be sent now."""
        room = self.window - (self._sent - self._acked)
        allowed = None if self._resend_buffer is None else self._resend_buffer.allowed
        return room if allowed is None else min(room, allowed)

    def take_outgoing(self) -> list[list[Any]]:
        """Messages to be sent now: as much as the window allows."""
        self._send_waiting()
        buffer = self._resend_buffer
        if buffer is not None and buffer.offered:
            buffer.offer_pending = False
            if not self._holds_refused():
                if buffer.reset():
                    self._say(protocol.Waive())
                self._send_waiting()
        if not self._messages:
            return []
        messages, self._messages = self._messages, []
        return messages

    def _holds_refused(self) -> bool:
        return bool(self._waiting) and self._waiting[0].again

    def _send_waiting(self) -> None:
        room = self._room()
        while self._waiting:
            batch = self._waiting[0]
            if room <= 0:
                if self._received > self._acked:
                    self._ack()
                    room = self._room()
                    continue
                break
            try:
                room -= self._send_some(batch, room)
            except Exception as error:  # noqa: BLE001 - the fault of these jobs at most
                self._fail(batch, error)
            if batch.at == len(batch.payloads):
                if batch is self._open:
                    self._close_batch()
                self._waiting.popleft()
        if not self._waiting:
            self.unsent = self._dropped = 0  # also after a submit that was interrupted half way

    def _fail(self, batch: Batch, error: Exception) -> None:
        """No message can be made of it: its jobs end with ``error``, and others continue."""
        for seq in range(batch.first_seq + batch.at, batch.first_seq + len(batch.payloads)):
            sink = self._jobs.pop(seq, None)
            if sink is not None:
                self.events.append((sink, JobDone(Outcome.LOST, b"", (), 0, {"error": error})))
                self.unsent -= 1
            else:
                self._dropped -= 1
        batch.at = len(batch.payloads)

    def _send_some(self, batch: Batch, room: int) -> int:
        """Send the next run of jobs of ``batch`` that were not cancelled; how many."""
        first, end = batch.at, min(len(batch.payloads), batch.at + room)
        if self._dropped:
            while first < end and batch.first_seq + first not in self._jobs:
                first += 1
                self._dropped -= 1
            stop = first
            while stop < end and batch.first_seq + stop in self._jobs:
                stop += 1
            end = stop
        batch.at = first
        n = end - first
        if n:
            payloads, buffers = batch.payloads, batch.buffers
            if n != len(payloads):
                payloads = payloads[first:end]
                buffers = None if buffers is None else buffers[first:end]
            jobs = Sent(batch.ref, batch.first_seq + first, batch.options, payloads, buffers)
            counts, frames = (None, None) if buffers is None else protocol.join_buffers(buffers)
            self._say(
                protocol.Submit(
                    self._functions.number(batch.ref),
                    jobs.first_seq,
                    protocol.options(jobs.options),
                    payloads,
                    counts,
                ),
                frames,
            )
            if self._resend_buffer is not None:
                self._resend_buffer.sent(jobs, again=batch.again)
            self._sent += n
            self.unsent -= n
        batch.at = end
        return n

    @property
    def retry_s(self) -> float:
        """Seconds after which ``retry`` is to be called; 0 when nothing was refused."""
        return 0.0 if self._resend_buffer is None else self._resend_buffer.wait_s

    def retry(self) -> None:
        """``retry_s`` have passed: some refused jobs are sent again."""
        if self._resend_buffer is not None:
            self._resend_buffer.retry(waiting=bool(self._waiting))

    def _send_again(self, seqs: list[int], details: dict[str, Any]) -> set[int]:
        """The daemon had no room for these: back to the front of the queue, in order.

        Gives those that are known.
        """
        assert self._resend_buffer is not None
        batches = [batch for batch in self._waiting if batch.again]
        known: set[int] = set()
        for part in self._resend_buffer.refused(seqs, details):
            batch = Batch(part.ref, part.first_seq, part.options)
            batch.payloads, batch.buffers, batch.again = part.payloads, part.buffers, True
            batches.append(batch)
            known.update(range(part.first_seq, part.end_seq))
        batches.sort(key=lambda batch: batch.first_seq + batch.at)
        self._waiting = deque([*batches, *(b for b in self._waiting if not b.again)])
        self.unsent += len(known)
        return known

    def _say(self, message: protocol.Message, frames: list[Any] | None = None) -> None:
        self._messages.append([protocol.pack(message), *(frames or ())])

    def cancel(self, seqs: list[int], *, force: bool = False) -> int:
        """Cancel jobs, if need be by ``force``; returns how many had not been sent, and are over.
        For the others a Cancel is sent; each ends in a ``JobDone`` or a ``JobNotice`` "kept".
        """
        unsent, asked = 0, []
        unsent_from, held = unsent_of(self._waiting, self._next_seq)
        for seq in seqs:
            sink = self._jobs.get(seq)
            if sink is None:
                continue
            if seq >= unsent_from or seq in held:
                self.events.append((sink, JobDone(Outcome.CANCELLED, b"", (), 0, _NOTHING)))
                del self._jobs[seq]
                self.unsent -= 1
                self._dropped += 1
                unsent += 1
            else:
                asked.append(seq)
        if asked and self.lost is None:
            self._say(cancel_message(asked, force, self.welcome))
        return unsent

    def cancel_all(self) -> int:
        """Cancel every job of this session; see ``cancel``."""
        return self.cancel(list(self._jobs))

    def cancel_streams(self) -> int:
        """Cancel every generator job whose values are wanted; see ``cancel``. One without a reader
        would never end."""
        return self.cancel([seq for seq, sink in self._jobs.items() if sink.streams])

    def pull(self, seq: int, n: int) -> None:
        """Room for ``n`` more items of the generator job ``seq``."""
        if seq in self._jobs:
            self._say(protocol.Pull(seq, n))

    def call(self, method: str, params: dict[str, Any], sink: Any) -> None:
        """Ask an administrative question."""
        if self.lost is not None:
            raise another(self.lost)
        self.questions.call(method, check_scalars(method, params), sink)

    def enqueue(
        self,
        ref: FunctionRef,
        jobs: list[tuple[bytes, Blob]],
        options: Options | None,
        stored: dict[str, Any],
        sink: Any,
    ) -> None:
        """Have durable jobs stored, see ``questions.ToStore``."""
        self._ask(ToStore(ref, jobs, options, stored), sink)

    def ask_jobs(self, what: Any, ids: list[bytes], sink: Any, **more: Any) -> None:
        """Ask about jobs, see ``protocol.AskJobs``."""
        self._ask(AboutJobs(what, ids, **more), sink)

    def _ask(self, question: AboutDurable, sink: Any) -> None:
        """Without a link it waits for the next one, if there is to be one."""
        if self.lost is not None and not self.questions.keeps:
            raise another(self.lost)
        if no_store := self._no_store():
            raise no_store
        self.questions.ask(question, sink, None if self.lost else self._functions)

    def _no_store(self) -> GmpdError | None:
        if self.welcome is None or self.welcome.version >= protocol.Enqueue.since:
            return None
        return GmpdError(
            f"the daemon is gmpd {self.welcome.info.version}, which keeps no durable jobs:"
            " restart it with the gmpd of this program"
        )

    def forget_call(self, sink: Any) -> None:
        """The caller waits for its answer no more."""
        self.questions.forget(sink)

    def ping(self) -> None:
        """Ping the daemon; the answer counts as a sign of life only."""
        self._say(protocol.Call(0, "ping", {}))

    def bye(self, reason: str) -> list[Any]:
        """The last message."""
        return [protocol.pack(protocol.Bye(reason))]

    def _ack(self) -> None:
        if self._received > self._acked:
            self._say(protocol.Ack(self._received))
            self._acked = self._received
            self._bytes_since_ack = 0

    @property
    def outgoing(self) -> bool:
        """Whether a message waits beside jobs that the window holds back."""
        return bool(self._messages) or (
            self._resend_buffer is not None and self._resend_buffer.offer_pending
        )

    # -- in --------------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Jobs without an outcome."""
        return len(self._jobs)

    @property
    def waits(self) -> bool:
        """Whether the daemon owes an answer."""
        return bool(self._jobs or self.questions)

    @property
    def in_flight(self) -> int:
        """Jobs that were sent and have no outcome."""
        return len(self._jobs) - self.unsent

    def receive(self, frames: list[Any]) -> None:  # noqa: C901 - a case per message
        """Apply one message: its results are appended to ``events``.

        Raises ProtocolError and changes nothing if no coordinator sends such a message.
        """
        message = protocol.unpack(frames[0], protocol.TO_CLIENT)
        self.heard += 1
        match message:
            case protocol.Done():
                self._done(message, frames[1:])
            case protocol.Value():
                self._told(message)
            case protocol.Running():
                self._note(message.jobs, "running")
            case protocol.Kept():
                self._note(message.jobs, "kept")
            case protocol.Progress():
                self.events.extend(progressed(message, self._jobs))
            case protocol.Items():
                self._items(message, frames[1:])
            case protocol.Room(jobs):
                if self._resend_buffer is not None:
                    self._resend_buffer.granted(jobs)
            case protocol.Reply():
                self._reply(message)
            case protocol.Welcome():
                self._welcomed(message)
            case protocol.Refused():
                raise_refused(message)
            case protocol.Gone():
                gone = DaemonUnreachable(f"the daemon stopped: {message.reason}")
                gone.code = message.code.name.lower()
                self.disconnected(gone)
            case _:
                raise AssertionError("TO_CLIENT holds no other message")

    def _items(self, message: protocol.Items, frames: list[Any]) -> None:
        buffers = protocol.split_buffers(message.buffer_counts, len(message.payloads), frames)
        sink = self._jobs.get(message.job)
        if sink is not None:
            items = ItemsReceived(message.payloads, buffers)
            if self.is_plain:
                plain.check_items(items)
            self.events.append((sink, items))

    def _reply(self, message: protocol.Reply) -> None:
        value = plain.only_plain_reply(message.value) if self.is_plain else message.value
        self.questions.answered(message.request, message.ok, value)

    def _welcomed(self, message: protocol.Welcome) -> None:
        self.welcome = message
        self.window = message.window
        self._far = message.info if message.info.role else None
        if message.info.plain:
            self.is_plain = True
            self._add = lambda end: self.events.append((end[0], plain.only_plain(end[1])))
        self.batch_jobs = min(message.batch_jobs, protocol.BATCH_JOBS_MAX)
        if self.lost is not None:
            self._reopened()

    def _reopened(self) -> None:
        """The daemon of a new link knows nothing of this session: no function, no job."""
        self.lost = None
        self._sent = self._received = self._acked = self._bytes_since_ack = 0
        self.questions.told.clear()
        self._functions = FunctionTable(self._functions_max, self._say)
        if self._resend_buffer is not None:
            self._resend_buffer = ResendBuffer()
        if no_store := self._no_store():
            self.questions.fail(no_store)
        self.questions.ask_again(self._functions)

    def _note(self, jobs: list[int], what: str) -> None:
        for seq in jobs:
            sink = self._jobs.get(seq)
            if sink is not None:
                self.events.append((sink, JobNotice(what)))

    def _done(self, message: protocol.Done, frames: list[Any]) -> None:
        payloads, ran = message.payloads, message.ran_us
        specials: dict[int, Any] = message.specials or {}
        buffers = protocol.split_buffers(message.buffer_counts, len(payloads), frames)
        if self._resend_buffer is not None and message.jobs:
            if specials:
                specials = self._keep_refused(message.jobs, specials)
            self._resend_buffer.acknowledge(max(message.jobs), self._jobs)
        pop, add = self._jobs.pop, self._add
        for i, seq in enumerate(message.jobs):
            special = specials.get(i)
            if special is _AGAIN:
                continue
            sink = pop(seq, None)
            if sink is None:  # its worker was quicker
                self._sent += 1
                continue
            if special is None:
                add((sink, _job_done((Outcome.OK, payloads[i], buffers[i], ran[i], _NOTHING))))
            else:
                outcome, details = special
                add((sink, JobDone(outcome, payloads[i], buffers[i], ran[i], details or _NOTHING)))
        self._received += len(payloads)
        self._bytes_since_ack += sum(map(len, payloads)) + sum(len(f) for f in frames)
        due = self._received - self._acked
        if due > self.window >> 3 or self._bytes_since_ack > ACK_BYTES:
            self._ack()

    def _told(self, message: protocol.Value) -> None:
        """A job's value, from its worker. It counts as never sent, and says nothing of others."""
        seq = message.job
        sink = self._jobs.pop(seq, None)
        if sink is None:  # the coordinator was quicker
            return
        self._sent -= 1
        self.questions.told.append(seq)
        if self._resend_buffer is not None:
            self._resend_buffer.told(seq, self._jobs)
        self._add((sink, _job_done((Outcome.OK, message.payload, (), message.ran_us, _NOTHING))))

    def _keep_refused(self, jobs: list[int], specials: dict[int, Any]) -> dict[int, Any]:
        """Take back the jobs that may be sent again; returns ``specials`` with a mark for each."""
        again = {
            i: special
            for i, special in specials.items()
            if special[0] == Outcome.REJECTED
            and (special[1] or {}).get("reason") not in PERMANENT_REASONS
            and jobs[i] in self._jobs
        }
        if not again:
            return specials
        details = [special[1] or {} for special in again.values()]
        known = self._send_again([jobs[i] for i in again], details[-1])
        return {**specials, **{i: _AGAIN for i in again if jobs[i] in known}}

    @property
    def wants_link(self) -> bool:
        """Whether the link is lost, and questions wait for another one."""
        return self.lost is not None and bool(self.questions)

    def reopen(self) -> list[Any]:
        """The first message on a new link, after the last one was lost."""
        self.welcome = None
        return self.hello()

    def disconnected(self, error: Exception) -> None:
        """The link is lost: as ``lose``, but questions about durable jobs wait for the next one, if
        there is to be one (``questions.keeps``)."""
        if self.lost is None:
            self.questions.disconnected(self._end_jobs(error, None))

    def lose(self, error: Exception, begun: Callable[[Any], bool] | None = None) -> None:
        """The daemon is gone for good: all ends with ``error``, also later calls. With ``begun``,
        jobs whose sinks have not begun are cancelled."""
        if self.lost is None:
            error = self._end_jobs(error, begun)
        self.questions.fail(error)

    def _end_jobs(self, error: Exception, begun: Callable[[Any], bool] | None) -> Exception:
        """Nothing comes any more; ``error`` as the callers see it."""
        self.lost = error = self.explain(error)
        for sink in self._jobs.values():
            lost = begun is None or begun(sink)
            outcome = Outcome.LOST if lost else Outcome.CANCELLED
            self.events.append((sink, JobDone(outcome, b"", (), 0, {"error": error})))
        self._jobs.clear()
        self._waiting.clear()
        self._messages.clear()
        self._close_batch()
        self.unsent = self._dropped = 0
        return error
