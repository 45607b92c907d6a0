"""`gmpd health`: for scripts, containers and load balancers."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect


@click.command(short_help="Say by the exit code whether it is well.")
@standard
def command(app: App) -> int:
    """Say whether the daemon is well: 0 if so, 3 when none answers, 6 when it takes no work or is
    degraded: workers that it needs do not start, or die without a job being to blame."""
    with connect(app) as client:
        seen = client.call("status", timeout=5.0)
    state = str(seen.get("state", "running"))
    reason = str(seen.get("stalled") or seen.get("degraded") or "")
    if app.as_json:
        app.json({"state": state, "reason": reason})
    else:
        app.say(f"{state}: {reason}" if reason else state)
    return Exit.OK if state == "running" else Exit.REJECTED
