"""Under ``gmpd serve --watch``: tells when a file that workers have imported has changed.

It asks for the times of those files a few times a second. That finds changes on network and
container mounts, which send no events, it needs no library and no thread, and files beside them,
such as an editor's temporary ones, do not matter. A change counts when the file has not changed
any further since the look before: an editor writes in steps.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from typing import TypeAlias

from gmpd.daemon.deadlines import Deadlines

#: Between two looks (ns); and while a change is not yet complete.
LOOK_NS = 200_000_000
SETTLE_NS = 80_000_000

#: Time, size and inode; None: the file is not there.
State: TypeAlias = tuple[int, int, int] | None


def state_of(path: str) -> State:
    """The state of a file now."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


class Watch:
    """``read`` gives the state of a file. Knows no clock and no worker."""

    def __init__(self, read: Callable[[str], State] = state_of) -> None:
        self._read = read
        #: As they were when they were last reported to have changed.
        self._known: dict[str, State] = {}
        #: Changed, and as they were at the last look.
        self._unsettled: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, paths: Iterable[str]) -> None:
        """Workers have imported these."""
        for path in paths:
            if path not in self._known:
                self._known[path] = self._read(path)

    def look(self) -> list[str]:
        """The files that have changed, once they rest."""
        unsettled: dict[str, State] = {}
        settled = True
        for path, known in self._known.items():
            now = self._read(path)
            if now != known:
                unsettled[path] = now
                settled = settled and self._unsettled.get(path, known) == now
        self._unsettled = unsettled
        if not unsettled or not settled:
            return []
        self._known.update(unsettled)
        self._unsettled = {}
        return sorted(unsettled)

    @property
    def pause_ns(self) -> int:
        """Until the next look."""
        return SETTLE_NS if self._unsettled else LOOK_NS


class SourceWatch:
    """Has ``Watch`` look, and calls ``changed`` with the reason and the time (ns) when files have
    changed."""

    def __init__(self, deadlines: Deadlines, changed: Callable[[str, int], None]) -> None:
        self._watch = Watch()
        self._changed = changed
        self._deadline = deadlines.new(self._due)

    def add(self, paths: Iterable[str]) -> None:
        """Workers have imported these."""
        self._watch.add(paths)
        if self._deadline.at is None:
            self._deadline.now()

    def _due(self, now: int) -> None:
        if changed := self._watch.look():
            drop_bytecode(changed)
            more = f" and {len(changed) - 1} more have" if len(changed) > 1 else " has"
            self._changed(f"{changed[0]}{more} changed", now)
        self._deadline.set(now + self._watch.pause_ns)


def drop_bytecode(paths: Iterable[str]) -> None:
    """Remove the compiled forms of changed files: Python takes one for current if time, in whole
    seconds, and size are those of the file."""
    for path in paths:
        try:
            os.unlink(importlib.util.cache_from_source(path))
        except (OSError, NotImplementedError):
            pass  # there is none
