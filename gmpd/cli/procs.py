"""`gmpd procs`: how many Ps the daemon has, and the way to change it."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect


@click.command(short_help="Show or change the number of Ps.")
@click.argument("n", type=click.IntRange(1, 4096), required=False)
@standard
def command(app: App, n: int | None) -> None:
    """Show the number of Ps, or make it N while jobs run (Go's GOMAXPROCS)."""
    with connect(app) as client:
        if n is None:
            procs = client.call("status")["procs"]
        else:
            procs = client.call("procs", n=n)["procs"]
    if app.as_json:
        app.json({"procs": procs})
    else:
        app.data(str(procs))
