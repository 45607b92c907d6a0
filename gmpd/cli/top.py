"""`gmpd top`: the Ps and the busiest functions, live, in a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import AskingClient, connect
from gmpd.cli.top_view import (
    FUNCTION_COLUMNS,
    HELP,
    PS_COLUMNS,
    Action,
    Facts,
    Pane,
    Row,
    View,
    as_json,
    rows,
)
from gmpd.daemon.trace_runs import all_runs
from gmpd.daemon.trace_runs import read as read_trace
from gmpd.daemon.trace_summary import summarize
from gmpd.status import Status, read
from gmpd.timeouts import wait_s

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

#: Seconds that a worker may take to tell its events: one that is deaf has no functions shown.
TELL_S = 0.3
#: Seconds that the way to the daemon and back may take beside that.
LINK_S = 10.0
#: Without a terminal, functions are those of these last seconds.
ONCE_S = 10.0
#: Seconds to see the rest of an arrow key.
ESCAPE_S = 0.05
#: Lines that are neither Ps nor functions, with the empty one between the tables.
FRAME_LINES = 7

_ESCAPES: Final = {"[C": "right", "[D": "left", "OC": "right", "OD": "left"}
_NAMES: Final = {
    "\t": "tab", "\n": "enter", "\r": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip
_RIGHT: Final = frozenset(PS_COLUMNS[2:9]) | frozenset(FUNCTION_COLUMNS[1:])
_STYLES: Final = {
    "running": "green", "idle": "dim", "searching": "cyan", "deaf": "bold red", "dead": "red",
}  # fmt: skip


@click.command(short_help="Watch the Ps live.")
@click.option("--once", is_flag=True, help="Print the tables once, without keys.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, metavar="S", show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@click.option(
    "--filter", "words", default="", metavar="TEXT", help="Only functions with this in their names."
)
@standard
def command(app: App, once: bool, interval: float, words: str) -> None:
    """Watch the job that each P runs, its queue and Ms, and the busiest functions. Without a
    terminal, with --once or --json, print it once.

    \b
    BUSY     share of the time in which the P ran something
    RUNQ     jobs and Gs that wait there to start or to continue
    STARTED  jobs that run, block or wait there
    MS IDLE  its threads, and those of them without work
    NOW      jobs of the function that have begun and not ended
    OF P     share of all Ps that the function takes
    MEAN P99 its execution on P, per job
    WAIT     mean time for which a job was ready and did not run

    Keys: q, space (pause), left and right (sort), i (invert), t (other table), / (filter), ?.
    """
    view = View(words=words)
    with connect(app) as client:
        if app.as_json or once or not _is_terminal():
            facts = look(client, None, ONCE_S)
            if app.as_json:
                app.json(as_json(view, facts))
            else:
                _print(view, facts)
            return
        _watch(client, view, interval)


def look(client: AskingClient, before: Facts | None, seconds: float) -> Facts:
    """Ask the daemon; ``seconds`` have passed since the look before."""
    seen: Status = read(client.call("status", timeout=LINK_S))
    reply = client.call("trace", last_s=seconds, wait_s=TELL_S, timeout=TELL_S + LINK_S)
    daemon = read_trace(reply)
    facts = Facts(seen, summarize(all_runs(daemon)), seconds)
    if before is not None:
        facts.before = before.now
    if all(track.missing and not track.silent for track in daemon.tracks):
        facts.note = "trace.enabled is false: functions are not recorded"
    return facts


# -- the terminal ----------------------------------------------------------------------------------


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _watch(client: AskingClient, view: View, interval: float) -> None:
    """Show it until q or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _keys() as fd, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            looked = time.monotonic()
            facts = look(client, None, interval)
            while True:
                live.update(screen(view, facts, console), refresh=True)
                left = looked + interval - time.monotonic()
                action = _heard(fd, view, inf if view.paused else max(0.0, left))
                if action is Action.QUIT:
                    return
                now = time.monotonic()
                if not view.paused and now - looked >= interval:
                    facts = look(client, facts, now - looked)
                    looked = now
        except KeyboardInterrupt:
            return


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


# -- the picture -----------------------------------------------------------------------------------


def screen(view: View, facts: Facts, console: Console) -> RenderableType:
    """All of it, in the lines that there are."""
    from rich.console import Group
    from rich.text import Text

    room = max(2, console.size.height - FRAME_LINES - 1)
    shown = {pane: rows(view, facts, pane) for pane in Pane}
    ps = min(len(shown[Pane.PS]), max(1, room // 2))
    functions = room - ps
    if view.helps:
        lines = [
            Text(f"  {keys:18} {what}", no_wrap=True, overflow="ellipsis") for keys, what in HELP
        ]
        return Group(_head(view, facts), *lines[: console.size.height - 2])
    return Group(
        _head(view, facts),
        _table(view, Pane.PS, PS_COLUMNS, shown[Pane.PS], ps),
        Text(""),
        _table(
            view, Pane.FUNCTIONS, FUNCTION_COLUMNS, shown[Pane.FUNCTIONS], functions, facts.note
        ),
        _foot(view),
    )


def _head(view: View, facts: Facts) -> RenderableType:
    from rich.text import Text

    now = facts.now
    others = now.sessions - 1  # this command is one
    clients = f"{others:,} client{'' if others == 1 else 's'}"
    line = (
        f"gmpd {now.version} {now.state}, up {now.uptime_s:,.0f} s, {clients};"
        f" {now.queue.in_queue:,} queued, {now.queue.unfinished:,} unfinished"
    )
    text = Text(line, no_wrap=True, overflow="ellipsis")
    text.append("\n")
    silent = [f"P{p.p}" for p in now.ps if p.state in ("deaf", "dead")]
    note = f"not answering: {', '.join(silent)}" if silent else ""
    text.append(now.stalled or now.degraded or note, style="red")
    if view.paused:
        text.append("  paused", style="reverse")
    return text


def _foot(view: View) -> RenderableType:
    from rich.text import Text

    if view.typing:
        return Text(f"/{view.words}_", no_wrap=True)
    keys = "q quit  space pause  ←→ sort  i invert  t table  / filter  ? help"
    words = f"  filter: {view.words}" if view.words else ""
    return Text(keys + words, style="dim", no_wrap=True, overflow="ellipsis")


def _table(
    view: View, pane: Pane, columns: Sequence[str], found: list[Row], most: int, note: str = ""
) -> Table:
    """The first rows, and a heading that shows the order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, collapse_padding=True
    )
    for n, name in enumerate(columns):
        is_sorted = view.sort[pane] == n
        arrow = ("▼" if view.falling[pane] else "▲") if is_sorted else ""
        style = "reverse" if is_sorted and view.pane is pane else "bold"
        is_name = name in ("RUNS", "FUNCTION")
        table.add_column(
            f"{name}{arrow}",
            justify="right" if name in _RIGHT else "left",
            header_style=style,
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_name else None,
        )
    hidden = len(found) - most
    for row in found[: most - 1] if hidden > 0 else found:
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for _, text in row))
    if hidden > 0:
        table.add_row(Text(f"+{hidden + 1}", style="dim"))
    elif not found:
        table.add_row(Text(note, style="dim"))
    return table


def _print(view: View, facts: Facts) -> None:
    """Once, as wide as it has to be, without styles for a file."""
    from rich.console import Console

    console: Any = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(_head(view, facts))
    for pane, columns in ((Pane.PS, PS_COLUMNS), (Pane.FUNCTIONS, FUNCTION_COLUMNS)):
        found = rows(view, facts, pane)
        console.print(_table(view, pane, columns, found, max(1, len(found)), facts.note))
