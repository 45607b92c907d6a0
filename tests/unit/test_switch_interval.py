"""The interpreter's switch interval while hogs compete for the GIL."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gmpd.runtime.switch_interval import INTERVAL_S_MIN, SwitchInterval, interval_s


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_the_more_hogs_the_shorter_a_turn() -> None:
    turns = [interval_s(hogs, 0.005) for hogs in range(20)]
    assert turns[0] == 0.005
    assert turns == sorted(turns, reverse=True)
    assert turns[1] == 0.002
    assert turns[-1] == INTERVAL_S_MIN
    assert interval_s(1, 0.001) == 0.001, "the program wants shorter ones"


def test_all_ps_of_a_process_count_and_the_usual_interval_comes_back() -> None:
    turns = SwitchInterval()
    turns.set_hogs(1, 1)
    turns.set_hogs(2, 2)
    assert sys.getswitchinterval() == pytest.approx(interval_s(3, 0.005), abs=2e-6)
    turns.set_hogs(1, 0)
    assert sys.getswitchinterval() == pytest.approx(interval_s(2, 0.005), abs=2e-6)
    turns.set_hogs(2, 0)
    turns.set_hogs(2, 0)
    assert sys.getswitchinterval() == pytest.approx(0.005, abs=2e-6)


def test_what_the_program_sets_meanwhile_is_what_comes_back() -> None:
    turns = SwitchInterval()
    turns.set_hogs(1, 1)
    sys.setswitchinterval(0.01)
    turns.set_hogs(1, 2)
    assert sys.getswitchinterval() == pytest.approx(interval_s(2, 0.01), abs=2e-6)
    turns.set_hogs(1, 0)
    assert sys.getswitchinterval() == pytest.approx(0.01, abs=2e-6)
