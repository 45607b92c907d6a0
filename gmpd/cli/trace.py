"""`gmpd trace`: the last events of a running daemon, as a trace for Perfetto or as a summary."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import click

from gmpd import __version__
from gmpd.cli.app import App, standard_of_file
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.daemon.trace_chrome import chrome_document, missing_of
from gmpd.daemon.trace_dumps import read_dump
from gmpd.daemon.trace_go import go_trace
from gmpd.daemon.trace_runs import Daemon, all_runs, read
from gmpd.daemon.trace_summary import FunctionSummary, Stat, in_words, summarize
from gmpd.timeouts import wait_s

#: Seconds that the way to the daemon and back may take beside the workers' time.
LINK_S = 30.0
_COLUMNS = ("total", "min", "mean", "p99", "max")
#: Functions that the summary shows to people; --json has all.
FUNCTIONS_MAX = 20


@click.command(short_help="Record a trace for Perfetto.")
@click.option(
    "--last", type=click.FloatRange(0.1, 3600), metavar="S",
    help="The last S seconds, as far as the rings reach back; without --seconds 10.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), metavar="S", help="The next S seconds."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where to write it; a name that ends with .gz is compressed.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["chrome", "go"]), default="chrome", show_default=True,
    help="go: for `go tool trace` of Go 1.22 and newer, not for Perfetto.",
)  # fmt: skip
@click.option("--summary", is_flag=True, help="Print where the time of each function's jobs went.")
@click.option(
    "--of", "dump", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Of this file, which a daemon wrote upon SIGUSR2 or by trace.slow.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.01, 20), default=5.0, metavar="S", show_default=True,
    help="Seconds that a worker may take to answer.",
)  # fmt: skip
@standard_of_file
def command(
    app: App,
    last: float | None,
    seconds: float | None,
    output: Path | None,
    form: str,
    summary: bool,
    dump: Path | None,
    timeout: float,
) -> int:
    """Write the last events of all workers and of the coordinator as a trace, which
    https://ui.perfetto.dev opens: what each P ran, what lost its P, steals, wake-ups, waits.

    With --summary, print instead (with -o also) for each function, per job: its execution on P, the
    wait for P, and the time that it was blocked or ran beside P, by reason. A P whose worker does
    not answer has no track; the exit code is then 5. Workers of isolated jobs and those that have
    left their P have tracks, too, also when they have ended; events of a killed one are lost. While
    events come faster than 10,000 a second, children of `gmpd.go`, tasks and async jobs that begin
    have no steps, which is said. `trace.enabled = false` switches recording off. SIGUSR2 to the
    daemon or a worker, and a job that ran longer than `trace.slow`, leave a file for --of below
    daemon.state_dir.
    """
    if last is not None and seconds is not None:
        raise click.UsageError("--last looks back and --seconds ahead: give one of them")
    if output is None and not summary:
        raise click.UsageError("name a file with -o, or ask for --summary")
    if output is not None:
        output.write_bytes(b"")  # refused before anything is waited for
    if dump is not None:
        try:
            told = read_dump(dump)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return tell(app, read(told), output, form=form, summary=summary)
    last_s = seconds or last or 10.0
    with connect(app) as client:
        if seconds is not None:
            app.say(f"recording for {seconds:g} s", level=0)
            time.sleep(wait_s(seconds))
        reply = client.call("trace", last_s=last_s, wait_s=timeout, timeout=timeout + LINK_S)
    return tell(app, read(reply), output, form=form, summary=summary)


def tell(app: App, daemon: Daemon, output: Path | None, *, form: str, summary: bool) -> int:
    """Write the file, print the summary; say what is missing."""
    if output is not None:
        _write(app, daemon, output, form)
    if summary:
        functions = summarize(all_runs(daemon))
        if app.as_json:
            app.json(_as_json(daemon, functions))
        else:
            _print(app, functions)
    missing = missing_of(daemon.tracks)
    for line in missing:
        app.say(line, level=-1)
    for track in daemon.tracks:
        if track.lost:
            app.say(f"{track.title}: {track.lost:,} earlier events are kept no more", level=1)
        if paused_ns := sum(ended - began for began, ended in track.paused):
            app.say(
                f"{track.title}: events came so fast that steps of async jobs and children that"
                f" began were left out for {in_words(paused_ns / 1e9)}", level=0,
            )  # fmt: skip
    if any(track.silent for track in daemon.tracks):
        return Exit.TIMEOUT
    if any(track.missing and track.serves for track in daemon.tracks):
        return Exit.CONFIG
    return Exit.OK


def _write(app: App, daemon: Daemon, output: Path, form: str) -> None:
    if form == "go":
        data, opens = go_trace(daemon), f"`go tool trace {output}`"
    else:
        data = json.dumps(chrome_document(daemon, __version__)).encode()
        opens = "https://ui.perfetto.dev"
    output.write_bytes(gzip.compress(data, 6) if output.suffix == ".gz" else data)
    app.say(f"{output}: {len(data):,} bytes; {opens} opens it")


def _as_json(daemon: Daemon, functions: list[FunctionSummary]) -> object:
    return {
        "seconds": (daemon.now - daemon.since) / 1e9,
        "missing": {track.title: track.missing for track in daemon.tracks if track.missing},
        "functions": [
            {
                "name": about.name,
                "kind": "children" if about.children else "jobs",
                "jobs": about.jobs,
                "failed": about.failed,
                "running": about.running,
                "partly": about.partly,
                "ways": {way: stat.as_json() for way, stat in about.ways.items()},
            }
            for about in functions
        ],
    }


def _print(app: App, functions: list[FunctionSummary]) -> None:
    if not functions:
        app.data("no jobs in this time: gmpd demo runs some")
        return
    for about in functions[:FUNCTIONS_MAX]:
        app.data("\n".join(_lines(about)))
    if len(functions) > FUNCTIONS_MAX:
        app.data(f"and {len(functions) - FUNCTIONS_MAX:,} more functions: --json has them")


def _lines(about: FunctionSummary) -> Iterator[str]:
    one, many = ("child", "children") if about.children else ("job", "jobs")
    notes = [f"{about.jobs:,} {one if about.jobs == 1 else many}"]
    notes += [f"{about.failed:,} failed"] if about.failed else []
    notes += [f"{about.running:,} still running"] if about.running else []
    notes += [f"{about.partly:,} known in part, and left out"] if about.partly else []
    yield f"{about.name}: {', '.join(notes)}"
    if not about.ways:
        yield ""
        return
    yield f"  {f'per {one}':28} {many:>9} " + " ".join(f"{each:>9}" for each in _COLUMNS)
    for way, stat in about.ways.items():
        yield f"  {way[:28]:28} {stat.count:>9,} {' '.join(f'{t:>9}' for t in _times(stat))}"
    yield ""


def _times(stat: Stat) -> Iterator[str]:
    for seconds in (stat.total_s, stat.min_s, stat.mean_s, stat.p99_s, stat.max_s):
        yield in_words(seconds)
