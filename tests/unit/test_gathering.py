"""When a worker sends the outcomes that it has gathered (gmpd.daemon.outcomes.is_due)."""

from __future__ import annotations

import pytest

from gmpd.codec import FunctionRef
from gmpd.daemon.definitions import LONG_NS, QUICK_NS, SLOW_NS_MAX, RemoteFunction
from gmpd.daemon.outcomes import GATHER_CHILDREN_NS, GATHER_NS, GATHER_NS_MAX, is_due

MS = 1_000_000


def waits_ns(fresh: int, slow_ns: int = 0, quick_ns: int = 0, *, child: bool = False) -> int:
    """For how long outcomes may gather while P holds so much; 0: not at all."""
    for us in range(0, 50_000, 10):
        if is_due(us * 1000, fresh, slow_ns, quick_ns, child):
            return us * 1000
    return 50_000_000


def function(quick_ns: int | None) -> RemoteFunction:
    fn = RemoteFunction(1, FunctionRef("name", "m:f"))
    fn.quick_ns = quick_ns
    return fn


@pytest.mark.parametrize("ms", [0.2, 0.3, 1, 3, 4])
@pytest.mark.parametrize("held", [1, 2, 3])
def test_none_wait_while_few_leases_follow(ms: float, held: int) -> None:
    """As with a single job in flight: it is the next one that its client waits for."""
    assert waits_ns(held, int(held * ms * MS)) == 0


@pytest.mark.parametrize(("held", "ms"), [(4, 0.3), (8, 1), (16, 1), (53, 0.3), (5, 3), (100, 1)])
def test_they_gather_for_a_quarter_of_what_p_holds(held: int, ms: float) -> None:
    all_ns = int(held * ms * MS)
    assert waits_ns(held, all_ns) == pytest.approx(min(GATHER_NS_MAX, all_ns / 4), abs=20_000)


@pytest.mark.parametrize("quick_ns", [None, SLOW_NS_MAX + 1, 50 * MS])
def test_none_wait_for_a_call_of_unknown_or_long_time(quick_ns: int | None) -> None:
    long_ns = function(quick_ns).slow_ns
    assert long_ns == LONG_NS
    assert waits_ns(1, long_ns) == 0
    assert waits_ns(200, 199 * MS + long_ns) == 0, "nor if many others come first"
    assert waits_ns(200, 2 * long_ns) == 0


def test_the_time_of_a_call_is_what_outcomes_wait_for_it() -> None:
    assert function(QUICK_NS - 1).slow_ns == 0
    assert function(QUICK_NS).slow_ns == QUICK_NS
    assert function(SLOW_NS_MAX).slow_ns == SLOW_NS_MAX


@pytest.mark.parametrize("quick_ns", [0, 4_000, 10_000])
def test_outcomes_of_the_quickest_calls_gather_for_half_a_millisecond(quick_ns: int) -> None:
    """With as many leases as a P can hold, which are worth little more than its credit."""
    for fresh in (1, 30, 200):
        assert waits_ns(fresh, 0, quick_ns) == GATHER_NS + 10_000


def test_those_of_quick_calls_gather_longer_while_p_holds_much() -> None:
    assert waits_ns(100, 0, 100_000) == pytest.approx(2.5 * MS, abs=20_000)
    assert waits_ns(250, 0, 150_000) == pytest.approx(GATHER_NS_MAX, abs=20_000)


def test_those_of_children_gather_as_long_as_half_of_their_credit() -> None:
    assert waits_ns(3, 0, MS, child=True) == GATHER_CHILDREN_NS + 10_000
    assert waits_ns(3, MS, MS, child=True) == 0, "a job waits behind them"
