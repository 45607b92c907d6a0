"""The Python versions that gmpd was tested on, and its treatment of others.

A newer version is used, with one warning: a private name that it lacks is refused by that name
where it is needed (``runtime.internals``). One without the GIL is refused, since a P's right to run
Gs is the GIL by another name: ARCHITECTURE lists the places that rely on it.
"""

from __future__ import annotations

import logging
import sys

from gmpd.errors import UnsupportedPython

#: The oldest and the newest minor version that all tests were run on.
OLDEST, NEWEST = (3, 11), (3, 15)

log = logging.getLogger("gmpd")

_told = False


def running() -> str:
    """The version of this interpreter, in words."""
    return ".".join(map(str, sys.version_info[:3]))


def has_gil() -> bool:
    """Whether one thread runs Python at a time. It can be off since 3.13, in builds made for it."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def untried() -> str:
    """The warning about this interpreter if it is newer than any that was tried; else ""."""
    if sys.version_info[:2] <= NEWEST:
        return ""
    return (
        f"Python {running()} is newer than {NEWEST[0]}.{NEWEST[1]}, the newest that this gmpd was "
        "tested on: gmpd continues, and names internals of Python that it finds missing"
    )


def without_gil() -> str:
    """The sentence that refuses an interpreter without the GIL."""
    return (
        f"gmpd needs the GIL, which is switched off in this Python {running()}: "
        "switch it on with PYTHON_GIL=1 in the environment, or start it as python -X gil=1"
    )


def require() -> None:
    """Refuse an interpreter that gmpd cannot be right on; whatever starts anything calls this."""
    if not has_gil():
        raise UnsupportedPython(without_gil())


def welcome() -> None:
    """``require``, and tell of an untried version, once in a process. Workers do not: they are
    many, and their daemon has told.
    """
    global _told
    require()
    if not _told and (words := untried()):
        _told = True
        log.warning(words)
