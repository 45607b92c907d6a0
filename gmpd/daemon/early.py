"""Workers of a private daemon that start before the coordinator does.

Coordinator and workers need a tenth of a second each to import their modules. Started one after the
other, that is a third of the time to a first result; a worker that was started early imports beside
the coordinator, and waits on standard input for its settings. So this module imports little: none
of the configuration, of the wire or of ZeroMQ.

A worker whose input ends without settings exits: the daemon did not start, or needs fewer.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple, TypeAlias

from gmpd import interpreter
from gmpd.compiled import VARIABLE

WORKER = "gmpd.daemon.worker"
#: Prefixes of variables that are the daemon's own: a job must not take them for its client's.
_SETTINGS = ("GMPD_", "NOTIFY_", "WATCHDOG_")


class Forked:
    """A child of this process that another one has forked for it (``template``), as Popen shows
    its own. ``pid`` is 0 until it is known."""

    def __init__(self, stdin: IO[bytes]) -> None:
        self.pid = 0
        self.stdin: IO[bytes] | None = stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status once it has ended."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int | None:
        """As Popen's."""
        return self._collect(0)

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # another wait took its status
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


Process: TypeAlias = subprocess.Popen[bytes] | Forked


class Started(NamedTuple):
    """A process that waits for its settings, and the memory that it will share with the
    coordinator: still empty, and inherited by the process under the same number."""

    process: Process
    memory: int


def start(program: str, name: str, options: Sequence[str], stdout: int | None) -> Started:
    """Start a worker's interpreter. ``name``: of its memory. ``stdout``: the descriptor on which
    jobs print; None: the daemon's standard error, as its own output is for its starter.

    Raises OSError when the system has no process or descriptor to give.
    """
    memory = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        process = subprocess.Popen(
            interpreter.command(program, str(memory), options=options),
            stdin=subprocess.PIPE,
            stdout=2 if stdout is None else stdout,
            pass_fds=(memory,),
            env=environment(),
            process_group=0,
        )
    except BaseException:
        os.close(memory)
        raise
    return Started(process, memory)


def environment() -> dict[str, str]:
    """The environment for a process of the daemon, without the daemon's own settings."""
    return {k: v for k, v in os.environ.items() if k == VARIABLE or not k.startswith(_SETTINGS)}


class EarlyWorkers:
    """Workers that were started, by the number of their P, until they are taken."""

    def __init__(self) -> None:
        self._started: dict[int, Started] = {}

    def start(self, settings: Mapping[str, Any]) -> None:
        """Start as many as there are cores and as many as the settings of a private daemon ask for.
        What is wrong with them, or with the machine, is for the daemon to find."""
        asked = settings["config"].get("daemon", {}).get("procs")
        cores = len(os.sched_getaffinity(0))
        with suppress(OSError):
            for p in range(min(asked, cores) if type(asked) is int and asked > 0 else cores):
                self._started[p] = start(
                    WORKER, name_of(p), settings.get("options", ()), settings.get("stdout")
                )

    def take(self, p: int) -> Started | None:
        """The worker of a P, once; None if there is none, or it has ended."""
        started = self._started.pop(p, None)
        if started is not None and started.process.poll() is not None:
            drop(started)
            return None
        return started

    def dismiss(self, first: int = 0) -> None:
        """End those that were not taken, of this P and higher ones."""
        for p in [p for p in self._started if p >= first]:
            drop(self._started.pop(p))


def drop(started: Started) -> None:
    """It is not needed."""
    os.close(started.memory)
    end(started.process)


def end(process: Process) -> None:
    """End a worker that has no settings yet, and wait for its end."""
    assert process.stdin is not None
    process.stdin.close()
    kill_group(process.pid)
    process.wait()


def kill_group(pid: int) -> None:
    """End a process and all that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # no process is left in it


def name_of(p: int) -> str:
    """The name of the memory of a P's worker."""
    return f"gmpd-p{p}"
