"""The interpreter's switch interval while hogs compete for the GIL."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gmpd.runtime.turns import TURN_S_MIN, Turns, turn_s


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_the_more_hogs_the_shorter_a_turn() -> None:
    turns = [turn_s(hogs, 0.005) for hogs in range(20)]
    assert turns[0] == 0.005
    assert turns == sorted(turns, reverse=True)
    assert turns[1] == 0.002
    assert turns[-1] == TURN_S_MIN
    assert turn_s(1, 0.001) == 0.001, "the program wants shorter ones"


def test_all_ps_of_a_process_count_and_the_usual_interval_comes_back() -> None:
    turns = Turns()
    turns.see(1, 1)
    turns.see(2, 2)
    assert sys.getswitchinterval() == pytest.approx(turn_s(3, 0.005), abs=2e-6)
    turns.see(1, 0)
    assert sys.getswitchinterval() == pytest.approx(turn_s(2, 0.005), abs=2e-6)
    turns.see(2, 0)
    turns.see(2, 0)
    assert sys.getswitchinterval() == pytest.approx(0.005, abs=2e-6)


def test_what_the_program_sets_meanwhile_is_what_comes_back() -> None:
    turns = Turns()
    turns.see(1, 1)
    sys.setswitchinterval(0.01)
    turns.see(1, 2)
    assert sys.getswitchinterval() == pytest.approx(turn_s(2, 0.01), abs=2e-6)
    turns.see(1, 0)
    assert sys.getswitchinterval() == pytest.approx(0.01, abs=2e-6)
