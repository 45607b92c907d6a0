"""`gmpd stacks`: every G of every P, as Go dumps goroutines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.cli.remote import stacks_of
from gmpd.explain_g import silence
from gmpd.status import read_p

#: Seconds that the way to the daemon and back may take beside the workers' time.
LINK_S = 10.0


@click.command(short_help="Print the stack of every G.")
@click.argument("p", type=click.IntRange(0), required=False, metavar="[P]")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, metavar="N", show_default=True,
    help="Gs shown of each P.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.01, 20), default=2.0, metavar="S", show_default=True,
    help="Seconds that a worker may take to answer.",
)  # fmt: skip
@standard
def command(app: App, p: int | None, limit: int, timeout: float) -> int:
    """Print the stack of every G of P, or of all Ps, parked ones too. Workers that were replaced
    and end their jobs are among them.

    A worker that does not answer in time is named, with its status; from Python 3.14 on its
    threads' stacks are read from outside, unless it is inside C code. The exit code is then 5.
    """
    with connect(app) as client:
        told = client.call("stacks", p=p, limit=limit, wait_s=timeout, timeout=timeout + LINK_S)[
            "ps"
        ]
    if not told:
        app.say(f"gmpd: there is no P{p}: gmpd status shows which there are", level=-1)
        return Exit.NOT_FOUND
    if app.as_json:
        app.json({"ps": told})
    else:
        for each in told:
            _show(app, each, timeout)
    return Exit.OK if all(each["answered"] for each in told) else Exit.TIMEOUT


def _show(app: App, each: Mapping[str, Any], timeout: float) -> None:
    status = read_p(each["status"])
    who = f"P{each['p']}, worker {status.pid or '-'}"
    if status.state == "leaving":
        who += ", which leaves"
    if not each["answered"]:
        app.say(f"{who}: {silence(status)}", level=-1)
        if text := stacks_of(status.pid or 0, timeout):
            app.data(f"{who}: what its threads run, read from outside\n\n{text}")
        return
    gs = each["gs"]
    count = f"{gs:,} goroutine{'' if gs == 1 else 's'}" if gs else "no goroutines"
    app.data(f"{who}: {count}\n\n{each['text']}".rstrip("\n") + "\n")
