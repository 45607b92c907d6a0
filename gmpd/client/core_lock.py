"""The lock of a client's core and socket: one thread at a time, interrupted by no signal handler.

Work behind it is never interrupted: signal handlers are deferred to its end (``defer_signals``), so
they find it open. Only a finalizer (``__del__``, a weak reference's callback) may run in a thread
that is inside already, since the collector runs anywhere: it is refused, because it can neither
continue nor wait.
"""

from __future__ import annotations

import _thread
from typing import Any

from gmpd.client.defer_signals import DEFER_SIGNALS


class CoreLock:
    """``with core_lock:``; RuntimeError for a finalizer that runs while its thread holds it."""

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
