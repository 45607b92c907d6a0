"""A Ray cluster of this machine, by its command: a head without cores, and nodes that are hosts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.jobs_hosts import NAME
from tests.support import wait_until

ROOT = Path(__file__).parents[1]
#: Three interpreters start for a head, and two for a node.
START_S = 90.0
#: Ray's own settings: quick to notice what has gone.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
WORDS = (
    "--object-store-memory", "80000000", "--include-log-monitor", "false",
    # Any port: the range that Ray has by default contains those that this machine gives out.
    "--min-worker-port", "0", "--max-worker-port", "0", "--block",
)  # fmt: skip


class RayCluster:
    """``directory``: of its files. Each host has a directory and daemon of its own.
    ``head_cores``: CPUs of the node on which it begins."""

    engine = "ray"

    def __init__(self, directory: Path, head_cores: int = 0) -> None:
        self.directory = directory
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        port, client_port = _free_port(), _free_port()
        self.head = self._start(
            "head", "--head", "--port", str(port), "--ray-client-server-port", str(client_port),
            "--num-cpus", str(head_cores), "--include-dashboard", "false",
        )  # fmt: skip
        # Ray takes the address of this machine in its network where it is told 127.0.0.1.
        node = self._await("head", "Local node IP: ")
        self.address = f"{node}:{port}"
        self.url = f"ray://{node}:{client_port}"
        self._await("head", "Ray runtime started.")

    def name_of(self, name: str) -> str:
        """A pattern for the name of a host in texts of gmpd."""
        return rf"{name}-[0-9a-f]{{8}}"

    def _start(self, name: str, *words: str, **variables: str) -> subprocess.Popen[bytes]:
        place = self.directory / name
        place.mkdir()
        path = os.pathsep.join([str(ROOT), str(ROOT / "loadtests")])
        env = {**os.environ, **SETTINGS, "PYTHONPATH": path, NAME: name, **variables}
        ray = Path(sys.executable).with_name("ray")
        with (self.directory / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [str(ray), "start", *words, "--node-name", name, "--temp-dir", str(place), *WORDS],
                cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _await(self, name: str, words: str) -> str:
        """The rest of the line with these words in what `ray start` says."""
        process = self.head if name == "head" else self.workers[name]

        def told() -> str:
            text = (self.directory / f"{name}.log").read_text()
            assert process.poll() is None, text
            return next((line for line in text.splitlines() if words in line), "")

        line = wait_until(told, f"`ray start` of {name} says {words!r}", timeout=START_S)
        return line.partition(words)[2]

    def host(self, name: str, cores: int = 2, **variables: str) -> None:
        """A node of the cluster."""
        words = ("--address", self.address, "--num-cpus", str(cores))
        self.workers[name] = self._start(name, *words, **variables)

    def kill(self, name: str) -> None:
        """End it as a loss of power does."""
        _kill(self.workers.pop(name))

    def kill_head(self) -> None:
        _kill(self.head)

    def close(self) -> None:
        for process in [*self.workers.values(), self.head]:
            _kill(process)
        shutil.rmtree(self.directory)  # with sockets
        self.directory.mkdir()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started: they are of its session."""
    while pids := _session(process.pid):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
    process.wait()


def _session(sid: int) -> list[int]:
    """The processes of a session, without those that have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if int(session) == sid and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
