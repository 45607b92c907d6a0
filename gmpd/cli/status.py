"""`gmpd status`: the Ps, their jobs, and the queues."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect

#: Columns of a terminal by default.
WIDTH = 80


@click.command(short_help="Show the daemon, its queue, and each P.")
@standard
@click.option("--events", is_flag=True, help="Show the last events of the scheduler instead.")
def command(app: App, events: bool) -> None:
    """Show the daemon, its queue, and what runs on each P. --json prints the whole snapshot.
    --events shows the last events and decisions of the scheduler for bug reports: numbers,
    function and client names, no values.

    \b
    FRESH    jobs leased to it and not begun: they can still be stolen
    STARTED  jobs that run, block or wait there
    OVERRUNNING, above the table: functions that did not stop at their timeout
    MS       its threads
    JOBS     jobs that ended there
    STOLEN   jobs, and children of Gs, that it took from other Ps
    GIVEN    jobs, and children of Gs, that other Ps took from it
    RUNS     what is on the P now, and for how long
    """
    with connect(app) as client:
        if events:
            _show_events(app, client.call("history"))
            return
        seen: dict[str, Any] = client.call("status")
    if app.as_json:
        app.json(seen)
        return
    app.data(headline(seen))
    isolated = seen.get("isolated", {})
    if line := isolated_line(isolated):
        app.data(line)
    if line := full_line(seen.get("results", {})):
        app.data(line)
    for line in overruns(seen.get("ps", [])):
        app.data(line)
    if line := children_line(seen.get("ps", [])):
        app.data(line)
    for line in table(seen.get("ps", []), isolated.get("workers", [])):
        app.data(line)


def _show_events(app: App, history: Mapping[str, Any]) -> None:
    if app.as_json:
        app.json(history)
        return
    for line in history["events"]:
        app.data(line)


def headline(seen: Mapping[str, Any]) -> str:
    """The daemon and its jobs, in two lines or a few more of 80 columns."""
    jobs, queue = seen.get("jobs", {}), seen.get("queue", {})
    finished = ", ".join(f"{n:,} {name}" for name, n in jobs.get("finished", {}).items() if n)
    others = seen.get("sessions", 0) - 1  # this command is one
    clients = "no client" if others < 1 else f"{others:,} client{'s' if others > 1 else ''}"
    lines: tuple[str, ...] = (
        f"gmpd {seen.get('version', '')} {seen.get('state', '')}, pid {seen.get('pid', 0)},"
        f" up {seen.get('uptime_s', 0):,.0f} s, {clients}",
        f"jobs: {jobs.get('submitted', 0):,} submitted, {finished or '0 finished'};"
        f" {queue.get('global', 0):,} in the global queue",
    )
    if reason := seen.get("stalled"):
        lines = *lines, f"jobs are refused: {reason}"
    elif reason := seen.get("degraded"):
        lines = *lines, f"degraded: {reason}"
    if suspects := queue.get("suspects"):
        lines = (
            *lines,
            (f"{suspects:,} of the queue go one by one: their function ended several workers"),
        )
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def isolated_line(isolated: Mapping[str, Any]) -> str:
    """Isolated jobs and their workers in a line; nothing before the first."""
    if not isolated.get("started"):
        return ""
    states = ", ".join(f"{n} {state}" for state, n in isolated.get("states", {}).items() if n)
    return (
        f"isolated: {states or 'none running'}; {isolated.get('queued', 0):,} waiting,"
        f" {isolated.get('limit', 0):,} at most at once"
    )


def children_line(ps: Sequence[Mapping[str, Any]]) -> str:
    """Children of Gs that ran on another P than their parent, in a line; nothing before any did."""
    into = {p.get("p"): p.get("children", {}).get("in", 0) for p in ps}
    if not any(into.values()):
        return ""
    where = ", ".join(f"{n:,} on P{p}" for p, n in into.items() if n)
    line = f"children that moved: {sum(into.values()):,} began, {where}"
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def full_line(results: Mapping[str, Any]) -> str:
    """Clients that take no results, in a line; nothing as long as all do."""
    n = results.get("full_clients", 0)
    if not n:
        return ""
    line = (
        f"not taking results: {', '.join(name or '?' for name in results.get('full', []))};"
        f" {results.get('held_back', 0):,} jobs wait for that (limits.client_results)"
    )
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def overruns(ps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Overrunning functions by name; empty while there are none."""
    n = sum(p.get("overrunning", 0) for p in ps)
    if not n:
        return []
    lines = [f"overrunning: {n:,} function{'s' if n > 1 else ''} did not stop at the time limit"]
    for p in ps:
        for each in p.get("overruns_now", []):
            waits = ", a retry waits for its end" if each.get("retry") else ""
            lines.append(
                f"  {each.get('name')} of {each.get('client') or '?'} on P{p.get('p')},"
                f" {each.get('over_s', 0):,.1f} s past it{waits}"
            )
    return lines


def table(ps: list[dict[str, Any]], isolated: Sequence[dict[str, Any]] = ()) -> list[str]:
    """A line for each P, and for each worker of an isolated job, under a heading. Running
    jobs have lines of their own when they do not fit into 80 columns.
    """
    rows = [
        ["P", "STATE", "PID", "CORE", "FRESH", "STARTED", "MS", "JOBS", "STOLEN", "GIVEN", "RUNS"]
    ]
    rows += [_row(p) for p in ps]
    rows += [_row({**worker, "p": "isolated"}) for worker in isolated]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        for row in rows
    ]
    whole = [f"{line}  {row[-1]}".rstrip() for line, row in zip(lines, rows, strict=True)]
    if max(map(len, whole)) <= WIDTH:
        return whole
    parts = [lines[0].rstrip()]
    for line, row in zip(lines[1:], rows[1:], strict=True):
        parts += [line.rstrip(), *([f"    runs {row[-1]}"] if row[-1] else [])]
    return parts


def _row(p: Mapping[str, Any]) -> list[str]:
    runs = p.get("running")
    isolated = p.get("p") == "isolated"
    cells = [p.get("p") if isolated else f"P{p.get('p')}", *map(p.get, ("state", "pid", "core"))]
    if isolated:  # it has one job, and what runs says which
        cells += [None] * 6
    else:
        cells += [p.get(key, 0) for key in ("fresh", "started", "ms")]
        cells += [p.get("jobs_finished", p.get("finished", 0))]
        cells += [p.get("stolen", 0), p.get("lost", 0)]
    cells += [f"{runs} ({p.get('running_s', 0):.1f} s)" if runs else ""]
    return ["-" if cell is None else str(cell) for cell in cells[:4]] + [
        "-" if cell is None else cell if isinstance(cell, str) else f"{cell:,}"
        for cell in cells[4:]
    ]
