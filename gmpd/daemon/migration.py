"""Children of this worker's Gs that run in other workers: how they leave, and how they end here.

``gmpd.go`` makes a child as a Python object in the run queue; nothing is packed before it leaves.
The coordinator learns that there are some (not how each is called), asks for the older half when
another P is idle, and leases them to it as jobs whose client is this worker. A child that cannot be
packed, or would behave differently elsewhere, stays: that is no error.

A function that shares variables with its maker (a closure over what can change, a method of an
object) would work on a copy there. It stays. Arguments do travel, as a job's do.

It never touches a socket; its counterpart is ``worker``. Called by the M that holds P alone.
"""

from __future__ import annotations

import asyncio
import dis
import inspect
import time
import types
from asyncio import CancelledError
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any

from gmpd import protocol
from gmpd.codec import (
    Blob,
    FunctionRef,
    add_job_note,
    carrying,
    decode,
    decode_error,
    describe_function,
    encode_call,
)
from gmpd.daemon.reports import rows_of
from gmpd.errors import Unserializable
from gmpd.protocol import Outcome
from gmpd.runtime.chan import Chan
from gmpd.runtime.g import G
from gmpd.runtime.loop import Loop
from gmpd.runtime.remote import ChanRouter
from gmpd.runtime.roots import root_of
from gmpd.sched.runq import half_up
from gmpd.spans import of_child
from gmpd.submit.batch import Batch
from gmpd.submit.functions import FunctionTable
from gmpd.submit.losses import death_of, worker_lost

#: The limit of packing for one thief, during which P does nothing else (ns of CPU time, so that a
#: busy core packs no less).
PACK_NS = 2_000_000
#: The limit of bytes that are given at once: a thief takes as long to read them.
DONATE_BYTES = 8 << 20
#: Functions that the coordinator is told about at a time; the one unused for longest gives way.
FUNCTIONS_MAX = 256
#: The interval at which a worker reports that it has children; it doubles while none is stolen.
TELL_MIN_NS = 1_000_000
TELL_MAX_NS = 64_000_000
#: The pause after which children of a function that could not be packed are tried again; it doubles
#: each time.
PIN_MIN_NS = 100_000_000
PIN_MAX_NS = 60_000_000_000
#: The number of them that are remembered; then all are tried again.
PIN_KEYS_MAX = 1024

#: Jobs whose children have left and whose options are remembered.
ROOTS_MAX = 1024

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes, range, type(...)})
#: They would pickle, and then wait without a partner.
_BOUND_HERE = (
    asyncio.Future, asyncio.Event, asyncio.Lock, asyncio.Condition, asyncio.Semaphore,
    asyncio.Barrier, asyncio.Queue, asyncio.AbstractEventLoop, G,
)  # fmt: skip

Send = Callable[[protocol.Message, Sequence[Any]], None]


class ChildMigration:
    """Children of this worker, away and about to leave. ``value_bytes`` bounds one's arguments."""

    def __init__(self, loop: Loop, send: Send, router: ChanRouter, value_bytes: int) -> None:
        self._loop = loop
        self._send = send
        self._router = router
        self._value_bytes = value_bytes
        #: Of children that have left, by their jobs.
        self._options: dict[Any, protocol.Options] = {}
        #: Those that are elsewhere, by the number under which the coordinator knows them.
        self.away: dict[int, G] = {}
        self._seqs: dict[G, int] = {}
        self._next_seq = 1
        self._functions = FunctionTable(
            FUNCTIONS_MAX, lambda message: self._send(message, ()), brings=False
        )
        #: The last report to the coordinator.
        self.told = 0
        self._tell_after_ns = 0
        self._tell_pause_ns = TELL_MIN_NS
        #: Functions whose children stay: until when, and how long they did.
        self._pinned: dict[Any, tuple[int, int]] = {}

    # -- what the coordinator knows ----------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """Report when there are children that could migrate, and when there are none any more.
        ``now_ns`` is 0 when P is about to sleep."""
        loop = self._loop
        if self.told:
            if not loop.fresh.stealable:
                self._tell(0)
        elif now_ns > self._tell_after_ns and self._has_some(now_ns):
            self._tell_after_ns = now_ns + self._tell_pause_ns
            self._tell_pause_ns = min(TELL_MAX_NS, 2 * self._tell_pause_ns)
            self._tell(loop.fresh.stealable)

    def _has_some(self, now_ns: int) -> bool:
        """Whether one of the oldest in the queue is a child that may leave."""
        runq = self._loop.p.runq
        for queue in (runq.global_, runq.ring, self._loop.p.deferred):
            for g, _ in zip(queue, range(LOOK_MAX), strict=False):
                if self._may_migrate(now_ns, g):
                    return True
        return False

    def _tell(self, n: int, *, asked: bool = False) -> None:
        self.told = n
        self._send(protocol.Children(n, asked), ())

    # -- leaving -----------------------------------------------------------------------------------

    def donate(self, n: int) -> None:
        """Migrate up to ``n`` children, the older half of those queued here; answer even if it is
        none."""
        now_ns = time.monotonic_ns()
        loop = self._loop
        count = min(n, half_up(loop.fresh.stealable))
        taken = loop.fresh.grab_if(count, partial(self._may_migrate, now_ns))
        with self._router.open():
            stayed = self._pack(taken, now_ns)
        loop.p.runq.global_.extendleft(reversed(stayed))
        gave = len(stayed) < len(taken)
        if gave:
            self._tell_pause_ns = TELL_MIN_NS
        self._tell(loop.fresh.stealable if gave else 0, asked=True)

    def _may_migrate(self, now_ns: int, g: Any) -> bool:
        if not isinstance(g, G) or not g.may_leave:
            return False
        pinned = self._pinned.get(kind_of(g.fn))
        return pinned is None or pinned[0] < now_ns

    def _pack(self, gs: list[G], now_ns: int) -> list[G]:
        """Send them, in order, alike ones in one message; gives back those that stay."""
        stayed: list[G] = []
        batch: Batch | None = None
        leaving: list[G] = []
        alike: protocol.Options | None = None
        total = 0
        until_ns = time.thread_time_ns() + PACK_NS
        for at, g in enumerate(gs):
            if at and (time.thread_time_ns() > until_ns or total > DONATE_BYTES):
                stayed += gs[at:]
                break
            # One of its kind may just have been found to stay.
            packed = self._packed(g) if self._may_migrate(now_ns, g) else None
            if packed is None:
                stayed.append(g)
                continue
            ref, blob = packed
            options = self._options_of(g)
            if (
                batch is None
                or batch.ref != ref
                or alike is not options
                or batch.nbytes > protocol.GATHER_BYTES
            ):
                self._submit(batch, leaving, alike)
                batch, leaving, alike = Batch(ref, self._next_seq, None), [], options
            batch.add(blob)
            leaving.append(g)
            total += blob.nbytes
        self._submit(batch, leaving, alike)
        return stayed

    def _options_of(self, g: G) -> protocol.Options:
        """For thief and coordinator: its owner, and the job that it belongs to."""
        job = root_of(g.get_context())
        leased = getattr(job, "leased", None)
        root = None if leased is None else leased.identity(job.token)
        captured = job is not None and job.is_captured
        key = captured, root
        options = self._options.get(key)
        if options is None:
            if len(self._options) >= ROOTS_MAX:
                self._options.clear()
            options = self._options[key] = protocol.Options(
                child=self._router.me, capture=True if captured else None,
                root=root if root and root[0] else None,
            )  # fmt: skip
        return options

    def _packed(self, g: G) -> tuple[FunctionRef, Blob] | None:
        """A child as bytes, or None: then calls of its function are not tried again for a while."""
        try:
            ref = describe_function(g.fn)
            if is_migratable(g.fn, ref) and not _bound_here((*g.args, *g.kwargs.values())):
                blob = encode_call(ref.name, g.args, g.kwargs)
                if header := of_child(g.get_context()):
                    blob = carrying(header, blob)
                ref = ref.needing(blob.needs)
                if blob.nbytes + len(ref.payload) <= self._value_bytes:
                    self._pinned.pop(kind_of(g.fn), None)
                    return ref, blob
        except Unserializable:
            pass
        self._pin(g)
        return None

    def _pin(self, g: G) -> None:
        if len(self._pinned) >= PIN_KEYS_MAX:
            self._pinned.clear()
        key = kind_of(g.fn)
        _, before = self._pinned.get(key, (0, 0))
        pause = min(PIN_MAX_NS, max(PIN_MIN_NS, 2 * before))
        self._pinned[key] = time.monotonic_ns() + pause, pause

    def _submit(self, batch: Batch | None, gs: list[G], options: protocol.Options | None) -> None:
        if batch is None:
            return
        fid = self._functions.number(batch.ref)
        self._next_seq += len(gs)
        for seq, g in enumerate(gs, batch.first_seq):
            g.leave(self._cancelled)
            self.away[seq] = g
            self._seqs[g] = seq
        self._loop.p.stats.children_out += len(gs)
        counts, frames = protocol.join_buffers(batch.buffers or [])
        self._send(protocol.Submit(fid, batch.first_seq, options, batch.payloads, counts), frames)

    # -- ending ------------------------------------------------------------------------------------

    def _cancelled(self, g: G) -> None:
        """Its parent waits no more: it is to end where it is."""
        seq = self._seqs.pop(g, None)
        if seq is not None:
            del self.away[seq]
            self._send(protocol.Cancel([seq]), ())
            self._let_go()

    def ended(self, message: protocol.Done, frames: list[Any]) -> None:
        """Outcomes of children that ran elsewhere."""
        rows = len(message.jobs)
        buffers = protocol.split_buffers(message.buffer_counts, rows, frames)
        specials: dict[int, Any] = message.specials or {}
        for i, seq in enumerate(message.jobs):
            outcome, told = specials.get(i) or (Outcome.OK, None)
            details = told or {}
            g = self.away.pop(seq, None)
            if g is not None:  # else it was cancelled meanwhile
                del self._seqs[g]
                self._end(g, Outcome(outcome), message.payloads[i], buffers[i], details)
            if "gift" in details:
                self._router.unpin(details["gift"])
        self._let_go()

    def progressed(self, message: protocol.Progress) -> None:
        """Children that run elsewhere tell how far their jobs are."""
        for seq, progress in rows_of(message):
            job = self._job_of(seq)
            if job is not None:
                job.progressed(progress)

    def printed(self, message: protocol.Output) -> None:
        """Children of captured jobs that run elsewhere have printed."""
        for seq, chunk, skipped in zip(message.jobs, message.chunks, message.skipped, strict=True):
            job = self._job_of(seq)
            if job is not None:
                gap = b"[%d bytes left out]\n" % skipped if skipped else b""
                job.printed(gap + chunk)

    def _job_of(self, seq: int) -> Any:
        """The job of a child that is elsewhere."""
        g = self.away.get(seq)
        return None if g is None else root_of(g.get_context())

    def _let_go(self) -> None:
        """Definitions of programs are to be forgotten when these end, and no later."""
        if not self.away:
            self._functions.drop_needy()

    def _end(
        self,
        g: G,
        outcome: Outcome,
        payload: bytes,
        buffers: Sequence[Any],
        details: dict[str, Any],
    ) -> None:
        if outcome is Outcome.REJECTED or "unopened" in details:
            if outcome is not Outcome.REJECTED:
                self._pin(g)
            if g.come_back():
                self._loop.p.runq.runqput(g)
            return
        try:
            if "gift" in details:
                with self._router.open():
                    g.settle(decode(payload, buffers))
            elif outcome is Outcome.OK:
                g.settle(decode(payload, buffers))
            else:
                g.settle_error(_error(g, outcome, payload, details))
        except Exception as exc:  # noqa: BLE001 - user code rebuilds its values
            g.settle_error(exc)


#: How far ``look`` looks into each queue for a child that may leave.
LOOK_MAX = 16


def kind_of(fn: Any) -> Hashable:
    """Alike for functions made by one ``def``, so that one of them tells about the others."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__code__", None) or (type(fn), getattr(fn, "__qualname__", None))


def is_migratable(fn: Callable[..., Any], ref: FunctionRef) -> bool:
    """Whether a call of ``fn`` has the same effect in another worker.

    Not a generator function, whose value is the generator; not a function that shares variables
    with its maker.
    """
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        return False
    return ref.kind in ("name", "main") or _shares_nothing(fn)


def _shares_nothing(value: Any) -> bool:
    """Whether a copy of ``value`` cannot be told from the original."""
    if type(value) in _SCALARS or isinstance(value, type | types.ModuleType):
        return True
    if isinstance(value, Chan):
        return True  # it remains the same channel
    if isinstance(value, tuple | frozenset):
        return all(map(_shares_nothing, value))
    if isinstance(value, partial):
        return _shares_nothing(value.func)
    if isinstance(value, types.MethodType | types.BuiltinFunctionType):
        return isinstance(value.__self__, type | types.ModuleType)
    if not isinstance(value, types.FunctionType):
        return False
    cells = value.__closure__ or ()
    return not _assigns_outside(value.__code__) and all(map(_cell_is_steady, cells))


def _cell_is_steady(cell: types.CellType) -> bool:
    try:
        return _shares_nothing(cell.cell_contents)
    except ValueError:  # nothing was assigned yet
        return False


@lru_cache(maxsize=1024)
def _assigns_outside(code: types.CodeType) -> bool:
    """Whether a function assigns variables of the one around it (``nonlocal``)."""
    return any(
        each.opname in ("STORE_DEREF", "DELETE_DEREF") and each.argval in code.co_freevars
        for each in dis.get_instructions(code)
    )


def _bound_here(values: Any) -> bool:
    return any(isinstance(value, _BOUND_HERE) for value in values)


def _error(g: G, outcome: Outcome, payload: bytes, details: dict[str, Any]) -> BaseException:
    """The error that the awaiter of ``g`` gets when its outcome is no value."""
    where = f"on P{details.get('p')}"
    if details.get("pid"):
        where += f" (pid {details['pid']})"
    name = getattr(g.fn, "__qualname__", repr(g.fn))
    if outcome is Outcome.ERROR:
        exc = decode_error(payload)
        add_job_note(exc, f"child G {g.id} {name!r}: ran {where}")
        return exc
    if outcome is Outcome.LOST:
        text = f"child G {g.id} {name!r}: the worker that ran it {where} {death_of(details)}"
        if details.get("culprit") and details.get("blamed") is not True:
            text += f" while it ran {details['culprit']}"
        return worker_lost(text, str(g.id), details)
    return CancelledError(f"child G {g.id} {name!r}: cancelled {where}")
