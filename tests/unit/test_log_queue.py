"""The log's way out: it never waits for its reader, loses nothing unsaid, and repeats nothing."""

from __future__ import annotations

import logging
import os
import threading
from _thread import allocate_lock
from collections.abc import Iterator

import pytest

from gmpd.daemon import log_queue
from gmpd.daemon.log_queue import Descriptor, QueuedHandler
from gmpd.daemon.repeats import KINDS_MAX, Repeats
from tests.log_threads import no_thread_is_left, threads
from tests.support import wait_until


class Gate:
    """It takes lines only while it is open."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problem: OSError | None = None
        self._closed = allocate_lock()

    def close(self) -> None:
        self._closed.acquire()

    def open(self) -> None:
        self._closed.release()

    def write(self, line: bytes) -> None:
        with self._closed:
            if self.problem is not None:
                raise self.problem
            self.lines.append(line.decode().removesuffix("\n"))


def record(text: str, line: int = 1) -> logging.LogRecord:
    return logging.LogRecord("gmpd.test", logging.WARNING, "f.py", line, text, (), None)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with no_thread_is_left():
        yield


def test_lines_leave_in_order_and_flush_waits_for_them() -> None:
    out = Gate()
    handler = QueuedHandler(out)
    for n in range(50):
        handler.handle(record(str(n)))
    handler.announce("no record")
    handler.flush()
    assert out.lines == [*map(str, range(50)), "no record"]


def test_a_full_queue_drops_lines_and_says_how_many() -> None:
    out = Gate()
    out.close()
    handler = QueuedHandler(out, lines_max=10)
    for n in range(1010):
        handler.handle(record(str(n), n))  # none of them waits
    assert handler.dropped == 1000
    out.open()
    handler.flush()
    handler.handle(record("later"))
    handler.flush()
    assert out.lines[:5] == ["0", "1", "2", "3", "4"]
    (said,) = [line for line in out.lines if "dropped" in line]
    assert said.startswith("1,000 lines of the log were dropped here")
    assert [line for line in out.lines if line != said] == [*map(str, range(10)), "later"]


def test_bytes_are_bounded_too() -> None:
    out = Gate()
    out.close()
    handler = QueuedHandler(out, bytes_max=1000)
    for n in range(10):
        handler.handle(record("x" * 400, n))
    assert handler.dropped == 8
    out.open()
    handler.flush()


def test_the_end_of_a_process_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_queue, "FLUSH_S", 0.01)
    out = Gate()
    out.close()
    handler = QueuedHandler(out)
    handler.handle(record("x"))
    handler.flush()  # it returns
    assert out.lines == []
    out.open()


def test_lines_that_cannot_be_written_are_counted_and_the_next_ones_are_written() -> None:
    out = Gate()
    out.problem = BrokenPipeError()
    handler = QueuedHandler(out)
    handler.handle(record("lost"))
    handler.flush()
    assert handler.dropped == 1
    out.problem = None
    handler.handle(record("next"))
    handler.flush()
    assert out.lines[0] == "next"
    assert out.lines[1].startswith("1 lines of the log were dropped")


def test_a_system_without_threads_gets_its_lines_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(log_queue, "start_new_thread", refuse)
    out = Gate()
    handler = QueuedHandler(out)
    handler.handle(record("x"))
    assert out.lines == ["x"]


def test_a_forked_process_writes_by_itself_even_if_a_thread_was_logging() -> None:
    out = Gate()
    handler = QueuedHandler(out)
    handler.handle(record("before"))
    handler.flush()
    holds, go = threading.Event(), threading.Event()

    def hold() -> None:
        with handler._changes:
            holds.set()
            go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    handler.in_child()  # as after a fork: the lock's owner is not there
    handler.handle(record("in the child"))
    handler.flush()
    go.set()
    thread.join()
    assert out.lines == ["before", "in the child"]
    handler._is_forked = False  # it has its thread, which is to end


def test_a_descriptor_takes_whole_lines_though_it_takes_parts() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)  # a program may have made it so
    handler = QueuedHandler(Descriptor(write))
    handler.handle(record("x" * 300_000))
    data = b""
    while len(data) < 300_001:
        data += os.read(read, 1 << 16)
    assert data == b"x" * 300_000 + b"\n"
    handler.flush()
    os.close(read)
    os.close(write)


def test_many_records_of_a_kind_become_one_line() -> None:
    repeats = Repeats(most=3, every_s=10)
    same = [record("%s is late") for _ in range(1237)]
    assert sum(repeats.admit(each, 100.0) for each in same) == 3
    assert repeats.admit(record("%s is late", line=2), 101.0), "another place"
    assert repeats.admit(record("%s is early"), 101.0), "another template"
    assert repeats.due_s(104.0) == 6.0
    assert repeats.take(104.0) == []
    (said,) = repeats.take(110.0)
    assert (said.rows, repeats.suppressed) == (1234, 1234)
    assert said.record.getMessage() == "… and 1,234 more like it in 10 s: %s is late"
    assert (said.record.name, said.record.levelname) == ("gmpd.test", "WARNING")
    assert repeats.due_s(110.0) is None
    assert repeats.admit(same[0], 110.0), "another interval begins"


def test_kinds_are_bounded() -> None:
    repeats = Repeats(most=1)
    for n in range(KINDS_MAX + 500):
        repeats.admit(record("x", n), 1.0)
    assert len(repeats._kinds) <= KINDS_MAX + 1
    assert repeats.suppressed == 499


def test_repeats_are_said_when_the_interval_is_over_although_nothing_is_logged_then() -> None:
    out = Gate()
    handler = QueuedHandler(out, repeats=Repeats(most=1, every_s=0.02))
    said = threading.Event()
    write = out.write

    def seen(line: bytes) -> None:
        write(line)
        if b"more like it" in line:
            said.set()

    out.write = seen  # type: ignore[method-assign]
    for _ in range(5):
        handler.handle(record("x"))
    assert said.wait(10)
    handler.flush()
    assert out.lines == ["x", "… and 4 more like it in 0 s: x"] or out.lines[-1].startswith("…")


def test_the_thread_ends_with_the_handler_and_a_later_record_has_another() -> None:
    out, before = Gate(), threads()
    handler = QueuedHandler(out)
    for text in ("first", "second"):
        handler.handle(record(text))
        handler.close()
        wait_until(lambda: threads() == before, "the end of the thread")
    assert out.lines == ["first", "second"]
