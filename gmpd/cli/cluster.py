"""`gmpd cluster`: have the hosts of an engine run jobs, too; show them; use them no more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.config import split_cluster

#: `up` waits for the first host, or the reason why there is none, as long as this (seconds).
UP_S = 30.0
LOOK_S = 0.1


@click.group(short_help="Use the cores of other machines.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Have hosts of a Dask or Ray cluster run jobs of this daemon, too.

    \b
    pip install 'gmpd[dask]' on each machine, then
      dask scheduler                                    on one
      dask worker tcp://head:8786 --nworkers 1 --nthreads 8    on each
      gmpd cluster up dask://head:8786                  where the daemon runs
    Each Dask worker is a host; its threads are the cores that jobs use.
    \b
    pip install 'gmpd[ray]' on each machine, then
      ray start --head                                  on one
      ray start --address head:6379                     on each
      gmpd cluster up ray://head:10001                  where the daemon runs; ray:auto on a node
    Each Ray node is a host. The settings of [cluster] do the same when a daemon starts.
    """
    help_alone(ctx)


@command.command(short_help="Have the hosts of an engine run jobs.")
@click.argument("where", metavar="ENGINE://HOST:PORT")
@standard
def up(app: App, where: str) -> int:
    """Use the hosts of the engine at this address (dask://head:8786, ray://head:10001), of the one
    that a scheduler file names (dask:PATH), or of the Ray cluster that this machine is a node of
    (ray:auto). Waits for the first host."""
    try:
        engine, address, scheduler_file = split_cluster(where)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with connect(app) as client:
        client.call("cluster_up", engine=engine, address=address, scheduler_file=scheduler_file)
        told = _await_host(client)
    if app.as_json:
        app.json(told)
    elif told["problem"]:
        app.say(told["problem"])
    for host in told["hosts"]:
        if not app.as_json:
            app.data(_line(host))
    if told["problem"]:
        return Exit.CONFIG
    if not _serving(told):
        app.say("no host has joined yet, jobs run on this machine; see `gmpd cluster status`")
        return Exit.TIMEOUT
    return Exit.OK


@command.command(short_help="Show the hosts.")
@standard
def status(app: App) -> int:
    """Show the engine and its hosts: cores, jobs, and why one takes no work."""
    with connect(app) as client:
        told = client.call("cluster")
    if app.as_json:
        app.json(told)
        return Exit.OK
    if not told["engine"]:
        app.say("no cluster is used: `gmpd cluster up dask://HOST:PORT`, or ray://HOST:PORT")
        return Exit.OK
    app.say(f"{told['engine']} at {told['address']}" + _problem(told))
    for host in told["hosts"]:
        app.data(_line(host))
    return Exit.OK


@command.command(short_help="Use hosts no more.")
@standard
def down(app: App) -> int:
    """Use hosts no more. Jobs that have begun there end first; all others run on this machine."""
    with connect(app) as client:
        left = client.call("cluster_down")["hosts"]
    if app.as_json:
        app.json({"hosts": left})
    else:
        app.say(f"{left} hosts leave once the jobs that they have begun have ended")
    return Exit.OK


def _await_host(client: Any) -> dict[str, Any]:
    until = time.monotonic() + UP_S
    while True:
        told: dict[str, Any] = client.call("cluster")
        refused = told["hosts"] and all(host["problem"] for host in told["hosts"])
        if _serving(told) or told["problem"] or refused or time.monotonic() > until:
            return told
        time.sleep(LOOK_S)


def _serving(told: Mapping[str, Any]) -> bool:
    return any(host["state"] in ("idle", "running") for host in told["hosts"])


def _problem(row: Mapping[str, Any]) -> str:
    return f": {row['problem']}" if row["problem"] else ""


def _line(host: Mapping[str, Any]) -> str:
    jobs = f"{host['started']} begun, {host['jobs_finished']} finished"
    return f"{host['name']}  {host['cores']} cores  {host['state']}  {jobs}{_problem(host)}"
