"""The functions that the daemon's modules declare, as its workers report them.

Its counterpart in workers is ``declared``.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from gmpd import protocol


def _nothing() -> None:
    pass


class Registry:
    """Functions by name (``module:function``). The report of the newest worker counts: all import
    the same modules, which may have changed since the last one started."""

    def __init__(self) -> None:
        #: Those that ``@gmpd.job`` marks.
        self.functions: dict[str, protocol.Declaration] = {}
        #: Those with schedules.
        self.scheduled: list[protocol.Declaration] = []
        #: Functions that the configuration schedules and no worker can import, and why.
        self.missing: dict[str, str] = {}
        #: A worker has reported: what is not here is not declared.
        self._is_complete = False
        #: Called after each report.
        self.on_report: Callable[[], None] = _nothing

    def reported(self, info: protocol.Info) -> None:
        """A worker has imported the modules."""
        if info.declared is None:
            return
        self.functions = {each.name: each for each in info.declared if each.is_job}
        self.scheduled = [each for each in info.declared if each.schedules]
        self.missing = info.missing
        self._is_complete = True
        self.on_report()

    def lacks(self, name: str) -> str:
        """Why a client of another machine cannot call this function; empty if it can, or if that is
        not known yet and the worker will tell."""
        if name in self.functions or not self._is_complete:
            return ""
        near = get_close_matches(name, self.functions, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return (
            f"this daemon registers no function {name}{hint}: only those that @gmpd.job marks in"
            " the modules of daemon.imports (`gmpd serve --import MODULE`) may be called from"
            " another machine"
        )
