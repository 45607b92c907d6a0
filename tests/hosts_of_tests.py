"""A daemon with hosts on this machine, each a process with a daemon of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.futures import JobFuture
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from tests import jobs_hosts as jobs
from tests.durable_daemon import Daemon
from tests.jobs_hosts import NAME
from tests.support import wait_until

ROOT = Path(__file__).parents[1]
#: A host serves after two starts of an interpreter, one after the other.
JOIN_S = 90.0
ENGINE = "tests.loopback_engine:LoopbackEngine"


class Hosts:
    """Host processes below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, cores: int = 2, **variables: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), NAME: name, **variables}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.loopback_engine", str(self.directory), name, str(cores)],
            cwd=ROOT, env=env, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def cut(self, name: str) -> None:
        """Nothing reaches it, and nothing comes back."""
        (self.directory / f"{name}.cut").touch()

    def join(self, name: str) -> None:
        (self.directory / f"{name}.cut").unlink()

    def leave(self, name: str) -> None:
        """It says that it is about to end."""
        (path,) = self.directory.glob(f"{name}-*.sock")
        path.with_suffix(".leaves").touch()

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        for path in self.directory.iterdir():
            path.unlink()


@contextmanager
def daemon(directory: Path, *, procs: int = 1, lease: str = "2s", **flags: Any) -> Iterator[Target]:
    """A private daemon whose engine finds hosts in a directory."""
    wanted = {
        "daemon.procs": procs,
        "daemon.log_level": "warning",
        "cluster.engine": ENGINE,
        "cluster.address": str(directory),
        "cluster.lease": lease,
    }
    more = {name.replace("__", "."): value for name, value in flags.items()}
    config = Config.load(flags=wanted | more, env={}, files=())
    # Its watcher and bridges import the engine, so a path of jobs is not enough.
    private = PrivateDaemon(config, env={"PYTHONPATH": str(ROOT)})
    try:
        yield Target.of(private.endpoint, config)
    finally:
        private.close()


def rows(client: gmpd.Client) -> dict[str, dict[str, Any]]:
    """The hosts as the daemon shows them, by name."""
    return {row["name"]: row for row in client.call("cluster")["hosts"]}


def await_hosts(client: gmpd.Client, *names: str) -> None:
    """All of these serve."""

    def serve() -> bool:
        known = rows(client)
        return all(name in known and known[name]["state"] in ("idle", "running") for name in names)

    wait_until(serve, f"hosts {names} serve", timeout=JOIN_S)


def begun_at(client: gmpd.Client, path: Path, **options: object) -> JobFuture:
    """A job that hangs on a host, once it has begun there."""
    for _ in range(10):
        path.write_text("")
        client.submit(time.sleep, 2.0)  # the P of this machine is busy
        future = client.options(**options).submit(jobs.note_and_hang, str(path))
        wait_until(lambda: "\n" in path.read_text(), "the job has begun")
        if len(path.read_text().split()) > 1:
            return future
    raise AssertionError("no job has begun on a host")


def host_of(path: Path) -> str:
    return path.read_text().split()[1]


@contextmanager
def daemon_and_host(short_tmp: Path, lease: str, cores: int = 2) -> Iterator[tuple[Daemon, Hosts]]:
    """A daemon that is a process, and the host ``north``. ``lease``: ``cluster.lease``."""
    place = short_tmp / "hosts"
    place.mkdir()
    hosts = Hosts(place)
    hosts.start("north", cores=cores)
    with Daemon(
        short_tmp,
        GMPD_CLUSTER__ENGINE=ENGINE,
        GMPD_CLUSTER__ADDRESS=str(place),
        GMPD_CLUSTER__LEASE=lease,
    ) as server:
        await_hosts(server.client(), "north")
        yield server, hosts
    hosts.close()
    place.rmdir()
