"""Ctrl-C at every line of the client: what was submitted still ends, and the client goes on.

The interrupt is a real SIGINT, raised while a given line of a given scenario is about to run, once
for each line that the scenario reaches in the main thread.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed, wait
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import gmpd
import gmpd.client
from gmpd.client.defer_signals import DEFER_SIGNALS, SignalDeferral
from gmpd.client.futures import JobFuture
from gmpd.errors import DaemonUnreachable
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

HOME = str(Path(gmpd.client.__file__).parent)
DEADLINE_S = 20.0

Line = tuple[str, int]
Futures = list[JobFuture]


@pytest.fixture
def client() -> Iterator[gmpd.Client]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with gmpd.Client() as made:
            yield made
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupter:
    """Raises SIGINT at the n-th coming of one line; remembers all lines that came."""

    def __init__(self, line: Line | None, times: int = 1, *, finalizers: bool = False) -> None:
        self.line = line
        self.finalizers = finalizers
        self.times = times
        self.seen: dict[Line, int] = {}

    def __enter__(self) -> Interrupter:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            line = frame.f_code.co_filename, frame.f_lineno
            self.seen[line] = self.seen.get(line, 0) + 1
            if line == self.line and self.seen[line] == self.times and not self._is_blind(frame):
                signal.raise_signal(signal.SIGINT)
        return self._trace

    def _is_blind(self, frame: FrameType) -> bool:
        # What is raised in a finalizer the interpreter drops, whatever the finalizer does.
        return is_blind(frame) or (is_finalizer(frame) and not self.finalizers)


def is_blind(frame: FrameType) -> bool:
    """Whether the interpreter looks for no signal here: at ``try:``, and at the end of a ``with``.

    An exception that a trace function raises there is caught by neither.
    """
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    starts = (at for at, _, line in frame.f_code.co_lines() if line == frame.f_lineno)
    return text == "try:" or (text.startswith("with ") and frame.f_lasti != min(starts))


def is_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def result(client: gmpd.Client, out: Futures) -> None:
    """The leader's path."""
    out.append(client.submit(abs, -1))
    assert out[-1].result(DEADLINE_S) == 1


def late_result(client: gmpd.Client, out: Futures) -> None:
    """The sleeper's path: the spin has ended."""
    out.append(client.submit(asyncio.sleep, 0.005, 1))
    assert out[-1].result(DEADLINE_S) == 1


def many(client: gmpd.Client, out: Futures) -> None:
    """The submitter sends by itself."""
    out.extend(client.submit(abs, -1) for _ in range(70))
    assert len(wait(out, DEADLINE_S).done) == len(out)


def completed(client: gmpd.Client, out: Futures) -> None:
    called: list[object] = []
    for _ in range(5):
        out.append(client.submit(abs, -1))
        out[-1].add_done_callback(called.append)
    assert {f.result() for f in as_completed(out, DEADLINE_S)} == {1}


def mapped(client: gmpd.Client, out: Futures) -> None:
    assert list(client.map(abs, [-1] * 20, chunksize=2)) == [1] * 20


def cancelled(client: gmpd.Client, out: Futures) -> None:
    out.extend(client.submit(asyncio.sleep, 0.01, 1) for _ in range(3))
    for future in out:
        future.cancel()


def new_functions(client: gmpd.Client, out: Futures) -> None:
    for _ in range(2):
        out.append(client.submit(eval("lambda: 1")))
    assert out[-1].result(DEADLINE_S) == 1


def three() -> Iterator[int]:
    yield from (1, 2, 3)


def streamed(client: gmpd.Client, out: Futures) -> None:
    with client.stream(three) as values:
        assert next(values) == 1


def endless() -> Iterator[int]:
    while True:
        yield 1


def closed(client: gmpd.Client, out: Futures) -> None:
    """A stream that would not end by itself."""
    with client.stream(endless) as values:
        for _ in range(40):
            assert next(values) == 1


def dropped(client: gmpd.Client, out: Futures) -> None:
    """One that is not closed."""
    assert next(client.stream(endless)) == 1


STREAMS = [streamed, closed, dropped]
SCENARIOS = [result, late_result, many, completed, mapped, cancelled, new_functions, *STREAMS]


def interrupted(
    client: gmpd.Client, scenario: Callable[[gmpd.Client, Futures], None], at: Interrupter
) -> None:
    """Run it, and see that everything ends all the same."""
    out: Futures = []
    others = [client.submit(abs, -1) for _ in range(3)]
    try:
        with at:
            scenario(client, out)
    except KeyboardInterrupt:
        pass
    where = f"after Ctrl-C at {at.line} (coming {at.times})"
    left = wait([*out, *others], DEADLINE_S).not_done
    assert not left, f"{where}: {len(left)} futures never ended"
    assert {f.result(0) for f in [*out, *others] if not f.cancelled()} <= {1}, where
    wait_until(lambda: client._core.busy == 0, f"{where}: no job is left over")
    assert client.submit(abs, -2).result(DEADLINE_S) == 2, where
    assert client._core.lost is None, where


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ctrl_c_at_every_line(
    client: gmpd.Client, scenario: Callable[[gmpd.Client, Futures], None]
) -> None:
    dice = random.Random(scenario.__name__)
    known: dict[Line, int] = {}
    done: set[Line] = set()
    survey = Interrupter(None)
    interrupted(client, scenario, survey)
    known.update(survey.seen)
    while todo := known.keys() - done:
        for line in sorted(todo):
            done.add(line)
            at = Interrupter(line, dice.randint(1, known[line]))
            interrupted(client, scenario, at)
            known = {**at.seen, **known}
    assert len(done) > 50


@pytest.mark.timeout(120)
def test_ctrl_c_at_any_moment(client: gmpd.Client) -> None:
    """Signals from outside, at seeded moments, while this thread submits, waits and cancels."""
    dice = random.Random(7)
    for _ in range(150):
        scenario = dice.choice(SCENARIOS)
        out: Futures = []
        timer = threading.Timer(dice.uniform(0, 0.004), os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            while True:
                out.clear()
                scenario(client, out)
        except KeyboardInterrupt:
            pass
        timer.join()
        left = wait(out, DEADLINE_S).not_done
        assert not left, f"{scenario.__name__}: {len(left)} futures never ended"
    wait_until(lambda: client._core.busy == 0, "no job is left over")
    assert client.submit(abs, -2).result(DEADLINE_S) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_stream_in_the_daemon(client: gmpd.Client) -> None:
    """At every line again, also of what runs when a stream is dropped, where it is thrown away."""
    interrupts = 0
    for scenario in STREAMS:
        survey = Interrupter(None)
        with survey:
            scenario(client, [])
        for line in survey.seen:
            at = Interrupter(line, finalizers=True)
            try:
                with at:
                    scenario(client, [])
            except KeyboardInterrupt:
                interrupts += 1
        wait_until(lambda: client._core.busy == 0, f"{scenario.__name__}: no job is left over")
    assert client.call("status")["queue"]["unfinished"] == 0
    assert interrupts > 50


def test_ctrl_c_while_it_closes_leaves_nothing() -> None:
    """Its thread ends, and the daemon with it, whichever way it was asked to."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        survey = Interrupter(None)
        close_interrupted(survey)
        for line in sorted(survey.seen)[::3]:  # a third of them: each needs a daemon of its own
            close_interrupted(Interrupter(line))
    finally:
        signal.signal(signal.SIGINT, before)


def close_interrupted(at: Interrupter) -> None:
    client = gmpd.Client()
    future = client.submit(asyncio.sleep, 60)
    try:
        with at:
            client.close(wait=False)
    except KeyboardInterrupt:
        client.close(wait=False)
    assert client._thread is not None
    assert not client._thread.is_alive(), f"after Ctrl-C at {at.line}"
    assert isinstance(future.exception(0), DaemonUnreachable)


def test_a_shield_passes_the_signal_on_when_it_ends() -> None:
    seen: list[str] = []

    def handler(*_: object) -> None:
        seen.append("handled")

    before = signal.signal(signal.SIGINT, handler)
    try:
        with DEFER_SIGNALS:
            with DEFER_SIGNALS:
                signal.raise_signal(signal.SIGINT)
            seen.append("inside")
        assert seen == ["inside", "handled"]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_shield_leaves_an_ignored_signal_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SignalDeferral():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
