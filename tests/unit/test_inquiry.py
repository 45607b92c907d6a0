"""Questions that wait for workers: they end, whatever the workers do."""

from __future__ import annotations

import pytest

from gmpd.daemon.inquiry import OPEN_MAX, Inquiries
from gmpd.errors import ConfigError


def test_it_is_over_when_all_have_answered() -> None:
    inquiries = Inquiries()
    number = inquiries.open(b"client", 7, [0, 1], due_ns=100)
    inquiries.answered(number, 1, "one")
    assert inquiries.take(50, [0, 1]) == []
    assert inquiries.next_due() == 100
    inquiries.answered(number, 0, "zero")
    (over,) = inquiries.take(50, [0, 1])
    assert (over.peer, over.request, over.answers, over.silent) == (
        b"client", 7, {0: "zero", 1: "one"}, set(),
    )  # fmt: skip
    assert not inquiries
    assert inquiries.next_due() is None


def test_who_is_dead_is_not_waited_for() -> None:
    inquiries = Inquiries()
    number = inquiries.open(b"client", 7, [0, 1], due_ns=100)
    inquiries.answered(number, 0, "zero")
    (over,) = inquiries.take(50, [0])
    assert over.silent == {1}


def test_time_ends_it() -> None:
    inquiries = Inquiries()
    inquiries.open(b"client", 7, [0], due_ns=100)
    assert inquiries.take(99, [0]) == []
    (over,) = inquiries.take(100, [0])
    assert over.silent == {0}


def test_late_doubled_and_unasked_answers_change_nothing() -> None:
    inquiries = Inquiries()
    number = inquiries.open(b"client", 7, [0, 1], due_ns=100)
    inquiries.answered(number, 0, "first")
    inquiries.answered(number, 0, "second")
    inquiries.answered(number, 5, "nobody asked P5")
    inquiries.answered(number + 1, 0, "no such question")
    (over,) = inquiries.take(100, [0, 1])
    assert over.answers == {0: "first"}
    inquiries.answered(number, 1, "late")
    assert not inquiries


def test_too_many_at_a_time_are_refused() -> None:
    inquiries = Inquiries()
    for request in range(OPEN_MAX):
        inquiries.open(b"client", request, [0], due_ns=100)
    with pytest.raises(ConfigError, match="ask again later"):
        inquiries.open(b"client", 0, [0], due_ns=100)
