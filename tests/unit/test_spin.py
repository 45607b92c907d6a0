"""Whether a client spins, by how its last waits went (gmpd.client.spin)."""

from __future__ import annotations

from gmpd.client.spin import SPIN_NS, TRY_EVERY, VAIN_MAX, Spin

SHORT_NS, LONG_NS = SPIN_NS // 2, SPIN_NS * 4


def wait(spin: Spin, ns: int) -> bool:
    """A wait that takes ``ns``; whether it spun."""
    spun = spin.next_ns()
    if spun > 0:
        spin.ended(spun, found=ns < spun)
    else:
        spin.slept(ns)
    return spun > 0


def test_short_waits_spin() -> None:
    spin = Spin()
    assert all(wait(spin, SHORT_NS) for _ in range(1000))


def test_long_waits_sleep_at_once_but_for_a_try_now_and_then() -> None:
    spin = Spin()
    spun = [wait(spin, LONG_NS) for _ in range(VAIN_MAX + 10 * TRY_EVERY)]
    assert spun[:VAIN_MAX] == [True] * VAIN_MAX
    assert sum(spun[VAIN_MAX:]) == 10


def test_a_single_long_wait_changes_nothing() -> None:
    spin = Spin()
    for _ in range(100):
        assert wait(spin, LONG_NS)
        assert wait(spin, SHORT_NS)


def test_one_short_wait_brings_spinning_back() -> None:
    spin = Spin()
    for _ in range(20):
        wait(spin, LONG_NS)
    assert not wait(spin, SHORT_NS)
    assert all(wait(spin, SHORT_NS) for _ in range(1000))


def test_where_sleepers_wake_late_a_try_brings_it_back() -> None:
    """A sleeper on a busy machine finds every wait long; a spin would have been over in time."""
    spin, waits = Spin(), 0
    for _ in range(20):
        wait(spin, LONG_NS)
    while (spun := spin.next_ns()) < 0:
        spin.slept(LONG_NS)
        waits += 1
    spin.ended(spun, found=spun > SHORT_NS)
    assert waits < TRY_EVERY
    assert all(wait(spin, SHORT_NS) for _ in range(1000))


def test_a_short_timeout_is_spun_and_says_nothing() -> None:
    spin = Spin()
    for _ in range(100):
        assert spin.next_ns(0) == 0
        spin.ended(0, found=False)
        assert spin.next_ns(0.0001) == 100_000
        spin.ended(100_000, found=False)
    assert spin.next_ns(None) == SPIN_NS
    for _ in range(VAIN_MAX):
        wait(spin, LONG_NS)
    assert spin.next_ns(5) < 0
    assert spin.next_ns(0) == 0
