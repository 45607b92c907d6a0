"""When free memory is given back to the system (gmpd.allocator)."""

from __future__ import annotations

from gmpd.allocator import QUIET_NS, TRIM_BYTES, WAITS_MAX, Trimming, give_back

MORE = TRIM_BYTES + 1


def test_little_never_brings_it_about() -> None:
    trimming = Trimming()
    assert not any(trimming.look(TRIM_BYTES, now) for now in range(0, 100 * QUIET_NS, QUIET_NS))
    assert trimming.next_due is None


def test_much_does_once_it_is_quiet() -> None:
    trimming = Trimming()
    assert not trimming.look(MORE, 0)
    assert trimming.next_due == QUIET_NS
    assert not trimming.look(2 * MORE, QUIET_NS), "as much again went through meanwhile"
    assert not trimming.look(2 * MORE, QUIET_NS + 1)
    assert trimming.look(2 * MORE, 2 * QUIET_NS)
    assert not trimming.look(2 * MORE, 9 * QUIET_NS), "nothing went through since"


def test_who_is_never_quiet_gives_back_all_the_same() -> None:
    trimming = Trimming()
    given = [trimming.look(i * MORE, i * QUIET_NS) for i in range(1, WAITS_MAX * 3)]
    assert sum(given) == 2


def test_it_can_be_given_back() -> None:
    give_back()
