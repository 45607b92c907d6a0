"""Repairs the state that a process inherits from its starter, in one place.

Any program starts gmpd's processes, from any thread, at any moment of its life, and a process
inherits more than its command line: signals that are ignored or blocked, descriptors, limits, a
umask, timers, a directory that may be gone, variables that change how Python runs. Each of gmpd's
processes calls ``settle`` first. The settings that it puts aside belong to jobs; workers give them
back (``restore``).

Left as it is, because it was meant: niceness and scheduling class, affinity, cgroup, hard
limits, SIGHUP and SIGINT that are ignored (``nohup``, ``&`` of a shell).

It knows nothing of daemons and workers.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

#: Ignored by Python itself, or by people on purpose.
_MAY_BE_IGNORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP})

#: Soft limits that are raised as far as they may be. A daemon lives long, so its CPU time grows; it
#: has a descriptor for each peer, and libzmq aborts the process when accept() finds none left.
_RAISED = (
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
)

#: The stack that threads get: what Linux gives by default. A tiny limit crashes them in the first
#: deep recursion; a huge one reserves that much address space for each.
STACK_BYTES = 8 << 20
_STACK_BYTES_MIN, _STACK_BYTES_MAX = 1 << 20, 64 << 20

#: Variables that are for a program and its jobs, and that gmpd's own code must not run under:
#: warnings as errors fail an import, INSPECT turns the end of a process into a prompt, the others
#: write much to standard error.
_PUT_ASIDE = (
    "PYTHONWARNINGS",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "PYTHONVERBOSE",
    "PYTHONDEBUG",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONDUMPREFS",
)
#: In the environment of a process of gmpd: what was taken out of it, as JSON. (No ``GMPD_``: those
#: are settings.)
ASIDE = "_GMPD_PUT_ASIDE"

#: The kernel ends a worker before the coordinator, which has the jobs of all clients.
_OOM_MORE = 100
_OOM_MAX = 1000


@dataclass(frozen=True)
class Inherited:
    """Settings for jobs, not for gmpd's own code."""

    umask: int = 0o022
    variables: Mapping[str, str] = field(default_factory=dict)


_settled: Inherited | None = None


def settle() -> Inherited:
    """Make this process sane; on its main thread, before anything else. Once or often."""
    global _settled
    if _settled is None:
        open_missing()
        _unblock_output()
        _settle_signals()
        _raise_limits()
        _stand_somewhere()
        before = os.umask(0o077)
        # A umask that hides files from their own author is a mistake.
        _settled = Inherited(before & ~0o700, _variables_aside(os.environ))
    return _settled


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` for a process of gmpd: without what its own code must not run under."""
    env = dict(base)
    aside = _variables_aside(env)
    if aside:
        import json  # not for every `gmpd --help`

        env[ASIDE] = json.dumps(aside)
    return env


def _variables_aside(env: MutableMapping[str, str]) -> dict[str, str]:
    """Take them out of ``env``."""
    found = {}
    if text := env.pop(ASIDE, ""):
        import json  # not for every `gmpd --help`

        found = dict(json.loads(text))
    found |= {name: env.pop(name) for name in _PUT_ASIDE if name in env}
    if found and env is os.environ:
        warnings.resetwarnings()
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
    return found


def restore(inherited: Inherited, options: Sequence[str] = ()) -> None:
    """In a worker that has imported all of gmpd: jobs run as their program would. ``options``: its
    ``sys.warnoptions``, where these are known."""
    os.umask(inherited.umask)
    os.environ.update(inherited.variables)
    if options:
        sys.warnoptions[:] = options
        for option in options:
            _apply_warning(option)
    elif text := inherited.variables.get("PYTHONWARNINGS"):
        for option in text.split(","):
            _apply_warning(option)


def _apply_warning(option: str) -> None:
    """As the interpreter does it; what it would only complain about is left out."""
    parts = [part.strip() for part in option.split(":")]
    action, message, category_name, module, line = (parts + [""] * 4)[:5]
    known = ("default", "always", "ignore", "module", "once", "error")
    full = [name for name in known if action and name.startswith(action)]
    if action == "all":
        full = ["always"]
    category = _category(category_name)
    if not full or category is None or len(parts) > 5 or not (line or "0").isdecimal():
        return
    warnings.filterwarnings(
        full[0],  # type: ignore[arg-type]
        re.escape(message),
        category,
        re.escape(module) + r"\Z" if module else "",
        int(line or 0),
    )


def _category(name: str) -> type[Warning] | None:
    if not name:
        return Warning
    import builtins  # here: hardly ever

    found = getattr(builtins, name, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None


# -- descriptors ---------------------------------------------------------------------------------


def open_missing() -> None:
    """Standard descriptors that were closed: else the next file that is opened takes their place,
    and all that is printed goes into it."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def _stream(fd: int, mode: str) -> IO[str]:
    return open(fd, mode, errors="backslashreplace", closefd=False)


def _unblock_output() -> None:
    """Output that does not block raises BlockingIOError when much is printed. It is a property of
    the open file, which others share, so a new one is opened where that goes."""
    for fd in (1, 2):
        if os.get_blocking(fd):
            continue
        try:
            access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
            new = os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_APPEND)
        except OSError:  # a socket, or a pipe without reader
            os.set_blocking(fd, True)
            continue
        os.set_blocking(new, True)
        os.dup2(new, fd)
        os.close(new)


def above_standard(fd: int) -> int:
    """A duplicate of ``fd`` that is none of 0, 1, 2: to be passed on to a process that has its own
    of those. OSError when ``fd`` is not open."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


# -- signals, timers, limits, place --------------------------------------------------------------


def _settle_signals() -> None:
    """A mask of an odd thread, SIGCHLD that is ignored (then no process can be waited for), SIGTERM
    that is ignored (then nothing but SIGKILL ends it); alarms set before exec."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for number in signal.valid_signals() - _MAY_BE_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # In a background group of a terminal with `stty tostop`, what prints would be stopped.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _raise_limits() -> None:
    for limit in _RAISED:
        soft, hard = resource.getrlimit(limit)
        if soft != hard:
            with suppress(ValueError, OSError):  # more than this system gives any process
                resource.setrlimit(limit, (hard, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and not _STACK_BYTES_MIN <= soft <= _STACK_BYTES_MAX:
        want = STACK_BYTES if hard == infinite else min(STACK_BYTES, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_STACK, (want, hard))
        threading.stack_size(STACK_BYTES)


def _stand_somewhere() -> None:
    try:
        os.getcwd()
    except OSError:  # it was removed
        os.chdir("/")


def yield_memory_first() -> None:
    """When the machine is out of memory the kernel ends this process before the one that started
    it."""
    path = "/proc/self/oom_score_adj"
    with suppress(OSError, ValueError):  # not on this system
        with open(path) as file:
            score = int(file.read())
        with open(path, "w") as file:
            file.write(str(min(_OOM_MAX, score + _OOM_MORE)))
