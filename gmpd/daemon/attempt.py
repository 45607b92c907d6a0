"""One attempt in a worker: a job's call as a fresh G of its P, from arguments to outcome.

``start`` may end on an M that has lost P, so it touches nothing but its own attempt after the
user's code began; ``finished`` is always called by the M that holds P and passes the outcome on.
This module never touches a socket; its counterpart is ``worker``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from gmpd.codec import (
    MARK,
    Blob,
    OrElse,
    decode_call,
    encode_error,
    encode_result,
    own_error,
    readable,
    resolve_function,
)  # fmt: skip
from gmpd.daemon.advice import advise, is_asked
from gmpd.daemon.definitions import RemoteFunction
from gmpd.daemon.firsts import Firsts
from gmpd.daemon.fitness import is_want
from gmpd.daemon.generator_steps import GeneratorStep, ended_or_late, until_done
from gmpd.daemon.leased import Leased
from gmpd.daemon.reports import Reports
from gmpd.daemon.run_spans import open_spans
from gmpd.daemon.shm import WorkerShm
from gmpd.daemon.stream_window import StreamWindow
from gmpd.errors import LimitPassed, Unserializable
from gmpd.protocol import Options, Outcome, Report
from gmpd.runtime.coro import AWAY, HOME, leave_fork
from gmpd.runtime.loop import Loop
from gmpd.runtime.progress import Progress
from gmpd.runtime.remote import ChanRouter
from gmpd.runtime.ring import END, add_step, that_takes_steps
from gmpd.runtime.roots import root
from gmpd.runtime.turns import let_go
from gmpd.spans import Attempted

#: Results up to this size are below any limit that can be set.
SMALL_BYTES = 1024

#: A coroutine's arguments up to this size are unpacked on the thread of all coroutines.
HOME_BYTES = 16 * 1024

#: Common types of results, which cannot be awaited.
_VALUES = frozenset({type(None), bool, int, float, str, bytes, tuple, list, dict, set})

#: Types of values that hold no channel.
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})

#: Seconds: a frame that ends this soon after its interrupt at the time limit has not overrun.
END_S = 0.02


T = TypeVar("T")


class Host(Protocol):
    """The worker, as its calls need it."""

    loop: Loop
    router: ChanRouter
    firsts: Firsts
    reports: Reports
    shm: WorkerShm
    #: Guards interrupts of threads.
    interrupts: threading.Lock
    value_bytes: int

    def begin(self, attempt: Attempt) -> bool: ...
    def revoked(self, attempt: Attempt) -> None: ...
    def ended(self, attempt: Attempt) -> None: ...
    def overruns(self, attempt: Attempt) -> None: ...
    def yielded(self, attempt: Attempt, blobs: list[Blob]) -> None: ...
    def check_size(self, blob: Blob) -> None: ...
    def paused(self) -> None: ...


class Attempt:
    """A fresh G (``runtime.fresh.FreshG``): one attempt of one job."""

    #: Whether a call that only makes a coroutine may be made where that will run.
    may_be_home = True

    __slots__ = (
        "adopted", "advice", "args", "away_ns", "began_ns", "buffers", "cancelling", "child",
        "data", "driven", "ended_ns", "expired", "fn", "fn_key", "has_progress", "id", "leased",
        "occupied_ns", "options", "out_buffers", "outcome", "payload", "pinned_chans", "place",
        "room_waiter", "slow_ns", "spans", "stepped", "task", "thread", "timer", "token",
        "unopened", "waits", "want", "window", "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Host,
        token: int,
        fn: RemoteFunction,
        options: Options | None,
        payload: bytes,
        buffers: Sequence[Any],
    ) -> None:
        self.worker = worker
        self.token = token
        self.leased: Leased | None = None
        #: Of a job that came with a trace context of OpenTelemetry.
        self.spans: Attempted | None = None
        self.fn = fn
        self.fn_key = fn.fid
        self.options = options
        self.payload = payload
        #: They live until the result is encoded: it may refer to them weakly.
        self.args: tuple[Any, ...] = ()
        self.buffers = buffers
        self.id = 0
        self.driven: Any = None
        self.outcome = Outcome.OK
        self.data: bytes = b""
        self.out_buffers: Sequence[Any] = ()
        self.began_ns = 0
        self.ended_ns = 0
        self.occupied_ns = 0
        #: Time in which it waited without P.
        self.away_ns = 0
        self.task: asyncio.Task[Any] | None = None
        self.thread: int | None = None
        self.timer: asyncio.TimerHandle | None = None
        #: It gave a coroutine, which the loop drives; its first step may still be to come.
        self.adopted = self.stepped = False  # stepped: its steps are recorded in P's ring
        #: The coordinator knows, or is about to, that it waits while others begin.
        self.waits = False
        self.cancelling = self.has_progress = False
        self.expired = False
        #: A child of a G in another worker.
        self.child = options is not None and "child" in options
        #: The channels in its value.
        self.pinned_chans: Sequence[Any] = ()
        #: Such a one, whose function or arguments cannot be had here: it goes home.
        self.unopened = False
        #: It failed as if its process lacked something.
        self.want: BaseException | None = None
        #: How long outcomes that wait for it wait, unless it is quick.
        self.slow_ns = 0 if self.child else fn.slow_ns
        #: A first call may import modules, a large value may take long to unpack.
        self.place = AWAY
        if fn.is_async and self.may_be_home and len(payload) <= HOME_BYTES and not buffers:
            self.place = HOME
        #: Of a generator job that has begun.
        self.window: StreamWindow | None = None
        self.room_waiter: asyncio.Future[None] | None = None

    @property
    def fn_name(self) -> str:
        return self.fn.ref.name

    @property
    def is_unwanted(self) -> bool:
        """The answer of ``gmpd.cancelled()``."""
        return self.cancelling or self.expired

    @property
    def may_be_kept(self) -> bool:
        """Whether its outcome may reach the coordinator by another way than its message. That of a
        stream must not overtake the items: it would say that they are all there. And its record in
        shared memory has no words for what could not be opened, for channels that the receiver must
        unpin, nor for advice.
        """
        return not (self.unopened or self.pinned_chans) and (
            self.options is None
            or ("stream" not in self.options and (self.outcome is Outcome.OK or not self.report))
        )

    def progressed(self, progress: Progress) -> None:
        """Its code tells how far it is; on any thread."""
        self.has_progress = True
        self.worker.reports.progressed(self, progress)

    @property
    def report(self) -> Report | None:
        """Its advice about the next attempt, if it failed and was asked."""
        if self.outcome is not Outcome.ERROR or not is_asked(self.options):
            return None
        return getattr(self, "advice", None)

    @property
    def is_captured(self) -> bool:
        """Whether its output is kept with the job."""
        return self.options is not None and bool(self.options.capture)

    def printed(self, data: Any) -> bool:
        """Its code prints, on any thread; False: that goes where the process prints."""
        return self.is_captured and self.worker.reports.printed(self, bytes(data))

    # -- the G -------------------------------------------------------------------------------------

    def start(self) -> Coroutine[Any, Any, Any] | None:
        """Run a plain function to its end, or give the coroutine that the loop is to drive."""
        if not self.worker.begin(self):
            return None  # revoked: another worker has it, under another token
        coro = None
        try:
            if self.payload[:1] == MARK:
                open_spans(self, self.worker.loop, self._found)
            coro = self._taken(self._invoke()) if self.options is None else self._call_as_told()
        except BaseException as exc:  # noqa: BLE001 - whatever a job raises is its outcome
            self._fail(exc)
        if self.worker.loop.p.forked:
            leave_fork(self.outcome is not Outcome.OK)
        if coro is None:
            self.args = ()
            self.ended_ns = time.monotonic_ns()
            self.occupied_ns = self.ended_ns - self.began_ns - self.away_ns
        else:
            self.occupied_ns = time.monotonic_ns() - self.began_ns - self.away_ns
            self.adopted = True
        return coro

    def blocked(self, lost_ns: int) -> None:
        """It has ended, or given a coroutine, and had blocked: P was without it from then on."""
        self.occupied_ns = max(0, lost_ns - self.began_ns - self.away_ns)

    def was_away(self, ns: int) -> None:
        """It has waited without P, which it has again."""
        self.away_ns += ns

    def finished(self) -> None:
        """The G ended; this M holds P."""
        if not self.began_ns:
            self.worker.revoked(self)
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.task = self.driven = None
        if self.options is not None:
            self._judge(self.options.get("timeout"))
        if self.spans is not None:
            self.spans.end(self.outcome.name.lower(), time.monotonic_ns() - self.ended_ns)
        self.worker.ended(self)

    def _judge(self, limit_s: float | None) -> None:
        """An attempt that ends after its limit has timed out, with any result: it may have
        swallowed its cancellation, or held the interpreter so that nothing could come in time."""
        if limit_s is None or self.outcome is Outcome.TIMEOUT:
            return
        if self.expired or self.ended_ns - self.began_ns > limit_s * 1e9:
            self.outcome = Outcome.TIMEOUT
            self.data, self.out_buffers, self.pinned_chans = b"", (), ()

    def _call_as_told(self) -> Coroutine[Any, Any, Any] | None:
        """As its options want it."""
        assert self.options is not None
        if self.options.capture:
            root.set(self)  # everything that it starts inherits it
        result = self._invoke_guarded() if "timeout" in self.options else self._invoke()
        if "stream" in self.options:
            self.window = StreamWindow(self.options["stream"])
            return self._stream(result, self.window)
        return self._taken(result)

    def runs_beside(self) -> bool:
        """See ``runtime.fresh``; of a function that cannot be found, its start tells."""
        if self.child:
            return True
        try:
            return inspect.iscoroutinefunction(resolve_function(self.fn.ref))
        except Exception:  # noqa: BLE001 - the user's module; it fails where the job is run
            return True

    def _invoke(self) -> Any:
        if self.child:
            fn, args, kwargs = self._open_child()
        else:
            fn = resolve_function(self.fn.ref) if self.fn.here else self._found()
            args, kwargs = decode_call(self.payload, self.buffers)
        if self.fn.quick_ns is None:  # its first call: asking takes a microsecond
            self.fn.is_async = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self.payload, self.buffers = b"", ()
        self.args = args, kwargs
        return fn(*args, **kwargs)

    def _found(self) -> Callable[..., Any]:
        """Its function, whose module may have to be imported."""
        return self.worker.firsts.resolve(self.token, self.fn)

    def _open_child(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The call of a child, channels included; should that fail, it can still run at home."""
        try:
            with self.worker.router.open():
                return (
                    resolve_function(self.fn.ref),
                    *decode_call(self.payload, self.buffers),
                )
        except Exception:
            self.unopened = True
            raise

    def _invoke_guarded(self) -> Any:
        """As ``_invoke`` for a job with a time limit. An import is not interrupted: its module's
        lock, as CPython has it, would be lost, and every job that needs the module would hang."""
        if not (self.child or self.fn.here):
            self._found()
        return self._guarded(self._invoke)

    def _guarded(self, part: Callable[[], T]) -> T:
        """Run a part of a job with a time limit: its thread can be interrupted meanwhile."""
        try:
            with self.worker.interrupts:
                if self.expired:
                    raise LimitPassed
                self.thread = threading.get_ident()
            return part()
        finally:
            self._leave_guarded()

    def _leave_guarded(self) -> None:
        """From here on no interrupt may arrive: a pending one is withdrawn."""
        while True:
            try:
                with self.worker.interrupts:
                    ident, self.thread = self.thread, None
                    if self.expired and ident is not None:
                        _interrupt(ident, None)
            except LimitPassed:
                continue
            return

    def _taken(self, result: Any) -> Coroutine[Any, Any, Any] | None:
        """The function's return: a value, or an awaitable to drive."""
        if type(result) in _VALUES:
            self._succeed(result)
            return None
        if inspect.iscoroutine(result):
            self.driven = result
            return self._drive(result)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise Unserializable(
                f"{self.fn.ref.name} is a generator: its values travel one by one, with"
                f" client.stream(...) instead of submit"
            )
        if inspect.isawaitable(result):
            return self._drive(result)
        self._succeed(result)
        return None

    async def _drive(self, awaitable: Any) -> None:
        self.task = asyncio.current_task()
        self.driven = awaitable
        try:
            self._end_early(awaitable)
            self._succeed(await _Metered(awaitable, self))
        except BaseException as exc:  # noqa: BLE001 - whatever a job raises is its outcome
            self._fail_waiting(exc)
        finally:
            self.args = ()
            self.ended_ns = time.monotonic_ns()

    def _end_early(self, unbegun: Any) -> None:
        """A cancel or time limit came between the call and the first step of what it gave."""
        if self.cancelling or self.expired:
            if inspect.iscoroutine(unbegun):
                unbegun.close()
            raise asyncio.CancelledError

    # -- generators --------------------------------------------------------------------------------

    async def _stream(self, source: Any, window: StreamWindow) -> None:
        self.task = asyncio.current_task()
        try:
            self._end_early(source)
            if inspect.iscoroutine(source):
                source = await source
            self.driven = source
            if hasattr(source, "__aiter__"):
                await self._stream_async(source, window)
            else:
                await self._stream_sync(iter(source), window)
            self._succeed(None)
        except BaseException as exc:  # noqa: BLE001 - whatever a job raises is its outcome
            self._fail_waiting(exc)
        finally:
            self.args = ()
            self.ended_ns = time.monotonic_ns()

    async def _stream_async(self, source: Any, window: StreamWindow) -> None:
        """The generator is closed before the job ends: its cleanup is a part of the job, also when
        a cancel finds it waiting for room, outside of the generator."""
        try:
            async for value in source:
                await self._has_room(window)
                self._offer([value], window)
        finally:
            if hasattr(source, "aclose"):
                await source.aclose()

    async def _stream_sync(self, source: Any, window: StreamWindow) -> None:
        """A plain generator runs as a sync G, step by step: one that blocks loses P like any."""
        over = False
        try:
            while not over:
                await self._has_room(window)
                over = await self._step(GeneratorStep(self, source, window.items), window)
        except BaseException:
            if self.expired and hasattr(source, "close"):
                await self.worker.loop.call_sync(source.close)
            raise

    async def _step(self, step: GeneratorStep, window: StreamWindow) -> bool:
        """One step, ended with its frame: a time limit that passes meanwhile waits for it. Whether
        it was the last."""
        call = self.worker.loop.call_sync(self._stepper(step))
        try:
            while not call.done():
                await ended_or_late(step, call)
                if not self.expired:
                    self._offer(step.take(), window)
            return call.result()
        except asyncio.CancelledError:
            if not self.expired:
                call.cancel()
                raise
            await until_done(call)
            raise
        except BaseException:  # its own, or a value cannot be sent
            await until_done(call)
            raise

    def _stepper(self, step: GeneratorStep) -> Callable[[], bool]:
        part = step if self.spans is None else partial(self.spans.inside, step)
        if self.options is None or "timeout" not in self.options:
            return part
        return partial(self._guarded, part)

    async def _has_room(self, window: StreamWindow) -> None:
        if self.expired:  # it swallowed its cancellation, and its items are not wanted
            raise asyncio.CancelledError
        while not window.is_open():
            self.room_waiter = asyncio.get_running_loop().create_future()
            await self.room_waiter

    def _offer(self, values: list[Any], window: StreamWindow) -> None:
        if values:
            plain = bool(self.options and self.options.get("plain"))
            blobs: list[Blob] = []
            try:
                for value in values:
                    blob = encode_result(value, plain=plain)
                    self.worker.check_size(blob)
                    blobs.append(blob)
            finally:
                if blobs:
                    window.sent([blob.nbytes for blob in blobs])
                    self.worker.yielded(self, blobs)

    def pull(self, n: int) -> None:
        """The client has room for ``n`` more items."""
        if self.window is None:  # it has not begun: its options carry the window
            return
        self.window.pulled(n)
        waiter, self.room_waiter = self.room_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- outcomes ----------------------------------------------------------------------------------

    def _succeed(self, value: Any) -> None:
        options = self.options
        if self.child and type(value) not in _SCALARS:
            with self.worker.router.open() as self.pinned_chans:
                blob = encode_result(value)
        else:
            blob = encode_result(value, plain=options is not None and bool(options.get("plain")))
        self.data, buffers = blob
        if buffers or len(self.data) > SMALL_BYTES:
            if isinstance(value, OrElse) and blob.nbytes > self.worker.value_bytes:
                # Items that are too large only together go in parts.
                self.data, buffers = encode_result(value.other(self.worker.value_bytes))
            else:
                self.worker.check_size(blob)
            # Copied: they are views of the job's own memory, and a later job may write there before
            # they have left this process.
            self.out_buffers = [bytes(buffer) for buffer in buffers]

    def _fail(self, exc: BaseException) -> None:
        plain = self.options is not None and bool(self.options.get("plain"))
        self.outcome = Outcome.TIMEOUT if self.expired else Outcome.ERROR
        self.advice: Report | None = None
        if self.options is not None and is_asked(self.options) and not self.expired:
            self.advice = advise(self.options, exc, self.fn.ref)
        exc = own_error(readable(exc))
        if self.spans is not None and not self.expired:
            self.spans.failed(exc)
        if is_want(exc):
            self.want = exc
        self.data, self.out_buffers, self.pinned_chans = encode_error(exc, plain=plain), (), ()

    def _fail_waiting(self, exc: BaseException) -> None:
        exc = readable(exc)
        if isinstance(exc, asyncio.CancelledError) and (self.expired or self.cancelling):
            self.outcome = Outcome.TIMEOUT if self.expired else Outcome.CANCELLED
        else:
            self._fail(exc)

    # -- ended from outside; the M that holds P calls these ----------------------------------------

    def expire(self) -> None:
        """The job's time is over: end it where it waits, or interrupt its thread."""
        self.expired = True
        if self.task is not None:
            self._cancel_soon(self.task)
        with self.worker.interrupts:
            if self.thread is not None:
                _interrupt(self.thread, LimitPassed)
        let_go(self.worker.loop.p, self)
        # A call inside C code does not notice until it returns, and a function may continue in
        # spite of it: its client need not wait.
        self.timer = self.worker.loop.call_later(END_S, self.worker.overruns, self)

    def cancel(self) -> bool:
        """Cancel a coroutine where it waits; False for a plain call, which cannot be stopped.

        A call that runs without P may still give a coroutine: that one ends before its first step.
        """
        self.cancelling = True
        if not self.adopted:
            let_go(self.worker.loop.p, self)
            return False
        if self.task is not None:
            self._cancel_soon(self.task)
        return True

    def _cancel_soon(self, task: asyncio.Task[Any]) -> None:
        """Cancel on the home M, as the user's objects that it awaits may be notified."""
        self.worker.loop.call_soon(task.cancel)


class _Metered:
    """An awaitable that adds up the time of its steps: the time that its coroutine occupies P."""

    __slots__ = ("_attempt", "_awaitable")

    def __init__(self, awaitable: Any, attempt: Attempt) -> None:
        self._awaitable = awaitable
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Any]:
        attempt, clock, shm = self._attempt, time.monotonic_ns, self._attempt.worker.shm
        source = self._awaitable
        steps = source if inspect.iscoroutine(source) else source.__await__()
        error: BaseException | None = None
        ring = that_takes_steps(attempt.worker.loop.p.ring)
        attempt.stepped = ring is not None
        while True:
            request: Any = END
            began = clock()
            shm.resume(attempt.token, began)
            try:
                request = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                ended = clock()
                attempt.occupied_ns += ended - began
                attempt.worker.paused()
                if ring is not None:
                    ring = add_step(ring, attempt, request.__class__, began, ended)
            error = None
            try:
                yield request
            except BaseException as exc:  # noqa: BLE001 - thrown into the user's coroutine
                error = exc


def _interrupt(ident: int, error: type[BaseException] | None) -> None:
    """Raise ``error`` in another thread at its next bytecode; None takes a pending one back."""
    import ctypes  # it takes 8 ms, and few jobs have a limit

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(error) if error is not None else None
    )
