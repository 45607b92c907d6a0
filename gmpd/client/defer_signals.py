"""Signal handlers are deferred while a client changes its state: ``with DEFER_SIGNALS:``.

Python runs the handler of a signal between any two instructions of the main thread. There it may
call the client that the thread is inside of, or raise. So in the main thread every Python handler
is deferred for the length of the block, and called at its end with its arguments. Blocks are short:
no user code runs in one. Other threads run no handlers, and pay for one comparison.

Handlers are replaced by a recorder, not blocked: no mask defers a signal that Python has taken
already. A block costs 2 µs.

``DEFER_SIGNALS.watch()`` defers nothing. It distinguishes an exception that a handler raised in the
block from one of the block's own code, so that an interrupted step can be repeated.

``CoreLock`` is a lock whose blocks defer signals, too: a client's state changes behind it alone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps: 0.2 us a swap instead of 3
import _thread
import os
import threading
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object]

#: A signal that was held back: whose it is, and what its handler gets.
Came: TypeAlias = tuple[Handler, int, FrameType | None]

_SIGNALS = tuple(sorted(_signal.valid_signals()))
_getsignal, _signal_set = _signal.getsignal, _signal.signal


class SignalDeferral:
    """One for the process, since there is one main thread; blocks nest."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._depth = 0
        #: A swap was begun and not ended.
        self._swapping = False
        #: Whose place ``_note`` has. A handler that raises may keep a swap from being undone: then
        #: ``_note`` passes signals on until the next block has undone it.
        self._own: dict[int, Handler] = {}
        self._came: list[Came] = []
        #: Of the block that is watched; gone with its frame, should its end have been interrupted.
        self._watch: Callable[[], Watch | None] = _no_watch
        self._noting: Handler = self._note  # one object: compared by identity
        os.register_at_fork(after_in_child=self._in_fork)

    def _in_fork(self) -> None:
        """The thread that forked is the child's main thread, and inside of no block of another."""
        if threading.get_ident() != self._main:
            self._main = threading.get_ident()
            self._depth = 0
            self._came = []
            self._watch = _no_watch
            self._restore()

    def __enter__(self) -> None:
        if threading.get_ident() != self._main:
            return
        before = self._depth
        try:
            # First: a handler that runs between two swaps, and uses a client, undoes none of them.
            self._depth = before + 1
            if not before or self._swapping:
                self._swap()
        except BaseException:  # of a handler whose turn to be swapped had not come
            self._depth = before
            if not before:
                self._end()
            raise

    def __exit__(self, *_: object) -> None:
        if not self._depth or threading.get_ident() != self._main:
            return
        # At 0, what comes is passed on at once, whether its own handler is back or not.
        self._depth -= 1
        if not self._depth:
            self._end()

    def _end(self) -> None:
        try:
            if self._watch() is None:
                self._restore()
        finally:
            if self._came:
                came, self._came = self._came, []
                self._pass_on(came)

    def _swap(self) -> None:
        """Put ``_note`` in the place of every handler that is written in Python."""
        noting = self._noting
        self._swapping = True
        for number, handler in zip(_SIGNALS, map(_getsignal, _SIGNALS), strict=True):
            if callable(handler) and handler is not noting:
                self._own[number] = handler
                try:
                    _signal_set(number, noting)  # calls what is pending, which may raise
                except ValueError as error:
                    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                        raise  # a handler did
                    self._own.clear()  # a subinterpreter, which runs no handlers
                    break
        self._swapping = False

    def _restore(self) -> None:
        """At any point of it a handler may run, and use a client, and so do all of this."""
        for number in tuple(self._own):
            own = self._own.get(number)
            if own is not None and _getsignal(number) is self._noting:
                _signal_set(number, own)
            self._own.pop(number, None)  # it may hold a whole event loop

    def _note(self, number: int, frame: FrameType | None) -> None:
        own = self._own.get(number) or _getsignal(number)  # that is back by now
        came = [(own, number, frame)]
        if self._depth:
            self._came += came
            return
        if self._watch() is None:  # the end of a block was interrupted
            self._restore()
        self._pass_on(came)

    def _pass_on(self, came: list[Came]) -> None:
        """Call the handlers one after another, the rest also if one raises."""
        handler, number, frame = came.pop(0)
        try:
            handler(number, frame)
        except BaseException as error:
            if (watch := self._watch()) is not None:
                watch.last = id(error)
            raise
        finally:
            del frame  # it may be this frame: a cycle, and so are all that called it
            if came:
                self._pass_on(came)

    def watch(self) -> Watch:
        """A block in which exceptions of signal handlers are told from others."""
        return Watch(self)


class Watch:
    """See ``SignalDeferral.watch``. ``raised``: what a handler raised in the block, if that ended
    it.
    """

    def __init__(self, deferral: SignalDeferral) -> None:
        self._deferral = deferral
        #: The id of what a handler raised last. Not itself: it may hold the frame that holds this.
        self.last = 0
        self.raised: BaseException | None = None

    def __enter__(self) -> Watch:
        deferral = self._deferral
        if (
            threading.get_ident() == deferral._main
            and not deferral._depth
            and deferral._watch() is None
        ):
            deferral._watch = weakref.ref(self)
            deferral._swap()
        return self

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        deferral = self._deferral
        if error is not None and self.last:
            self.raised = _in_chain(error, self.last)  # the block may have made another of it
        if deferral._watch() is self:
            deferral._watch = _no_watch
            deferral._restore()

    def reraise(self) -> None:
        """Raise the exception of a handler, if one raised."""
        raised, self.raised = self.raised, None
        if raised is not None:
            try:
                raise raised from None
            finally:
                del raised  # no cycle through its traceback


def _in_chain(error: BaseException | None, which: int) -> BaseException | None:
    """The exception with that id among ``error`` and its causes and contexts."""
    for _ in range(20):
        if error is None or id(error) == which:
            return error
        error = error.__cause__ or error.__context__
    return None


def _no_watch() -> None:
    return None


DEFER_SIGNALS = SignalDeferral()


class CoreLock:
    """The lock of a client's core and socket, ``with core_lock:``: one thread at a time.

    Handlers find it open, as they run after the block. Only a finalizer (``__del__``, a weak
    reference's callback) may run in a thread that holds it, since the collector runs anywhere: it
    gets a RuntimeError, because it can neither continue nor wait.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Any = _thread.RLock()

    @property
    def is_held(self) -> bool:
        """Whether this thread holds it."""
        return bool(self._lock._is_owned())

    def __enter__(self) -> None:
        DEFER_SIGNALS.__enter__()
        if self._lock._is_owned():
            DEFER_SIGNALS.__exit__()
            raise RuntimeError(
                "a finalizer (__del__ or a weak reference's callback) used a client in the middle"
                " of that client's own work, where it can wait for nothing: let the finalizer only"
                " submit, or hand the rest to another thread"
            )
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        DEFER_SIGNALS.__exit__()
