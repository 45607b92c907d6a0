"""Texts for operators: the log about jobs and deaths, and the words of `gmpd down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gmpd
from gmpd.cli.exits import Exit
from gmpd.errors import JobTimeout, WorkerLost
from tests.daemon_process import ROOT
from tests.support import wait_until

JOBS = """
import os, time, gmpd
def bad(n): raise ValueError(f"no {n} today")
def slow(mark=""):
    if mark: open(mark, "w").close()
    time.sleep(60)
def crash(): os._exit(9)
def inner():
    with gmpd.Client() as client:
        return client.submit(os.getppid).result(20), os.getppid()
def outer():
    import subprocess, sys
    code = "import gmpd, os; print(gmpd.Client().submit(os.getppid).result(20))"
    return int(subprocess.check_output([sys.executable, "-c", code])), os.getppid()
"""


class Place:
    """A daemon of one P that logs JSON lines, by the command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "operated.py").write_text(JOBS)
        self.runtime_dir = str(directory / "run")
        self.env = {
            **os.environ,
            "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}",
            "GMPD_RUNTIME_DIR": self.runtime_dir,
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_DAEMON__DRAIN_TIMEOUT": "1s",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gmpd.cli", *words], env=self.env, cwd=self.directory,
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    def log(self, *expected: str) -> list[str]:
        """Its lines, once each of these is in one: a line may be written after the outcome that it
        is about has arrived."""

        def missing() -> list[str]:
            return [part for part in expected if not any(part in each for each in self._lines())]

        wait_until(lambda: not missing(), f"the log says all of {expected}", timeout=20)
        return self._lines()

    def _lines(self) -> list[str]:
        text = (self.directory / "state" / "gmpd.log").read_text()
        return [json.loads(line)["message"] for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def place(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.syspath_prepend(short_tmp)
    place = Place(short_tmp)
    up = place.run("up", "--procs", "1")
    assert up.returncode == 0, up.stderr
    return place


def test_the_log_names_failed_jobs_timeouts_and_who_killed_a_worker(place: Place) -> None:
    try:
        import operated  # type: ignore[import-not-found]

        with gmpd.Client(place.runtime_dir, name="nightly") as client:
            failed = [client.submit(operated.bad, n) for n in range(100)]
            assert all(isinstance(each.exception(20), ValueError) for each in failed)
            late = client.options(timeout=0.1).submit(operated.slow)
            with pytest.raises(JobTimeout):
                late.result(20)
            dead = client.submit(operated.crash)
            with pytest.raises(WorkerLost) as caught:
                dead.result(20)
            assert (caught.value.culprit, caught.value.blamed) == ("operated:crash", True)
        log = place.log(
            f"job {failed[0].job_id} operated:bad of 'nightly' failed: ",
            f"job {late.job_id} operated:slow of 'nightly' ran out of time",
            f"job {dead.job_id} operated:crash",
            "ended with exit status 9 while it ran operated:crash",
        )
        bad = [line for line in log if "operated:bad" in line]
        assert failed[0].job_id in bad[0]
        assert "ValueError: no 0 today (attempt 1)" in bad[0]
        assert len(bad) < 20
    finally:
        down = place.run("down", "--now")
    assert down.returncode == 0, down.stderr


def test_down_says_which_jobs_were_lost(place: Place) -> None:
    mark = place.directory / "began"
    import operated

    client = gmpd.Client(place.runtime_dir)
    try:
        future = client.submit(operated.slow, str(mark))
        wait_until(mark.exists, "it runs")
        down = place.run("down")
        assert down.returncode == Exit.TIMEOUT
        assert "waiting up to 1 s for 1 job" in down.stderr
        assert "1 job had not finished (operated:slow): lost" in down.stderr
        assert "gmpd is down" in down.stderr
        assert isinstance(future.exception(20), gmpd.errors.GmpdError)
        place.log("1 jobs are lost")
    finally:
        client.close()


def test_a_client_inside_a_job_talks_to_the_daemon_that_runs_it(place: Place) -> None:
    try:
        import operated

        with gmpd.Client(place.runtime_dir) as client:
            for fn in (operated.inner, operated.outer):
                its, own = client.submit(fn).result(30)
                assert its == own
    finally:
        place.run("down", "--now")
    wait_until(lambda: not Path(place.runtime_dir, "gmpd.lock").exists(), "it is gone")
