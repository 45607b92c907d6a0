"""`gmpd drain`: ask the daemon to take no more."""

from __future__ import annotations

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.down import send_term
from gmpd.cli.link import connect
from gmpd.errors import DaemonUnreachable, GmpdError


@click.command(short_help="Refuse new jobs, finish running ones, end.")
@standard
def command(app: App) -> None:
    """Refuse new jobs, finish running ones, and end. The command does not wait for the end.

    A daemon of another version is sent SIGTERM, which means the same.
    """
    try:
        holder = rundir.find_holder(app.config_to_reach().daemon.runtime_dir)
    except rundir.HiddenHolder:
        holder = None
    try:
        with connect(app) as client:
            client.call("drain")
    except DaemonUnreachable:
        raise
    except GmpdError as error:
        if holder is None:
            raise
        send_term(app, holder, str(error))
    if app.as_json:
        app.json({"state": "draining"})
    app.say("draining; `gmpd down` waits for the end")
