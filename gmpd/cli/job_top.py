"""`gmpd jobs top`: the functions of jobs, by the time that they took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.job_tables import columns, cut
from gmpd.cli.link import connect
from gmpd.status import FunctionTotals, read

#: Rows, unless asked for others.
ROWS = 20
#: Outcomes that count as failures.
FAILURES = ("error", "timeout", "lost")

#: The columns by which a table may be sorted, the largest first.
SORTS: dict[str, Callable[[FunctionTotals], float]] = {
    "time": lambda row: row.run.sum_ns,
    "cpu": lambda row: row.occupied_s,
    "jobs": lambda row: jobs_of(row),
    "failed": lambda row: failed_of(row),
    "wait": lambda row: row.wait.quantile_s(0.5),
}


@click.command(short_help="Show the functions that take most time.")
@click.option("--sort", type=click.Choice([*SORTS]), default="time", help="The largest first.")
@click.option("-n", "rows", type=click.IntRange(1, 101), default=ROWS, metavar="N", help="Rows.")
@standard
def top(app: App, sort: str, rows: int) -> int:
    """Show the functions of jobs that ended since the daemon began, by the time that they took.

    \b
    FAILED   errors, timeouts and lost jobs; `gmpd failures` has the tracebacks
    TIME     from started to finished, of all its jobs
    ON P     the part of it that kept a P busy
    RUN      from started to finished: the median, and of 99 in 100 jobs
    WAIT     from when it might begin until it did, the same
    _other   functions that have no row of their own
    """
    with connect(app) as client:
        status = read(client.call("status"))
    found = sorted(status.functions, key=SORTS[sort], reverse=True)[:rows]
    if app.as_json:
        app.json([as_map(row) for row in found])
        return Exit.OK
    if not found:
        app.say("no job has ended yet: gmpd submit, gmpd map and gmpd demo run some")
    for line in table(found, columns()):
        app.data(line)
    return Exit.OK


def jobs_of(row: FunctionTotals) -> int:
    """Its ended jobs."""
    return sum(row.finished.values())


def failed_of(row: FunctionTotals) -> int:
    """Number of jobs that failed."""
    return sum(row.finished.get(outcome, 0) for outcome in FAILURES)


def as_map(row: FunctionTotals) -> dict[str, Any]:
    """A row as data: times in seconds."""
    return {
        "function": row.name,
        "finished": row.finished,
        "time_s": row.run.sum_ns / 1e9,
        "on_p_s": row.occupied_s,
        "run_p50_s": row.run.quantile_s(0.5),
        "run_p99_s": row.run.quantile_s(0.99),
        "wait_p50_s": row.wait.quantile_s(0.5),
        "wait_p99_s": row.wait.quantile_s(0.99),
        "histograms": {
            "run": msgspec.to_builtins(row.run),
            "wait": msgspec.to_builtins(row.wait),
        },
    }


def table(found: Sequence[FunctionTotals], width: int = 0) -> list[str]:
    """A line for each function, under a heading."""
    if not found:
        return []
    rows = [["JOBS", "FAILED", "TIME", "ON P", "RUN", "99 %", "WAIT", "99 %", "FUNCTION"]]
    for row in found:
        seconds = (
            row.run.sum_ns / 1e9, row.occupied_s, row.run.quantile_s(0.5),
            row.run.quantile_s(0.99), row.wait.quantile_s(0.5), row.wait.quantile_s(0.99),
        )  # fmt: skip
        times = [*map(duration, seconds)]
        rows.append([f"{jobs_of(row):,}", f"{failed_of(row):,}", *times, row.name])
    widths = [max(len(row[i]) for row in rows) for i in range(8)]
    room = max(8, width - sum(widths) - 16) if width else 0
    heads = ["  ".join(cell.rjust(n) for cell, n in zip(row, widths, strict=False)) for row in rows]
    return [f"{head}  {cut(row[8], room)}" for head, row in zip(heads, rows, strict=True)]


def duration(seconds: float) -> str:
    """``12 µs``, ``3.4 ms``, ``1.2 s``, ``5.0 min``."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= 2 * size or (unit in ("s", "ms") and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
