"""Results that a worker keeps for clients that take none (gmpd.daemon.withheld)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gmpd.codec import decode_error
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.outbox_overflow import StoredOutcome
from gmpd.daemon.shm import WorkerShm
from gmpd.daemon.withheld import TRANSIT_BYTES, InTransit, Withheld
from gmpd.errors import ResultRefused
from gmpd.protocol import Outcome


class Shm:
    """Shared memory, as far as it is asked."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.kept: list[StoredOutcome] = []

    def keep(self, stored: StoredOutcome) -> None:
        self.kept.append(stored)


def new_withheld(shm: Shm | None = None) -> Withheld:
    return Withheld(10_000, cast("WorkerShm", shm or Shm()))


def is_needed(withheld: Withheld) -> bool:
    return withheld.is_needed


def made(token: int, nbytes: int) -> Attempt:
    attempt: Any = SimpleNamespace(
        token=token, fn_name="m:f", outcome=Outcome.OK, data=b"x", out_buffers=(bytes(nbytes),),
        may_be_kept=True, began_ns=0, ended_ns=5000, occupied_ns=3000,
    )  # fmt: skip
    return cast("Attempt", attempt)


def test_what_is_to_be_withheld_is_kept_until_it_is_asked_for() -> None:
    withheld = new_withheld()
    assert not is_needed(withheld)
    withheld.begin([1, 2, 3])
    assert is_needed(withheld)
    first, second = made(1, 4000), made(2, 4000)
    assert withheld.keep(first)
    assert withheld.keep(second)
    assert not withheld.keep(made(9, 4000)), "of another client"
    assert withheld.end([2, 3, 77]) == [second]
    assert not withheld.keep(made(3, 4000)), "its client takes results again"
    assert withheld.end_all() == [first]
    assert not is_needed(withheld)


def test_small_ones_are_not_worth_it() -> None:
    withheld = new_withheld()
    withheld.begin([1])
    assert not withheld.keep(made(1, 10))
    assert not is_needed(withheld)


def test_what_has_no_room_is_refused_by_name() -> None:
    withheld = new_withheld()
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


def test_while_much_is_on_its_way_results_are_kept_unasked() -> None:
    """As long as there is room, since nothing speaks against their client."""
    shm = Shm()
    withheld = new_withheld(shm)
    withheld.sent(1, TRANSIT_BYTES)
    assert not is_needed(withheld)
    withheld.sent(2, 10)
    assert is_needed(withheld)
    assert withheld.keep(made(1, 6000)) == 6001
    assert [stored.token for stored in shm.kept] == [1], "as safe as one that was sent"
    over = made(2, 6000)
    assert not withheld.keep(over)
    assert over.outcome is Outcome.OK, "it is sent"
    assert not withheld.keep(made(3, 10))
    assert [attempt.token for attempt in withheld.end([1, 2, 3])] == [1]
    shm.acknowledged = 1
    assert not withheld.keep(made(4, 6000))
    assert not is_needed(withheld)


def test_outcomes_are_in_transit_until_the_coordinator_has_them() -> None:
    transit = InTransit()
    transit.sent(3, 100)
    transit.sent(5, 50)
    assert transit.acknowledged(2) == 150
    assert transit.acknowledged(4) == 50
    assert transit.acknowledged(5) == 0
    assert transit.nbytes == 0
