"""A Dask cluster of this machine, by its commands: a scheduler, and workers that are hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.jobs_hosts import NAME
from tests.support import wait_until

ROOT = Path(__file__).parents[1]
#: Dask's own settings: quick to notice what has gone.
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s",
    "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "dask: %(message)s",
    "DASK_LOGGING__DISTRIBUTED": "error",
}


class DaskCluster:
    """``directory``: of its files. Each host has an address, directory and daemon of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.scheduler_file = directory / "scheduler.json"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._start_scheduler("0")
        self.address = wait_until(self._address, "the scheduler serves")

    def _start_scheduler(self, port: str) -> subprocess.Popen[bytes]:
        return self._start(
            "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard",
            "--scheduler-file", str(self.scheduler_file),
        )  # fmt: skip

    def restart_scheduler(self) -> None:
        """Another one at the same address, after the first was killed."""
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler_file.unlink()
        self.scheduler = self._start_scheduler(self.address.rpartition(":")[2])
        wait_until(self._address, "the scheduler serves again")

    def _address(self) -> str:
        try:
            return str(json.loads(self.scheduler_file.read_text())["address"])
        except (OSError, ValueError, KeyError):
            return ""

    def _start(self, *words: str, name: str = "") -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            **SETTINGS,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "loadtests")]),
            NAME: name,
        }
        dask = Path(sys.executable).with_name("dask")
        return subprocess.Popen([str(dask), *words], cwd=ROOT, env=env)

    def add(self, name: str, n: int, cores: int = 2) -> None:
        """A host at 127.0.0.``n``."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        self.workers[name] = self._start(
            "worker", self.address, "--host", f"127.0.0.{n}", "--nthreads", str(cores),
            "--no-nanny", "--no-dashboard", "--local-directory", str(place), "--name", name,
            name=name,
        )  # fmt: skip

    def close(self) -> None:
        for process in [*self.workers.values(), self.scheduler]:
            process.kill()
        for process in [*self.workers.values(), self.scheduler]:
            process.wait()
