"""How gmpd starts another interpreter, and where jobs in it look for modules.

A ``random.py`` in a program's current directory must not become a part of the daemon that it
starts. So nothing is looked up there until all that gmpd itself needs has been imported. It does
not know which programs are started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gmpd import inherited

#: Where installed packages live, by the name of the directory (Debian has its own).
_INSTALLED = ("site-packages", "dist-packages")


def command(module: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    """The command line of ``python -m module words``, without the current directory (``-P``)."""
    return [sys.executable, "-P", *options, "-m", module, *words]


def options() -> list[str]:
    """Options of this interpreter that change how code runs (``-O``, ``-X`` and the like), for one
    that runs the same program's code. Not ``-W``: gmpd's own imports must not run under it."""
    found = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    found += ["-B"] if sys.flags.dont_write_bytecode else []
    found += ["-" + "b" * sys.flags.bytes_warning] if sys.flags.bytes_warning else []
    for name, value in sys._xoptions.items():
        found += ["-X", name if value is True else f"{name}={value}"]
    return found


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """``base`` (default: this process's) for such a command.

    This very gmpd is found again: one that was imported from the script's or the current directory,
    which ``-P`` leaves out, is named in PYTHONPATH.
    """
    env = inherited.environment(os.environ if base is None else base)
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = absolute(sys.path)
    if not sys.flags.safe_path and path[:1] == [home] and path.count(home) == 1:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), home)))
    return env


def jobs_path(own: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """A process's ``sys.path`` with what jobs want, too.

    What is missing comes after the standard library, which nothing may hide, and before installed
    packages, as in a program that stands there.
    """
    missing = [path for path in dict.fromkeys(wanted) if path not in own]
    at = next((i for i, path in enumerate(own) if Path(path).name in _INSTALLED), len(own))
    return [*own[:at], *missing, *own[at:]]


def current_directory() -> tuple[str, ...]:
    """The directory that this process stands in; empty when it was removed."""
    try:
        return (os.getcwd(),)
    except OSError:
        return ()


def absolute(paths: Sequence[str]) -> list[str]:
    """These paths for a process that stands elsewhere; relative ones are left out when the
    directory that this one stands in was removed."""
    base = current_directory()
    return [
        os.path.normpath(os.path.join(*base, path)) for path in paths if base or os.path.isabs(path)
    ]
