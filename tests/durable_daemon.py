"""A daemon for tests of durable jobs: it can be killed, and there is a next one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import gmpd
from gmpd.errors import DaemonUnreachable
from tests.failpoints import ARMED, MOMENTS
from tests.support import wait_until

ROOT = Path(__file__).parents[1]


def words(record: str) -> list[str]:
    """The words that jobs have noted in a file so far."""
    return Path(record).read_text().split() if Path(record).exists() else []


class Daemon:
    """`gmpd serve` with one P; ``kill`` ends it as a power cut would, ``start`` is the next one."""

    def __init__(self, directory: Path, *, failpoints: bool = False, **env: str) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_DAEMON__PROCS": "1",
            "PYTHONPATH": f"{ROOT}:{directory}",
            **env,
        }
        if failpoints:
            self.env[ARMED] = str(directory / "armed")
            (directory / "sitecustomize.py").write_text(
                "import sys\nif 'serve' in sys.orig_argv:\n"
                "    from tests import failpoints\n    failpoints.install()\n"
            )
        self.clients: list[gmpd.Client] = []
        self.start()

    def start(self, *flags: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = self._serve(log, flags)

    def _serve(self, log: IO[bytes], flags: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gmpd.cli", "serve", *flags]
        return subprocess.Popen(
            command, env=self.env, cwd=self.directory,
            stdout=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip

    def client(self, **how: Any) -> gmpd.Client:
        """A new client, once the daemon takes one."""

        def connected() -> gmpd.Client | None:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            try:
                return gmpd.Client(str(self.directory / "run"), **how)
            except DaemonUnreachable:
                return None

        client = wait_until(connected, "the daemon takes clients", timeout=60)
        assert client is not None
        self.clients.append(client)
        return client

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line."""
        return subprocess.run(
            [sys.executable, "-m", "gmpd.cli", *words], env=self.env, cwd=ROOT,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str, str]:
        """A command: its exit code, and what it printed, without the line's end."""
        done = self.cli(*words)
        return done.returncode, done.stdout.strip(), done.stderr

    def end(self) -> int:
        """In order; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill_at(self, moment: str) -> None:
        """It dies when it comes to this moment: see ``tests.failpoints``."""
        assert moment in MOMENTS
        (self.directory / "armed").write_text(moment)

    def kill(self) -> None:
        """Without a word to its clients."""
        self.process.kill()
        self.process.wait(30)

    def restart(self) -> gmpd.Client:
        self.kill()
        self.start()
        return self.client()

    def close(self) -> None:
        for client in self.clients:
            client.close(wait=False)
        if self.process.poll() is None:
            self.end()
        shutil.rmtree(self.directory / "run", ignore_errors=True)  # of one that was killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(procs: int) -> Iterator[Daemon]:
    """A daemon for all tests of a module, and its first client."""
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as directory:
        with Daemon(Path(directory), GMPD_DAEMON__PROCS=str(procs)) as daemon:
            daemon.client()  # before the first test, to which its processes would belong
            yield daemon
