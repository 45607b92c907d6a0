"""``JobFuture``: a ``concurrent.futures.Future`` that pays for a lock only if somebody waits on it.

A Condition is most of what a standard Future costs. Here it is built by the first waiter. Building
it and settling without one exclude each other, so a state is only ever written under the condition,
or where there is none. Exactly one finisher exists per future (see ``core``: who popped its job).

A finisher that is interrupted (Ctrl-C) leaves the future either as it was or settled; it may then
be finished a second time with the same outcome, which changes nothing.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Protocol

from gmpd import codec
from gmpd.client.core import Ended
from gmpd.errors import (
    GmpdError,
    JobCancelled,
    JobPoisoned,
    JobTimeout,
    ProtocolError,
    QueueFull,
    WorkerLost,
)
from gmpd.protocol import Outcome
from gmpd.runtime.internals import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from gmpd.timeouts import checked

#: Held while a future is settled without a condition, or given one. No call is made meanwhile, so
#: nobody ever waits for it; reentrant since a finalizer may run anywhere.
_CLAIM = _thread.RLock()
#: ``concurrent.futures.wait`` takes the conditions of all its futures, holds them for microseconds,
#: and when it is interrupted in the middle it keeps those that it has, for ever. After so long
#: (seconds) the finisher goes on without: nobody is there any more. The next ones are then not
#: waited for at all, until one was free again.
HOLD_S = 1.0
_patience_s = HOLD_S
_OVER = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


class Owner(Protocol):
    """What a future needs of its client."""

    def lead(self, future: Any, timeout: float | None) -> None: ...
    def cancel_job(self, future: Any) -> bool: ...
    def job_id(self, seq: int) -> str: ...


_RLock: Any = _thread.RLock  # typeshed says that it is final


class Condition(_RLock):  # type: ignore[misc]
    """What a future needs of ``threading.Condition``, at a third of its price.

    Entered and left in one C call each, and nobody sleeps inside: an interrupt (Ctrl-C) never
    leaves it locked.
    """

    def __init__(self) -> None:
        self._sleepers: list[Any] = []

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Until ``predicate()``; its last value. To be called *outside* of the ``with``."""
        end = None if timeout is None else time.monotonic() + timeout
        sleeper = _thread.allocate_lock()
        sleeper.acquire()
        while True:
            with self:
                value = predicate()
                left = -1 if end is None else end - time.monotonic()
                if value or (end is not None and left <= 0):
                    if sleeper in self._sleepers:
                        self._sleepers.remove(sleeper)
                    return value
                if sleeper not in self._sleepers:
                    self._sleepers.append(sleeper)
            sleeper.acquire(True, left)

    def hold(self) -> bool:
        """As ``acquire``, but for the finisher, who must not wait for ever; whether it has it."""
        global _patience_s
        held: bool = self.acquire(True, _patience_s)
        _patience_s = HOLD_S if held else 0.0
        return held

    def notify_all(self) -> None:
        """Wake all that wait."""
        if self._sleepers:
            sleepers, self._sleepers = self._sleepers, []
            for sleeper in sleepers:
                sleeper.release()


class JobFuture(concurrent.futures.Future[Any]):
    """One job's future; see the module."""

    # Class attributes stand for what most futures never need an instance's for.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _made: Any = None
    _seq = 0
    _owner: Owner | None = None
    _callbacks: list[Callable[[Any], object]]
    _fn_name = ""
    _kept = False
    _ran_us = 0
    _nbytes = 0

    def __init__(self) -> None:
        # Not super().__init__(): it builds the Condition.
        pass

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError("a future is of use only where it was made")

    # -- lazily built parts, which wait() and as_completed() reach for -----------------------------

    def _new_condition(self) -> Any:
        return Condition()

    @property
    def watched(self) -> bool:
        """Whether anybody waits, or left a callback."""
        return self._made is not None

    if not TYPE_CHECKING:  # for whom they stay the attributes that the standard Future has

        @property
        def _condition(self):
            made = self._made
            if made is None:
                fresh = self._new_condition()
                with _CLAIM:
                    made = self._made
                    if made is None:
                        made = self._made = fresh
            return made

        @property
        def _waiters(self):
            return self.__dict__.setdefault("_waiting", [])

        @property
        def _done_callbacks(self):
            return self.__dict__.setdefault("_callbacks", [])

    # -- the public face -------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The job's id, in hex: the client's session and the job's number in it."""
        return "" if self._owner is None else self._owner.job_id(self._seq)

    def result(self, timeout: float | None = None) -> Any:
        """As ``concurrent.futures.Future.result``; who waits helps the client meanwhile."""
        if self._state not in _OVER:
            self.wait_over(timeout)
        # Over, so nothing changes any more: no condition is needed.
        if self._state != FINISHED:
            raise CancelledError
        if self._exception is None:
            return self._result
        try:
            raise self._exception
        finally:
            self = None  # type: ignore[assignment]  # no cycle through a traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``concurrent.futures.Future.exception``."""
        if self._state not in _OVER:
            self.wait_over(timeout)
        if self._state != FINISHED:
            raise CancelledError
        return self._exception

    def wait_over(self, timeout: float | None) -> None:
        """Wait for the end, whatever it is. Raises TimeoutError."""
        timeout = checked(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        if self._owner is not None:
            self._owner.lead(self, timeout)
        if self._state not in _OVER:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._condition.wait_for(self.done, left):
                raise TimeoutError

    def cancel(self) -> bool:
        """Cancel the job: at once when it was not sent, else the daemon is asked.

        False when it has ended, or runs and cannot be stopped; also when it has not ended a quarter
        of a second later (a coroutine with a slow ``finally``): it may then be cancelled yet.
        """
        if self._state in _OVER:
            return self._state != FINISHED
        if self._owner is None:
            return super().cancel()
        return self._owner.cancel_job(self)

    def done(self) -> bool:
        """Whether it is over."""
        return self._state in _OVER

    # -- the finisher's side ---------------------------------------------------------------------

    def finish_value(self, value: Any) -> None:
        """The job returned ``value``."""
        self._result = value
        self._settle(FINISHED, "add_result")

    def finish_error(self, error: BaseException) -> None:
        """The job failed."""
        self._exception = error
        self._settle(FINISHED, "add_exception")

    def finish_cancelled(self) -> None:
        """The job was cancelled."""
        self._settle(CANCELLED_AND_NOTIFIED, "add_cancelled")

    def _settle(self, state: str, tell: str) -> None:
        with _CLAIM:
            made = self._made
            if made is None:
                self._state = state
                return
        held = made.acquire(False) or made.hold()
        try:
            if self._state not in _OVER:
                for waiter in self._waiters:
                    getattr(waiter, tell)(self)
            self._state = state
            made.notify_all()
        finally:
            if held:
                made.release()
        if "_callbacks" in self.__dict__:
            self._invoke_callbacks()  # type: ignore[attr-defined]
            del self._callbacks

    # -- a sink of the core ----------------------------------------------------------------------

    streams = False

    def ended(self, event: Ended) -> None:
        """The job's outcome has come. Never raises."""
        self._ran_us = event.ran_us
        self._nbytes = len(event.payload) + sum(map(len, event.buffers))
        if event.outcome is Outcome.OK:
            try:
                value = codec.decode(event.payload, event.buffers)
            except Exception as error:  # noqa: BLE001 - the value's own code: it fails this job alone
                self.finish_error(error)
                return
            self.finish_value(value)
        elif event.outcome is Outcome.CANCELLED:
            self.finish_cancelled()
        else:
            self.finish_error(error_of(event, self.job_id, self._fn_name))

    def yielded(self, event: object) -> None:
        """Nobody asked for items: a generator job was submitted, not streamed."""

    def noted(self, what: str) -> None:
        """It runs, or a cancel came too late."""
        with _CLAIM:
            made = self._made
            if made is None:
                self._mark(what)
                return
        held = made.acquire(False) or made.hold()
        try:
            self._mark(what)
            made.notify_all()
        finally:
            if held:
                made.release()

    def _mark(self, what: str) -> None:
        if what == "kept":
            self._kept = True
        elif self._state == PENDING:
            self._state = RUNNING


def error_of(event: Ended, job_id: str, name: str) -> BaseException:
    """The exception that stands for how a job ended."""
    details = event.details
    error = details.get("error")
    if isinstance(error, BaseException):
        return _copy(error)
    where = describe(event, job_id, name)
    text = str(details.get("text") or "")
    match event.outcome:
        case Outcome.ERROR:
            try:
                own = codec.decode_error(event.payload)
            except Exception as broken:  # noqa: BLE001 - whatever the error's own code does
                return broken if isinstance(broken, GmpdError) else ProtocolError(str(broken))
            codec.add_job_note(own, where)
            return own
        case Outcome.TIMEOUT:
            return JobTimeout(f"{where}: ended by its timeout{_colon(text)}")
        case Outcome.LOST:
            return _lost(details, where, text, job_id)
        case Outcome.REJECTED:
            room, wait = int(details.get("room") or 0), float(details.get("retry_after") or 0.1)
            return QueueFull(f"{where}: not accepted{_colon(text)}", room, wait)
        case _:
            return JobCancelled(f"{where}: cancelled{_colon(text)}")


def _lost(details: dict[str, Any], where: str, text: str, job_id: str) -> GmpdError:
    if details.get("poisoned"):
        return JobPoisoned(f"{where}: it was running when several workers died{_colon(text)}")
    signal = str(details.get("signal") or "")
    code = details.get("exitcode")
    if details.get("unstarted"):
        return WorkerLost(f"{where}: not begun{_colon(text)}", job_id, 0, signal, code)
    pid = int(details.get("pid") or 0)
    how = text or (f"died by {signal}" if signal else f"died with exit status {code}")
    message = f"{where}: the worker (pid {pid}) {how}"
    culprit, blamed = str(details.get("culprit") or ""), details.get("blamed") is True
    return WorkerLost(message, job_id, pid, signal, code, culprit, blamed)


def describe(event: Ended, job_id: str, name: str) -> str:
    """One line on a job's way, for notes and messages."""
    details = event.details
    parts = [f"job {job_id} {name!r}"]
    pid = f" (pid {details['pid']})" if details.get("pid") else ""
    if "p" in details:
        parts[0] += f" on P{details['p']}{pid}"
    elif details.get("isolated"):
        parts[0] += f" in a worker of its own{pid}"
    if "attempt" in details:
        parts.append(f"attempt {details['attempt']}")
    if "waited_us" in details:
        parts.append(f"waited {_for_people(details['waited_us'])}")
    if event.ran_us:
        parts.append(f"ran {_for_people(event.ran_us)}")
    return ", ".join(parts)


def _colon(text: str) -> str:
    return f": {text}" if text else ""


def _copy(error: BaseException) -> BaseException:
    # Each future its own: tracebacks and notes gather on an exception that is raised.
    try:
        return type(error)(*error.args)
    except Exception:  # noqa: BLE001 - an unusual constructor: share it
        return error


def _for_people(us: int) -> str:
    """Microseconds with the unit that reads best."""
    return f"{us / 1000:.3g} ms" if us < 1_000_000 else f"{us / 1e6:.2f} s"
