"""Which signals end a daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from gmpd.daemon.serve import Signals


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    kept = {n: signal.getsignal(n) for n in (*Signals.TAKEN, *Signals.STRAY)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_of_another_handler_ends_nothing() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    signals = Signals()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.take() == []
        assert heard == [signal.SIGUSR1]
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.take() == [signal.SIGTERM]
    finally:
        signals.close()


@pytest.mark.parametrize("stray", sorted(Signals.STRAY))
def test_a_signal_that_means_nothing_is_logged_and_ends_nothing(
    stray: int, caplog: pytest.LogCaptureFixture
) -> None:
    signal.signal(stray, signal.SIG_DFL)
    signals = Signals()
    try:
        os.kill(os.getpid(), stray)
        assert signals.take() == []
        assert signal.Signals(stray).name in caplog.text
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.take() == [signal.SIGTERM]
    finally:
        signals.close()
