"""The summary of a trace: where the time of each function's jobs and children went (Go: the
goroutine analysis of ``go tool trace``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gmpd.daemon.trace_runs import Run
from gmpd.protocol import Outcome

#: The share of jobs below the ``p99_s`` of a row.
P99: Final = 0.99

#: Rows that each function has, before one for each reason of its waits.
EXECUTION, SCHEDULING = "execution", "scheduling wait"

_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


@dataclass(frozen=True, slots=True)
class Stat:
    """The time that jobs of a function spent in one way; ``count`` is of the jobs that did, all
    times are seconds per job."""

    count: int
    total_s: float
    min_s: float
    mean_s: float
    p99_s: float
    max_s: float

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class FunctionSummary:
    """All jobs, or all children, of one function."""

    name: str
    #: Jobs, or children.
    jobs: int = 0
    failed: int = 0
    running: int = 0
    #: Children of which not all is known; they are in no row.
    partly: int = 0
    #: They are no jobs, but children or tasks.
    children: bool = False
    #: By way: EXECUTION, SCHEDULING, ``blocked: reason``, ``beside P: why``.
    ways: dict[str, Stat] = field(default_factory=dict)


def stat(values_ns: Sequence[int]) -> Stat:
    """Count, mean and quantiles of one or more values."""
    ordered = sorted(values_ns)
    n, total = len(ordered), sum(ordered)
    p99 = ordered[min(n - 1, int(P99 * n))]
    return Stat(n, total / 1e9, ordered[0] / 1e9, total / n / 1e9, p99 / 1e9, ordered[-1] / 1e9)


def summarize(runs: Iterable[Run]) -> list[FunctionSummary]:
    """Each function's jobs, the one that took most of P first."""
    found: dict[tuple[str, bool], FunctionSummary] = {}
    times: dict[tuple[str, bool], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        key = run.name, run.child
        about = found.setdefault(key, FunctionSummary(run.name, children=run.child))
        about.jobs += 1
        about.running += run.runs
        about.partly += run.partly
        about.failed += run.outcome is not Outcome.OK
        for way, ns in ways_of(run).items() if not run.partly else ():
            times[key][way].append(ns)
    for key, ways in times.items():
        order = sorted(ways, key=lambda way: (way != EXECUTION, way != SCHEDULING, way))
        found[key].ways = {way: stat(ways[way]) for way in order}
    return sorted(found.values(), key=_busyness, reverse=True)


def ways_of(run: Run) -> dict[str, int]:
    """Where the time of one job went, in ns."""
    ways: dict[str, int] = defaultdict(int)
    ways[EXECUTION] = sum(ended - began for began, ended in run.on_p)
    if run.ready:
        ways[SCHEDULING] = sum(ended - began for began, ended in run.ready)
    for wait in run.blocked:
        ways[f"blocked: {wait.reason}"] += wait.ended - wait.began
    for part in run.beside:
        ways[f"beside P: {part.why}"] += part.ended - part.began
    return ways


def _busyness(about: FunctionSummary) -> float:
    execution = about.ways.get(EXECUTION)
    return 0.0 if execution is None else execution.total_s


def in_words(seconds: float) -> str:
    """A duration in the unit that suits it."""
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    if not seconds:
        return "-"
    return f"{seconds / size:.3g} {unit}" if seconds < 1000 else f"{seconds:,.0f} s"
