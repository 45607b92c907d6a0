"""`gmpd down`: end the daemon, and see it end.

It is asked on its socket. One that does not answer is ended by its process: the one that has the
runtime directory's lock, which no dead daemon has and no other process.
"""

from __future__ import annotations

import signal
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
#: Seconds for the daemon's answer: it only notes the wish.
ANSWER_S = 5.0
#: With --now, seconds to end by itself: workers get 2 s and the gateway 5 s. Then it is killed.
NOW_S = 10.0
#: What the kernel takes to end a killed process, and those that end with it.
KILL_S = 5.0


@click.command(short_help="Stop it: finish what runs, take no more.")
@click.option(
    "--now", is_flag=True,
    help=f"Do not wait for running jobs: they are lost. A daemon that still lives after"
    f" {NOW_S:g} s is killed.",
)  # fmt: skip
@standard
def command(app: App, now: bool) -> int:
    """Stop the daemon, and wait until it is gone: it finishes what runs and takes no more.

    One that does not answer is sent SIGTERM.
    """
    config = app.config()
    directory = config.daemon.runtime_dir
    holder = rundir.find_holder(directory)
    if holder is None:
        app.say(f"no daemon runs in {directory}")
        return Exit.OK
    if not _ask(app, now):
        app.say(f"the daemon (pid {holder.pid}) does not answer: sent it SIGTERM")
        holder.kill(signal.SIGTERM)
    if now:
        return _see_it_end_now(app, directory, holder)
    limit = config.daemon.drain_timeout + FAREWELL_S
    if _is_gone_within(holder, limit):
        app.say("gmpd is down")
        return Exit.OK
    app.say(
        f"the daemon (pid {holder.pid}) still ends after {limit:g} s;"
        f" `gmpd down --now` does not wait for jobs"
    )
    return Exit.TIMEOUT


def _ask(app: App, now: bool) -> bool:
    """Whether it took the wish."""
    try:
        with connect(app) as client:
            client.call("stop" if now else "drain", timeout=ANSWER_S)
    except DaemonUnreachable:
        return False
    return True


def _see_it_end_now(app: App, directory: str, holder: rundir.Holder) -> int:
    if _is_gone_within(holder, NOW_S):
        app.say("gmpd is down")
        return Exit.OK
    holder.kill(signal.SIGKILL)
    if not _is_gone_within(holder, KILL_S):
        app.say(f"the daemon (pid {holder.pid}) lives on although it was killed: see `ps`")
        return Exit.TIMEOUT
    with rundir.Lock.acquire(directory) as lock:  # what it could not remove any more
        lock.clear_stale()
    app.say(f"gmpd is down: pid {holder.pid} did not end within {NOW_S:g} s and was killed")
    return Exit.OK


def _is_gone_within(holder: rundir.Holder, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not holder.is_gone:
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True
