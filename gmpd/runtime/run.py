"""``gmpd.run``: a program on one P in this process, without a daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

from gmpd import pythons
from gmpd.errors import Deadlock
from gmpd.runtime import faketime, schedtrace
from gmpd.runtime.chrome_trace import PathName, written
from gmpd.runtime.deadlock import Checkdead
from gmpd.runtime.deterministic import DeterministicLoop
from gmpd.runtime.loop import Loop
from gmpd.runtime.sigquit import dumps_on_quit

T = TypeVar("T")

#: Go's exit status for a fatal error.
FATAL_STATUS = 2


def new_event_loop() -> Loop:
    """A P as a drop-in asyncio loop: ``asyncio.Runner(loop_factory=gmpd.new_event_loop)``."""
    pythons.welcome()
    return Loop()


def run(
    main: Coroutine[Any, Any, T],
    *,
    deterministic_seed: int | None = None,
    fake_time: bool = False,
    trace: PathName | None = None,
    debug: bool | None = None,
) -> T:
    """Run ``main`` on one P and return its result; children that still run then are dropped, as in
    Go: those that have not started never do, a plain function that runs is left to itself.

    With ``deterministic_seed`` the clock is fake and every choice is seeded. errors.Deadlock when
    every G waits for another: uncaught, it prints Go's text and ends the process with status 2; so
    does SIGQUIT (Ctrl-\\), with every G. ``fake_time``: in a seeded run ``time.sleep``,
    ``time.monotonic`` and ``time.perf_counter`` go by its clock, too, in the Gs that call them.

    ``trace``: a file that gets the newest 100,000 events of Gs as a trace for Perfetto
    (ui.perfetto.dev), compressed if its name ends with .gz; OSError if it cannot be written.
    GMPD_SCHEDTRACE=1000 in the environment prints Go's scheduler trace every 1,000 milliseconds.
    """
    if fake_time and deterministic_seed is None:
        raise ValueError("fake_time needs a deterministic_seed: only a seeded run has such a clock")

    def make() -> Loop:
        loop = Loop() if deterministic_seed is None else DeterministicLoop(deterministic_seed)
        loop.p.checkdead = Checkdead().is_dead
        loop.p.main = main
        return loop

    pythons.welcome()
    every_ms = _schedtrace_ms()
    _speak_go()
    with asyncio.Runner(loop_factory=make, debug=debug) as runner, ExitStack() as stack:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        stack.enter_context(dumps_on_quit(loop.p))
        stack.enter_context(schedtrace.printed(loop.p, every_ms))
        stack.enter_context(written(loop.p, trace))
        if isinstance(loop, DeterministicLoop) and fake_time:
            stack.enter_context(faketime.fake_time(loop))
        return runner.run(main)


def _schedtrace_ms() -> int:
    """Milliseconds between the lines of the scheduler's trace; 0: none. Raises ConfigError."""
    if "GMPD_SCHEDTRACE" not in os.environ:
        return 0
    from gmpd.config import Config  # a program that does not ask for it imports no settings

    return Config.load(files=()).daemon.schedtrace


def _speak_go() -> None:
    """Let an uncaught Deadlock look and end as it does in Go."""
    if not isinstance(sys.excepthook, _FatalError):
        sys.excepthook = _FatalError(sys.excepthook)


class _FatalError:
    """An excepthook. Each knows its own predecessor: a program may put one of its own around it,
    and run again."""

    def __init__(self, before: Callable[..., object]) -> None:
        self._before = before

    def __call__(
        self, kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        if not issubclass(kind, Deadlock):
            self._before(kind, error, where)
            return
        sys.stderr.write(f"fatal error: {error}\n")
        raise SystemExit(FATAL_STATUS)
