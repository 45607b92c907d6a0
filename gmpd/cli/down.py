"""`gmpd down`: end the daemon, and see it end."""

from __future__ import annotations

import time

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.errors import DaemonUnreachable

#: Seconds between two looks whether it is gone.
LOOK_S = 0.02
#: Seconds beyond the drain itself: workers, gateway and sockets end, too.
FAREWELL_S = 15.0


@click.command(short_help="Stop it: finish what runs, take no more.")
@click.option("--now", is_flag=True, help="Do not wait for running jobs: they are lost.")
@standard
def command(app: App, now: bool) -> int:
    """Stop the daemon, and wait until it is gone: it finishes what runs and takes no more."""
    config = app.config()
    directory = config.daemon.runtime_dir
    try:
        client = connect(app)
    except DaemonUnreachable:
        app.say(f"no daemon runs in {directory}")
        return Exit.OK
    try:
        client.call("stop" if now else "drain")
    except DaemonUnreachable:
        pass  # it was quicker than its answer
    finally:
        client.close(wait=False)
    limit = config.daemon.drain_timeout + FAREWELL_S
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            rundir.read_discovery(directory)
        except DaemonUnreachable:
            app.say("gmpd is down")
            return Exit.OK
        time.sleep(LOOK_S)
    app.say(f"the daemon still ends after {limit:g} s; `gmpd down --now` does not wait for jobs")
    return Exit.TIMEOUT
