"""`gmpd ls`: every daemon of this user on this machine, private ones too."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from gmpd import rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.errors import ConfigError, DaemonUnreachable

#: Of a program's command line, what a line of the list has room for.
COMMAND_MAX = 40


class Found(NamedTuple):
    """A daemon and the directory it lives in."""

    directory: str
    record: rundir.Discovery


def places(
    first: str, env: Mapping[str, str] | None = None, uid: int | None = None
) -> Iterator[str]:
    """Directories where a daemon of this user may live: the settings' own first, then those that
    other environments lead to (a session, cron, systemd), then those of private daemons.
    """
    env = os.environ if env is None else env
    uid = os.geteuid() if uid is None else uid
    session = env.get("XDG_RUNTIME_DIR")
    fixed = [first, f"{session}/gmpd"] if session else [first]
    fixed += [f"/run/user/{uid}/gmpd", "/run/gmpd", f"/tmp/gmpd-{uid}"]  # noqa: S108 - only looked at
    yield from dict.fromkeys((*fixed, *sorted(glob.glob("/tmp/gmpd-*"))))  # noqa: S108


def daemons(first: str) -> Iterator[Found]:
    """Those that run. A directory that is not safely this user's is passed over."""
    for directory in places(first):
        try:
            yield Found(directory, rundir.read_discovery(directory))
        except (DaemonUnreachable, ConfigError, OSError):
            continue


@click.command(short_help="List your daemons, private ones too.")
@standard
def command(app: App) -> int:
    """List your daemons on this machine, private ones of programs too.

    `gmpd --runtime-dir DIRECTORY status` shows what one of them does.
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
