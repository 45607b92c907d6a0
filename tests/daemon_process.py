"""A daemon as tests of its surroundings start it: a process, in a short directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Self

from gmpd import rundir
from gmpd.errors import DaemonUnreachable
from tests.support import wait_until

ROOT = Path(__file__).parents[1]


#: What `gmpd serve` does, without the command line.
SERVE = "from gmpd.config import Config; from gmpd.daemon.serve import serve; serve(Config.load())"


class Daemon:
    """A daemon of two Ps with the functions of the load tests and a gateway on a free port."""

    #: In its directory, the file of its standard error; empty: that is the test's.
    LOG = ""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": str(directory),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__LISTEN": "127.0.0.1:0",
            "GMPD_DAEMON__PROCS": "2",
            "GMPD_DAEMON__IMPORTS": "loadtests.jobs",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        with (directory / self.LOG).open("ab") if self.LOG else nullcontext() as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE], env=self.env, cwd=directory,
                stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        self.url = ""

    def wait_ready(self) -> Self:
        """Until the gateway says that jobs are taken."""
        self.url = wait_until(self._http, "the daemon says where it is", timeout=30) or ""
        wait_until(self._is_ready, "the daemon is ready", timeout=30)
        return self

    def _http(self) -> str | None:
        assert self.process.poll() is None, f"gmpd serve ended with {self.process.returncode}"
        try:
            return rundir.read_discovery(self.directory).http
        except DaemonUnreachable:
            return None

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz").startswith("ready")
        except urllib.error.URLError:
            return False

    def get(self, path: str) -> str:
        """The body of the gateway's answer; URLError when its status is not 200."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()  # since 3.15 its file warns when it is left open
            raise

    def close(self) -> None:
        """Drain it, as systemd would."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise AssertionError("the daemon did not drain within 20 s") from None
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
