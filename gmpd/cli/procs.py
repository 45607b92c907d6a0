"""`gmpd procs`: how many Ps the daemon has, and the way to change it."""

from __future__ import annotations

from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect
from gmpd.cpus import check_procs
from gmpd.errors import ConfigError
from gmpd.status import read


class _Procs(click.IntRange):
    """How many Ps a daemon can have."""

    def __init__(self) -> None:
        super().__init__(1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise click.UsageError(f"N is a number of Ps, 1 or more, not {value!r}", ctx) from None


@click.command(short_help="Show or change the number of Ps.")
@click.argument("n", type=_Procs(), metavar="[N]", required=False)
@standard
def command(app: App, n: int | None) -> None:
    """Show the number of Ps, or set it to N while jobs run (Go's GOMAXPROCS).

    Does not wait for new Ps: they start a few at a time, and `gmpd status` shows them.
    """
    try:
        check_procs(n or 1)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    with connect(app) as client:
        if n is None:
            procs = read(client.call("status")).procs
        else:
            procs = client.call("procs", n=n)["procs"]
    if app.as_json:
        app.json({"procs": procs})
    else:
        app.data(str(procs))
