"""Which hog runs and which ones are parked: the decisions."""

from __future__ import annotations

from dataclasses import dataclass

from gmpd.sched.turns import MISSES_MAX, TURN_NS, WINDOW, Contention, choose

MS = 1_000_000


@dataclass
class Hog:
    name: str
    since_ns: int = 0
    parked_ns: int = 0
    computes: bool = True
    rest_ns: int = 0


def names(hogs: list[Hog], misses: int = 0, now: int = 100 * MS) -> tuple[str | None, str | None]:
    park, wake = choose(hogs, misses, now)
    return (None if park is None else park.name), (None if wake is None else wake.name)


def test_the_gil_is_contended_once_every_pause_ended_with_a_wait() -> None:
    contention = Contention()
    assert contention.misses == WINDOW
    for seen in range(WINDOW):
        assert contention.misses == WINDOW - seen
        contention.add(True)
    contention.add(True)
    assert contention.misses == 0
    contention.add(False)
    contention.add(True)
    assert contention.misses == 1


def test_no_hog_and_one_hog_are_left_alone() -> None:
    assert names([]) == (None, None)
    assert names([Hog("only")]) == (None, None)
    assert names([Hog("only", parked_ns=1, computes=False)]) == (None, "only")


def test_of_two_that_compute_the_one_that_has_run_longer_is_parked() -> None:
    assert names([Hog("new", since_ns=90 * MS), Hog("old", since_ns=80 * MS)]) == ("old", None)


def test_none_is_parked_while_the_gil_is_free_at_times() -> None:
    assert names([Hog("a"), Hog("b")], misses=1) == (None, None)


def test_the_next_turn_is_that_of_the_one_parked_longest() -> None:
    hogs = [Hog("runs"), Hog("later", parked_ns=60 * MS), Hog("next", parked_ns=50 * MS)]
    assert names(hogs, now=TURN_NS - 1) == (None, None)
    assert names(hogs, now=TURN_NS) == ("runs", "next")
    assert names(hogs, misses=MISSES_MAX, now=TURN_NS) == ("runs", "next")


def test_the_next_one_runs_beside_once_the_gil_has_room() -> None:
    hogs = [Hog("runs"), Hog("next", parked_ns=50 * MS)]
    assert names(hogs, misses=MISSES_MAX + 1) == (None, "next")


def test_one_that_waits_or_does_not_stop_is_no_obstacle() -> None:
    parked = Hog("next", parked_ns=50 * MS)
    assert names([Hog("waits", computes=False), parked]) == (None, "next")
    assert names([Hog("defies", rest_ns=200 * MS), parked]) == (None, "next")
    defies, runs = Hog("defies", rest_ns=200 * MS), Hog("runs")
    assert names([defies, runs]) == (None, None), "parking the other one would help none"
    assert names([defies, runs, parked]) == ("runs", "next")
