"""`gmpd page`: the live page of a daemon, in a browser."""

from __future__ import annotations

import webbrowser

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect_here, stay_here


@click.command(short_help="Open the live page in a browser.")
@click.option("--print", "only_print", is_flag=True, help="Print its address only.")
@standard
def command(app: App, only_print: bool) -> int:
    """Open the live page of the daemon in a browser, and print its address. A private daemon (--of
    PID) starts its gateway for that, which ends with it.

    It ends with 3 if no daemon runs, and with 6 if its gateway does not serve.
    """
    stay_here(app)
    record = rundir.read_discovery(app.config_to_reach().daemon.runtime_dir)
    url, problem = record.http, record.http_problem
    if url is None and record.owner_pid is not None:
        with connect_here(app) as client:
            answer = client.call("page")
        url, problem = answer["url"], answer["problem"]
    if url is None:
        app.say(f"this daemon has no live page: {problem or 'http.enabled is false'}")
        return Exit.REJECTED
    if app.as_json:
        app.json({"url": f"{url}/"})
    else:
        app.data(f"{url}/")
    if not only_print and not app.as_json:
        open_page(app, url)
    return Exit.OK


def open_page(app: App, url: str | None) -> None:
    """Open the live page at an address, if there is one and a browser."""
    if url is not None and not webbrowser.open(f"{url}/"):
        app.say(f"no browser was found: open {url}/ in one")
