"""Attempts in a worker that ran an initializer: they find its thread and context.

As in the standard library's process pool, one thread, the main one, runs the initializer and then
all plain calls, one after the other: so objects of one thread (a connection of sqlite3, a
``threading.local``) work in them, and an initializer may set signal handlers. Context variables
that it set, the decimal context among them, are the base of each job's context, coroutines' too; a
job's changes to them end with it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Protocol

from gmpd.codec import FunctionRef, decode_call, learn_part, resolve_function
from gmpd.daemon.attempt import Attempt, Host
from gmpd.daemon.isolated import IsolatedAttempt


class Base:
    """The context that an initializer left."""

    def __init__(self) -> None:
        self._context = Context()
        self._left: tuple[tuple[ContextVar[Any], Any], ...] = ()

    def run(self, initialize: Callable[[], object]) -> None:
        """Run it. Its errors propagate."""
        self._context.run(initialize)
        self._left = tuple(self._context.items())

    def enter(self) -> None:
        """The current context begins where the initializer ended."""
        decimal = sys.modules.get("decimal")
        for var, value in self._left:
            if decimal is not None and isinstance(value, decimal.Context):
                value = value.copy()  # precision and flags are a job's own
            var.set(value)


class InitializedHost(Host, Protocol):
    """A worker that ran an initializer."""

    base: Base


class InitializedAttempt(IsolatedAttempt):
    """A fresh G; see ``attempt.Attempt``."""

    __slots__ = ()

    worker: InitializedHost

    def _invoke(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            return Attempt._invoke(self)
        self.worker.base.enter()
        return super()._invoke()

    def _invoke_guarded(self) -> Any:
        """All on the main thread: that is the one to interrupt."""
        self.worker.base.enter()
        return self.worker.loop.on_main_thread(super()._invoke_guarded)


def run_initializer(
    kind: str, name: str, payload: bytes, data: bytes, parts: list[tuple[str, bytes]]
) -> None:
    """Run the initializer in a worker's settings. Its errors propagate."""
    needs = tuple(learn_part(*part, stays=True) for part in parts)
    fn = resolve_function(FunctionRef(kind, name, payload, needs))
    args, kwargs = decode_call(data)
    fn(*args, **kwargs)
