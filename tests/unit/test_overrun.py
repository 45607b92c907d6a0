"""Steps of async code that last: which are named in the log, and when.

The frames are real ones; P, its M and the clock are not.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType, SimpleNamespace
from typing import Any

import pytest

from gmpd.runtime import overrun
from gmpd.runtime.overrun import Overruns

MS = 1_000_000


def here() -> FrameType | None:
    """A frame of a user's function."""
    return sys._getframe()


def called_by(name: str, file: str, inner: Callable[[], Any]) -> Any:
    """The value of ``inner``, called by a function of this name in that file."""
    module = compile(f"def {name}(inner): return inner()", file, "exec")
    (code,) = (each for each in module.co_consts if isinstance(each, CodeType))
    return FunctionType(code, {})(inner)


def in_step(inner: Callable[[], Any]) -> Any:
    """The value of ``inner`` in a step of asyncio's."""
    return called_by("_run", str(sys.modules[asyncio.Handle.__module__].__file__), inner)


def in_import() -> Any:
    """A frame of a user's module that is imported in a step."""
    return in_step(lambda: called_by("_call", "<frozen importlib._bootstrap>", here))


def some(**fields: Any) -> Any:
    """An object of which only these fields are looked at."""
    return SimpleNamespace(**fields)


class Watched:
    """A P whose step lasts, as its sysmon looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.frame: FrameType | None = None
        self.p = some(rounds=1, current=here, detached=[], stats=some(overruns=0))
        self.p.loop = type("Loop", (), {"slow_callback_duration": 0.1})()
        self.m = some(cpu_ns=lambda: self.now, queued=lambda: (0, False))
        self.overruns = Overruns(self.p)
        monkeypatch.setattr(overrun, "frame_of", lambda _: self.frame)
        monkeypatch.setattr(overrun, "time", SimpleNamespace(monotonic_ns=lambda: self.now))

    def report(self) -> None:
        """The step has lasted for a slice of its own code."""
        self.frame = in_step(here)
        self.overruns.report(self.m)

    def look(self, frame: FrameType | None, after_ms: int) -> None:
        """The next look finds this frame."""
        self.now += after_ms * MS
        self.frame = frame
        self.overruns.step()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def named(caplog: pytest.LogCaptureFixture) -> int:
    """How many steps the log names."""
    return sum("holds P for more than 100 ms at" in text for text in caplog.messages)


def test_a_step_is_named_once(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.report()
    watched.look(in_step(here), 80)
    assert named(caplog) == 0
    watched.look(in_step(here), 20)
    watched.look(in_step(here), 500)
    assert named(caplog) == 1
    assert "test_overrun.py" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("frame", [None, here()])
def test_a_look_that_sees_no_step_is_repeated(
    watched: Watched, caplog: pytest.LogCaptureFixture, frame: FrameType | None
) -> None:
    watched.report()
    watched.look(frame, 100)
    assert named(caplog) == 0
    watched.look(in_step(here), 10)
    assert named(caplog) == 1


def test_after_an_import_a_step_is_measured_anew(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.report()
    watched.look(in_import(), 100)
    watched.look(in_step(here), 80)
    assert named(caplog) == 0, "the import took most of the time"
    watched.look(in_step(here), 20)
    assert named(caplog) == 1


def test_a_step_that_has_ended_is_not_named(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.report()
    watched.look(None, 100)
    watched.p.rounds += 1
    watched.look(in_step(here), 10)
    watched.look(in_step(here), 500)
    assert named(caplog) == 0
