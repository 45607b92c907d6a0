"""Periodic jobs in a real daemon: every tick once, across `kill -9`; the command line."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.durable_daemon import ROOT, Daemon
from tests.support import wait_until

ZONE = ZoneInfo("Europe/Berlin")

TABLES = """
[cron.absent]
function = "nowhere.at_all:fn"
every = "1s"

[cron.late]
function = "arrives_later:fn"
every = "1h"
"""


class CronDaemon(Daemon):
    """It imports ``tests.jobs_cron``, and has tables of its own."""

    def start(self, *flags: str) -> None:
        self.env["CRON_RECORD"] = str(self.directory)
        config = self.directory / "gmpd.toml"
        config.write_text(TABLES)
        config.chmod(0o600)
        super().start("--import", "tests.jobs_cron", *flags)

    def ticks(self) -> list[str]:
        path = self.directory / "seconds"
        return path.read_text().split() if path.exists() else []

    def gmpd(self, *words: str) -> tuple[int, Any, str]:
        """Exit code, what stdout has as JSON or text, stderr."""
        done = self.cli(*words)
        out = json.loads(done.stdout) if "--json" in words and done.stdout else done.stdout
        return done.returncode, out, done.stderr

    def listed(self, name: str) -> dict[str, Any]:
        _, told, _ = self.gmpd("cron", "ls", "--json")
        found: dict[str, Any] = next(each for each in told["schedules"] if each["name"] == name)
        return found


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[CronDaemon]:
    with CronDaemon(short_tmp) as daemon:
        yield daemon


def test_every_tick_runs_once_across_kills_of_the_daemon(daemon: CronDaemon) -> None:
    client = daemon.client()
    for n in (2, 5, 8):
        wait_until(lambda n=n: len(set(daemon.ticks())) >= n, f"{n} ticks ran", timeout=90)  # type: ignore[misc]
        client = daemon.restart()
    last = max(daemon.ticks())
    wait_until(lambda: max(daemon.ticks()) > last, "ticks run again", timeout=60)
    ended = {
        row["id"] for row in client.call("jobs", function="tests.jobs_cron:note", state="done")
    }
    moments = sorted(map(datetime.fromisoformat, set(daemon.ticks())))
    assert all(b - a == timedelta(seconds=1) for a, b in itertools.pairwise(moments))
    # A run that a kill cut off is run again; no tick has two jobs.
    assert len(daemon.ticks()) - len(moments) <= 3
    assert len(ended) >= len(moments) - 1
    assert all(id_[6] >> 4 == 8 for id_ in ended)


def test_the_commands_list_run_pause_and_resume(daemon: CronDaemon) -> None:
    daemon.client()
    yearly = "tests.jobs_cron:yearly"
    code, job, _ = daemon.gmpd("cron", "run", yearly)
    assert (code, len(job.strip())) == (0, 32)
    assert daemon.client().job(job.strip()).result(60) == "year"
    row = daemon.listed(yearly)
    assert (row["schedule"], row["source"]) == ("0 0 1 1 * Europe/Berlin", "tests.jobs_cron")
    new_year = datetime.fromtimestamp(row["next"]).astimezone()
    assert new_year.astimezone(ZONE).strftime("%d.%m. %H:%M") == "01.01. 00:00"
    wait_until(lambda: (daemon.listed("seconds")["last"] or {}).get("state") == "done", "it ran")
    assert daemon.gmpd("cron", "pause", "seconds")[0] == 0
    assert daemon.listed("seconds")["next"] is None
    _, table, said = daemon.gmpd("cron", "ls")
    assert "paused" in table
    assert "absent" in said
    assert "nowhere" in said
    assert daemon.gmpd("cron", "resume", "seconds")[0] == 0
    assert daemon.listed("seconds")["next"] is not None
    code, _, said = daemon.gmpd("cron", "run", "nothing")
    assert code == 4
    assert "there is no periodic job 'nothing'" in said
    assert "seconds" in said


def test_a_function_that_cannot_be_imported_is_named_and_its_job_blocked(
    daemon: CronDaemon,
) -> None:
    client = daemon.client()
    blocked = wait_until(
        lambda: client.call("jobs", function="nowhere.at_all:fn", state="blocked"),
        "the first tick is blocked",
        timeout=60,
    )
    assert len(blocked) == 1
    _, status, _ = daemon.gmpd("status")
    assert "schedule absent does not run: no function nowhere.at_all:fn" in status
    _, doctor, _ = daemon.gmpd("doctor")
    assert "schedule     absent does not run: no function nowhere.at_all:fn" in doctor
    assert "cron.absent.function" in (daemon.directory / "log").read_text()
    wait_until(lambda: daemon.listed("absent")["skipped"] > 0, "later ticks are left out")
    (daemon.directory / "arrives_later.py").write_text("def fn():\n    return 5\n")
    client = daemon.restart()
    assert client.call("status")["cron"]["problems"].keys() == {"absent"}
    _, job, _ = daemon.gmpd("cron", "run", "late")
    assert client.job(job.strip()).result(60) == 5


def test_a_daemon_without_schedules_opens_no_store(short_tmp: Path) -> None:
    with Daemon(short_tmp) as daemon:
        assert daemon.client().call("cron") == {"failure": "", "schedules": []}
        assert not (short_tmp / "state" / "jobs.sqlite").exists()


def test_two_schedules_of_one_name_end_the_start(short_tmp: Path) -> None:
    (short_tmp / "twice.py").write_text(
        textwrap.dedent("""
            import gmpd

            @gmpd.every(5, name="x")
            def one(): ...

            @gmpd.every(5, name="x")
            def two(): ...
        """)
    )
    env = {
        **os.environ,
        "GMPD_RUNTIME_DIR": str(short_tmp / "run"),
        "GMPD_STATE_DIR": str(short_tmp / "state"),
        "GMPD_HTTP__ENABLED": "false",
        "PYTHONPATH": f"{ROOT}:{short_tmp}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "serve", "--import", "twice"],
        env=env, cwd=short_tmp, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "two schedules have the name 'x', of twice:one and twice:two" in done.stderr
