"""Plain functions in a daemon: what they see of their end, and of their neighbours."""

from __future__ import annotations

import time
from pathlib import Path

from gmpd.protocol import Outcome
from tests.rawclient import DEADLINE_S, Boot


def test_a_function_that_swallowed_its_timeout_sees_that_it_is_over(
    boot: Boot, tmp_path: Path
) -> None:
    _, client = boot(**{"daemon.procs": 1})
    notes = tmp_path / "notes"
    job = client.submit("jobs_hostile:swallow_and_look", (str(notes),), options={"timeout": 0.2})
    end = time.monotonic() + DEADLINE_S
    while not notes.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert notes.exists()
    ((outcome, _, _),) = client.outcomes(job)
    assert outcome is Outcome.TIMEOUT


def test_a_child_behind_a_decorator_does_not_wait_for_another_behind_it(
    boot: Boot, tmp_path: Path
) -> None:
    _, client = boot(**{"daemon.procs": 1})
    job = client.submit("jobs_hostile:hog_and_neighbour", (str(tmp_path / "over"),))
    ((outcome, value, _),) = client.outcomes(job)
    assert (outcome, value) == (Outcome.OK, "ran")
