"""`gmpd failures`: the last attempts of jobs that failed, with their tracebacks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.job_tables import moment
from gmpd.cli.link import connect

#: Failures that are shown, unless asked for others.
SHOWN = 10
MOST = 500

_HOW = {"error": "failed", "timeout": "ran out of time", "lost": "was lost"}


@click.command(short_help="Show the last failures with their tracebacks.")
@click.option("--fn", default="", metavar="MODULE:FUNCTION", help="Only jobs of this function.")
@click.option(
    "-n", "number", type=click.IntRange(1, MOST), default=SHOWN, metavar="N", help="How many."
)
@standard
def command(app: App, fn: str, number: int) -> int:
    """Show the last failed attempts of jobs, volatile and durable ones, the newest last.

    The daemon keeps the last 500, at most 50 of a function, until it ends. --json has the newest
    first.
    """
    with connect(app) as client:
        told = client.call("failures", n=number, function=fn)
    if app.as_json:
        app.json(told["failures"])
        return Exit.OK
    for n, row in enumerate(reversed(told["failures"])):
        for line in (*([""] if n else []), *described(row)):
            app.data(line)
    app.say(counted(told, fn))
    return Exit.OK


def described(row: dict[str, Any]) -> Iterator[str]:
    """A failure and its traceback."""
    where = "" if row.get("p") is None else f" on P{row['p']}"
    attempt = f"attempt {row['attempt']}{', tried again' if row['again'] else ''}"
    whose = f" of {row['client']}" if row["client"] else ""
    yield f"{moment(row['at'])}  {row['function']} {_HOW.get(row['outcome'], row['outcome'])}"
    yield f"  job {row['id']}{whose}{where}, {attempt}"
    if row["text"]:
        yield from textwrap.indent(row["text"], "  ").splitlines()
    traceback = row["traceback"] or ": ".join(filter(None, (row["type"], row["message"])))
    yield from textwrap.indent(traceback.rstrip(), "  ").splitlines()


def counted(told: dict[str, Any], fn: str = "") -> str:
    """How many there are beside those that are shown."""
    shown = len(told["failures"])
    if not told["failed"]:
        return "no job has failed since the daemon began"
    of = f" of {fn}" if fn else ""
    return f"{shown:,} shown{of}; {told['kept']:,} kept of {told['failed']:,} failed attempts"
