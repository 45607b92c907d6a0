"""The attempt of an isolated job: the user's code has the main thread.

Go's locked goroutines are often about the main thread: signal handlers can be set there only, some
libraries and toolkits insist on it. An ordinary worker keeps it free, to end in time; a worker that
ends with its job anyway, and is killed if that takes too long, need not.

Coroutines are driven by the loop, on its home M, as everywhere: that is the main thread, unless it
is lent to a plain function that starts some. Counterpart: ``attempt``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gmpd.daemon.attempt import Attempt
from gmpd.daemon.generator_steps import GeneratorStep
from gmpd.runtime.coro import leave_fork

T = TypeVar("T")


class IsolatedAttempt(Attempt):
    """A fresh G; see ``attempt.Attempt``."""

    __slots__ = ()

    may_be_home = False  # the main thread is lent to it, from another one

    def _invoke(self) -> Any:
        return self.worker.loop.on_main_thread(partial(self._end_forks, super()._invoke))

    def _stepper(self, step: GeneratorStep) -> Callable[[], bool]:
        call = partial(self._end_forks, super()._stepper(step))
        return partial(self.worker.loop.on_main_thread, call)

    def _end_forks(self, part: Callable[[], T]) -> T:
        """A process that the job forked ends here: in it, no thread waits for the main thread."""
        try:
            outcome = part()
        except BaseException:
            if self.worker.loop.p.forked:
                leave_fork(1)
            raise
        if self.worker.loop.p.forked:
            leave_fork(0)
        return outcome
