"""``time.sleep`` and ``time.monotonic`` of the Gs of a seeded run: by its clock.

While a run has it, functions of the ``time`` module are replaced: for code that runs on a P of
such a run they read and wait for its clock, for all other code (other threads, gmpd and asyncio
themselves) they are the real ones. Names imported before by ``from time import sleep`` are not
replaced. ``time.time`` is left alone: it is a date.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gmpd.runtime.internals import running_loop
from gmpd.runtime.m import current_m
from gmpd.runtime.owner import Parker, wait_on_owner
from gmpd.runtime.sleepers import Sleeper, from_now

if TYPE_CHECKING:
    from gmpd.runtime.deterministic import DeterministicLoop

#: Modules that measure and wait for themselves: the loop and its parts.
_REAL = ("asyncio", "threading", "concurrent", "queue", "selectors", "subprocess")
_NAMES = ("sleep", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")


@contextmanager
def fake_time(loop: DeterministicLoop) -> Iterator[None]:
    """While this lasts, Gs of ``loop`` see its clock."""
    real = {name: getattr(time, name) for name in _NAMES}
    fakes = {name: _clock(loop, name, real[name]) for name in _NAMES}
    fakes["sleep"] = _sleeper(loop, real["sleep"])
    for name, fake in fakes.items():
        setattr(time, name, fake)
    try:
        yield
    finally:
        for name, fake in fakes.items():
            if getattr(time, name) is fake:
                setattr(time, name, real[name])


def _sleeper(loop: DeterministicLoop, real: Callable[[float], None]) -> Callable[[float], None]:
    def sleep(seconds: float, /) -> None:
        if _is_faked(loop, _REAL):
            _sleep(loop, seconds)
        else:
            real(seconds)

    return sleep


def _clock(loop: DeterministicLoop, name: str, real: Callable[[], Any]) -> Callable[..., Any]:
    def read() -> Any:
        if not _is_faked(loop, ("gmpd", *_REAL)):
            return real()
        return int(loop.now * 1e9) if name.endswith("_ns") else loop.now

    return read


def _is_faked(loop: DeterministicLoop, real: tuple[str, ...]) -> bool:
    """Whether ``time`` was called by a G of ``loop``, outside these modules."""
    caller = sys._getframe(1).f_back  # None: a thread that runs a function of ``time`` alone
    module = "" if caller is None else str(caller.f_globals.get("__name__", ""))
    if module.partition(".")[0] in real:
        return False
    running = running_loop()
    if running is not None:
        return running is loop
    m = current_m()
    return m is not None and m.p.loop is loop and m.g is not None


def _sleep(loop: DeterministicLoop, seconds: float) -> None:
    """Sleep in a plain function: P continues with others. In a coroutine it blocks them all, so
    time goes by and nothing else happens.
    """
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    if running_loop() is loop:
        loop.now = from_now(loop.now, seconds)
        return

    def attempt(parker: Parker) -> Sleeper:
        sleeper = loop.p.sleepers.add(loop, from_now(loop.now, seconds))
        sleeper.g = parker
        return sleeper

    wait_on_owner(loop, Sleeper.reason, attempt)
