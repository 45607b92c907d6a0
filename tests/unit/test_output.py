"""The streams of a worker: what a captured job prints goes to the job, all else to the process."""

from __future__ import annotations

import io
import logging
import sys
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
