"""The words of a progress bar."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.client import progress
from gmpd.submit.events import JobProgress


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "over", "text"),
    [
        (0, 10_000, 0.0, False, "0 of 10,000 done"),
        (1_200, 10_000, 4.0, False, "1,200 of 10,000 done, 300/s, 0:29 left"),
        (3, 10, 6.0, False, "3 of 10 done, 0.5/s, 0:14 left"),
        (1_200, None, 4.0, False, "1,200 done, 300/s"),
        (10, 10, 2.0, False, "10 of 10 done, 5/s, 0:00 left"),
        (10_000, 10_000, 33.0, True, "10,000 done in 0:33, 303/s"),
        (4, 10, 3_723.0, True, "4 of 10 done in 1:02:03, 0.0011/s"),
        (0, 0, 0.0, True, "0 done in 0:00, 0/s"),
    ],
)
def test_count_rate_and_rest(
    done: int, total: int | None, elapsed: float, over: bool, text: str
) -> None:
    assert progress.in_words(done, total, elapsed, over=over) == text


def test_without_a_terminal_a_line_comes_every_few_seconds_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [100.0]
    report = progress._Lines(20, lambda: now[0])
    for done, at in ((5, 101.0), (10, 105.0), (11, 106.0), (20, 110.0)):
        now[0] = at
        report(done, done == 20, progress.Inside)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 20 done, 2/s, 0:05 left",
        "20 done in 0:10, 2/s",
    ]


def test_a_program_without_stderr_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    report = progress.reporter(True, 3)
    assert report is not None
    report(3, True, progress.Inside)


class Job:
    def __init__(self, *told: Any) -> None:
        self.progress = JobProgress(*told) if told else None


def test_the_jobs_that_run_are_taken_together() -> None:
    inside = progress.Inside(
        [(Job(), 1), (Job(5, 10, ""), 4), (Job(3, 2, "more than all"), 1), (Job(7, None, "x"), 1)]
    )
    assert inside.items == 3
    assert inside.text == "5 of 10"
    assert progress.Inside().text == ""


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ((1200, 10_000, "reading"), "1,200 of 10,000 reading"),
        ((0.5, 1.0, ""), "0.5 of 1"),
        ((3, None, ""), "3"),
        ((0, 0, "nothing"), "0 of 0 nothing"),
    ],
)
def test_progress_in_one_line(told: Any, text: str) -> None:
    assert progress.in_one_line(JobProgress(*told)) == text


def test_lines_name_what_a_running_job_is_at(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    report = progress._Lines(2, lambda: now[0])
    now[0] = 110.0
    report(0, False, lambda: progress.Inside([(Job(1, 4, "sorting"), 1)]))
    assert capsys.readouterr().err == "0 of 2 done (1 of 4 sorting)\n"
