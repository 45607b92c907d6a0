"""`gmpd drain`: ask the daemon to take no more."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import connect


@click.command(short_help="Take no more jobs; finish those that are there.")
@standard
def command(app: App) -> None:
    """Take no more jobs, finish those that are there, and end. Does not wait for it."""
    with connect(app) as client:
        client.call("drain")
    if app.as_json:
        app.json({"state": "draining"})
    app.say("draining; `gmpd down` waits for the end")
