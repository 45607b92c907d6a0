"""The counts of durable jobs in a status: one question a second, and no long wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gmpd.cli.status import durable_lines
from gmpd.daemon import durable_status
from gmpd.daemon.durable_status import FRESH_S, LATE_NS, WAITING_MAX, StoreSurvey
from gmpd.sched.stored import StoredState, StoreFailure, Surveyed
from gmpd.status import Blocked, Durable


class Clock:
    """Time, and the deadline of the survey."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.due: int | None = None
        self.late: Callable[[int], None] = lambda _now: None

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return int(self.now_s * 1e9)

    def new(self, late: Callable[[int], None]) -> Clock:
        self.late = late
        return self

    def set(self, due: int | None) -> None:
        self.due = due


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(durable_status, "time", clock)
    return clock


def test_statuses_share_a_question_and_its_answer_for_a_second(clock: Clock) -> None:
    asked: list[Callable[[Any], None]] = []
    survey = StoreSurvey(asked.append, clock)  # type: ignore[arg-type]
    told: list[int] = []
    assert survey.refresh(lambda: told.append(1))
    assert survey.refresh(lambda: told.append(2))
    assert (len(asked), told) == (1, [])
    asked[0](Surveyed({StoredState.QUEUED: 3, StoredState.LEASED: 1}, (), 9))
    assert (told, clock.due) == ([1, 2], None)
    assert (survey.jobs(3)["queued"], survey.jobs(3)["running"]) == (1, 3)
    assert survey.jobs(9)["running"] == 4  # it was counted at another moment
    assert not survey.refresh(lambda: told.append(3))
    clock.now_s += FRESH_S
    assert survey.refresh(lambda: told.append(4))
    assert len(asked) == 2
    asked[1](StoreFailure("the store failed"))
    assert (told, survey.last.nbytes) == ([1, 2, 4], 9)


def test_a_status_does_not_wait_for_a_slow_disk(clock: Clock) -> None:
    asked: list[Callable[[Any], None]] = []
    survey = StoreSurvey(asked.append, clock)  # type: ignore[arg-type]
    told: list[int] = []
    for n in range(WAITING_MAX):
        assert survey.refresh(lambda n=n: told.append(n))  # type: ignore[misc]
    assert not survey.refresh(lambda: told.append(-1))
    assert clock.due == clock.monotonic_ns() + LATE_NS
    clock.late(0)
    assert told == list(range(WAITING_MAX))
    survey.refresh(lambda: told.append(-2))
    assert len(asked) == 1  # the first one is not answered yet
    asked[0](Surveyed({}, (), 0))
    assert told[-1] == -2


def test_people_see_counts_refusals_and_blocked_functions_with_the_remedy() -> None:
    assert durable_lines(Durable()) == []
    open_ = Durable("open", jobs={"queued": 1200, "done": 0, "blocked": 2}, bytes=81_920)
    open_.blocked = [Blocked("tasks:gone", 2, "no module named tasks")]
    text = " ".join(" ".join(durable_lines(open_)).split())
    assert "durable jobs: 1,200 queued, 2 blocked; 0.1 MB on disk" in text
    assert "tasks:gone: 2 jobs wait, as it cannot be imported (no module named tasks)" in text
    assert "it is tried every 5 s" in text
    (line,) = durable_lines(Durable("refused", "others may write to /s"))
    assert line == "durable jobs are refused: others may write to /s"
    assert "the disk is full" in durable_lines(Durable("full"))[1]
