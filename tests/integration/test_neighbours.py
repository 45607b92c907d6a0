"""Async jobs share a loop, and none of them notices what another does to it."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient
from tests.support import wait_until

#: What a job does to its loop -> what it gets.
VANDALS = {
    "cancel_all": "cancelled",
    "shut_down": "done",
    "own_executor": "mine",
    "own_factory": "1",
    "own_handler": "1",
    "stop_it": "done",
}


def one(client: RawClient, name: str, *args: object) -> Any:
    ((outcome, value, _),) = client.outcomes(client.submit(f"jobs_neighbours:{name}", args))
    assert outcome is Outcome.OK, value
    return value


def test_what_a_job_does_to_the_loop_it_does_to_itself(boot: Boot, tmp_path: Path) -> None:
    _, client = boot(**{"daemon.procs": 1})
    held = tmp_path / "held"
    held.touch()
    job = client.submit("jobs_neighbours:neighbour", (str(held),))
    wait_until(Path(f"{held}.ready").exists, "the neighbour is under way")
    for name, expected in VANDALS.items():
        assert one(client, name) == expected, name
    held.unlink()
    ((outcome, value, _),) = client.outcomes(job)
    assert outcome is Outcome.OK, value
    assert value == [0, 1, 7, "task", "gmpd.runtime.task", False, None, None]
    restarts = [each["restarts"] for each in client.call("status")["ps"]]
    assert restarts == [{}]


def test_the_current_task_of_a_job_is_a_task(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    task, future, printed, frames, name, run_on_owner, over = one(client, "what_am_i")
    assert (task, future, printed, run_on_owner, over) == (True, True, True, True, False)
    assert frames[-1] == "what_am_i"
    assert name == "renamed"
    files = one(client, "origins")
    assert [Path(file).name for file in files] == ["jobs_neighbours.py"] * 3


@pytest.mark.skipif(importlib.util.find_spec("greenback") is None, reason="needs greenback")
def test_greenback_opens_its_portal_in_a_job(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    assert one(client, "portal") == "through"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio makes no loop by itself any more")
def test_plain_jobs_get_a_loop_when_they_ask_for_one(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    for _ in range(3):
        assert one(client, "own_loop") == "ran"


def test_tasks_of_a_job_are_forgotten_with_it(boot: Boot) -> None:
    """Task factories that jobs set for themselves do not gather."""
    _, client = boot(**{"daemon.procs": 1})
    start = time.monotonic()
    for _ in range(20):
        assert one(client, "own_factory") == "1"
    assert time.monotonic() - start < 20
    assert one(client, "what_am_i")[0] is True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nested", "nest_asyncio.apply() would change this worker"),
        ("patched_plainly", "nest_asyncio.apply() would change this worker"),
        ("patch_by_hand", "Loop._run_once cannot be replaced"),
        ("greenlets", "gevent.monkey.patch_all() would change this worker"),
    ],
)
def test_what_would_patch_the_worker_is_refused_in_its_job(
    boot: Boot, name: str, words: str
) -> None:
    if name in ("nested", "patched_plainly"):
        pytest.importorskip("nest_asyncio")
    if name == "greenlets":
        pytest.importorskip("gevent")
    _, client = boot(**{"daemon.procs": 1})
    ((outcome, error, _),) = client.outcomes(client.submit(f"jobs_neighbours:{name}", ()))
    assert outcome is Outcome.ERROR
    assert words in error.message
    assert one(client, "asyncio_is_whole") == ["well", "asyncio.runners", False]


def test_an_isolated_job_may_patch_its_process(boot: Boot) -> None:
    pytest.importorskip("gevent")
    _, client = boot(**{"daemon.procs": 1})
    job = client.submit("jobs_neighbours:greenlets", (), options={"isolate": True})
    ((outcome, value, _),) = client.outcomes(job)
    assert (outcome, value) == (Outcome.OK, "patched")
