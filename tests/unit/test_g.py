"""The states of a G move by one table."""

from __future__ import annotations

import pytest

from gmpd.errors import InvariantError
from gmpd.sched.g import MOVES, GEvent, GStatus, transition


@pytest.mark.parametrize("status", GStatus)
def test_every_move_is_in_the_table_or_raises(status: GStatus) -> None:
    for event in GEvent:
        if (status, event) in MOVES:
            assert transition(status, event) is MOVES[status, event]
        else:
            with pytest.raises(InvariantError, match=status.name.lower()):
                transition(status, event)


def test_a_forbidden_move_tells_the_story() -> None:
    with pytest.raises(InvariantError, match=r"dead cannot start(.|\n)*it was born(.|\n)*it died"):
        transition(GStatus.DEAD, GEvent.START, lambda: ["it was born", "it died"])


def test_gs_numbers_and_gmpds_agree() -> None:
    """The numbers that Go's scheddetail prints."""
    assert [status.value for status in GStatus] == [0, 1, 2, 3, 4, 6]


def test_the_dead_stay_dead() -> None:
    assert not [move for move in MOVES if move[0] is GStatus.DEAD]


def test_every_state_can_be_reached_and_left() -> None:
    assert set(MOVES.values()) == set(GStatus) - {GStatus.IDLE}
    assert {status for status, _ in MOVES} == set(GStatus) - {GStatus.DEAD}
