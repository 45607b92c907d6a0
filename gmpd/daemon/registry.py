"""The functions that the daemon's modules declare, as its workers report them.

Its counterpart in workers is ``declared``.
"""

from __future__ import annotations

from gmpd import protocol


class Registry:
    """By name (``module:function``). The report of the newest worker counts: all import the same
    modules, which may have changed since the last one started."""

    def __init__(self) -> None:
        self.functions: dict[str, protocol.Declaration] = {}

    def reported(self, declared: list[protocol.Declaration]) -> None:
        """A worker has imported the modules."""
        self.functions = {each.name: each for each in declared}
