"""Jobs that end their workers, again and again, and workers that cannot start: the daemon stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient

LOST = [Outcome.LOST]


def kinds(client: RawClient, seqs: list[int]) -> list[Outcome]:
    return [outcome for outcome, _, _ in client.outcomes(seqs)]


@pytest.mark.parametrize("code", [0, 1, 3, 4, 70, 78])
def test_no_exit_code_of_a_job_says_anything_about_the_worker(boot: Boot, code: int) -> None:
    _, client = boot(**{"daemon.procs": 1, "restart.storm_deaths": 2})
    for _ in range(5):
        (lost,) = client.outcomes(client.submit("os:_exit", (code,)))
        assert lost[0] is Outcome.LOST
        assert lost[2]["exitcode"] == code
        assert lost[2]["culprit"] == "os:_exit"
    assert kinds(client, client.submit("math:sqrt", (4.0,))) == [Outcome.OK]
    status = client.call("status")
    assert (status["state"], status["degraded"]) == ("running", "")


def test_many_jobs_that_kill_end_nothing_but_themselves(boot: Boot) -> None:
    """All at once, from one client, while another's jobs go on."""
    daemon, client = boot(**{"restart.storm_deaths": 3})
    killers = client.submit("jobs_for_tests:die", *[("segv",), ("exit",)] * 8)
    other = RawClient(daemon.endpoint)
    try:
        fine = other.submit("math:sqrt", *[(4.0,)] * 200)
        ended = other.outcomes(fine)
        assert {outcome for outcome, _, _ in ended} <= {Outcome.OK, Outcome.LOST}
        assert kinds(client, killers) == LOST * 16
        assert kinds(other, other.submit("math:sqrt", *[(4.0,)] * 20)) == [Outcome.OK] * 20
        assert other.call("status")["state"] == "running"
    finally:
        other.close()


@pytest.fixture
def breakable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the text of the module that all workers import."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(text: str) -> None:
        (tmp_path / "breakable_module.py").write_text(text)

    write("")
    return write


def kill_workers(client: RawClient) -> None:
    for each in client.call("status")["ps"]:
        os.kill(each["pid"], signal.SIGKILL)


def test_when_no_worker_can_start_those_who_wait_are_told_and_the_daemon_recovers(
    boot: Boot, breakable: Callable[[str], None]
) -> None:
    _, client = boot(**{"daemon.imports": ("breakable_module",), "restart.backoff_max": 0.2})
    client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
    breakable("raise ValueError('the disk is full of eels')")
    kill_workers(client)
    client.until(lambda: bool(client.call("status")["stalled"]))
    (told,) = client.outcomes(client.submit("math:sqrt", (4.0,)))
    assert told[0] is Outcome.LOST
    assert "the disk is full of eels" in told[2]["text"]
    seen: dict[str, Any] = client.call("status")
    assert seen["state"] == "degraded"
    assert "the disk is full of eels" in seen["degraded"]
    breakable("")
    client.until(lambda: client.call("status")["state"] == "running")
    assert kinds(client, client.submit("math:sqrt", (4.0,))) == [Outcome.OK]


def test_a_neighbour_of_a_crash_is_told_whose_it_was(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    parked = client.submit("asyncio:sleep", (60,))
    patient = client.submit("asyncio:sleep", (1.5, "rested"), options={"retries": 1})
    client.until(lambda: {*parked, *patient} <= client.running)
    for _ in range(2):
        assert kinds(client, client.submit("jobs_for_tests:die", ("segv",))) == LOST
    (lost,) = client.outcomes(parked)
    assert lost[0] is Outcome.LOST
    assert (lost[2]["culprit"], lost[2]["blamed"]) == ("jobs_for_tests:die", False)
    assert client.outcomes(patient)[0][:2] == (Outcome.OK, "rested")


SLOW_MODULE = """
import os, pathlib, time
pathlib.Path(os.environ["MARKS"], "importing").touch()
while not pathlib.Path(os.environ["MARKS"], "go").exists():
    time.sleep(0.01)
if not pathlib.Path(os.environ["MARKS"], "crashed").exists():
    pathlib.Path(os.environ["MARKS"], "crashed").touch()
    os._exit(9)
def first(): return "first"
def second(n): return n
"""


@pytest.mark.parametrize(
    ("function", "args"),
    [("slow_module:first", ()), ("importlib:import_module", ("slow_module",))],
    ids=["held back", "waiting"],
)
def test_who_waits_for_anothers_import_has_not_begun(
    boot: Boot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    args: tuple[str, ...],
) -> None:
    """The import ends the worker: the job that imported is lost and blamed, the others run. Of an
    import inside of a job the worker does not know: one of the others takes up its own."""
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MARKS", str(tmp_path))
    _, client = boot(**{"daemon.procs": 1})
    importer = client.submit(function, args)
    client.until((tmp_path / "importing").exists)
    waiting = client.submit("slow_module:second", (1,), (2,), (3,))
    if args:
        client.until(lambda: waiting[0] in client.running)
    (tmp_path / "go").touch()
    (lost,) = client.outcomes(importer)
    assert lost[0] is Outcome.LOST
    assert (lost[2]["culprit"], lost[2]["blamed"]) == (function, True)
    assert [value for _, value, _ in client.outcomes(waiting)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("how", "other"),
    [("exit", "spin_async"), ("kill", "spin_async"), ("abort", "spin_async"), ("segv", "spin")],
)
def test_a_job_that_ends_the_process_beside_p_is_blamed_itself(
    boot: Boot, how: str, other: str
) -> None:
    """It has blocked, so P runs others when it does so."""
    _, client = boot(**{"daemon.procs": 1})
    killer = client.submit("jobs_for_tests:sleep_and_die", (how, 0.5))
    client.until(lambda: set(killer) <= client.running)
    busy = client.submit(f"jobs_for_tests:{other}", (5.0,))
    (lost,) = client.outcomes(killer)
    assert (lost[2]["culprit"], lost[2]["blamed"]) == ("jobs_for_tests:sleep_and_die", True)
    (beside,) = client.outcomes(busy)
    assert (beside[2]["culprit"], beside[2]["blamed"]) == ("jobs_for_tests:sleep_and_die", False)
