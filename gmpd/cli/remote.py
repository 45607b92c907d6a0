"""The Python stacks of a process that does not answer, by ``sys.remote_exec`` (3.14 and later).

CPython runs a file in the other process, at the next point between two bytecodes of its main
thread. So a coroutine that computes without awaiting is seen; C code that holds the GIL is not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

#: Seconds between two looks for the answer.
LOOK_S = 0.01

#: Runs in the other process, and leaves no name behind there. ``faulthandler`` reads the frames of
#: all threads in C, without making objects of them.
_SCRIPT = """
def dump():
    import faulthandler, os
    with open({partial!r}, "w") as file:
        faulthandler.dump_traceback(file)
    os.replace({partial!r}, {whole!r})
dump()
del dump
"""


def stacks_of(pid: int, timeout_s: float) -> str | None:
    """The stacks of its threads as text; None where this Python cannot, or the process does not
    reach a point between two bytecodes within ``timeout_s``.
    """
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        return None
    with tempfile.TemporaryDirectory(prefix="gmpd-stacks-") as place:
        script, whole = Path(place, "script.py"), Path(place, "stacks")
        script.write_text(_SCRIPT.format(partial=f"{whole}.part", whole=str(whole)))
        try:
            remote_exec(pid, os.fspath(script))
        except (OSError, RuntimeError, ValueError):  # not allowed, another version, or gone
            return None
        until = time.monotonic() + timeout_s
        while not whole.exists():
            if time.monotonic() > until:
                return None
            time.sleep(LOOK_S)
        return whole.read_text()
