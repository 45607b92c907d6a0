"""Values that take long to unpickle: beside an asyncio loop, in threads.

Unpickling runs users' code, and while it runs in the loop's thread the program's loop stands still.
A change of threads costs more than most values take. So each function's first value is unpickled
in a thread, and the next ones where the last one was quick in the loop itself; large ones always in
a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gmpd.client.core import JobDone
from gmpd.client.futures import decoded
from gmpd.protocol import Outcome

T = TypeVar("T")

#: A value that takes longer (seconds), or a larger one (bytes), is opened aside the next time.
QUICK_S = 0.002
LARGE_BYTES = 1 << 20
#: Functions whose values are known to be quick; then all are learned anew.
KNOWN_MAX = 1024
#: Threads at once: a slow value holds up no other but by its use of the interpreter.
THREADS_MAX = 8


class UnpickleThreads:
    """The threads in which one client unpickles values, and the rule for which values."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: Callable[[], None]) -> None:
        """``idle`` is called in the loop when none is open any more."""
        self._loop = loop
        self._idle = idle
        self._quick: set[str] = set()
        self._lock = threading.Lock()
        self._due: deque[Callable[[], None]] = deque()
        self._threads = 0
        #: Values that are being opened.
        self.busy = 0

    def is_slow(self, event: JobDone, name: str) -> bool:
        """Whether the outcome of a job of function ``name`` is to be unpickled in a thread."""
        if event.outcome is not Outcome.OK and event.outcome is not Outcome.ERROR:
            return False  # there is nothing to unpickle
        size = len(event.payload) + sum(map(len, event.buffers))
        return name not in self._quick or size > LARGE_BYTES

    def unpickle(
        self, event: JobDone, job_id: Callable[[], str], name: str
    ) -> tuple[Any, BaseException | None]:
        """Here and now; learns how long it took."""
        return self._timed(name, lambda: decoded(event, job_id, name))

    def _timed(self, name: str, open_it: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return open_it()
        finally:
            if not name:
                pass
            elif time.perf_counter() - began > QUICK_S:
                self._quick.discard(name)
            elif name not in self._quick:
                if len(self._quick) >= KNOWN_MAX:
                    self._quick.clear()
                self._quick.add(name)

    def start(
        self,
        event: JobDone,
        job_id: Callable[[], str],
        name: str,
        then: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Unpickle it in a thread; ``then`` is called in the loop with the value or error."""
        self._start(lambda: self.unpickle(event, job_id, name), then)

    async def opened(self, open_it: Callable[[], T], name: str = "", nbytes: int = 0) -> T:
        """Return or raise as ``open_it`` does, which unpickles ``nbytes``. Without the ``name`` of
        the function always in a thread."""
        if name in self._quick and nbytes <= LARGE_BYTES:
            return self._timed(name, open_it)
        done: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()

        def work() -> tuple[Any, BaseException | None]:
            try:
                return self._timed(name, open_it), None
            except BaseException as error:  # noqa: BLE001 - raised again below
                return None, error

        self._start(work, partial(_tell, done))
        value, error = await done
        if error is not None:
            try:
                raise error
            finally:
                del error, done  # the traceback has this frame
        return value  # type: ignore[no-any-return]

    def _start(
        self,
        open_it: Callable[[], tuple[Any, BaseException | None]],
        then: Callable[[Any, BaseException | None], None],
    ) -> None:
        self.busy += 1

        def work() -> None:
            value, error = open_it()
            self._call_in_loop(lambda: self._deliver(value, error, then))

        with self._lock:
            self._due.append(work)
            if self._threads >= THREADS_MAX:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._serve, name="gmpd-unpickle", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter ends
            self._serve()

    def _deliver(
        self,
        value: Any,
        error: BaseException | None,
        then: Callable[[Any, BaseException | None], None],
    ) -> None:
        self.busy -= 1
        try:
            then(value, error)
        finally:
            if not self.busy:
                self._idle()

    def _call_in_loop(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: no task waits
            self.busy -= 1

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._threads -= 1
                    return
                work = self._due.popleft()
            work()
            del work  # it has the value


def _tell(
    done: asyncio.Future[tuple[Any, BaseException | None]],
    value: Any,
    error: BaseException | None,
) -> None:
    if not done.done():  # else the task that waited was cancelled
        done.set_result((value, error))
