"""``JobFuture``: a ``concurrent.futures.Future`` that pays for a lock only if somebody waits on it.

A Condition is most of what a standard Future costs. Here it is built by the first waiter, and the
finisher claims its place with one atomic ``dict.setdefault``: whoever comes second sees the first.
So a state is only ever written under the condition, or when there is none and will be none.
Exactly one finisher exists per future (see ``core``: who popped its job).
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
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

#: Stands where a Condition would, once the future is settled without one.
_CLAIMED = object()
_OVER = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


class Owner(Protocol):
    """What a future needs of its client."""

    def lead(self, future: Any, timeout: float | None) -> None: ...
    def cancel_job(self, future: Any) -> bool: ...
    def job_id(self, seq: int) -> str: ...


class JobFuture(concurrent.futures.Future[Any]):
    """One job's future; see the module."""

    # Class attributes stand for what most futures never need an instance's for.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _made: Any = None
    _seq = 0
    _owner: Owner | None = None
    _fn_name = ""
    _kept = False
    _ran_us = 0

    def __init__(self) -> None:
        # Not super().__init__(): it builds the Condition.
        pass

    # -- lazily built parts, which wait() and as_completed() reach for -----------------------------

    def _new_condition(self) -> Any:
        return threading.Condition()

    if not TYPE_CHECKING:  # for whom they stay the attributes that the standard Future has

        @property
        def _condition(self):
            made = self._made
            if made is None:
                made = self.__dict__.setdefault("_made", self._new_condition())
            if made is _CLAIMED:
                while self._state not in _OVER:  # the finisher is between two instructions
                    time.sleep(0)
                # Nobody is to be notified any more; but who acquires must release the same one.
                return self.__dict__.setdefault("_late", self._new_condition())
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
            self._await(timeout)
        try:
            return super().result(timeout)
        finally:
            self = None  # type: ignore[assignment]  # no cycle through a traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``concurrent.futures.Future.exception``."""
        if self._state not in _OVER:
            self._await(timeout)
        return super().exception(timeout)

    def result_or_error(self, timeout: float | None) -> None:
        """Wait for the end, whatever it is. Raises TimeoutError."""
        if self._state not in _OVER:
            self._await(timeout)
        condition = self._condition
        with condition:
            if not condition.wait_for(self.done, timeout):
                raise TimeoutError

    def _await(self, timeout: float | None) -> None:
        owner = self._owner
        if owner is not None:
            owner.lead(self, timeout)

    def cancel(self) -> bool:
        """Cancel the job: at once when it was not sent, else the daemon is asked.

        False when it has ended, or runs and cannot be stopped.
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
        made = self.__dict__.setdefault("_made", _CLAIMED)
        if made is _CLAIMED:
            self._state = state
        else:
            with made:
                self._state = state
                for waiter in self._waiters:
                    getattr(waiter, tell)(self)
                made.notify_all()
            self._invoke_callbacks()  # type: ignore[attr-defined]

    # -- a sink of the core ----------------------------------------------------------------------

    def ended(self, event: Ended) -> None:
        """The job's outcome has come. Never raises."""
        self._ran_us = event.ran_us
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
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING
            if what == "kept":
                self._kept = True
                self._condition.notify_all()


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
    how = f"by {signal}" if signal else f"with exit status {code}"
    pid = int(details.get("pid") or 0)
    message = f"{where}: the worker (pid {pid}) died {how}{_colon(text)}"
    return WorkerLost(message, job_id, pid, signal, code)


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
