"""`gmpd schedtrace`: Go's scheduler trace of a running daemon."""

from __future__ import annotations

import time

import click

from gmpd.cli.app import App, standard
from gmpd.cli.link import AskingClient, connect
from gmpd.daemon.schedtrace import counts_of
from gmpd.runtime.schedtrace import header, line
from gmpd.status import Status, read
from gmpd.timeouts import wait_s

#: Seconds that the way to the daemon and back may take beside the workers' time.
LINK_S = 10.0
#: Seconds that a worker may take to tell its Gs.
WAIT_S = 2.0


@click.command(short_help="Print Go's scheduler trace.")
@click.argument("interval", type=click.IntRange(1, 3_600_000), required=False, metavar="[MS]")
@click.option("--detail", is_flag=True, help="Also each P, M and G, as GODEBUG=scheddetail=1.")
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="End after N traces; without MS after 1.",
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, metavar="N", show_default=True,
    help="Gs shown of each P.",
)  # fmt: skip
@standard
def command(app: App, interval: int | None, detail: bool, count: int | None, limit: int) -> None:
    """Print one line in the format of Go's GODEBUG=schedtrace, or one every MS milliseconds.

    A queue counts runnext, which Go leaves out. With --detail, Ms and Gs are numbered for each P,
    and a worker that does not answer within 2 s shows its P alone. GMPD_SCHEDTRACE=1000 in the
    environment of `gmpd serve`, or of a program under gmpd.run, prints such lines on its stderr.
    """
    if count is None and interval is None:
        count = 1
    every_s, began, printed = (interval or 1000) / 1e3, time.monotonic(), 0
    with connect(app) as client:
        while True:
            status = read(client.call("status"))
            elapsed_ms = int((time.monotonic() - began) * 1e3)
            _print(app, client, status, elapsed_ms, limit if detail else 0)
            printed += 1
            if printed == count:
                return
            time.sleep(wait_s(began + printed * every_s - time.monotonic()))


def _print(app: App, client: AskingClient, status: Status, elapsed_ms: int, limit: int) -> None:
    counts = counts_of(status)
    told = []
    if limit:
        told = client.call("sched", limit=limit, wait_s=WAIT_S, timeout=WAIT_S + LINK_S)["ps"]
    if app.as_json:
        app.json({"ms": elapsed_ms, "gomaxprocs": status.procs, **counts._asdict(), "ps": told})
        return
    if not limit:
        app.data(line(elapsed_ms, counts))
        return
    app.data(header(elapsed_ms, counts))
    for each in told:
        app.data(each["text"].rstrip("\n") if each["answered"] else _silent(status, each["p"]))


def _silent(status: Status, p: int) -> str:
    """The line of a P whose worker did not answer: of its shared memory."""
    found = next((each for each in status.ps if each.p == p), None)
    if found is None or not found.up:
        return f"  P{p}: status=4 schedtick=0 syscalltick=0 m=nil runqsize=0 gfreecnt=0 timerslen=0"
    return (
        f"  P{p}: status=1 schedtick={found.schedtick} syscalltick={found.syscalltick} m=nil"
        f" runqsize={found.runq} gfreecnt=0 timerslen=0"
    )
