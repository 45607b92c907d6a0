"""Callbacks of futures, in a thread of their own.

User code may take its time there, raise any exception and use the client as anywhere else: only
``close`` and ``drain`` wait for this thread, within their limits.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from gmpd.timeouts import wait_s


class Delivery:
    """``put`` futures whose callbacks are due; ``start`` the thread outside of every lock."""

    def __init__(self, ran: Any) -> None:
        """``ran`` is called after each future's callbacks."""
        self._due: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ran = ran
        self._put = self._done = 0
        self._ended = False
        self._thread: threading.Thread | None = None
        self._ident = 0

    def put(self, future: Any) -> None:
        """Its callbacks are due. By one thread at a time: under the client's lock."""
        self._put += 1
        self._due.put(future)

    @property
    def idle(self) -> bool:
        """Whether every callback that was due has returned."""
        return self._put == self._done

    @property
    def here(self) -> bool:
        """Whether this thread is the one: called by a callback."""
        return self._ident == threading.get_ident()

    def start(self) -> None:
        """See that due callbacks are called."""
        if self.idle or self._thread is not None:
            return
        thread = threading.Thread(target=self._serve, name="gmpd-callbacks", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends and starts no threads: they run in this one
            self.end()
            self._serve()
        else:
            self._thread = thread

    def end(self) -> None:
        """Let the thread end once it has delivered all that is due."""
        if not self._ended:
            self._ended = True
            self._due.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for its end; False when it has not come in time."""
        if self._thread is None or self.here:
            return True
        self._thread.join(wait_s(timeout))
        return not self._thread.is_alive()

    def _serve(self) -> None:
        self._ident = threading.get_ident()
        while (future := self._due.get()) is not None:
            future.run_callbacks()
            del future  # it must not keep its result while this thread sleeps
            self._done += 1
            self._ran()
        self._ident = 0
