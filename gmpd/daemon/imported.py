"""Under ``gmpd serve --watch``: a worker reports the files of the project's modules that it has
imported.

It looks at new names of ``sys.modules`` only, and reads no file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from gmpd.codec.finding import is_project
from gmpd.protocol import Imported, Message

#: Paths in one message.
PATHS_MAX = 1000


class ImportReports:
    """``send`` is called with new paths."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._seen: set[str] = set()

    def look(self) -> None:
        """Report what was imported since the last look."""
        if len(sys.modules) == len(self._seen):
            return
        new = [name for name in list(sys.modules) if name not in self._seen]
        self._seen = set(sys.modules)
        paths = [path for name in new if (path := _source_of(name)) is not None]
        for at in range(0, len(paths), PATHS_MAX):
            self._send(Imported(paths[at : at + PATHS_MAX]))


def _source_of(name: str) -> str | None:
    """The file of a module of the project, in Python."""
    if name == "gmpd" or name.startswith("gmpd."):
        return None
    file = getattr(sys.modules.get(name), "__file__", None)
    if type(file) is not str or not file.endswith(".py"):
        return None
    real = os.path.realpath(file)
    return real if is_project(real) else None
