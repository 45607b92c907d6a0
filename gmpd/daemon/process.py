"""The process around a worker: pinned, ended with the coordinator, deaf to the terminal."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from gmpd import codec, cpus, inherited, rundir, spans
from gmpd.daemon import output
from gmpd.interpreter import jobs_path

#: The end of a worker waits for exporters of spans for this time at most (s).
SPANS_S = 2.0


def settle_process(settings: dict[str, Any]) -> None:
    """Give this process the core, signals, directory and variables that a worker has."""
    end_with_parent(settings["parent"])
    # Ctrl-C is the client's and the coordinator's. Not SIG_IGN: what jobs start would inherit that.
    signal.signal(signal.SIGINT, _leave_alone)
    # The coordinator writes a trace of all workers.
    signal.signal(signal.SIGUSR2, lambda *_: os.kill(settings["parent"], signal.SIGUSR2))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if settings["core"] is not None:
        cpus.pin(settings["core"])
    inherited.yield_memory_first()
    if settings["cwd"]:
        try:
            os.chdir(settings["cwd"])
        except OSError as error:
            where = f"in / and not in {settings['cwd']!r}: {error.strerror}"
            print(f"gmpd worker P{settings['p']}: jobs run {where}", file=sys.stderr)  # noqa: T201
            os.chdir("/")
    sys.path[:] = jobs_path(sys.path, settings["sys_path"])
    codec.load_formatter()
    os.environ[rundir.AROUND] = settings["client_endpoint"]
    aside = inherited.Inherited(settings["umask"], settings["variables"])
    inherited.restore(aside, settings["warnings"])


def leave(code: int) -> NoReturn:
    """End this process, once what was printed, logged and traced is on its way."""
    output.flush()
    spans.flush(SPANS_S)
    # Threads that block for ever in a job must not keep the process: it ends here.
    os._exit(code)


def _leave_alone(number: int, frame: object) -> None:
    pass


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when the one that started it ends."""
    import ctypes  # only here; prctl has no other door in the standard library

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)
