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
SETTINGS = {
    "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "dask: %(message)s",
    "DASK_LOGGING__DISTRIBUTED": "error",
}


class DaskCluster:
    """``directory``: of its files. Each host has an address, directory and daemon of its own.
    ``ttl``: the scheduler gives up a worker that is silent for so long."""

    engine = "dask"
    head = "127.0.0.1"

    def __init__(self, directory: Path, ttl: str = "10s") -> None:
        self.directory = directory
        self._ttl = ttl
        self.scheduler_file = directory / "scheduler.json"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._start_scheduler("0")
        self.address = wait_until(self._address, "the scheduler serves")

    def _start_scheduler(self, port: str) -> subprocess.Popen[bytes]:
        return self._start(
            "scheduler", "--host", self.head, "--port", port, "--no-dashboard",
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

    def address_of(self, n: int) -> str:
        """Where host ``n`` is."""
        return f"127.0.0.{n}"

    def within(self, name: str) -> list[str]:
        """The command that runs another one on a host."""
        return []

    def _start(self, *words: str, name: str = "") -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            **SETTINGS,
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": self._ttl,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "loadtests")]),
            NAME: name,
        }
        dask = Path(sys.executable).with_name("dask")
        before = self.within(name) if name else []
        return subprocess.Popen([*before, str(dask), *words], cwd=ROOT, env=env)

    def add(
        self, name: str, n: int, cores: int = 2, words: tuple[str, ...] = ("--no-nanny",)
    ) -> None:
        """Host ``n``, from 2 on. ``words``: further ones of `dask worker`."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        self.workers[name] = self._start(
            "worker", self.address, "--host", self.address_of(n), "--nthreads", str(cores),
            "--no-dashboard", "--local-directory", str(place), "--name", name, *words,
            name=name,
        )  # fmt: skip

    def close(self) -> None:
        for process in [*self.workers.values(), self.scheduler]:
            process.kill()
        for process in [*self.workers.values(), self.scheduler]:
            process.wait()
