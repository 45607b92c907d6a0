"""The streams of a worker: what a captured job prints goes to the job, all else to the process."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, cast

import pytest

from gmpd.daemon import output
from gmpd.runtime.roots import root


class Job:
    """Captured unless told otherwise."""

    def __init__(self, *, is_captured: bool = True) -> None:
        self.is_captured = is_captured
        self.text = b""

    def printed(self, data: Any) -> bool:
        self.text += bytes(data)
        return self.is_captured

    def run(self, call: Callable[..., object], *args: Any) -> str:
        context = copy_context()
        context.run(root.set, self)
        context.run(call, *args)
        return self.text.decode()


class Real:
    """The process's stream."""

    def __init__(self) -> None:
        self.raw = io.BytesIO()
        self.raw.name = "<stdout>"
        self.stream = io.TextIOWrapper(self.raw, encoding="utf-8")

    @property
    def text(self) -> str:
        return self.raw.getvalue().decode()


def install(monkeypatch: pytest.MonkeyPatch) -> Real:
    """Streams of a worker over it. Not in a fixture: pytest sets others after those."""
    made = Real()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, made.stream)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    output.install("")
    return made


def test_each_job_gets_what_it_prints_and_the_process_all_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = install(monkeypatch)
    one, two, plain = Job(), Job(), Job(is_captured=False)
    print("process")
    assert one.run(print, "one") == "one\n"
    assert two.run(lambda: print("two", file=sys.stderr)) == "two\n"
    plain.run(print, "plain")
    assert real.text == "process\nplain\n"


def test_odd_writes_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = install(monkeypatch)

    def odd() -> None:
        print("\ud800", end="|")
        sys.stdout.buffer.write(memoryview(b"\xff\x00"))
        sys.stdout.writelines(["a", "b"])
        sys.stdout.close()
        with pytest.raises(io.UnsupportedOperation, match="all jobs"):
            cast("Any", sys.stdout).detach()
        print("|after")

    job = Job()
    context = copy_context()
    context.run(root.set, job)
    context.run(odd)
    assert job.text == b"\\ud800|\xff\x00ab|after\n"
    assert not sys.stdout.closed
    assert isinstance(sys.stdout, io.TextIOBase)
    assert real.text == ""


def test_an_error_of_the_job_s_own_text_stays_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def bad() -> None:
        with pytest.raises(RuntimeError, match="no text"):
            print("before", Bad())

    assert Job().run(bad) == "before "
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "%s", (Bad(),), None)
    assert "no text" in Job().run(logging.StreamHandler().emit, record)


def test_logging_that_nobody_configured_has_time_level_and_logger_in_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = install(monkeypatch)
    log = logging.getLogger("some.module")
    monkeypatch.setattr(logging.root, "handlers", [])
    text = Job().run(log.warning, "careful %d", 7)
    assert text.endswith(" WARNING some.module: careful 7\n")
    log.warning("outside")
    assert real.text == "outside\n"


def test_a_handler_made_in_the_worker_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    real = install(monkeypatch)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("<%(message)s>"))
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "told", None, None)
    assert Job().run(handler.emit, record) == "<told>\n"
    handler.emit(record)
    assert real.text == "<told>\n"


class Raw(io.RawIOBase):
    """An unbuffered stream (``python -u``), which takes a few bytes at a time."""

    name = "<stderr>"

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.text = io.TextIOWrapper(cast("Any", self), encoding="utf-8", write_through=True)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.writes.append(bytes(data)[:20])
        return len(self.writes[-1])


def unbuffered(monkeypatch: pytest.MonkeyPatch) -> Raw:
    raw = Raw()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, raw.text)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    output.install("")
    return raw


def test_a_line_is_one_write_whatever_its_pieces_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread, or another worker, may write between two of them."""
    raw = unbuffered(monkeypatch)
    print("a", 1, "b", file=sys.stderr)
    print("c", end="", file=sys.stderr)
    print("d", 2, file=sys.stderr)
    assert raw.writes == [b"a 1 b\n", b"cd 2\n"]


def test_two_threads_do_not_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = unbuffered(monkeypatch)
    print("begins", end=" ")
    thread = threading.Thread(target=print, args=("another",))
    thread.start()
    thread.join()
    print("ends")
    assert raw.writes == [b"another\n", b"begins ends\n"]


def test_a_line_without_an_end_is_written_when_it_is_flushed_long_or_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = unbuffered(monkeypatch)
    print("50 %", end="", flush=True)
    assert raw.writes == [b"50 %"]
    print("x" * output.LINE_MAX, end="")
    assert b"".join(raw.writes) == b"50 %" + b"x" * output.LINE_MAX, "in parts, but all of it"
    thread = threading.Thread(
        target=print, args=("of a thread that has ended",), kwargs={"end": ""}
    )
    thread.start()
    thread.join()
    output.flush()
    assert b"".join(raw.writes).endswith(b"of a thread that has ended")
