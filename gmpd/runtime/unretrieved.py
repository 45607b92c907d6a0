"""Errors that were not retrieved: each is reported once, when its owner is forgotten, and at the
latest when the loop ends.

As asyncio does for tasks: through the loop's exception handler, which logs unless another was set.
An error may be part of a cycle, which only the garbage collector finds: a program that ends
meanwhile would not report it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any
from weakref import WeakSet


class UnretrievedError:
    """One error. An object of its own: a ``__del__`` on G would cost every G."""

    __slots__ = ("__weakref__", "_exc", "_loop", "_what")

    def __init__(self, what: Any, exc: BaseException, loop: AbstractEventLoop):
        self._what = repr(what)
        self._loop = loop
        self._exc: BaseException | None = exc

    def retrieved(self) -> None:
        """It was retrieved: it needs no report."""
        self._exc = None

    def is_of(self, exc: BaseException) -> bool:
        return self._exc is exc

    def report(self) -> None:
        """It was not: report it, once."""
        exc, self._exc = self._exc, None
        if exc is not None:
            self._loop.call_exception_handler(
                {"message": f"{self._what}: its exception was never retrieved", "exception": exc}
            )

    __del__ = report


class UnretrievedErrors:
    """The unretrieved errors of one loop."""

    __slots__ = ("_errors", "_loop")

    def __init__(self, loop: AbstractEventLoop):
        self._loop = loop
        self._errors: WeakSet[UnretrievedError] = WeakSet()

    def add(self, what: Any, exc: BaseException) -> UnretrievedError:
        """``what`` ended with ``exc``, and keeps the returned object until its error is
        retrieved."""
        unretrieved = UnretrievedError(what, exc, self._loop)
        self._errors.add(unretrieved)
        return unretrieved

    def reraised(self, exc: BaseException) -> None:
        """It ends the loop, and so reaches the caller that runs that."""
        for unretrieved in list(self._errors):
            if unretrieved.is_of(exc):
                unretrieved.retrieved()

    def report_all(self) -> None:
        """The loop ends."""
        for unretrieved in list(self._errors):
            unretrieved.report()
