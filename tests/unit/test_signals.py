"""Which signals end a daemon."""

from __future__ import annotations

import os
import signal

import pytest

from gmpd.daemon.serve import Signals


def test_a_signal_of_somebody_elses_handler_ends_nothing() -> None:
    kept = {number: signal.getsignal(number) for number in (*Signals.ENDING, signal.SIGUSR1)}
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
        for number, handler in kept.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("stray", sorted(Signals.STRAY))
def test_a_signal_that_means_nothing_is_told_of_and_ends_nothing(
    stray: int, caplog: pytest.LogCaptureFixture
) -> None:
    every = (*Signals.ENDING, *Signals.STRAY)
    kept = {number: signal.getsignal(number) for number in every}
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
        for number, handler in kept.items():
            signal.signal(number, handler)
