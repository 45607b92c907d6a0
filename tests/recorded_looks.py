"""Looks at a daemon with two Ps that were recorded, for tests of `gmpd top`."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gmpd.cli.top_view import Facts, Found, Pane
from gmpd.client.stored import Attempt
from gmpd.daemon.trace_summary import FunctionSummary, Stat
from gmpd.errors import DaemonUnreachable
from gmpd.status import read

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data/top_looks.json").read_text())
#: The row of each table whose detail was recorded, too.
KEYS: dict[Pane, str] = {Pane[name]: key for name, key in RECORDED["keys"].items()}


def facts(pane: Pane, found: Found | None = None) -> Facts:
    """As ``Source.look`` gives them."""
    told = copy.deepcopy(RECORDED)
    seen = Facts(read(told["now"]), [], told["seconds"], read(told["before"]))
    if pane is Pane.FUNCTIONS:
        seen.functions = [_function(row) for row in told["functions"]]
    elif pane is Pane.GS:
        seen.gs = told["gs"]
    elif pane is Pane.JOBS:
        seen.jobs = told["jobs"]
    elif pane is Pane.FAILURES:
        seen.failures = told["failures"]
    if found is not None:
        seen.picture, seen.asked = told["picture"], found
        seen.told = told["told"].get(found.pane.name)
        if found.pane is Pane.JOBS and found.key == KEYS[Pane.JOBS]:
            info, story = seen.told
            seen.told = info, [Attempt(*row) for row in story]
    return seen


def _function(row: dict[str, Any]) -> FunctionSummary:
    ways = {way: Stat(**stat) for way, stat in row.pop("ways").items()}
    return FunctionSummary(**row, ways=ways)


class RecordedLooks:
    """Gives them; ``gone`` makes the daemon unreachable. ``asked``: all questions."""

    def __init__(self) -> None:
        self.gone = False
        self.asked: list[tuple[Pane, Found | None]] = []
        #: Changes facts before they are given.
        self.change: Callable[[Facts], object] = lambda _facts: None
        #: A look waits while it is clear.
        self.answers = threading.Event()
        self.answers.set()

    def look(self, pane: Pane, seconds: float, found: Found | None = None) -> Facts:
        """As ``Source.look``."""
        self.asked.append((pane, found))
        self.answers.wait(30)
        if self.gone:
            raise DaemonUnreachable("no daemon in /run/gmpd: start one with `gmpd up`")
        seen = facts(pane, found)
        self.change(seen)
        return seen
