"""The last events of workers that have ended: bounded, and one without any says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gmpd.daemon.past_rings import BYTES_MAX, KEPT_MAX, PastRings
from gmpd.sched.events import Exit

KILLED = Exit(7, "SIGKILL", None, "was killed by SIGKILL")


def worker(p: int, ring: bytes = b"", *, isolated: bool = False) -> Any:
    process = SimpleNamespace(pid=100 + p)
    return SimpleNamespace(of_p=p, epoch=2, process=process, isolated=isolated, ring_tail=ring)


def test_what_ended_since_then_is_told_as_an_answer() -> None:
    past = PastRings()
    past.add(worker(0, b"old"), KILLED, ran=True, now=10)
    past.add(worker(1, b"tail", isolated=True), KILLED, ran=True, now=20)
    (row,) = past.rows(15)
    assert (row["p"], row["ring"], row["isolated"], row["ended"]) == (1, b"tail", True, 20)
    assert row["status"] == {"p": 1, "epoch": 2, "pid": 101, "state": "dead"}


def test_one_that_left_no_events_says_why_unless_it_had_none() -> None:
    past = PastRings()
    past.add(worker(0), KILLED, ran=True, now=10)
    past.add(worker(1), KILLED, ran=False, now=10)
    (row,) = past.rows(0)
    assert row["missing"] == "its events are lost with its worker, which was killed by SIGKILL"
    assert "ring" not in row


def test_they_are_bounded_by_number_and_by_bytes() -> None:
    past = PastRings()
    for n in range(KEPT_MAX + 3):
        past.add(worker(n), KILLED, ran=True, now=n)
    assert [row["p"] for row in past.rows(0)] == list(range(3, KEPT_MAX + 3))
    half = bytes(BYTES_MAX // 2)
    for n in range(3):
        past.add(worker(n, half), KILLED, ran=True, now=n)
    assert [row["p"] for row in past.rows(0)] == [1, 2]
