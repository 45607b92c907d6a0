"""`gmpd top`: the Ps, the hosts and the busiest functions, live, in a terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from math import inf
from typing import Final

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.cli.top_look import Looks, Source, gone
from gmpd.cli.top_picture import print_once, screen
from gmpd.cli.top_view import Action, Facts, Pane, View, as_json
from gmpd.errors import DaemonUnreachable
from gmpd.timeouts import wait_s

#: Without a terminal, functions are those of these last seconds.
ONCE_S = 10.0
#: Seconds to see the rest of an arrow key.
ESCAPE_S = 0.05

_ESCAPES: Final = {
    "[C": "right", "[D": "left", "OC": "right", "OD": "left", "[A": "up", "[B": "down",
    "OA": "up", "OB": "down",
}  # fmt: skip
_NAMES: Final = {
    "\t": "tab", "\n": "enter", "\r": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip


@click.command(short_help="Watch the Ps live.")
@click.option("--once", is_flag=True, help="Print the tables once, without keys.")
@click.option("--plain", is_flag=True, help="The plain table, also where textual is installed.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, metavar="S", show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@click.option(
    "--filter", "words", default="", metavar="TEXT", help="Only functions with this in their names."
)
@standard
def command(app: App, once: bool, plain: bool, interval: float, words: str) -> int:
    """Watch the job that each P runs, its queue and Ms, and the busiest functions; Enter shows the
    detail of a row. Without a terminal, with --once or --json, print it once.

    \b
    BUSY     share of the time in which the P ran something
    RUNQ     jobs and Gs that wait there to start or to continue
    STARTED  jobs that run, block or wait there
    MS IDLE  its threads, and those of them without work
    NOW      jobs of the function that have begun and not ended
    OF P     share of all Ps that the function takes
    MEAN P99 its execution on P, per job
    WAIT     mean time for which a job was ready and did not run

    Hosts of a cluster are rows below the Ps: BUSY is the share of their cores that have work, RUNQ
    the jobs that were not sent there, STARTED those that were.

    With textual (pip install 'gmpd[tui]') it has tables of Gs, jobs, failures and warnings, too.

    Keys: q, space (pause), left and right (sort), i (invert), t (other table), / (filter), Enter
    (detail), Esc (back), ?.
    """
    view = View(words=words)
    source = Source(partial(connect, app))
    try:
        if app.as_json or once or not _is_terminal():
            facts = source.look(Pane.FUNCTIONS, ONCE_S)
            if app.as_json:
                app.json(as_json(view, facts))
            else:
                print_once(view, facts)
        elif not plain and sys.stderr.isatty() and _has_textual():
            first = source.look(Pane.PS, interval)  # an error of this is one of the command
            from gmpd.cli.top_app import watch

            return watch(view, source, first, interval)
        else:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))
            _watch(source, view, interval)
    finally:
        source.close()
    return Exit.OK


# -- the terminal ----------------------------------------------------------------------------------


def _has_textual() -> bool:
    try:
        return find_spec("textual") is not None
    except ImportError:
        return False


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _watch(source: Looks, view: View, interval: float) -> None:
    """Show it until q or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _keys() as fd, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            facts = source.look(Pane.FUNCTIONS, interval)
            looked = time.monotonic()
            while True:
                live.update(screen(view, facts, console), refresh=True)
                left = looked + interval - time.monotonic()
                action = _heard(fd, view, inf if view.paused else max(0.0, left))
                if action is Action.QUIT:
                    return
                due = not view.paused and time.monotonic() - looked >= interval
                if due or (action is Action.LOOK and view.detail is not None):
                    facts = _looked(source, view, facts, interval)
                    looked = time.monotonic()
        except KeyboardInterrupt:
            return


def _looked(source: Looks, view: View, last: Facts, interval: float) -> Facts:
    """The next facts; the last ones, marked, while the daemon is away."""
    try:
        return source.look(Pane.FUNCTIONS, interval, view.detail)
    except DaemonUnreachable as error:
        last.trouble = gone(error)
        return last


@contextmanager
def _keys() -> Iterator[int]:
    """Keys come one by one, and are not shown, while this lasts; the descriptor to read."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _heard(fd: int, view: View, timeout: float) -> Action:
    """Wait for a key, and do what it says."""
    if not select.select([fd], [], [], wait_s(timeout))[0]:
        return Action.NOTHING
    key = read_key(fd)
    return Action.QUIT if key == "" else view.press(key)


def read_key(fd: int) -> str:
    """A character, or a name such as "left"; "" when the terminal is gone."""
    try:
        first = os.read(fd, 1).decode(errors="replace")
    except OSError:
        return ""
    if first != "\x1b":
        return _NAMES.get(first, first)
    if not select.select([fd], [], [], ESCAPE_S)[0]:
        return "escape"
    return _ESCAPES.get(os.read(fd, 2).decode(errors="replace"), "unknown")
