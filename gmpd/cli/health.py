"""`gmpd health`: for scripts, containers and load balancers."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.status import read


@click.command(short_help="Report the daemon's health by the exit code.")
@standard
def command(app: App) -> int:
    """Exit with 0 if the daemon is healthy, 3 if none answers, 6 if it takes no work or is
    degraded: its workers do not start, or die without a job as the cause."""
    with connect(app) as client:
        seen = read(client.call("status", timeout=5.0))
    state, reason = seen.state, seen.stalled or seen.degraded
    if app.as_json:
        app.json({"state": state, "reason": reason})
    else:
        app.say(f"{state}: {reason}" if reason else state)
    return Exit.OK if state == "running" else Exit.REJECTED
