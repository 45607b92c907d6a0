"""`gmpd ls`: every daemon of this user on this machine, private ones too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.daemons import Found, daemons
from gmpd.cli.exits import Exit

#: Of a program's command line, what a line of the list has room for.
COMMAND_MAX = 40


@click.command(short_help="List your daemons, private ones too.")
@standard
def command(app: App) -> int:
    """List your daemons on this machine, private ones of programs too.

    `gmpd --of PID status` shows what one of them does, `gmpd --of PID page` opens its live page.
    """
    found = list(daemons(app.config_to_reach().daemon.runtime_dir))
    if app.as_json:
        app.json([_as_map(each) for each in found])
    elif found:
        for line in _table(found):
            app.data(line)
    else:
        app.say("no daemon of yours runs on this machine")
    return Exit.OK


def _as_map(found: Found) -> dict[str, Any]:
    record = found.record
    return {
        "pid": record.pid,
        "owner_pid": record.owner_pid,
        "directory": found.directory,
        "started_at": record.started_at,
        "version": record.version,
        "http": record.http,
    }


def _table(found: list[Found]) -> list[str]:
    rows = [("PID", "UP", "DIRECTORY", "OF")]
    for directory, record in found:
        up = f"{max(0.0, time.time() - record.started_at):,.0f} s"
        rows.append((str(record.pid), up, directory, _owner(record.owner_pid)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]


def _owner(pid: int | None) -> str:
    """The owner of a daemon: every client that finds it, or one program."""
    if pid is None:
        return "all your programs"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return f"pid {pid}, which has ended"
    text = b" ".join(words).decode(errors="replace")
    cut = text if len(text) <= COMMAND_MAX else f"{text[: COMMAND_MAX - 1]}…"
    return f"pid {pid} alone ({cut})"
