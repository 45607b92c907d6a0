"""`gmpd status`: what runs where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect


@click.command(short_help="Show what runs where.")
@standard
def command(app: App) -> None:
    """Show what runs where: the daemon, its queue, and each P. --json prints all that it knows."""
    with connect(app) as client:
        seen: dict[str, Any] = client.call("status")
    if app.as_json:
        app.json(seen)
        return
    app.data(headline(seen))
    for line in table(seen.get("ps", [])):
        app.data(line)


def headline(seen: Mapping[str, Any]) -> str:
    """The daemon and its jobs, in two lines."""
    jobs, queue = seen.get("jobs", {}), seen.get("queue", {})
    finished = ", ".join(f"{n} {name}" for name, n in jobs.get("finished", {}).items() if n)
    return (
        f"gmpd {seen.get('version', '')} {seen.get('state', '')}, pid {seen.get('pid', 0)},"
        f" up {seen.get('uptime_s', 0):.0f} s, {seen.get('sessions', 0)} clients\n"
        f"jobs: {jobs.get('submitted', 0)} submitted, {finished or '0 finished'};"
        f" {queue.get('global', 0)} in the global queue"
    )


def table(ps: list[dict[str, Any]]) -> list[str]:
    """A line for each P under a heading."""
    rows = [
        ["P", "STATE", "PID", "CORE", "FRESH", "STARTED", "MS", "JOBS", "STOLEN", "GIVEN", "RUNS"]
    ]
    rows += [_row(p) for p in ps]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]


def _row(p: Mapping[str, Any]) -> list[str]:
    runs = p.get("running")
    cells = [f"P{p.get('p')}", p.get("state"), p.get("pid"), p.get("core")]
    cells += [p.get(key, 0) for key in ("fresh", "started", "ms")]
    cells += [p.get("jobs_finished", p.get("finished", 0)), p.get("stolen", 0), p.get("lost", 0)]
    cells += [f"{runs} ({p.get('running_s', 0):.1f} s)" if runs else ""]
    return ["-" if cell is None else str(cell) for cell in cells]
