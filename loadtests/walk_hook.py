"""In every process that ``walks.py`` starts: writes the calls of gmpd that lie between its marks.

A process loads it by ``sitecustomize``. The mark is one byte of a file that all map; a call is one
line, appended at once, since a process may be killed at any moment.
"""

from __future__ import annotations

import _thread
import mmap
import os
import sys
import threading
from types import FrameType
from typing import Any

#: Names the directory with the mark and the calls.
VARIABLE = "WALKS_DIR"
#: What runs a process, by a word of its command line.
ROLES = {
    "gmpd.daemon": "coordinator",
    "gmpd.daemon.worker": "worker",
    "gmpd.gateway": "gateway",
}
#: A comprehension or the body of a class is a part of the function around it.
PARTS = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<module>")


def mark(is_on: bool) -> None:
    """Begin or end the walk in all processes."""
    _mark()[0] = is_on


def install() -> None:
    """Follow every thread of this process, those included that no ``threading.Thread`` is."""
    role = next((ROLES[word] for word in sys.orig_argv if word in ROLES), "client")
    follow = _follower(_mark(), role)
    start = _thread.start_new_thread

    def start_followed(fn: Any, args: Any, kwargs: Any = None) -> int:
        def run(*args: Any, **kwargs: Any) -> None:
            sys.setprofile(follow)
            fn(*args, **kwargs)

        return start(run, args, kwargs or {})

    _thread.start_new_thread = _thread.start_new = start_followed
    threading._start_new_thread = start_followed  # type: ignore[attr-defined]
    sys.setprofile(follow)


def _mark() -> mmap.mmap:
    with open(os.path.join(os.environ[VARIABLE], "mark"), "r+b") as file:
        return mmap.mmap(file.fileno(), 1)


def _follower(marked: mmap.mmap, role: str) -> Any:
    path = os.path.join(os.environ[VARIABLE], "calls")
    calls = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    lines: dict[Any, bytes] = {}

    def follow(frame: FrameType, event: str, _arg: Any) -> None:
        if event != "call" or not marked[0]:
            return
        code = frame.f_code
        line = lines.get(code)
        if line is None:
            _, home, name = code.co_filename.rpartition("/gmpd/")
            is_ours = home and code.co_name not in PARTS
            text = f"{os.getpid()} {role} {name} {code.co_firstlineno} {code.co_qualname}\n"
            line = lines[code] = text.encode() if is_ours else b""
        if line:
            os.write(calls, line)

    return follow
