"""The error of a pool that is broken. Imported only when there is one, with multiprocessing."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from gmpd.errors import DaemonUnreachable


class BrokenPool(BrokenProcessPool, DaemonUnreachable):
    """Nothing runs in an ``Executor`` any more: its initializer failed, its daemon or its workers
    are gone. It is an error of a process pool for programs that expect one, and one of gmpd."""
