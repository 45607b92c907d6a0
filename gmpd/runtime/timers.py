"""Timer, Ticker, ``after`` and ``after_func`` by the rules of Go 1.23 and later.

The channel of a timer holds nothing: ``len`` and ``cap`` are 0, and its value is made when it is
received. So after ``stop`` or ``reset`` no stale value can be received, a timer without a waiting G
costs the loop nothing (and hides no deadlock), and a ticker without a receiver skips ticks. The
loop has a timer only while a G waits on the channel. Times are the loop's own, in seconds
(``loop.time()``), so a deterministic loop's clock rules here too.

This file knows the inner face of ``chan``. Sleeping is in ``go``.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Generator
from math import inf
from typing import Any

from gmpd.errors import ChanClosed, Panic
from gmpd.runtime.chan import Chan, Receiver
from gmpd.runtime.owner import owner_loop, run_on_owner, spawn
from gmpd.runtime.p import Face
from gmpd.runtime.sleepers import from_now
from gmpd.runtime.sudog import Sudog, Wait, WaitQueue, Waker, parks


class TickReceiver(Receiver):
    """A G that receives from a timer's channel."""

    __slots__ = ()

    def unlink(self) -> None:
        super().unlink()
        if not self.c._recvq.live():
            self.c._disarm()


class TimerChan(Chan[float]):
    """The channel of a timer: receive only. A value is the time for which it was set."""

    __slots__ = ("_fresh", "_handle", "_period", "_when")

    _loop: AbstractEventLoop

    def __init__(self, loop: AbstractEventLoop, when: float, period: float):
        super().__init__()
        self._loop = loop
        self._recvq = WaitQueue()
        #: The time of the next value; None: none will come.
        self._when: float | None = when
        #: 0: one value only.
        self._period = period
        #: No ``stop`` or ``reset`` since the last value: if its receiver is cancelled, it may come
        #: back.
        self._fresh = False
        self._handle: TimerHandle | None = None

    def __reduce__(self) -> Any:
        raise TypeError("a timer belongs to the worker where it was made")

    @parks
    def recv(self, _end: type[Exception] = ChanClosed) -> Generator[Wait, None, float]:
        """Receive, waiting for the time to come."""
        got = self._recv_now()
        if got is not None:
            return got[0]
        sg = self._enqueue_recv(None)
        try:
            yield sg
        except BaseException:
            sg.abandon()
            raise
        if sg.ok:
            return sg.elem  # type: ignore[no-any-return]
        raise sg.cancelled_error()

    async def send(self, value: float) -> None:
        """Panic: only the timer sends."""
        self._send_now(value)

    def set(self, when: float | None, period: float) -> bool:
        """Set or stop it; whether a value was still to come (or to be received). At home only."""
        pending = self._when is not None
        self._when, self._period, self._fresh = when, period, False
        self._disarm()
        self._arm()
        return pending

    # ---- what a channel's other users see -----------------------------------------------------

    def _close(self) -> None:
        raise Panic("close of a timer's channel: stop the timer instead")

    def _send_now(self, value: Any) -> bool:
        raise Panic("send on a timer's channel: it is for receiving only")

    def _send_ready(self) -> bool:
        return True

    def _recv_ready(self) -> bool:
        return self._when is not None and self._loop.time() >= self._when

    def _recv_now(self) -> tuple[float, bool] | None:
        return (self._tick(), True) if self._recv_ready() else None

    def _enqueue_recv(self, g: Waker | None) -> Sudog:
        sg = TickReceiver(self, self._loop)
        sg.g = g
        self._recvq.append(sg)
        self._arm()
        return sg

    def _take_back(self, value: Any, serial: int) -> None:
        """A receiver was cancelled after it was handed ``value``: as if the time had come only
        now.
        """
        if self._fresh and not self._hand_over(value, serial):
            self._when = value

    # ---- the clock ----------------------------------------------------------------------------

    def _tick(self) -> float:
        """Make the value that is due; a ticker continues with the next one that is not past yet."""
        when = self._when
        assert when is not None
        self._fresh = True
        if self._period:
            late = self._loop.time() - when
            self._when = when + self._period * (1 + late // self._period)
        else:
            self._when = None
        return when

    def _arm(self) -> None:
        """Have the loop's timer run if, and only if, a G waits for a time that will come."""
        if self._handle is None and self._when is not None and self._recvq and self._when < inf:
            self._handle = self._loop.call_at(self._when, self._fire)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        # A loop may be early by the resolution of its clock. A timer never is: it is armed again.
        if self._recvq.live() and self._recv_ready():
            self._hand_over(self._tick(), self._serial + 1)
            self._serial += 1
        self._arm()


class Call:
    """A timer that calls a function in a new G (Go: ``goFunc``)."""

    __slots__ = ("_call", "_handle", "_loop")

    def __init__(self, loop: AbstractEventLoop, call: tuple[Any, ...]):
        self._loop = loop
        self._call = call
        self._handle: TimerHandle | None = None

    def set(self, when: float | None, _period: float) -> bool:
        """As ``TimerChan.set``."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
        if when is not None and when < inf:
            self._handle = self._loop.call_at(when, self._fire)
        return handle is not None

    def _fire(self) -> None:
        self._handle = None
        if (
            not isinstance(self._loop, Face) or self._loop.p.dropped is None
        ):  # else main has returned
            spawn(self._loop, *self._call)


class Timer:
    """Sends the time on ``timer.c`` once, ``seconds`` from now (Go: ``time.NewTimer``).

    ValueError if ``seconds`` is not a number; RuntimeError where no event loop runs.
    """

    __slots__ = ("_core", "_loop")

    def __init__(self, seconds: float):
        self._loop = _this_loop("Timer")
        self._core: TimerChan | Call = TimerChan(
            self._loop, from_now(self._loop.time(), seconds), 0
        )

    @property
    def c(self) -> Chan[float] | None:
        """Its channel; None for one made by ``after_func``."""
        return self._core if isinstance(self._core, TimerChan) else None

    def stop(self) -> bool:
        """Stop it: no value can be received any more, not even one that was due.

        True if that was still to come; False if it had fired or been stopped before. A function of
        ``after_func`` that has started is neither stopped nor waited for. From anywhere.
        """
        return run_on_owner(self._loop, self._core.set, None, 0)

    def reset(self, seconds: float) -> bool:
        """Set it to ``seconds`` from now, whatever its state; returns what ``stop`` would."""
        return run_on_owner(self._loop, self._core.set, from_now(self._loop.time(), seconds), 0)


class Ticker:
    """Sends the time on ``ticker.c`` every ``seconds``; a slow receiver misses ticks (Go:
    ``time.NewTicker``).

    Panic if ``seconds`` is not positive; RuntimeError where no event loop runs.
    """

    __slots__ = ("_chan", "_loop")

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise Panic("non-positive interval for NewTicker")
        self._loop = _this_loop("Ticker")
        self._chan = TimerChan(self._loop, from_now(self._loop.time(), seconds), seconds)

    @property
    def c(self) -> Chan[float]:
        """Its channel."""
        return self._chan

    def stop(self) -> None:
        """No tick can be received any more. The channel is not closed: a G that waits on it
        continues waiting (Go's rule).
        """
        run_on_owner(self._loop, self._chan.set, None, 0)

    def reset(self, seconds: float) -> None:
        """Tick every ``seconds`` from now on. Panic if that is not positive."""
        if not seconds > 0:
            raise Panic("non-positive interval for Ticker.Reset")
        run_on_owner(self._loop, self._chan.set, from_now(self._loop.time(), seconds), seconds)


def after(seconds: float) -> Chan[float]:
    """The channel of a new Timer (Go: ``time.After``)."""
    chan = Timer(seconds).c
    assert chan is not None
    return chan


def after_func(seconds: float, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Timer:
    """Call ``fn`` in a G of its own, ``seconds`` from now (Go: ``time.AfterFunc``); the Timer
    stops or resets it.
    """
    timer = Timer(inf)
    timer._core = Call(timer._loop, (fn, args, kwargs))
    timer.reset(seconds)
    return timer


def _this_loop(what: str) -> AbstractEventLoop:
    loop = owner_loop()
    if loop is None:
        raise RuntimeError(f"{what} needs the clock of an event loop: make it inside a G")
    return loop
