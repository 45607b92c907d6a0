"""`gmpd page`: the live page of a daemon, in a browser."""

from __future__ import annotations

import webbrowser

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import stay_here


@click.command(short_help="Open the live page in a browser.")
@click.option("--print", "only_print", is_flag=True, help="Print its address only.")
@standard
def command(app: App, only_print: bool) -> int:
    """Open the live page of the daemon in a browser, and print its address.

    It ends with 3 if no daemon runs, and with 6 if its gateway does not serve.
    """
    stay_here(app)
    record = rundir.read_discovery(app.config_to_reach().daemon.runtime_dir)
    if record.http is None:
        app.say(f"this daemon has no live page: {record.http_problem or 'http.enabled is false'}")
        return Exit.REJECTED
    if app.as_json:
        app.json({"url": f"{record.http}/"})
    else:
        app.data(f"{record.http}/")
    if not only_print and not app.as_json:
        open_page(app, record)
    return Exit.OK


def open_page(app: App, record: rundir.Discovery) -> None:
    """Open the live page of a daemon, if it has one and there is a browser."""
    if record.http is not None and not webbrowser.open(f"{record.http}/"):
        app.say(f"no browser was found: open {record.http}/ in one")
