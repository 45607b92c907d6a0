"""The tables of `gmpd top`: which rows there are, in which order, and the keys that change that.

It knows facts about a daemon, no daemon and no terminal. Both faces show these rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from gmpd.cli.job_tables import age_of
from gmpd.daemon.trace_summary import EXECUTION, SCHEDULING, FunctionSummary, in_words
from gmpd.findings import problems
from gmpd.status import HostStatus, PStatus, Status

#: The value that a cell is sorted by, and its text.
Cell = tuple[Any, str]
Row = list[Cell]

PS_COLUMNS: Final = (
    "P", "STATE", "BUSY", "RUNQ", "STARTED", "MS", "IDLE", "JOBS/S", "STOLEN", "RUNS",
)  # fmt: skip
FUNCTION_COLUMNS: Final = ("FUNCTION", "JOBS/S", "FAILED", "NOW", "OF P", "MEAN", "P99", "WAIT")


#: Keys of hosts, which are rows below the Ps; and the value that their places are sorted by.
HOST: Final = "host "
_BELOW_PS: Final = 1 << 16


class Pane(Enum):
    """A table."""

    PS = "Ps"
    FUNCTIONS = "Functions"
    GS = "Gs"
    JOBS = "Jobs"
    FAILURES = "Failures"
    WARNINGS = "Warnings"


COLUMNS: Final[dict[Pane, tuple[str, ...]]] = {
    Pane.PS: PS_COLUMNS,
    Pane.FUNCTIONS: FUNCTION_COLUMNS,
    Pane.GS: ("P", "G", "STATE", "AGE", "WAITS FOR", "KIND", "FUNCTION"),
    Pane.JOBS: ("JOB", "STATE", "KIND", "AGE", "TRY", "P", "CLIENT", "FUNCTION"),
    Pane.FAILURES: ("N", "AGO", "HOW", "TRY", "FUNCTION", "ERROR"),
    Pane.WARNINGS: ("LEVEL", "ABOUT", "WARNING"),
}
#: The column that gets the room that others leave.
WIDE: Final = {
    Pane.PS: 9, Pane.FUNCTIONS: 0, Pane.GS: 6, Pane.JOBS: 7, Pane.FAILURES: 5, Pane.WARNINGS: 2,
}  # fmt: skip
#: Columns of numbers.
RIGHT: Final = frozenset({*PS_COLUMNS[2:9], *FUNCTION_COLUMNS[1:], "G", "AGE", "TRY", "N", "AGO"})
#: The columns by which the tables are sorted at first, and whether the largest comes first.
_SORTS: Final = {
    Pane.PS: (0, False), Pane.FUNCTIONS: (4, True), Pane.GS: (3, True), Pane.JOBS: (3, False),
    Pane.FAILURES: (0, True), Pane.WARNINGS: (0, False),
}  # fmt: skip


class Found(NamedTuple):
    """A row whose detail is shown. ``stacks``: with the stacks of all its Gs."""

    pane: Pane
    key: str
    stacks: bool = False

    @property
    def host(self) -> str:
        """Name of the host that is shown; empty: it is none."""
        is_host = self.pane is Pane.PS and self.key.startswith(HOST)
        return self.key.removeprefix(HOST) if is_host else ""

    @property
    def p(self) -> int:
        """Number of the P that is shown, or of the P that the shown G belongs to."""
        return int(self.key.split()[0].removeprefix("P"))

    @property
    def g(self) -> tuple[int, int]:
        """P and number of a G."""
        return self.p, int(self.key.split()[1].removeprefix("G"))


class Action(Enum):
    """The consequence of a key."""

    NOTHING = 0
    SHOW = 1
    QUIT = 2
    #: Look again now: another detail is shown.
    LOOK = 3


@dataclass(slots=True)
class Facts:
    """A look at a daemon, and at what has happened since the one before. A table that is not
    open is empty."""

    now: Status
    functions: list[FunctionSummary]
    #: Seconds that ``functions`` covers, and since ``before``.
    seconds: float
    before: Status | None = None
    #: Why there are no functions.
    note: str = "no jobs in this time"
    #: Answers to `gs`, with their Ps, and the Ps that did not answer.
    gs: list[dict[str, Any]] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    #: The queues by function, for details.
    picture: dict[str, Any] | None = None
    #: The answer that a detail needs beside all that, and the row whose detail that is.
    told: Any = None
    asked: Found | None = None
    #: Why there is no later look; empty: this is the last one.
    trouble: str = ""


@dataclass(slots=True)
class View:
    """The state of the screen."""

    pane: Pane = Pane.PS
    #: Tables that there are.
    panes: tuple[Pane, ...] = (Pane.PS, Pane.FUNCTIONS)
    sort: dict[Pane, int] = field(
        default_factory=lambda: {pane: column for pane, (column, _) in _SORTS.items()}
    )
    #: The largest first.
    falling: dict[Pane, bool] = field(
        default_factory=lambda: {pane: falling for pane, (_, falling) in _SORTS.items()}
    )
    paused: bool = False
    words: str = ""
    #: The filter is being typed.
    typing: bool = False
    helps: bool = False
    #: The row that the cursor is on, by its key, and its place among those shown.
    cursor: dict[Pane, tuple[str, int]] = field(default_factory=dict)
    #: Keys of the rows of the open table, as they are shown.
    shown: Sequence[str] = ()
    detail: Found | None = None
    #: Lines of the detail that are above the screen.
    scrolled: int = 0

    def press(self, key: str) -> Action:
        """One key: a character, or the name of another."""
        if self.typing:
            return self._type(key)
        act = _KEYS.get(key)
        return Action.NOTHING if act is None else act(self)

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
        self.sort[self.pane] = (self.sort[self.pane] + by) % len(COLUMNS[self.pane])
        return Action.SHOW

    def sort_by(self, column: int) -> Action:
        """Sort by this column, the other way round if it is already."""
        if self.sort[self.pane] == column:
            return self.turn()
        self.sort[self.pane] = column
        return Action.SHOW

    def turn(self) -> Action:
        """Sort the other way round."""
        self.falling[self.pane] = not self.falling[self.pane]
        return Action.SHOW

    def change_pane(self) -> Action:
        """Keys are for the next table."""
        at = self.panes.index(self.pane)
        self.pane = self.panes[(at + 1) % len(self.panes)]
        return Action.SHOW

    def change(self, name: str) -> Action:
        """Pause, filter or help: on or off."""
        setattr(self, name, not getattr(self, name))
        return Action.SHOW

    def clear(self) -> Action:
        """One step back: no detail, else no help and no filter."""
        if self.detail is not None:
            self.detail = None
        else:
            self.words, self.helps = "", False
        return Action.SHOW

    def step(self, by: int) -> Action:
        """The cursor goes up or down, or the detail does."""
        if self.detail is not None:
            self.scrolled = max(0, self.scrolled + by)
            return Action.SHOW
        self.point(self.at() + by)
        return Action.SHOW

    def point(self, row: int) -> None:
        """Put the cursor on this row of those shown."""
        row = max(0, min(row, len(self.shown) - 1))
        self.cursor[self.pane] = (self.shown[row] if self.shown else "", row)

    def at(self) -> int:
        """The row that the cursor is on: it stays with its row when others move, and in its place
        when that row is gone."""
        key, row = self.cursor.get(self.pane, ("", 0))
        return self.shown.index(key) if key in self.shown else max(0, min(row, len(self.shown) - 1))

    def open(self) -> Action:
        """The detail of the row that the cursor is on."""
        if self.detail is not None or not self.shown:
            return Action.NOTHING
        self.detail, self.scrolled = Found(self.pane, self.shown[self.at()]), 0
        return Action.LOOK

    def show_stacks(self) -> Action:
        """A detail with the stacks of its Gs, or without; else sort."""
        if self.detail is None:
            return self.move(1)
        if self.detail.host:
            return Action.NOTHING
        self.detail = self.detail._replace(stacks=not self.detail.stacks)
        return Action.LOOK


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
    "s": View.show_stacks,
    "right": lambda view: view.move(1),
    "h": lambda view: view.move(-1),
    "left": lambda view: view.move(-1),
    "j": lambda view: view.step(1),
    "down": lambda view: view.step(1),
    "k": lambda view: view.step(-1),
    "up": lambda view: view.step(-1),
    "enter": View.open,
    "escape": View.clear,
}
#: The keys in words, of both faces.
HELP: Final = (
    ("q", "quit"),
    ("space", "pause, continue"),
    ("up down, j k", "move the cursor"),
    ("Enter", "the detail of the row that the cursor is on; Esc: back"),
    ("s, in a detail", "the stacks of all Gs of a P"),
    ("left right, h l", "sort by another column"),
    ("i", "invert the order"),
    ("t, tab", "the next table"),
    ("/", "filter rows by a part of a text; Enter keeps it, Esc ends it"),
    ("?", "this help"),
)


# -- rows ------------------------------------------------------------------------------------------


def keyed_rows(view: View, facts: Facts, pane: Pane) -> list[tuple[str, Row]]:
    """The rows of a table in their order, each with a key that stays its own; those that the filter
    leaves. Ps are all shown beside functions."""
    found = _ROWS[pane](facts)
    words = view.words.lower()
    if words and not (pane is Pane.PS and len(view.panes) == 2):
        texts = [n for n, name in enumerate(COLUMNS[pane]) if name not in RIGHT]
        found = [each for each in found if any(words in each[1][n][1].lower() for n in texts)]
    column = view.sort[pane]
    return sorted(found, key=lambda each: each[1][column][0], reverse=view.falling[pane])


def rows(view: View, facts: Facts, pane: Pane) -> list[Row]:
    """As ``keyed_rows``, without the keys."""
    return [row for _, row in keyed_rows(view, facts, pane)]


def _p_rows(facts: Facts) -> list[tuple[str, Row]]:
    """The Ps of this machine, and below them the hosts."""
    hosts = [(f"{HOST}{host.name}", _host_row(n, host, facts))
             for n, host in enumerate(facts.now.cluster.hosts)]  # fmt: skip
    return [*((f"P{p.p}", _p_row(p, facts)) for p in facts.now.ps), *hosts]


def _rate(facts: Facts, now: int, before: int | None) -> float:
    """Per second since the look before; without one, since the daemon began."""
    if before is None:
        return now / max(facts.now.uptime_s, 1e-9)
    return (now - before) / max(facts.seconds, 1e-9)


def _p_row(p: PStatus, facts: Facts) -> Row:
    past = facts.before.ps if facts.before is not None else []
    before = next((each for each in past if each.p == p.p), None)
    rate = _rate(facts, p.jobs_finished, None if before is None else before.jobs_finished)
    busy = busy_share(p, before)
    runs = f"{p.running} ({in_words(p.running_s)})" if p.running else ""
    return [
        (p.p, f"P{p.p}"),
        (p.state, p.state),
        (busy, f"{busy:.0%}"),
        _number(p.runq),
        _number(p.started),
        _number(p.ms),
        _number(p.idle_ms),
        (rate, rate_text(rate)),
        _number(p.stolen),
        (runs, runs),
    ]


def _host_row(n: int, host: HostStatus, facts: Facts) -> Row:
    rate, busy = host_rate(host, facts), busy_cores(host) / max(1, host.cores)
    about = f"{host.name}: {host.cores:,} core{'s' * (host.cores != 1)}"
    if host.problem:
        about += f", {host.problem}"
    return [
        (_BELOW_PS + n, HOST.rstrip()),
        (host.state, host.state),
        (busy, f"{busy:.0%}"),
        _number(host.fresh),
        _number(host.started),
        (-1, "-"),
        (-1, "-"),
        (rate, rate_text(rate)),
        _number(host.stolen),
        (about, about),
    ]


def host_rate(host: HostStatus, facts: Facts) -> float:
    """Jobs that a host ends per second. One that came back counts from zero."""
    past = facts.before.cluster.hosts if facts.before is not None else []
    before = next((each for each in past if (each.name, each.p) == (host.name, host.p)), None)
    return _rate(facts, host.jobs_finished, None if before is None else before.jobs_finished)


def busy_cores(host: HostStatus) -> int:
    """Cores of a host that have work."""
    return min(host.cores, host.started)


def busy_share(p: PStatus, before: PStatus | None) -> float:
    """The share of the time since ``before``, or since its start, in which P ran something."""
    spent = dict(p.state_s)
    if before is not None and before.epoch == p.epoch:
        spent = {name: s - before.state_s.get(name, 0.0) for name, s in spent.items()}
    total = sum(spent.values())
    return min(1.0, max(0.0, spent.get("running", 0.0) / total)) if total > 0 else 0.0


def _function_rows(facts: Facts) -> list[tuple[str, Row]]:
    seconds, procs = max(facts.seconds, 1e-9), max(1, facts.now.procs)
    return [(about.name, _function_row(about, seconds, procs)) for about in facts.functions]


def _function_row(about: FunctionSummary, seconds: float, procs: int) -> Row:
    execution, waits = about.ways.get(EXECUTION), about.ways.get(SCHEDULING)
    rate = (about.jobs - about.running) / seconds
    share = 0.0 if execution is None else execution.total_s / seconds / procs
    mean_s = 0.0 if execution is None else execution.mean_s
    p99_s = 0.0 if execution is None else execution.p99_s
    wait_s = 0.0 if waits is None else waits.mean_s
    return [
        (about.name, about.name),
        (rate, rate_text(rate)),
        _number(about.failed),
        _number(about.running),
        (share, f"{share:.1%}"),
        *((each, in_words(each)) for each in (mean_s, p99_s, wait_s)),
    ]


def _g_rows(facts: Facts) -> list[tuple[str, Row]]:
    return [(f"P{row['p']} G{row['id']}", _g_row(row)) for row in facts.gs]


def _g_row(row: dict[str, Any]) -> Row:
    since_s = row["since_s"]
    kind = "job" if row["job"] else "child or task"
    return [
        (row["p"], f"P{row['p']}"),
        (row["id"], str(row["id"])),
        (row["state"], row["state"]),
        (-1.0 if since_s is None else since_s, "-" if since_s is None else in_words(since_s)),
        (row["reason"], row["reason"]),
        (kind, kind),
        (row["function"], row["function"]),
    ]


def _job_rows(facts: Facts) -> list[tuple[str, Row]]:
    now = time.time()
    return [(row["id"], _job_row(row, now)) for row in facts.jobs]


def _job_row(row: dict[str, Any], now: float) -> Row:
    kind = "durable" if row["durable"] else "volatile"
    age_s = max(0.0, now - row["created"])
    p = row["p"]
    return [
        (row["id"], row["id"]),
        (row["state"], row["state"]),
        (kind, kind),
        (age_s, age_of(age_s)),
        _number(row["attempt"]),
        (-1 if p is None else p, "-" if p is None else f"P{p}"),
        (row["client"], row["client"]),
        (row["function"], row["function"]),
    ]


def _failure_rows(facts: Facts) -> list[tuple[str, Row]]:
    now = time.time()
    return [(str(row["number"]), _failure_row(row, now)) for row in facts.failures]


def _failure_row(row: dict[str, Any], now: float) -> Row:
    ago_s = max(0.0, now - row["at"])
    text = ": ".join(filter(None, (row["type"], row["message"]))) or row["text"]
    how = row["outcome"] + (", again" if row["again"] else "")
    return [
        _number(row["number"]),
        (ago_s, age_of(ago_s)),
        (how, how),
        _number(row["attempt"]),
        (row["function"], row["function"]),
        (text, text.partition("\n")[0]),
    ]


def _warning_rows(facts: Facts) -> list[tuple[str, Row]]:
    return [
        (f"{n}", [(each.level.value, each.level.value), (each.about, each.about),
                  (each.what, each.what)])
        for n, each in enumerate(problems(facts.now))
    ]  # fmt: skip


_ROWS: Final[dict[Pane, Callable[[Facts], list[tuple[str, Row]]]]] = {
    Pane.PS: _p_rows,
    Pane.FUNCTIONS: _function_rows,
    Pane.GS: _g_rows,
    Pane.JOBS: _job_rows,
    Pane.FAILURES: _failure_rows,
    Pane.WARNINGS: _warning_rows,
}


def _number(n: int) -> Cell:
    return n, f"{n:,}"


def rate_text(per_s: float) -> str:
    """A rate with as many digits as mean something."""
    return f"{per_s:,.0f}" if per_s >= 10 or not per_s else f"{per_s:.1f}"


def as_json(view: View, facts: Facts) -> dict[str, Any]:
    """The same for programs, with numbers."""

    def told(pane: Pane) -> list[dict[str, Any]]:
        names = [name.lower().replace("/", "_per_").replace(" ", "_") for name in COLUMNS[pane]]
        return [
            dict(zip(names, (value for value, _ in row), strict=True))
            for key, row in keyed_rows(view, facts, pane)
            if not key.startswith(HOST)
        ]

    now = facts.now
    return {
        "state": now.state,
        "procs": now.procs,
        "in_global_queue": now.queue.in_queue,
        "unfinished": now.queue.unfinished,
        "seconds": facts.seconds,
        "ps": told(Pane.PS),
        "hosts": [_host_as_json(host, facts) for host in now.cluster.hosts],
        "functions": told(Pane.FUNCTIONS),
        "warnings": [each.as_map() for each in problems(now)],
    }


def _host_as_json(host: HostStatus, facts: Facts) -> dict[str, Any]:
    return {
        "host": host.name, "state": host.state, "problem": host.problem, "cores": host.cores,
        "busy": busy_cores(host), "runq": host.fresh, "started": host.started,
        "jobs_per_s": host_rate(host, facts), "stolen": host.stolen, "losses": host.losses,
    }  # fmt: skip
