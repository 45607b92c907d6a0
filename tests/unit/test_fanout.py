"""Questions that wait for workers: they end, whatever the workers do."""

from __future__ import annotations

import pytest

from gmpd.daemon.admin import OPEN_MAX, Fanout, since
from gmpd.errors import ConfigError

#: Workers: P and epoch.
P0, P1 = (0, 5), (1, 7)


def test_it_is_over_when_all_have_answered() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [P0, P1], due_ns=100)
    fanout.answered(number, P1, "one")
    assert fanout.take(50, [P0, P1]) == []
    assert fanout.next_due() == 100
    fanout.answered(number, P0, "zero")
    (over,) = fanout.take(50, [P0, P1])
    assert (over.peer, over.request, over.answers, over.silent) == (
        b"client", 7, {P0: "zero", P1: "one"}, set(),
    )  # fmt: skip
    assert not fanout
    assert fanout.next_due() is None


def test_who_is_dead_is_not_waited_for() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [P0, P1], due_ns=100)
    fanout.answered(number, P0, "zero")
    (over,) = fanout.take(50, [P0])
    assert over.silent == {P1}


def test_time_ends_it() -> None:
    fanout = Fanout()
    fanout.open(b"client", 7, [P0], due_ns=100)
    assert fanout.take(99, [P0]) == []
    (over,) = fanout.take(100, [P0])
    assert over.silent == {P0}


def test_late_doubled_and_unasked_answers_change_nothing() -> None:
    fanout = Fanout()
    number = fanout.open(b"client", 7, [P0, P1], due_ns=100)
    fanout.answered(number, P0, "first")
    fanout.answered(number, P0, "second")
    fanout.answered(number, (0, 6), "its successor was not asked")
    fanout.answered(number + 1, P0, "no such question")
    (over,) = fanout.take(100, [P0, P1])
    assert over.answers == {P0: "first"}
    fanout.answered(number, P1, "late")
    assert not fanout


def test_too_many_at_a_time_are_refused() -> None:
    fanout = Fanout()
    for request in range(OPEN_MAX):
        fanout.open(b"client", request, [P0], due_ns=100)
    with pytest.raises(ConfigError, match="ask again later"):
        fanout.open(b"client", 0, [P0], due_ns=100)


def test_a_trace_may_go_further_back_than_the_machine() -> None:
    assert since({"last_s": 3600}, 5_000_000_000) == 0, "a time below 0 would end the workers"
    assert since({"last_s": 2}, 5_000_000_000) == 3_000_000_000
