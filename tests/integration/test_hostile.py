"""Jobs that fork or leave: the worker and its neighbours do not notice, on real daemons."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient

FORKS = (
    "fork_async", "fork_step", "fork_child", "fork_child_async", "fork_child_sync", "fork_task",
    "fork_callback", "fork_blocking", "fork_and_wait",
)  # fmt: skip


def one(client: RawClient, name: str, *args: object) -> object:
    """The value of one job of jobs_hostile."""
    ((outcome, value, _),) = client.outcomes(client.submit(f"jobs_hostile:{name}", args))
    assert outcome is Outcome.OK, value
    return value


@pytest.mark.parametrize("name", FORKS)
def test_a_fork_ends_where_the_job_gives_control_back(
    boot: Boot, name: str, tmp_path: Path
) -> None:
    """Whichever kind of G it was: the first copy waits for the end of the second, which no
    client hears of."""
    _, client = boot(**{"daemon.procs": 1})
    notes = tmp_path / "notes"
    assert one(client, name, str(notes)) == "first"
    said = Counter(notes.read_text().split()) if notes.exists() else Counter[str]()
    assert set(said.values()) <= {1}, "nothing was done twice"
    assert "copy" not in said
    status = client.call("status")
    assert status["dropped"] == {}
    assert [each["restarts"] for each in status["ps"]] == [{}]
    assert one(client, "pid_later", 0.0) == status["ps"][0]["pid"]


def test_a_fork_in_a_generator_ends_with_its_step(boot: Boot, tmp_path: Path) -> None:
    _, client = boot(**{"daemon.procs": 1})
    notes = tmp_path / "notes"
    job = client.submit("jobs_hostile:fork_generator", (str(notes),), options={"stream": 9})
    ((outcome, _, _),) = client.outcomes(job)
    assert outcome is Outcome.OK
    assert len(set(notes.read_text().split())) == 2
    assert client.call("status")["dropped"] == {}
    assert one(client, "pid_later", 0.0) == client.call("status")["ps"][0]["pid"]


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("leave_in_task", ("exit",), "SystemExit(7)"),
        ("leave_in_task", ("interrupt",), "KeyboardInterrupt('7')"),
        ("leave_in_child", (), "SystemExit(7)"),
        ("leave_in_callback", (), None),
        ("stop_loop", (), None),
    ],
)
def test_what_leaves_in_part_of_a_job_is_that_parts_outcome(
    boot: Boot, name: str, args: tuple[object, ...], value: object
) -> None:
    """The job sees it; a neighbour that is parked on the same P, and the worker, live on."""
    _, client = boot(**{"daemon.procs": 1})
    neighbours = client.submit("jobs_hostile:pid_later", *[(1.0,)] * 20)
    pid = client.call("status")["ps"][0]["pid"]
    assert one(client, name, *args) == (value or pid)
    assert [value for _, value, _ in client.outcomes(neighbours)] == [pid] * 20
