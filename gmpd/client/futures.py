"""``JobFuture``: a ``concurrent.futures.Future`` that the first reader decodes.

Settling a future runs no user code and does not wait: it stores the packed outcome and wakes
sleepers; the client's delivery thread calls the callbacks. The first thread that asks for a value
unpickles it, so a slow value delays only its readers; a small one that is no pickle is decoded at
once.

A Condition is most of what a standard Future costs. Here it is built by the first waiter,
in one step; to see that there is none and to write the state is one step, too. So a state is
only ever written under the condition, or where there is none, without a lock. The settler does
not wait for a held condition: its holder may be interrupted by a signal handler that needs the
settler. That future is settled later (``settle_later``).

**One step** for other threads is a line without a call or a backward jump, after which alone the
GIL may change hands; and a single line, as a trace function runs at each new one.

A future keeps its attributes in place, without a dictionary: that would be built at the first look
at ``__dict__``, and cost as much as settling does (``_share_keys``).
"""

from __future__ import annotations

import _thread
import concurrent.futures
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Protocol, cast

from gmpd import codec
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.outcomes import error_of
from gmpd.codec.interrupts import pass_on
from gmpd.protocol import Outcome
from gmpd.runtime.internals import (
    ALL_COMPLETED_WAITER,
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from gmpd.submit.core import SMALL_BYTES
from gmpd.submit.events import JobDone, JobProgress
from gmpd.timeouts import checked

_OVER = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})
_OK, _CANCELLED = Outcome.OK, Outcome.CANCELLED


class Owner(Protocol):
    """The part of a client that its futures use."""

    def busy_poll(self, future: Any, timeout: float | None) -> bool: ...
    def slept(self, ns: int) -> None: ...
    def cancel_job(self, future: Any, *, force: bool = False) -> bool: ...
    def job_id_of(self, future: Any) -> str: ...
    def call_back(self, future: Any) -> None: ...
    def settle_later(self, future: Any, event: JobDone) -> None: ...


_RLock: Any = _thread.RLock  # typeshed says that it is final


class Waiters:
    """Threads that sleep until a condition holds. No lock is taken, so none is left taken.

    A predicate is looked at once more after its sleeper has been put in: so what has changed before
    ``notify_all`` is seen.
    """

    #: By themselves, so that one is taken out in one step of C that cannot fail: an ``except`` for
    #: a missing one would also catch what a signal handler raises. Most futures need none.
    _asleep: dict[Any, Any] | None = None

    def any(self) -> bool:
        """Whether one sleeps."""
        return bool(self._asleep)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Until ``predicate()``; its last value."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (value := predicate()):
            left = -1.0 if end is None else min(end - time.monotonic(), threading.TIMEOUT_MAX)
            if end is not None and left <= 0:
                break
            sleeper: Any = _thread.allocate_lock()
            sleeper.acquire()
            asleep = self.__dict__.setdefault("_asleep", {})
            try:
                asleep[sleeper] = sleeper
                if not predicate():
                    sleeper.acquire(True, left)
            finally:
                asleep.pop(sleeper, None)  # its waker has taken it out
        return value

    def notify_all(self) -> None:
        """Wake all that sleep."""
        asleep = self._asleep
        if asleep:
            for each in tuple(asleep):
                sleeper = asleep.pop(each, None)
                if sleeper is not None:  # else another waker had it
                    sleeper.release()


class Condition(Waiters, _RLock):  # type: ignore[misc]
    """The part of ``threading.Condition`` that a future needs, at a third of its cost.

    Entered and left in one C call each: an interrupt never leaves it locked.
    """

    def hold(self) -> bool:
        """For the settler, which never waits; False also in a thread that holds it."""
        return not self._is_owned() and self.acquire(False)


class _Lazy:
    """An attribute that its first reader makes, and that is read without a call from then on.
    ``make`` gives the same object to all, should several be the first."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._name = make.__name__

    def __get__(self, future: Any, _kind: object = None) -> Any:
        if future is None:
            return self
        made = self._make(future)
        setattr(future, self._name, made)
        return made


def _is_busy(waiter: Any) -> bool:
    """Whether telling a waiter of ``concurrent.futures`` would wait: a thread is inside of it, and
    stays there for as long as a signal handler runs that interrupted it."""
    if getattr(waiter, "num_pending_calls", 1) > 1 and not waiter.stop_on_exception:
        return False  # of ``wait(fs)``: it holds no lock until the last one
    own = getattr(waiter, "lock", None)
    condition = getattr(getattr(waiter, "event", None), "_cond", None)
    inner = getattr(condition, "_lock", None)
    return any(lock is not None and lock.locked() for lock in (own, inner))


def _tell(waiter: Any, future: JobFuture, outcome: Outcome) -> None:
    """Tell a waiter of ``concurrent.futures`` of an end. The one of ``wait(fs)`` counts down, for
    all but the last future in one step, which needs neither its lock nor two calls."""
    if waiter.__class__ is ALL_COMPLETED_WAITER and not waiter.stop_on_exception:
        waiter.finished_futures.append(future)  # the last one again below: ``wait`` makes a set
        waiter.num_pending_calls -= (others := waiter.num_pending_calls > 1)  # one step
        if others:
            return
    getattr(waiter, _TELLS.get(outcome, "add_exception"))(future)


class JobFuture(concurrent.futures.Future[Any]):
    """One job's future; see the module."""

    # Class attributes stand for what most futures never need an instance's for.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    #: The packed outcome, until the first reader has decoded it.
    _event: JobDone | None = None
    _made: Any = None
    _seq = 0
    _owner: Owner | None = None
    _callbacks: list[Callable[[Any], object]] | None = None
    #: Waiters of ``concurrent.futures``.
    _waiting: list[Any] | None = None
    #: Of readers that decode what may be user's code.
    _decoding: Any = None
    _fn_name = ""
    _kept = False
    _ran_us = 0
    _nbytes = 0
    _progress: JobProgress | None = None

    def __init__(self) -> None:
        # Not super().__init__(): it builds the Condition.
        pass

    def __init_subclass__(cls) -> None:
        _share_keys(cls)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError("a future works only in the process that made it")

    # -- lazily built parts, which wait() and as_completed() reach for -----------------------------

    def _new_condition(self) -> Any:
        return Condition()

    if not TYPE_CHECKING:  # type checkers see the standard Future's attributes

        @_Lazy
        def _condition(self):
            made = self._made or self._new_condition()
            self._made = made if self._made is None else self._made  # one step
            return self._made

        @_Lazy
        def _waiters(self):
            made = []
            self._waiting = made if self._waiting is None else self._waiting  # one step
            return self._waiting

        @property
        def _done_callbacks(self):
            made = []
            self._callbacks = made if self._callbacks is None else self._callbacks  # one step
            return self._callbacks

    # -- the public face -------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The job's id, in hex: the client's session and the job's number in it."""
        return "" if self._owner is None else self._owner.job_id_of(self)

    @property
    def progress(self) -> JobProgress | None:
        """How far the job is, ``(done, total, note)``, as it told by ``gmpd.progress``; None if it
        did not. It stays after its end."""
        return self._progress

    def result(self, timeout: float | None = None) -> Any:
        """As ``concurrent.futures.Future.result``; the waiting thread helps the client."""
        if self._state != FINISHED or self._event is not None:
            self._await_decoded(timeout)
        if self._exception is None:
            return self._result
        try:
            raise self._exception
        finally:
            self = None  # type: ignore[assignment]  # no cycle through a traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``concurrent.futures.Future.exception``."""
        self._await_decoded(timeout)
        return self._exception

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        """(done, cancelled, result, exception), as asyncio asks since Python 3.15: the base class
        would read the attributes themselves, which are empty until the outcome is decoded.
        """
        if self._state == FINISHED:
            self._decode()
            return True, False, self._result, self._exception
        over = self._state in _OVER
        return over, over, None, None

    def _await_decoded(self, timeout: float | None) -> None:
        """Until value or exception are there. Raises TimeoutError, CancelledError."""
        if self._state not in _OVER:
            self.wait_over(timeout)
        # Over, so the state changes no more: no condition is needed.
        if self._state != FINISHED:
            raise CancelledError
        if self._event is not None:
            self._decode()

    def wait_over(self, timeout: float | None) -> None:
        """Wait for the end, whatever it is. Raises TimeoutError."""
        if not self.ended_within(timeout):
            raise TimeoutError

    def ended_within(self, timeout: float | None) -> bool:
        """Wait for the end; False if it did not come in ``timeout`` seconds. For callers that
        continue then: ``except TimeoutError`` would also catch the error of a signal handler."""
        timeout = checked(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        owner = self._owner
        tried = owner is None or owner.busy_poll(self, timeout)
        if self._state in _OVER:
            return True
        began = time.monotonic()
        left = None if end is None else max(0.0, end - began)
        over = bool(self._condition.wait_for(self.done, left))
        if over and not tried and owner is not None:
            owner.slept(int((time.monotonic() - began) * 1e9))
        return over

    def cancel(self, *, force: bool = False) -> bool:
        """Cancel the job: at once when it was not sent, else the daemon is asked.

        False when it has ended, or runs and cannot be stopped; also when it has not ended a quarter
        of a second later (a coroutine with a slow ``finally``): it may then be cancelled yet.

        ``force``: a function that runs and does not stop ends with its worker, which is replaced
        after other jobs there had a moment to end (``restart.grace``).
        """
        if self._state in _OVER:
            return self._state != FINISHED
        if self._owner is None:
            return super().cancel()
        return self._owner.cancel_job(self, force=force)

    def done(self) -> bool:
        """Whether it is over."""
        return self._state in _OVER

    def run_callbacks(self) -> None:
        """Call each callback that has not been called: once, by the delivery thread."""
        callbacks, self._callbacks = self._callbacks, None  # one step
        for fn in callbacks or ():
            try:
                fn(self)
            except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends no program
                _log_safely(self, error)

    def __repr__(self) -> str:
        """Runs no code of a value or an error."""
        state = self._state.replace("_AND_NOTIFIED", "").lower()
        how = f" raised {type(self._exception).__name__}" if self._exception is not None else ""
        name = f" {self._fn_name}()" if self._fn_name else ""
        return f"<{type(self).__name__} at {id(self):#x}{name} state={state}{how}>"

    # -- the settler's side: a sink of the core ---------------------------------------------------

    streams = False

    def ended(self, event: JobDone) -> None:
        """The job's outcome has come. Waits for nothing and runs no user's code."""
        outcome, payload, buffers, ran_us, _ = event
        state, kept = FINISHED, cast("JobDone | None", event)
        if outcome is _OK:
            # A small one is opened at once: no user's code takes part in it, and it costs less than
            # to keep it for later.
            if not buffers and len(payload) <= SMALL_BYTES and payload[:1] not in codec.NO_MSGPACK:
                try:
                    self._result = codec.unpack_plain(payload)
                except Exception:  # noqa: BLE001, S110 - every reader gets the error
                    pass
                else:
                    self._ran_us, self._nbytes, kept = ran_us, len(payload), None
        elif outcome is _CANCELLED:
            state, kept = CANCELLED_AND_NOTIFIED, None
        if kept is not None:
            self._event = kept  # not read before the state is FINISHED
        self._state = state if self._made is None else self._state  # one step
        if self._state is state:
            return
        if not self.settle(event) and self._owner is not None:
            self._owner.settle_later(self, event)

    def settle(self, event: JobDone, *, force: bool = False) -> bool:
        """Take the outcome, unless a thread holds the condition or a waiter.

        ``force``: all the same. ``concurrent.futures.wait`` takes the conditions of all its
        futures, and keeps those that it has when a signal handler raises in the middle.
        """
        made: Any = self._made or self._condition
        held = made.hold()
        try:
            waiting = self._waiting or ()
            if not force and (not held or any(map(_is_busy, waiting))):
                return False
            if self._state not in _OVER:
                self._state = CANCELLED_AND_NOTIFIED if event[0] is _CANCELLED else FINISHED
            for waiter in waiting:
                _tell(waiter, self, event[0])
            made.notify_all()
        finally:
            if held:
                made.release()
        if self._callbacks is not None:
            if self._owner is not None:
                self._owner.call_back(self)
            else:
                self.run_callbacks()
        return True

    def yielded(self, event: object) -> None:
        """No items were asked for: a generator job was submitted, not streamed."""

    def noted(self, what: str) -> None:
        """It runs, or a cancel came too late."""
        # Without the condition: waiters treat PENDING and RUNNING alike.
        if what == "kept":
            self._kept = True
        elif self._state == PENDING:
            self._state = RUNNING
        if self._made is not None:
            self._made.notify_all()

    def progressed(self, progress: JobProgress) -> None:
        """Its job has told how far it is."""
        self._progress = progress

    # -- decoding --------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Decode value or exception; other readers wait meanwhile.

        An exception of the value's own code is the job's outcome. One that a signal handler raises
        is not: it goes to the caller, and the next reader decodes again.
        """
        event = self._event
        if event is None:
            return
        if event.outcome is Outcome.OK and not event.buffers and codec.is_plain(event.payload):
            # No user's code, and done twice it does no harm.
            try:
                value = codec.decode(event.payload)
            except Exception:
                self._decode_again()
                if self._exception is None:
                    raise  # a signal handler did, not the value
                return
            self._ran_us = event.ran_us
            self._nbytes = len(event.payload)
            self._result = value
            self._event = None
        else:
            self._decode_again()

    def _decode_again(self) -> None:
        # Reentrant: a handler that asks for the value that this thread decodes makes its own.
        made = _thread.RLock()
        self._decoding = made if self._decoding is None else self._decoding  # one step
        with self._decoding or made:  # None: another one has decoded it just now
            event = self._event
            if event is not None:
                self._keep(event)

    def _keep(self, event: JobDone) -> None:
        value, error = self._open(event)
        if self._event is None:
            return  # the first value counts, for every caller
        self._ran_us = event.ran_us
        self._nbytes = len(event.payload) + sum(map(len, event.buffers))
        if error is None:
            self._result = value
        else:
            self._exception = error
        self._event = None
        self._decoding = None

    def _open(self, event: JobDone) -> tuple[Any, BaseException | None]:
        """Value or exception; raises only what a signal handler raised."""
        return decoded(event, lambda: self.job_id, self._fn_name)


def _share_keys(kind: type[JobFuture]) -> None:
    """Python keeps the attributes of an object without a dictionary if their names came up while
    the first objects of its class were made. Here they would not: the first thousand futures are
    pending, when the first one is settled."""
    first = kind.__new__(kind)
    for name in _KEPT_IN_PLACE:
        setattr(first, name, None)


_KEPT_IN_PLACE = (
    "_owner", "_fn_name", "_seq", "_result", "_ran_us", "_nbytes", "_state", "_event",
    "_exception", "_made", "_condition", "_waiting", "_waiters", "_callbacks", "_decoding",
)  # fmt: skip
_share_keys(JobFuture)

_TELLS = {Outcome.OK: "add_result", Outcome.CANCELLED: "add_cancelled"}


def decoded(
    event: JobDone, job_id: Callable[[], str], name: str
) -> tuple[Any, BaseException | None]:
    """Value or exception of how a job ended. Raises only what a signal handler raised."""
    payload = event.payload
    is_value = event.outcome is Outcome.OK
    watch = DEFER_SIGNALS.watch()
    try:
        with watch:
            if is_value:
                return codec.decode(payload, event.buffers), None
            return None, error_of(event, job_id(), name)
    except BaseException as error:  # noqa: BLE001 - the value's own code fails this job alone
        watch.reraise()
        pass_on(error)  # of a handler that ran before the block, or after it
        return None, error


def has_begun(sink: object) -> bool:
    """Whether a job is known to run; so is each whose sink is no future. Takes no lock."""
    return not isinstance(sink, JobFuture) or sink._state == RUNNING


def _log_safely(future: JobFuture, error: BaseException) -> None:
    """The error may be one whose own text cannot be made, and handlers are the user's code."""
    try:
        log = logging.getLogger("concurrent.futures")
        log.error("exception calling callback for %r", future, exc_info=error)
    except BaseException:  # noqa: BLE001 - as above
        try:
            traceback.print_exception(error, file=sys.__stderr__)
        except BaseException:  # noqa: BLE001, S110 - nothing is left to say it with
            pass
