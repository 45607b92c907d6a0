"""How far a generator job may be ahead of its reader (gmpd.daemon.stream_window)."""

from __future__ import annotations

import pytest

from gmpd.client.streams import Incoming
from gmpd.daemon import generator_steps
from gmpd.daemon.generator_steps import GeneratorStep
from gmpd.daemon.stream_window import StreamWindow, is_large
from gmpd.protocol import STREAM_BYTES
from gmpd.submit.core import STREAM_WINDOW
from gmpd.submit.events import ItemsReceived


def test_it_is_open_for_as_many_items_as_were_asked_for() -> None:
    window = StreamWindow(3)
    window.sent([1, 1])
    assert window.is_open()
    window.sent([1])
    assert not window.is_open()
    window.pulled(2)
    assert window.is_open()
    assert window.items == 2


def test_large_items_close_it_before_their_number_does() -> None:
    window = StreamWindow(64)
    window.sent([STREAM_BYTES - 1])
    assert window.is_open()
    window.sent([STREAM_BYTES * 5])
    assert not window.is_open()
    window.pulled(1)
    assert not window.is_open(), "the one that was taken was the first"
    window.pulled(1)
    assert window.is_open()


@pytest.mark.parametrize("size", [0, 1, 1000, STREAM_BYTES // 3, STREAM_BYTES, STREAM_BYTES * 9])
def test_a_reader_that_takes_all_items_never_leaves_its_job_waiting(size: int) -> None:
    window, incoming = StreamWindow(STREAM_WINDOW), Incoming("f")
    frames = (bytes(size - 1),) if size else ()
    taken = 0
    for _ in range(500):
        assert window.is_open()
        while window.is_open():
            window.sent([size])
            value = ItemsReceived([b"x" * min(size, 1)], [frames])
            incoming.take(value, "")
        while incoming:
            incoming.pop()
            taken += 1
            window.pulled(incoming.due())
        if taken > 200:
            return
    raise AssertionError("it came to a stand")


def test_a_step_of_a_generator_ends_with_a_large_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_steps, "STEP_NS", 60 * 10**9)  # not for the time that it takes
    step = GeneratorStep(None, iter([1, bytes(1 << 20), bytes(1 << 20)]), 64)
    assert not step()
    assert len(step.take()) == 2


class Hostile:
    def __sizeof__(self) -> int:
        raise RuntimeError("no size")


def test_an_item_without_a_size_is_not_large() -> None:
    assert not is_large(Hostile())
    assert is_large("x" * 100_000)
