"""`gmpd down`: end the daemon, and see it end.

It is asked on its socket. One that does not answer, or speaks another version, is sent a signal: to
the process that has the runtime directory's lock, which no dead daemon has and no other process.
So the way to stop a daemon rests on its lock and SIGTERM alone, and these never change.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect_here, stay_here
from gmpd.config import Config
from gmpd.errors import ConfigError, DaemonUnreachable, GmpdError

#: Seconds between two looks whether it is gone.
LOOK_S = 0.02
#: Seconds beyond the drain itself: workers, gateway and sockets end, too.
FAREWELL_S = 15.0
#: Seconds for the daemon's answer: it only notes the wish.
ANSWER_S = 5.0
#: With --now, seconds to end by itself: workers get 2 s and the gateway 5 s. Then it is killed.
NOW_S = 10.0
#: The time that the kernel takes to end a killed process, and those that end with it.
KILL_S = 5.0


@click.command(short_help="Stop the daemon after its running jobs.")
@click.option(
    "--now", is_flag=True,
    help=f"Do not wait for running jobs: they are lost. A daemon that still lives after"
    f" {NOW_S:g} s is killed.",
)  # fmt: skip
@standard
def command(app: App, now: bool) -> int:
    """Stop the daemon and wait for its end. It refuses new jobs and finishes running ones.

    Jobs that still run after daemon.drain_timeout are lost: they are named, and the exit code is 5.
    A daemon that does not answer, or is of another version, is sent SIGTERM.
    """
    stay_here(app, "gmpd drain")
    config = app.config_to_reach()
    directory = config.daemon.runtime_dir
    wish = Wish(app, now)
    try:
        holder = rundir.find_holder(directory)
    except rundir.HiddenHolder:  # its socket is reached from here, its process is not
        if not wish.tell(config):
            raise
        return _see_it_end(app, config, wish, lambda: _is_unlisted(directory))
    if holder is None:
        app.say(f"no daemon runs in {directory}")
        return Exit.OK
    if not wish.tell(config):
        send_term(app, holder, wish.strange)
    if now:
        return _see_it_end_now(app, directory, holder)
    return _see_it_end(app, config, wish, lambda: holder.is_gone)


class Wish:
    """The request to the daemon, and its answer."""

    def __init__(self, app: App, now: bool) -> None:
        self._app = app
        self._now = now
        #: Whether it took the wish.
        self.taken = False
        #: Why it cannot be asked although it answers.
        self.strange = ""
        #: Jobs that it did not finish.
        self.lost = 0

    def tell(self, config: Config) -> bool:
        """Ask; wait until it ends, or for as long as that may take. False if it is deaf."""
        try:
            with connect_here(self._app) as client:
                said = client.call("ping", timeout=ANSWER_S)
                limit_s = float(said.get("drain_timeout", config.daemon.drain_timeout))
                self.taken = True
                if said.get("unfinished") and not self._now:
                    jobs = _count(said["unfinished"])
                    self._app.say(f"waiting up to {limit_s:g} s for {jobs}")
                method, wait_s = ("stop", ANSWER_S) if self._now else ("drain", limit_s + ANSWER_S)
                answer = client.call(method, timeout=wait_s, wait=True)
                self._say_lost(answer)
        except DaemonUnreachable:  # it was gone before its answer had arrived
            pass
        except GmpdError as error:  # of another version, or nonsense: it is stopped all the same
            self.strange = str(error)
        return self.taken

    def _say_lost(self, answer: Mapping[str, Any]) -> None:
        self.lost = int(answer.get("lost", 0))
        if self.lost:
            names = ", ".join(answer.get("functions", ()))
            running = f" ({names})" if names else ""
            self._app.say(f"{_count(self.lost)} had not finished{running}: lost")


def send_term(app: App, holder: rundir.Holder, strange: str) -> None:
    """End a daemon that cannot be asked. To every version SIGTERM is a wish to drain."""
    why = f"cannot be asked ({strange})" if strange else "does not answer"
    app.say(f"the daemon (pid {holder.pid}) {why}: sent it SIGTERM")
    holder.kill(signal.SIGTERM)


def _count(jobs: int) -> str:
    return f"{jobs:,} job{'' if jobs == 1 else 's'}"


def _is_unlisted(directory: str) -> bool:
    """Whether it has taken its record back, the last thing but one that it does."""
    try:
        rundir.read_discovery(directory)
    except DaemonUnreachable:
        return True
    return False


def _see_it_end(app: App, config: Config, wish: Wish, gone: Callable[[], bool]) -> int:
    limit = config.daemon.drain_timeout + FAREWELL_S
    if _is_so_within(gone, limit):
        app.say("gmpd is down")
        return Exit.TIMEOUT if wish.lost else Exit.OK
    app.say(f"the daemon has not ended after {limit:g} s; `gmpd down --now` does not wait for jobs")
    return Exit.TIMEOUT


def _see_it_end_now(app: App, directory: str, holder: rundir.Holder) -> int:
    if _is_so_within(lambda: holder.is_gone, NOW_S):
        app.say("gmpd is down")
        return Exit.OK
    holder.kill(signal.SIGKILL)
    if not _is_so_within(lambda: holder.is_gone, KILL_S):
        app.say(f"the daemon (pid {holder.pid}) was killed but still exists: see `ps`")
        return Exit.TIMEOUT
    _clear(directory)
    app.say(f"gmpd is down: pid {holder.pid} did not end within {NOW_S:g} s and was killed")
    return Exit.OK


def _clear(directory: str) -> None:
    """Remove the files of the killed daemon. Its lock may outlive its first thread, by which it
    is known to be dead, until the kernel has ended the others."""
    deadline = time.monotonic() + KILL_S
    while True:
        try:
            with rundir.Lock.acquire(directory) as lock:
                lock.clear_stale()
            return
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)


def _is_so_within(fact: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True
