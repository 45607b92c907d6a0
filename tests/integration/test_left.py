"""A job leaves to the next one in its worker exactly the things that the guide lists; an isolated
job leaves nothing, and sees nothing of others."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import gmpd
from tests import jobs_left
from tests.jobs_left import ROWS
from tests.rawclient import Boot

GUIDE = (Path(gmpd.__file__).parent / "GUIDE.md").read_text()
LIMIT_S = 120.0


def test_the_next_job_sees_what_the_guide_says_and_an_isolated_one_nothing(boot: Boot) -> None:
    daemon, _ = boot(**{"daemon.procs": 1})
    with gmpd.Client(daemon.endpoint) as client:
        isolated = client.options(isolate=True)
        fresh = isolated.submit(jobs_left.look_at_all).result(LIMIT_S)
        wrong = {}
        for row, (leave, _, stays) in ROWS.items():
            is_async = inspect.iscoroutinefunction(leave)
            leaving = jobs_left.leave_async if is_async else jobs_left.leave
            before = client.submit(jobs_left.look, row).result(LIMIT_S)
            client.submit(leaving, row).result(LIMIT_S)
            after = client.submit(jobs_left.look, row).result(LIMIT_S)
            if (after != before) is not stays:
                wrong[row] = before, after
        assert not wrong
        assert isolated.submit(jobs_left.look_at_all).result(LIMIT_S) == fresh
        with pytest.raises(ValueError, match="main thread"):
            client.submit(jobs_left.set_handler).result(LIMIT_S)


def test_the_guide_names_each_row() -> None:
    _, _, rest = GUIDE.partition("### What a job leaves behind\n")
    section, _, _ = rest.partition("\n### ")
    apart, _, table = section.partition("\n| ")
    for row, (_, _, stays) in ROWS.items():
        assert row in (table if stays else apart), row
