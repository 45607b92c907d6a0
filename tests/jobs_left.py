"""Traces that a job leaves to the next one in its worker: each row of the guide's table as a job
that changes something, and one that looks at it."""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextvars
import decimal
import gc
import json
import locale
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="default")
LOCAL = threading.local()
FIRST = random.Random(1).random()
HELD: list[Any] = []
MODULE = sys.modules[__name__]


class Row(NamedTuple):
    """``leave`` and ``look`` may be coroutine functions. ``stays``: the next job sees it."""

    leave: Callable[[], Any]
    look: Callable[[], Any]
    stays: bool = True


def _setenv(name: str, value: str) -> None:
    os.environ[name] = value
    time.tzset()


def _start_thread() -> None:
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()


def _start_child() -> None:
    HELD.append(subprocess.Popen(["sleep", "600"]))


def _children() -> int:
    return sum(isinstance(each, subprocess.Popen) and each.poll() is None for each in HELD)


async def _start_task() -> None:
    HELD.append(asyncio.create_task(asyncio.sleep(600)))


def _tasks() -> int:
    return sum(isinstance(each, asyncio.Task) and not each.done() for each in HELD)


async def _set_handler() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)


def _handler() -> bool:
    return callable(signal.getsignal(signal.SIGUSR1))


async def _set_timer() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 600)


def _lower_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 22, hard))


def _tells(stream: str) -> bool:
    """Whether one can print there."""
    try:
        print(end="", file=getattr(sys, stream), flush=True)
    except ValueError:
        return False
    return True


def _register() -> None:
    atexit.register(int)


#: By the words of the guide's table.
ROWS = {
    "context variables": Row(lambda: VARIABLE.set("left"), VARIABLE.get, stays=False),
    "the `decimal` context": Row(
        lambda: setattr(decimal.getcontext(), "prec", 5),
        lambda: decimal.getcontext().prec,
        stays=False,
    ),
    "`sys.stdout.close()`": Row(
        lambda: sys.stdout.close(), lambda: _tells("stdout"), stays=False
    ),
    "globals and attributes of modules": Row(
        lambda: setattr(MODULE, "left", 1), lambda: hasattr(MODULE, "left")
    ),
    "patched functions": Row(
        lambda: setattr(json, "dumps", repr), lambda: json.dumps is repr
    ),
    "`builtins`": Row(
        lambda: setattr(builtins, "left", 1), lambda: hasattr(builtins, "left")
    ),
    "`sys.path`": Row(lambda: sys.path.append("/left"), lambda: "/left" in sys.path),
    "`sys.excepthook`": Row(
        lambda: setattr(sys, "excepthook", print), lambda: sys.excepthook is print
    ),
    "a stream in place of `sys.stderr`": Row(
        lambda: setattr(sys, "stderr", open(os.devnull, "w")),  # noqa: SIM115 - it is left
        lambda: sys.stderr.name,
    ),
    "`os.environ`": Row(lambda: _setenv("LEFT", "1"), lambda: os.environ.get("LEFT")),
    "the time zone": Row(lambda: _setenv("TZ", "Asia/Tokyo"), lambda: time.tzname),
    "the working directory": Row(lambda: os.chdir("/"), os.getcwd),
    "the umask": Row(lambda: os.umask(0o077), lambda: os.umask(0o077)),
    "the locale": Row(
        lambda: locale.setlocale(locale.LC_ALL, "C"), lambda: locale.setlocale(locale.LC_ALL)
    ),
    "resource limits": Row(
        _lower_limit, lambda: resource.getrlimit(resource.RLIMIT_STACK)[0]
    ),
    "niceness": Row(lambda: os.nice(1), lambda: os.nice(0)),
    "the recursion limit": Row(lambda: sys.setrecursionlimit(4321), sys.getrecursionlimit),
    "`gc.disable()`": Row(gc.disable, gc.isenabled),
    "`random.seed()`": Row(lambda: random.seed(1), lambda: random.random() == FIRST),
    "filters of `warnings`": Row(
        lambda: warnings.simplefilter("error"), lambda: warnings.filters[0][0]
    ),
    "levels and handlers of `logging`": Row(
        lambda: logging.getLogger().setLevel(1), lambda: logging.getLogger().level
    ),
    "`socket.setdefaulttimeout()`": Row(
        lambda: socket.setdefaulttimeout(3), socket.getdefaulttimeout
    ),
    "`threading.local()`": Row(
        lambda: setattr(LOCAL, "left", 1), lambda: hasattr(LOCAL, "left")
    ),
    "`sys.settrace()`": Row(
        lambda: sys.settrace(lambda *_: None), lambda: sys.gettrace() is not None
    ),
    "signal handlers": Row(_set_handler, _handler),
    "timers of `signal`": Row(
        _set_timer, lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0
    ),
    "open files and sockets": Row(
        lambda: HELD.append(socket.socket()),
        lambda: sum(isinstance(each, socket.socket) for each in HELD),
    ),
    "threads": Row(_start_thread, lambda: "left" in {t.name for t in threading.enumerate()}),
    "tasks": Row(_start_task, _tasks),
    "processes": Row(_start_child, _children),
    "functions of `atexit`": Row(_register, atexit._ncallbacks),
}  # fmt: skip


def leave(row: str) -> None:
    """As a plain job."""
    ROWS[row].leave()


async def leave_async(row: str) -> None:
    """As a coroutine: only they run on the main thread."""
    await ROWS[row].leave()


def look(row: str) -> Any:
    """As the next job sees it."""
    return ROWS[row].look()


def set_handler() -> None:
    """As a plain job, which does not run on the main thread."""
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def look_at_all() -> dict[str, Any]:
    """Every row."""
    return {name: row.look() for name, row in ROWS.items()}
