"""A daemon whose gateway dies, or cannot serve: it goes on without metrics, and says so."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gmpd import Client, rundir
from tests.daemon_process import Daemon
from tests.support import wait_until


def gateway_of(pid: int) -> psutil.Process:
    """The daemon's child that serves HTTP."""
    [found] = [
        child
        for child in psutil.Process(pid).children()
        if any("gateway" in word for word in child.cmdline())
    ]
    return found


@pytest.fixture
def place(short_tmp: Path) -> Path:
    path = short_tmp / "d"
    path.mkdir(mode=0o700)
    return path


def works(directory: Path) -> None:
    with Client(str(directory)) as client:
        assert client.submit(math.sqrt, 4).result(20) == 2


class Logging(Daemon):
    LOG = "log"


def test_a_gateway_opens_a_log_again_that_was_moved_away(place: Path) -> None:
    log = place / Logging.LOG
    with Logging(place) as daemon:
        daemon.wait_ready()
        gateway = gateway_of(daemon.process.pid).pid
        log.rename(f"{log}.1")
        daemon.process.send_signal(signal.SIGHUP)
        stderr = Path(f"/proc/{gateway}/fd/2")
        wait_until(lambda: stderr.readlink() == log, "it writes to the new file")
        daemon.wait_ready()  # it serves on; for a moment it may say that workers are replaced


def test_a_killed_gateway_costs_the_metrics_alone(place: Path) -> None:
    with Daemon(place) as daemon:
        daemon.wait_ready()
        os.kill(gateway_of(daemon.process.pid).pid, signal.SIGKILL)
        wait_until(lambda: rundir.read_discovery(place).http is None, "its end is known")
        works(place)
        assert "ended with -9" in (rundir.read_discovery(place).http_problem or "")
        assert daemon.process.poll() is None


def test_a_second_daemon_lives_without_the_port_of_the_first(short_tmp: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        env = {
            **os.environ,
            "GMPD_HTTP__LISTEN": listen,
            "GMPD_STATE_DIR": str(short_tmp / "state"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        place = ["--runtime-dir", str(short_tmp / "run")]

        def gmpd(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "gmpd.cli", *words, *place],
                env=env, cwd=short_tmp, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        up = gmpd("up", "--procs", "1")
        try:
            assert up.returncode == 0, up.stderr
            [line] = up.stderr.splitlines()
            assert f"without metrics (the gateway cannot listen on {listen}" in line
            works(short_tmp / "run")
        finally:
            assert gmpd("down", "--now").returncode == 0
