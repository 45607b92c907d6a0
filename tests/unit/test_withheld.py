"""Results that a worker keeps for clients that take none (gmpd.daemon.withheld)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gmpd.codec import decode_error
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.withheld import Withheld
from gmpd.errors import ResultRefused
from gmpd.protocol import Outcome


def made(token: int, nbytes: int) -> Attempt:
    attempt: Any = SimpleNamespace(
        token=token, fn_name="m:f", outcome=Outcome.OK, data=b"x", out_buffers=(bytes(nbytes),)
    )
    return cast("Attempt", attempt)


def test_what_is_to_be_withheld_is_kept_until_it_is_asked_for() -> None:
    withheld = Withheld(10_000)
    assert not withheld
    withheld.begin([1, 2, 3])
    assert withheld
    first, second = made(1, 4000), made(2, 4000)
    assert withheld.keep(first)
    assert withheld.keep(second)
    assert not withheld.keep(made(9, 4000)), "of another client"
    assert withheld.end([2, 3, 77]) == [second]
    assert not withheld.keep(made(3, 4000)), "its client takes results again"
    assert withheld.end_all() == [first]
    assert not withheld


def test_small_ones_are_not_worth_it() -> None:
    withheld = Withheld(10_000)
    withheld.begin([1])
    assert not withheld.keep(made(1, 10))
    assert not withheld


def test_what_has_no_room_is_refused_by_name() -> None:
    withheld = Withheld(10_000)
    withheld.begin([1, 2, 3])
    assert withheld.keep(made(1, 6000))
    over = made(2, 6000)
    assert not withheld.keep(over)
    assert over.outcome is Outcome.ERROR
    error = decode_error(over.data)
    assert isinstance(error, ResultRefused)
    assert "limits.worker_results" in str(error)
    assert over.out_buffers == ()
    withheld.end([1])
    assert withheld.keep(made(3, 6000)), "there is room again"
