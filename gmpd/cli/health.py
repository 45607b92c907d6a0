"""`gmpd health`: for scripts, containers and load balancers."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect


@click.command(short_help="Say by the exit code whether it is well.")
@standard
def command(app: App) -> int:
    """Say whether the daemon is well: 0 if so, 3 when none answers, 6 when it takes no work."""
    with connect(app) as client:
        state = str(client.call("status", timeout=5.0).get("state", "running"))
    if app.as_json:
        app.json({"state": state})
    else:
        app.say(state)
    return Exit.OK if state == "running" else Exit.REJECTED
