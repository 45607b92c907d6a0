"""One heap for the deadlines of all parts: each is called at its time, once, in order."""

from __future__ import annotations

from gmpd.daemon.deadlines import Deadline, Deadlines


def test_each_part_is_called_when_it_is_due_and_not_before() -> None:
    deadlines, called = Deadlines(), list[tuple[str, int]]()
    one = deadlines.new(lambda now: called.append(("one", now)))
    two = deadlines.new(lambda now: called.append(("two", now)))
    assert deadlines.next() is None
    one.set(20)
    two.set(10)
    assert deadlines.next() == 10
    deadlines.run(9)
    assert not called
    deadlines.run(25)
    assert called == [("two", 25), ("one", 25)]
    deadlines.run(30)
    assert len(called) == 2
    assert (one.at, deadlines.next()) == (None, None)


def test_only_the_time_that_was_set_last_counts() -> None:
    deadlines, called = Deadlines(), list[int]()
    one = deadlines.new(called.append)
    for at in (10, 50, 30, None, 40, 40):
        one.set(at)
    assert deadlines.next() == 40
    deadlines.run(39)
    assert not called
    deadlines.run(60)
    assert called == [60], "once, however often it was set"
    one.set(70)
    one.set(None)
    assert deadlines.next() is None
    deadlines.run(80)
    assert called == [60]


def test_a_part_that_is_due_again_at_once_waits_for_the_next_turn() -> None:
    """Else a turn would never end."""
    deadlines, called = Deadlines(), list[int]()
    again: Deadline

    def due(now: int) -> None:
        called.append(now)
        again.now()

    again = deadlines.new(due)
    again.now()
    deadlines.run(1)
    assert called == [1]
    assert deadlines.next() == 0, "the loop does not rest before"
    deadlines.run(2)
    assert called == [1, 2]
