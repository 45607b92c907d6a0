"""Stopping another thread in its Python code."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from gmpd.runtime import turns
from gmpd.runtime.frames import own_state
from gmpd.runtime.stops import Stopper, Unavailable, may_stop_in

OLD = sys.version_info < (3, 12)


class Stopped(Exception):
    """Raised where a thread was stopped."""


class Running(threading.Thread):
    """A thread that runs ``work(self)``, and what became of it."""

    def __init__(self, work: Callable[[Running], object]):
        super().__init__(daemon=True)
        self.state = 0
        self.over = False
        self.beat = 0
        self.error: BaseException | None = None
        self._work = work
        self._began = threading.Event()
        self.start()
        assert self._began.wait(20)

    def run(self) -> None:
        self.state = own_state()
        self._began.set()
        try:
            self._work(self)
        except BaseException as error:
            self.error = error
        finally:
            self.state = 0


class Stops:
    """A stopper, and where it stopped which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []
        self.wanted: Running | None = None
        self.error: Exception | None = None
        #: At so many places it is not to stop.
        self.refusals = 0
        self.stopper: Stopper = self._make()

    def _make(self) -> Stopper:
        if OLD:
            from gmpd.runtime.tracing import TracingStopper

            return TracingStopper(self._on_stop)
        from gmpd.runtime.monitoring import MonitoringStopper

        return MonitoringStopper(self._on_stop)

    def _on_stop(self, frame: FrameType) -> bool:
        wanted = self.wanted
        if wanted is None or threading.get_ident() != wanted.ident:
            return False
        if self.refusals:
            self.refusals -= 1
            return True
        self.wanted = None
        self.stopper.withdraw(wanted)
        self.seen.append((wanted.ident or 0, frame.f_code.co_name))
        if self.error is not None:
            raise self.error
        return False

    def stop(self, thread: Running) -> None:
        """Ask it, again and again, until it has stopped."""
        self.wanted, end = thread, time.monotonic() + 20
        while self.wanted is not None:
            assert time.monotonic() < end, "it did not stop"
            self.stopper.ask(thread)
            time.sleep(0.002)


@pytest.fixture(scope="module")
def shared() -> Iterator[Stops]:
    stops = Stops()
    yield stops
    if not OLD:
        monitoring: Any = getattr(sys, "monitoring", None)
        monitoring.free_tool_id(stops.stopper._tool)  # type: ignore[attr-defined]


@pytest.fixture
def stops(shared: Stops) -> Stops:
    shared.seen.clear()
    shared.error = None
    return shared


def in_while(me: Running) -> None:
    while not me.over:
        me.beat += 1


def in_for(me: Running) -> None:
    for _ in iter(lambda: me.over, True):
        me.beat += 1


def in_pass(me: Running) -> None:
    def wait() -> None:
        while not me.over:
            pass

    wait()


def in_recursion(me: Running) -> None:
    def descend(n: int) -> None:
        if n and not me.over:
            descend(n - 1)
            descend(n - 1)

    descend(200)


def in_generator(me: Running) -> None:
    def values() -> Iterator[int]:
        while not me.over:
            yield 1

    me.beat = sum(values())


def in_callbacks_of_c(me: Running) -> None:
    def key(_item: int) -> int:
        if me.over:
            raise StopIteration
        return 1

    while not me.over:
        sorted(range(10**6), key=key)


def in_text(me: Running) -> None:
    exec("while not me.over: pass", {"me": me})


WORKS = [in_while, in_for, in_pass, in_recursion, in_generator, in_callbacks_of_c, in_text]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_code_that_computes_stops_and_goes_on(
    stops: Stops, work: Callable[[Running], object]
) -> None:
    thread = Running(work)
    for _ in range(3):
        stops.stop(thread)
    assert [ident for ident, _ in stops.seen] == [thread.ident] * 3
    thread.over = True
    thread.join(20)
    assert not thread.is_alive()
    assert thread.error is None or isinstance(thread.error, StopIteration | RuntimeError)


def test_a_thread_that_may_not_stop_at_a_place_stops_at_a_later_one(stops: Stops) -> None:
    thread = Running(in_while)
    stops.refusals = 10
    stops.stop(thread)
    assert stops.refusals == 0
    assert len(stops.seen) == 1
    thread.over = True
    thread.join(20)


def test_what_is_raised_there_is_raised_in_the_code_that_was_stopped(stops: Stops) -> None:
    stops.error = Stopped()
    caught: list[str] = []

    def work(me: Running) -> None:
        try:
            in_while(me)
        except Stopped:
            caught.append("here")
            raise

    thread = Running(work)
    stops.stop(thread)
    thread.join(20)
    assert caught == ["here"]
    assert isinstance(thread.error, Stopped)


def test_a_closure_that_others_change_meanwhile_keeps_their_change(stops: Stops) -> None:
    value = "old"
    stopped, go_on = threading.Event(), threading.Event()

    def work(me: Running) -> str:
        while not me.over:
            me.beat += len(value)
        return value

    thread = Running(work)
    seen = stops._on_stop

    def pause(frame: FrameType) -> bool:
        if threading.get_ident() == thread.ident and stops.wanted is not None:
            seen(frame)
            stopped.set()
            go_on.wait(20)
        return False

    stops.stopper._on_stop = pause  # type: ignore[attr-defined]
    try:
        asker = threading.Thread(target=stops.stop, args=(thread,))
        asker.start()
        assert stopped.wait(20)
        value = "new"
        go_on.set()
        asker.join(20)
    finally:
        stops.stopper._on_stop = seen  # type: ignore[attr-defined]
        thread.over = True
    thread.join(20)
    assert value == "new"


@pytest.mark.skipif(not OLD, reason="since 3.12 a trace function and gmpd do not meet")
def test_a_thread_with_a_trace_function_of_its_own_is_not_asked(stops: Stops) -> None:
    events: list[str] = []

    def tracer(_frame: FrameType, event: str, _arg: object) -> Any:
        events.append(event)
        return tracer

    def work(me: Running) -> None:
        sys.settrace(tracer)
        in_while(me)
        assert sys.gettrace() is tracer

    thread = Running(work)
    while not thread.beat:
        time.sleep(0.001)
    stops.wanted = thread
    for _ in range(5):
        stops.stopper.ask(thread)
        time.sleep(0.002)
    stops.wanted = None
    thread.over = True
    thread.join(20)
    assert thread.error is None
    assert not stops.seen
    assert "line" in events


@pytest.mark.skipif(OLD, reason="sys.monitoring came with 3.12")
def test_without_a_free_tool_id_hogs_run_as_before_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gmpd.runtime import monitoring

    monkeypatch.setattr(monitoring, "TOOL_IDS", ())
    the = turns._TheStopper()
    with caplog.at_level(logging.WARNING):
        assert the() is None
        assert the() is None
    (record,) = caplog.records
    assert "sys.monitoring" in record.getMessage()


def test_no_way_to_stop_threads_is_an_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if OLD:
        from gmpd.runtime import tracing

        monkeypatch.setattr(tracing, "WORDS_MAX", 2)
        with pytest.raises(Unavailable, match="trace"):
            tracing.TracingStopper(lambda frame: False)
    else:
        from gmpd.runtime import monitoring

        monkeypatch.setattr(monitoring, "TOOL_IDS", ())
        with pytest.raises(Unavailable, match="tool ids"):
            monitoring.MonitoringStopper(lambda frame: False)


def test_no_g_stops_where_it_may_hold_a_lock_of_gmpd_or_the_standard_library() -> None:
    frames: list[FrameType] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            frames.append(sys._getframe())

    logger = logging.getLogger("test_stops.of_a_job")
    logger.addHandler(Handler())
    logger.warning("computed within the lock of a handler")
    assert not may_stop_in(frames[0])
    assert may_stop_in(sys._getframe())
