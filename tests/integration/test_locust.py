"""The load test itself, run short against a real daemon: its report, its limits, its exit codes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import ROOT, Daemon

if importlib.util.find_spec("locust") is None:  # not imported: that would patch this process
    pytest.skip("locust is not installed (it is in the extra load)", allow_module_level=True)


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp) as daemon:
        yield daemon.wait_ready()


def locust(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of two seconds unless ``-t`` says otherwise."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--headless", "-u", "4", "-r", "4", "-t", "2s"),
            *("--stop-timeout", "5", "--only-summary", "-f", "loadtests/locustfile.py"),
            *arguments,
        ],
        cwd=ROOT,
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def metric(daemon: Daemon, series: str) -> float:
    for line in daemon.get("/metrics").splitlines():
        if line.startswith(f"{series} "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no {series}")


def test_a_short_run_reports_what_the_daemon_counted(daemon: Daemon, tmp_path: Path) -> None:
    latencies, html = tmp_path / "latencies.json", tmp_path / "report.html"
    limits = ("--max-p99", "short=1000", "--max-p99", "all=5000", "--min-rps", "10")
    done = locust(daemon, *limits, "--latencies", str(latencies), "--html", str(html))
    assert done.returncode == 0, done.stderr
    kinds: dict[str, Any] = json.loads(latencies.read_text())["kinds"]
    assert set(kinds) == {"short", "waiting", "blocking", "cpu", "all"}
    assert kinds["short"]["p50_ms"] < kinds["blocking"]["p50_ms"]
    assert kinds["blocking"]["p50_ms"] >= 20
    # A job that was under way when the run ended is in the daemon's count and not in locust's.
    ok = metric(daemon, 'gmpd_jobs_finished_total{outcome="ok"}')
    assert kinds["all"]["jobs"] <= ok <= kinds["all"]["jobs"] + 4
    assert b"<html" in html.read_bytes()


def test_a_broken_limit_is_the_exit_code(daemon: Daemon) -> None:
    done = locust(daemon, "--tags", "short", "--rate", "50", "--max-p99", "short=0.000001")
    assert done.returncode == 1
    assert "limit broken: p99 of short is" in done.stderr, done.stderr


def test_a_shape_changes_the_load(daemon: Daemon) -> None:
    done = locust(
        daemon,
        *("-f", "loadtests/locustfile.py,loadtests/shapes.py", "--shape", "spike"),
        *("-u", "10", "-t", "5s", "--tags", "short"),
    )
    assert done.returncode == 0, done.stderr


def test_without_a_daemon_the_run_fails_and_says_why(short_tmp: Path, daemon: Daemon) -> None:
    daemon.env["GMPD_RUNTIME_DIR"] = str(short_tmp / "nowhere")
    done = locust(daemon)
    assert done.returncode == 1
    assert "no load: no daemon in" in done.stderr
    assert "limit broken: 0 jobs were run" in done.stderr


def test_a_slow_start_does_not_use_up_the_time_of_the_run(daemon: Daemon, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\n"
        "began = time.perf_counter()\n"
        "while time.perf_counter() - began < 2.5: pass\n"
        "from loadtests.locustfile import *\n"
    )
    done = locust(daemon, "-f", str(slow), "--tags", "short", "--min-jobs", "10")
    assert done.returncode == 0, done.stderr
