"""`gmpd procs`: how many Ps the daemon has, and the way to change it."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect
from gmpd.cpus import check_procs
from gmpd.errors import ConfigError


@click.command(short_help="Show or change the number of Ps.")
@click.argument("n", type=click.IntRange(1), required=False)
@standard
def command(app: App, n: int | None) -> None:
    """Show the number of Ps, or make it N while jobs run (Go's GOMAXPROCS).

    Does not wait for new ones: they start a few at a time, and `gmpd status` shows which are there.
    """
    try:
        check_procs(n or 1)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    with connect(app) as client:
        if n is None:
            procs = client.call("status")["procs"]
        else:
            procs = client.call("procs", n=n)["procs"]
    if app.as_json:
        app.json({"procs": procs})
    else:
        app.data(str(procs))
