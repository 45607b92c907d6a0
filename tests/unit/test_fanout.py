"""Questions that wait for workers: they end, whatever the workers do."""

from __future__ import annotations

import pytest

from gmpd.daemon.admin import OPEN_MAX, Fanout
from gmpd.errors import ConfigError


def test_it_is_over_when_all_have_answered() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [0, 1], due_ns=100)
    fanout.answered(number, 1, "one")
    assert fanout.take(50, [0, 1]) == []
    assert fanout.next_due() == 100
    fanout.answered(number, 0, "zero")
    (over,) = fanout.take(50, [0, 1])
    assert (over.peer, over.request, over.answers, over.silent) == (
        b"client", 7, {0: "zero", 1: "one"}, set(),
    )  # fmt: skip
    assert not fanout
    assert fanout.next_due() is None


def test_who_is_dead_is_not_waited_for() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [0, 1], due_ns=100)
    fanout.answered(number, 0, "zero")
    (over,) = fanout.take(50, [0])
    assert over.silent == {1}


def test_time_ends_it() -> None:
    fanout = Fanout()
    fanout.open(b"client", 7, [0], due_ns=100)
    assert fanout.take(99, [0]) == []
    (over,) = fanout.take(100, [0])
    assert over.silent == {0}


def test_late_doubled_and_unasked_answers_change_nothing() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [0, 1], due_ns=100)
    fanout.answered(number, 0, "first")
    fanout.answered(number, 0, "second")
    fanout.answered(number, 5, "nobody asked P5")
    fanout.answered(number + 1, 0, "no such question")
    (over,) = fanout.take(100, [0, 1])
    assert over.answers == {0: "first"}
    fanout.answered(number, 1, "late")
    assert not fanout


def test_too_many_at_a_time_are_refused() -> None:
    fanout = Fanout()
    for request in range(OPEN_MAX):
        fanout.open(b"client", request, [0], due_ns=100)
    with pytest.raises(ConfigError, match="ask again later"):
        fanout.open(b"client", 0, [0], due_ns=100)
