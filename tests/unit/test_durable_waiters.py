"""Clients that wait for the ends of durable jobs: nothing of them stays when they have heard."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.sched.durable import Told
from gmpd.sched.durable_waiters import Waiters
from gmpd.sched.stored import Operation, StoredResult, StoredState, StoreFailure

END = StoredResult(StoredState.DONE, b"v", (), 1, "ok", 1, "")
ID = b"i" * 16


class Ports:
    """A store whose answers come when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Told] = []
        self.replies: list[tuple[Any, int, bool]] = []

    def store(self, operation: Operation, told: Told) -> None:
        self.asked.append(told)

    def reply(self, link: Any, request: int, *, ok: bool, value: Any) -> None:
        self.replies.append((link, request, ok))


@pytest.mark.parametrize("answer", [(END,), (False,), StoreFailure("the disk is full")])
def test_who_has_heard_leaves_nothing_behind(answer: Any) -> None:
    ports = Ports()
    waiters = Waiters(ports)
    for request in range(2):
        waiters.add("c", request, ID)
    for told in ports.asked:
        told(answer)
    ok = not isinstance(answer, StoreFailure)
    assert ports.replies == [("c", 0, ok), ("c", 1, ok)]
    assert not waiters._of, "a job that is asked about once would stay for the life of the daemon"


def test_who_waits_hears_once_when_the_job_ends() -> None:
    ports = Ports()
    waiters = Waiters(ports)
    waiters.add("c", 1, ID)
    ports.asked[0]((None,))
    waiters.ended(ID, lambda: END)
    assert ports.replies == [("c", 1, True)]
    assert not waiters._of
