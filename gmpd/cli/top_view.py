"""The tables of `gmpd top`: which rows there are, in which order, and the keys that change that.

It knows a status and the summaries of functions, no daemon and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from gmpd.daemon.trace_summary import EXECUTION, SCHEDULING, FunctionSummary, in_words
from gmpd.status import PStatus, Status

#: The value that a cell is sorted by, and its text.
Cell = tuple[Any, str]
Row = list[Cell]

PS_COLUMNS: Final = (
    "P", "STATE", "BUSY", "RUNQ", "STARTED", "MS", "IDLE", "JOBS/S", "STOLEN", "RUNS",
)  # fmt: skip
FUNCTION_COLUMNS: Final = ("FUNCTION", "JOBS/S", "FAILED", "NOW", "OF P", "MEAN", "P99", "WAIT")
#: The columns by which the tables are sorted at first: P, and the share of P.
_PS_SORT, _FUNCTIONS_SORT = 0, 4


class Pane(Enum):
    """The table that keys are for."""

    PS = "Ps"
    FUNCTIONS = "functions"


class Action(Enum):
    """The consequence of a key."""

    NOTHING = 0
    SHOW = 1
    QUIT = 2


@dataclass(slots=True)
class Facts:
    """Two looks at a daemon, and what its functions did in between."""

    now: Status
    functions: list[FunctionSummary]
    #: Seconds that ``functions`` covers, and since ``before``.
    seconds: float
    before: Status | None = None
    #: Why there are no functions.
    note: str = "no jobs in this time"


@dataclass(slots=True)
class View:
    """The state of the screen."""

    pane: Pane = Pane.PS
    sort: dict[Pane, int] = field(
        default_factory=lambda: {Pane.PS: _PS_SORT, Pane.FUNCTIONS: _FUNCTIONS_SORT}
    )
    #: The largest first.
    falling: dict[Pane, bool] = field(
        default_factory=lambda: {Pane.PS: False, Pane.FUNCTIONS: True}
    )
    paused: bool = False
    words: str = ""
    #: The filter is being typed.
    typing: bool = False
    helps: bool = False

    def press(self, key: str) -> Action:
        """One key: a character, or the name of another."""
        if self.typing:
            return self._type(key)
        act = _KEYS.get(key)
        if act is None:
            return Action.NOTHING
        return act(self)

    def _type(self, key: str) -> Action:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.words = False, ""
        elif key == "backspace":
            self.words = self.words[:-1]
        elif len(key) == 1 and key.isprintable():
            self.words += key
        else:
            return Action.NOTHING
        return Action.SHOW

    def move(self, by: int) -> Action:
        """Sort by the next column, or the one before."""
        columns = PS_COLUMNS if self.pane is Pane.PS else FUNCTION_COLUMNS
        self.sort[self.pane] = (self.sort[self.pane] + by) % len(columns)
        return Action.SHOW

    def turn(self) -> Action:
        """Sort the other way round."""
        self.falling[self.pane] = not self.falling[self.pane]
        return Action.SHOW

    def change_pane(self) -> Action:
        """Keys are for the other table."""
        self.pane = Pane.FUNCTIONS if self.pane is Pane.PS else Pane.PS
        return Action.SHOW

    def change(self, name: str) -> Action:
        """Pause, filter or help: on or off."""
        setattr(self, name, not getattr(self, name))
        return Action.SHOW

    def clear(self) -> Action:
        """No filter, no help."""
        self.words, self.helps = "", False
        return Action.SHOW


_KEYS: Final[dict[str, Callable[[View], Action]]] = {
    "q": lambda _view: Action.QUIT,
    " ": lambda view: view.change("paused"),
    "p": lambda view: view.change("paused"),
    "/": lambda view: view.change("typing"),
    "?": lambda view: view.change("helps"),
    "i": View.turn,
    "t": View.change_pane,
    "tab": View.change_pane,
    "l": lambda view: view.move(1),
    "s": lambda view: view.move(1),
    "right": lambda view: view.move(1),
    "h": lambda view: view.move(-1),
    "left": lambda view: view.move(-1),
    "escape": View.clear,
}
#: The keys in words.
HELP: Final = (
    ("q", "quit"),
    ("space", "pause, continue"),
    ("left right, h l", "sort by another column"),
    ("i", "invert the order"),
    ("t, tab", "keys for the other table"),
    ("/", "filter functions by a part of their names; Enter keeps it, Esc ends it"),
    ("?", "this help"),
)


def rows(view: View, facts: Facts, pane: Pane) -> list[Row]:
    """The rows of a table, in their order; of functions those that the filter leaves."""
    found = _p_rows(facts) if pane is Pane.PS else _function_rows(facts)
    if pane is Pane.FUNCTIONS and view.words:
        found = [row for row in found if view.words.lower() in row[0][1].lower()]
    column = view.sort[pane]
    return sorted(found, key=lambda row: row[column][0], reverse=view.falling[pane])


def _p_rows(facts: Facts) -> list[Row]:
    before = {p.p: p for p in facts.before.ps} if facts.before is not None else {}
    uptime_s = max(facts.now.uptime_s, 1e-9)
    return [_p_row(p, before.get(p.p), facts.seconds, uptime_s) for p in facts.now.ps]


def _p_row(p: PStatus, before: PStatus | None, seconds: float, uptime_s: float) -> Row:
    jobs, over_s = p.jobs_finished, uptime_s
    if before is not None:
        jobs, over_s = jobs - before.jobs_finished, max(seconds, 1e-9)
    rate, busy = jobs / over_s, busy_share(p, before)
    runs = f"{p.running} ({in_words(p.running_s)})" if p.running else ""
    return [
        (p.p, f"P{p.p}"),
        (p.state, p.state),
        (busy, f"{busy:.0%}"),
        _number(p.runq),
        _number(p.started),
        _number(p.ms),
        _number(p.idle_ms),
        (rate, _rate(rate)),
        _number(p.stolen),
        (runs, runs),
    ]


def busy_share(p: PStatus, before: PStatus | None) -> float:
    """The share of the time since ``before``, or since its start, in which P ran something."""
    spent = dict(p.state_s)
    if before is not None and before.epoch == p.epoch:
        spent = {name: s - before.state_s.get(name, 0.0) for name, s in spent.items()}
    total = sum(spent.values())
    return min(1.0, max(0.0, spent.get("running", 0.0) / total)) if total > 0 else 0.0


def _function_rows(facts: Facts) -> list[Row]:
    seconds = max(facts.seconds, 1e-9)
    return [_function_row(about, seconds, max(1, facts.now.procs)) for about in facts.functions]


def _function_row(about: FunctionSummary, seconds: float, procs: int) -> Row:
    execution, waits = about.ways.get(EXECUTION), about.ways.get(SCHEDULING)
    rate = (about.jobs - about.running) / seconds
    share = 0.0 if execution is None else execution.total_s / seconds / procs
    mean_s = 0.0 if execution is None else execution.mean_s
    p99_s = 0.0 if execution is None else execution.p99_s
    wait_s = 0.0 if waits is None else waits.mean_s
    return [
        (about.name, about.name),
        (rate, _rate(rate)),
        _number(about.failed),
        _number(about.running),
        (share, f"{share:.1%}"),
        *((each, in_words(each)) for each in (mean_s, p99_s, wait_s)),
    ]


def _number(n: int) -> Cell:
    return n, f"{n:,}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 or not per_s else f"{per_s:.1f}"


def as_json(view: View, facts: Facts) -> dict[str, Any]:
    """The same for programs, with numbers."""

    def told(pane: Pane, columns: Sequence[str]) -> list[dict[str, Any]]:
        names = [name.lower().replace("/", "_per_").replace(" ", "_") for name in columns]
        return [
            dict(zip(names, (value for value, _ in row), strict=True))
            for row in rows(view, facts, pane)
        ]

    now = facts.now
    return {
        "state": now.state,
        "procs": now.procs,
        "in_global_queue": now.queue.in_queue,
        "unfinished": now.queue.unfinished,
        "seconds": facts.seconds,
        "ps": told(Pane.PS, PS_COLUMNS),
        "functions": told(Pane.FUNCTIONS, FUNCTION_COLUMNS),
    }
