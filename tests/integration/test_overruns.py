"""A time limit ends the wait: another attempt begins only when the last one's frame has ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gmpd import protocol
from gmpd.protocol import Outcome
from tests.jobs_overrun import most_at_once
from tests.rawclient import Boot, RawClient
from tests.support import go_on, stop

JOBS = "jobs_overrun"
ONE_P: Any = {"daemon.procs": 1}
#: They leave their P to others meanwhile.
APART = ["swallow", "sleep", "swallow_cancel", "items", "items_async"]
#: These keep it, and their worker can say nothing.
ALONE = ["block", "hold_gil"]
GENERATORS = ["items", "items_async"]


def submit(client: RawClient, name: str, path: Path, seconds: float, **options: Any) -> int:
    if name in GENERATORS:
        options["stream"] = 64
    (seq,) = client.submit(f"{JOBS}:{name}", (path, seconds), options=options)
    return seq


def overrunning(client: RawClient) -> list[str]:
    ps = client.call("status")["ps"]
    named = [each["name"] for p in ps for each in p.get("overruns_now", [])]
    assert len(named) == sum(p.get("overrunning", 0) for p in ps)
    return named


@pytest.mark.parametrize("names", [APART, *([name] for name in ALONE)], ids=lambda n: n[0])
def test_attempts_follow_each_other(boot: Boot, tmp_path: Path, names: list[str]) -> None:
    """Each runs on past its limit, and ends before as long again has passed."""
    _, client = boot()
    seqs = [submit(client, n, tmp_path / n, 1.3, timeout=1.0, retries=1) for n in names]
    ended = client.outcomes(seqs)
    client.until(lambda: not overrunning(client))
    for name, (outcome, _, details) in zip(names, ended, strict=True):
        assert (outcome, details["attempt"]) == (Outcome.TIMEOUT, 2), name
        assert most_at_once(tmp_path / name) == (2, 1), name
    status = client.call("status")
    assert status["jobs"]["retried"]["timeout"] == len(names)
    assert status["jobs"]["finished"] == {"timeout": len(names)}
    assert status["dropped"] == {}
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0


@pytest.mark.parametrize(
    ("names", "seconds"), [(APART, 60.0), (["block"], 5.0), (["hold_gil"], 5.0)], ids=str
)
def test_what_does_not_end_is_told_shown_and_not_tried_again(
    boot: Boot, tmp_path: Path, names: list[str], seconds: float
) -> None:
    """Without retries at the limit, with some after as long again."""
    _, client = boot()
    once = [submit(client, n, tmp_path / "once", seconds, timeout=0.4) for n in names]
    more = [submit(client, n, tmp_path / n, seconds, timeout=0.4, retries=5) for n in names]
    ended = client.outcomes([*once, *more])
    assert sorted(overrunning(client)) == sorted(f"{JOBS}:{name}" for name in names * 2)
    for outcome, _, details in ended:
        assert (outcome, details["attempt"]) == (Outcome.TIMEOUT, 1)
    assert all("isolate=True" in details["text"] for _, _, details in ended[len(once) :])
    status = client.call("status")
    assert status["jobs"]["overran"] == 2 * len(names)
    assert {p["state"] for p in status["ps"] if p["overrunning"]} <= {"running", "deaf"}
    assert [most_at_once(tmp_path / name) for name in names] == [(1, 1)] * len(names)
    assert status["dropped"] == {}
    assert status["jobs"]["finished"] == {"timeout": 2 * len(names)}


def test_a_cleanup_is_a_part_of_the_attempt(boot: Boot, tmp_path: Path) -> None:
    """A coroutine cleans up when it is cancelled; the next attempt waits for that to end."""
    _, client = boot()
    seq = submit(client, "slow_cleanup", tmp_path / "f", 0.3, timeout=1.0, retries=1)
    ((outcome, _, details),) = client.outcomes([seq])
    assert (outcome, details["attempt"]) == (Outcome.TIMEOUT, 2)
    client.until(lambda: not overrunning(client))
    assert most_at_once(tmp_path / "f") == (2, 1)


def test_what_ended_late_has_timed_out(boot: Boot, tmp_path: Path) -> None:
    """No report could come in time, and then it gave a result."""
    _, client = boot(**ONE_P)
    for name in ("hold_gil", "block"):
        seq = submit(client, name, tmp_path / name, 0.25, timeout=0.15)
        assert client.outcomes([seq])[0][0] is Outcome.TIMEOUT


def test_a_stopped_worker_holds_up_no_limit(boot: Boot, tmp_path: Path) -> None:
    _, client = boot(**ONE_P)
    seq = submit(client, "sleep", tmp_path / "f", 60.0, timeout=0.5)
    client.until(lambda: seq in client.running)
    pid = client.call("status")["ps"][0]["pid"]
    stop(pid)
    try:
        assert client.outcomes([seq])[0][0] is Outcome.TIMEOUT
    finally:
        go_on(pid)
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0


def test_a_death_is_an_end(boot: Boot, tmp_path: Path) -> None:
    """The next attempt begins in another process, at once."""
    _, client = boot(**ONE_P)
    path = tmp_path / "f"
    seq = submit(client, "swallow_then_die", path, 0.7, timeout=0.4, retries=1)
    (ended,) = client.outcomes([seq])
    assert ended[0] in (Outcome.TIMEOUT, Outcome.LOST)
    client.until(lambda: most_at_once(path)[0] == 2)
    assert len({line[1:] for line in path.read_text().split()}) == 2


def test_a_cancel_ends_the_wait_for_another_attempt(boot: Boot, tmp_path: Path) -> None:
    _, client = boot(**ONE_P)
    path = tmp_path / "f"
    seq = submit(client, "swallow", path, 3.0, timeout=0.5, retries=3)
    client.until(lambda: overrunning(client))
    client.send(protocol.Cancel([seq]))
    assert client.outcomes([seq])[0][0] is Outcome.CANCELLED
    assert overrunning(client)
    client.until(lambda: not overrunning(client))
    assert most_at_once(path) == (1, 1)


def test_draining_waits_for_no_overrun(boot: Boot, tmp_path: Path) -> None:
    daemon, client = boot(**ONE_P)
    seq = submit(client, "sleep", tmp_path / "f", 60.0, timeout=0.2)
    assert client.outcomes([seq])[0][0] is Outcome.TIMEOUT
    began = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - began < 15
