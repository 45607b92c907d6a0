"""The clients of ``chaos.py``: forks of one process that has imported all they need.

    python loadtests/chaos_forks.py MODULE

A new interpreter takes more CPU time than what most clients do before they are killed. The process
takes lines, ``fork ARGUMENT…`` and ``reap PID``, and answers each with a number: a pid, and a
status as ``os.waitpid`` gives it. A client that has ended keeps its pid until it is reaped, so no
signal reaches another process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class Fork:
    """One of them, as ``subprocess.Popen`` has it."""

    def __init__(self, forker: Forker, pid: int) -> None:
        self._forker = forker
        self._handle = os.pidfd_open(pid)
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended; None if it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """How it ended. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a client", timeout)
            self.returncode = os.waitstatus_to_exitcode(self._forker.ask("reap", self.pid))
            os.close(self._handle)
        return self.returncode

    def send_signal(self, sign: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, sign)

    def kill(self) -> None:
        """As ``Popen.kill``."""
        self.send_signal(signal.SIGKILL)


class Forker:
    """Starts them. ``module`` has a function ``client`` of the arguments."""

    def __init__(self, module: str, env: dict[str, str], place: Path, log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__, module], env=env, cwd=place,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, bufsize=1,
            )  # fmt: skip

    def ask(self, *words: object) -> int:
        """One line there, and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        return int(self._process.stdout.readline())

    def fork(self, *args: str) -> Fork:
        """One more."""
        return Fork(self, self.ask("fork", *args))

    def close(self) -> None:
        """All of them have ended. May be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def main(module: str) -> None:
    """Fork and reap as asked, until the end of the input."""
    client: Callable[..., object] = importlib.import_module(module).client
    gc.freeze()
    while line := sys.stdin.readline():
        word, *args = line.split()
        if word == "reap":
            print(os.waitpid(int(args[0]), 0)[1], flush=True)
            continue
        pid = os.fork()
        if not pid:
            os._exit(_run(client, args))
        print(pid, flush=True)


def _run(client: Callable[..., object], args: list[str]) -> int:
    try:
        faulthandler.enable()
        for number in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        client(*args)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
