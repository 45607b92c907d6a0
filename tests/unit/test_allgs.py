"""The sets of all Gs, on things that are no Gs: bounded, complete, and used again."""

from __future__ import annotations

import sys
from typing import Any

from gmpd.runtime.allgs import FULL, AllGs


class Made:
    """A G as the sets see it."""

    _among: set[Any]

    def __init__(self, number: int = 0) -> None:
        self.id = number


def added(gs: AllGs, count: int) -> list[Any]:
    made = [Made(number) for number in range(count)]
    for g in made:
        gs.add(g)
    return made


def end(made: list[Any]) -> None:
    for g in made:
        g._among.discard(g)


def test_all_are_there_until_they_end() -> None:
    gs: AllGs = AllGs()
    made = added(gs, 2 * FULL + 5)
    assert len(gs) == len(made)
    assert set(gs.some(len(made))) == set(made)
    assert all(g in gs for g in made[:: FULL // 2])
    end(made[1:])
    assert len(gs) == 1
    assert gs.some(10) == made[:1]
    assert made[1] not in gs
    gs.clear()
    assert len(gs) == 0
    assert gs.some(10) == []


def test_no_table_is_larger_than_that_of_a_full_set() -> None:
    """Or moving it would hold P up, and each G would pay for its empty places."""
    gs: AllGs = AllGs()
    made = added(gs, 5 * FULL)
    sizes = {id(g._among): sys.getsizeof(g._among) for g in made}
    assert len(sizes) == 5
    assert max(sizes.values()) < 30 * FULL


def test_a_set_that_has_emptied_is_filled_again() -> None:
    """Each burst leaves one of a thousand behind; the sets do not become more with each."""
    gs: AllGs = AllGs()
    kept: list[Any] = []
    for _ in range(10):
        made = added(gs, 3 * FULL)
        kept += made[::1000]
        end([g for at, g in enumerate(made) if at % 1000])
    assert len({id(g._among) for g in kept}) <= 4
    assert len(gs) == len(kept)


def test_some_are_as_many_as_were_asked_for() -> None:
    gs: AllGs = AllGs()
    added(gs, 2 * FULL)
    assert len(gs.some(10)) == 10
    assert len(gs.some(FULL + 10)) == FULL + 10
    assert gs.some(0) == []


def test_one_is_found_by_its_number_in_whichever_set() -> None:
    gs: AllGs = AllGs()
    made = added(gs, FULL + 10)
    for number in (0, FULL - 1, FULL + 9):
        assert gs.find(number) is made[number]
    assert gs.find(FULL + 10) is None
