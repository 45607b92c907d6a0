"""`gmpd` as people call it: a process for each call, in a short directory of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import surroundings

Done = subprocess.CompletedProcess[str]


class Shell:
    """Calls of `gmpd` that share a runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {
            **surroundings(),
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "PYTHONPATH": f"{Path(__file__).parents[1]}:{directory}",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", *words],
            env=self.env, cwd=self.directory, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str = "") -> Done:
        return subprocess.run(
            [sys.executable, "-m", "gmpd.cli", *words],
            env=self.env, cwd=self.directory, input=stdin,
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    def python(self, *words: str) -> Done:
        """A program, by the same interpreter."""
        return subprocess.run(
            [sys.executable, *words],
            env=self.env, cwd=self.directory,
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    def limited(self, limit: str, *words: str) -> Done:
        """The same under a limit of the shell's, such as ``-f 0``: every disk is full."""
        line = f'ulimit {limit} && exec "$0" "$@"'
        return subprocess.run(
            ["bash", "-c", line, sys.executable, "-m", "gmpd.cli", *words],
            env=self.env, cwd=self.directory,
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip


@contextmanager
def shell_daemon(directory: Path, jobs: str, *, procs: int = 2, **env: str) -> Iterator[Shell]:
    """A daemon whose workers find ``jobs`` as the module ``load``."""
    (directory / "load.py").write_text(jobs)
    shell = Shell(directory)
    shell.env |= env
    up = shell("up", "--procs", str(procs))
    assert up.returncode == 0, up.stderr
    try:
        yield shell
    finally:
        down = shell("down", "--now")
    assert down.returncode == 0, down.stderr
