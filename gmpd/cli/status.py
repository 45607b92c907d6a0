"""`gmpd status`: the Ps, their jobs, and the queues."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect
from gmpd.findings import LINTS, UNBLOCK, Finding, problems
from gmpd.status import (
    Cluster,
    Durable,
    Isolated,
    IsolatedWorker,
    KeyLimit,
    PStatus,
    Recycling,
    Results,
    Status,
    read,
)

#: Lints that are shown.
WARNINGS_SHOWN = 5
#: Columns of a terminal by default.
WIDTH = 80


@click.command(short_help="Show the daemon, its queue, and each P.")
@standard
@click.option("--events", is_flag=True, help="Show the last events of the scheduler instead.")
def command(app: App, events: bool) -> None:
    """Show the daemon, its queue, and what runs on each P. --json prints the whole snapshot.
    It ends with warnings, if the work costs more than it has to; `gmpd doctor` has all findings.
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
        answer = client.call("status")
    seen = read(answer)
    if app.as_json:
        app.json({**answer, "warnings": [each.as_map() for each in problems(seen)]})
        return
    app.data(headline(seen))
    for line in (isolated_line(seen.isolated), full_line(seen.results)):
        if line:
            app.data(line)
    for line in (*recycling_lines(seen.recycling), *cluster_lines(seen.cluster)):
        app.data(line)
    for name, why in seen.cron.problems.items():
        app.data(f"schedule {name} does not run: {why}")
    for line in (*durable_lines(seen.durable), *overruns(seen.ps)):
        app.data(line)
    if line := children_line(seen.ps):
        app.data(line)
    for line in (*table(seen.ps, seen.isolated.workers), *warning_lines(problems(seen))):
        app.data(line)


def _show_events(app: App, history: Mapping[str, Any]) -> None:
    if app.as_json:
        app.json(history)
        return
    for line in history["events"]:
        app.data(line)


def headline(seen: Status) -> str:
    """The daemon and its jobs, in two lines or a few more of 80 columns."""
    jobs, queue = seen.jobs, seen.queue
    finished = ", ".join(f"{n:,} {name}" for name, n in jobs.finished.items() if n)
    others = seen.sessions - 1  # this command is one
    clients = "no client" if others < 1 else f"{others:,} client{'s' if others > 1 else ''}"
    lines = [
        f"gmpd {seen.version} {seen.state}, pid {seen.pid}, up {seen.uptime_s:,.0f} s, {clients}",
        f"jobs: {jobs.submitted:,} submitted, {finished or '0 finished'};"
        f" {queue.in_queue:,} in the global queue",
    ]
    if seen.stalled:
        lines.append(f"jobs are refused: {seen.stalled}")
    elif seen.degraded:
        lines.append(f"degraded: {seen.degraded}")
    if queue.suspects:
        lines.append(
            f"{queue.suspects:,} of the queue go one by one: their function ended several workers"
        )
    if queue.limited:
        held = "; ".join(map(limit_text, queue.limits))
        lines.append(f"{queue.limited:,} jobs wait for the limits of their keys: {held}")
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def limit_text(limit: KeyLimit) -> str:
    """A key, how much of its limit is used, and what waits for it."""
    used = []
    if limit.at_once:
        used.append(f"{limit.inside:,} of {limit.at_once:,} at once")
    if limit.starts:
        used.append(f"{limit.started:,} of {limit.starts:,} starts in {limit.per_s:g} s")
    return f"{limit.key} has {' and '.join(used)}, {limit.waiting:,} wait"


def isolated_line(isolated: Isolated) -> str:
    """Isolated jobs and their workers in a line; nothing before the first."""
    if not isolated.started:
        return ""
    states = ", ".join(f"{n} {state}" for state, n in isolated.states.items() if n)
    return (
        f"isolated: {states or 'none running'}; {isolated.queued:,} waiting,"
        f" {isolated.limit:,} at most at once"
    )


def recycling_lines(recycling: Recycling) -> list[str]:
    """Workers that are being replaced, and those that were and still run jobs."""
    lines = []
    if recycling.reloading:
        lines.append(f"reloading: {recycling.reloading} workers are still to be replaced")
    if recycling.problem:
        lines.append(f"not replaced: {recycling.problem}")
    for each in recycling.leaving:
        runs = f", runs {', '.join(each.functions)}" if each.functions else ""
        jobs = f"{each.started:,} job{'s' if each.started != 1 else ''}"
        since = f"of P{each.p} until {each.left_s:,.0f} s ago"
        lines.append(f"leaving: pid {each.pid}, {since}, ends {jobs}{runs}")
    return [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines]


def cluster_lines(cluster: Cluster) -> list[str]:
    """The hosts of the cluster, a line for each; nothing without an engine."""
    if not cluster.engine:
        return []
    problem = f": {cluster.problem}" if cluster.problem else ""
    lines = [f"{cluster.engine} at {cluster.address}{problem}"]
    for host in cluster.hosts:
        jobs = f"{host.started:,} begun, {host.jobs_finished:,} finished"
        why = f": {host.problem}" if host.problem else f", {jobs}"
        lines.append(f"  host {host.name} {host.state}, {host.cores} cores{why}")
    return [textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines]


def durable_lines(durable: Durable) -> list[str]:
    """Durable jobs by state, and those that are blocked, with the remedy; nothing without any."""
    if durable.state == "none":
        return []
    counts = ", ".join(f"{n:,} {state}" for state, n in durable.jobs.items() if n)
    lines = [f"durable jobs: {counts or 'none'}; {durable.bytes / 1e6:,.1f} MB on disk"]
    if durable.why:
        lines = [f"durable jobs are refused: {durable.why}"]
    elif durable.state == "full":
        lines.append("durable jobs are refused until there is room: the disk is full")
    for each in durable.blocked:
        jobs = "1 job waits" if each.jobs == 1 else f"{each.jobs:,} jobs wait"
        lines.append(f"blocked: {each.name}: {jobs}, as it cannot be imported ({each.why})")
    if durable.blocked:
        lines.append(f"  {UNBLOCK}")
    return [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines]


def children_line(ps: Sequence[PStatus]) -> str:
    """Children of Gs that ran on another P than their parent, in a line; nothing before any did."""
    into = {p.p: p.children.get("in", 0) for p in ps}
    if not any(into.values()):
        return ""
    where = ", ".join(f"{n:,} on P{p}" for p, n in into.items() if n)
    line = f"children that moved: {sum(into.values()):,} began, {where}"
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def full_line(results: Results) -> str:
    """Clients that take no results, in a line; nothing as long as all do."""
    if not results.full_clients:
        return ""
    line = (
        f"not taking results: {', '.join(name or '?' for name in results.full)};"
        f" {results.held_back:,} jobs wait for that (limits.client_results)"
    )
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def overruns(ps: Sequence[PStatus]) -> list[str]:
    """Overrunning functions by name; empty while there are none."""
    n = sum(p.overrunning for p in ps)
    if not n:
        return []
    lines = [f"overrunning: {n:,} function{'s' if n > 1 else ''} did not stop at the time limit"]
    for p in ps:
        for each in p.overruns_now:
            waits = ", a retry waits for its end" if each.retry else ""
            lines.append(
                f"  {each.name} of {each.client or '?'} on P{p.p},"
                f" {each.over_s:,.1f} s past it{waits}"
            )
    return lines


def warning_lines(found: Sequence[Finding]) -> list[str]:
    """The first lints with their remedies; other findings are shown above. Nothing without any."""
    lints = [each for each in found if each.code in LINTS]
    if not lints:
        return []
    lines = ["", f"warnings: {len(lints):,}"]
    for each in lints[:WARNINGS_SHOWN]:
        text = f"{each.about}: {each.what}" + (f" → {each.fix}" if each.fix else "")
        lines.append(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    if (more := len(lints) - WARNINGS_SHOWN) > 0:
        lines.append(f"  {more:,} more: gmpd doctor")
    return lines


def table(ps: Sequence[PStatus], isolated: Sequence[IsolatedWorker] = ()) -> list[str]:
    """A line for each P, and for each worker of an isolated job, under a heading. Running
    jobs have lines of their own when they do not fit into 80 columns.
    """
    rows = [
        ["P", "STATE", "PID", "CORE", "FRESH", "STARTED", "MS", "JOBS", "STOLEN", "GIVEN", "RUNS"]
    ]
    rows += [_row(p) for p in ps]
    rows += [_row_isolated(worker) for worker in isolated]
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


def _row(p: PStatus) -> list[str]:
    jobs = p.jobs_finished
    counts = [p.fresh, p.started, p.ms, jobs, p.stolen, p.lost]
    return [
        f"P{p.p}",
        p.state,
        _or_dash(p.pid),
        _or_dash(p.core),
        *(f"{count:,}" for count in counts),
        _runs(p.running, p.running_s),
    ]


def _row_isolated(worker: IsolatedWorker) -> list[str]:
    """The row of an isolated worker, with the job that it runs."""
    runs = _runs(worker.running, worker.running_s)
    return ["isolated", worker.state, _or_dash(worker.pid), *["-"] * 7, runs]


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _runs(name: str | None, seconds: float) -> str:
    return f"{name} ({seconds:.1f} s)" if name else ""
