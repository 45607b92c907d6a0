"""Whether a worker's process can still serve its jobs: open a file, start a thread, be watched by
sysmon, import, and call what every program calls; and whether it has grown too large.

A resource that one job leaks is missing for all later ones. A worker that finds itself unfit
retires: it claims no more leases, ends its begun jobs, and is replaced.

It is checked when a job failed for lack of a resource, and every 250 ms while there is work; a
check takes a few system calls. It does not know jobs.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: Descriptors that must be free below the limit: a job that opens a connection has a few.
FILES_SPARE = 16

_WANTS = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
#: Jobs cannot do without these. A library may put another function into their place, which serves:
#: it is only seen whether there is something to call.
_CALLED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (asyncio, ("sleep", "gather", "wait_for", "create_task", "get_running_loop", "run")),
    (asyncio, ("Future", "Task", "Event", "Lock", "Queue")),
    (threading, ("Thread", "Lock", "Event", "current_thread")),
    (time, ("sleep", "time", "monotonic")),
    (os, ("open", "read", "write", "getpid")),
    (builtins, ("__import__", "__build_class__", "open", "print", "len", "isinstance", "getattr")),
)
_PAGE = resource.getpagesize()


class Fitness:
    """``sysmon`` is its thread, once there is one; ``memory`` in bytes and ``calls`` in jobs that
    may begin, 0: not limited. A worker that is larger than that is fit, and wants a successor."""

    def __init__(
        self, sysmon: Callable[[], threading.Thread | None], memory: int, calls: int
    ) -> None:
        self._sysmon = sysmon
        self._memory = memory
        #: Jobs that may still begin, if they are limited.
        self.calls_left = calls

    def flaw(self) -> str:
        """The fault, in words; empty when there is none."""
        return self._files() or self._watch() or _python()

    def _files(self) -> str:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # the lowest that is free
        except OSError as error:
            return f"it can open no file ({error.strerror}): a job has left too many open"
        os.close(fd)
        if limit != resource.RLIM_INFINITY and fd >= limit - FILES_SPARE:
            return f"{fd} of {limit} descriptors are open: a job has left too many open"
        return ""

    def _watch(self) -> str:
        thread = self._sysmon()
        if thread is not None and not thread.is_alive():
            return "its sysmon has died, so a job that blocks would keep all others waiting"
        return ""

    def excess(self) -> str:
        """How much too large it is, in words; once."""
        if not self._memory:
            return ""
        with open("/proc/self/statm", "rb") as statm:
            used = int(statm.read().split()[1]) * _PAGE
        if used <= self._memory:
            return ""
        limit, self._memory = self._memory, 0
        return f"it uses {used >> 20} MB of memory, recycle.memory is {limit >> 20} MB"


def _python() -> str:
    if sys.modules.get("sys") is not sys or __name__ not in sys.modules:
        return "a job has emptied sys.modules, so imports fail"
    if not sys.path or not sys.meta_path or not sys.path_hooks:
        return "a job has emptied sys.path, sys.meta_path or sys.path_hooks, so no module is found"
    for module, names in _CALLED:
        for name in names:
            if not callable(getattr(module, name, None)):
                return f"a job has replaced {module.__name__}.{name}"
    return ""


def is_want(error: BaseException) -> bool:
    """Whether a job may have failed because its process lacks something; children of a wrapper
    (``raise … from``) count."""
    seen = 0
    each: BaseException | None = error
    while each is not None and seen < 10:
        if isinstance(each, OSError) and each.errno in _WANTS:
            return True
        if isinstance(each, MemoryError):
            return True
        if isinstance(each, RuntimeError) and "start new thread" in str(each):
            return True
        each, seen = each.__cause__ or each.__context__, seen + 1
    return False


def no_thread() -> str:
    """Why no thread can be started, if so."""
    try:
        thread = threading.Thread(target=int, name="gmpd-fitness", daemon=True)
        thread.start()
    except RuntimeError as error:
        return f"it can start no thread ({error}): a job has left too many, or the limit is low"
    thread.join()
    return ""
